from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sshpyk.errors import InvalidInput
from sshpyk.hub.mounts import MountRequest
from sshpyk.kernelconfig import RemoteKernel
from sshpyk.launch import launch_record
from sshpyk.standin import Request


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    ssh = tmp_path / "ssh"
    ssh.touch(mode=0o755)
    return {
        "ssh": str(ssh),
        "ssh_host_alias": "me@gpu1:2222",
        "remote_kernel_name": "ir",
        "remote_python_prefix": "~/env",
        "launch_timeout": 90,
        "shutdown_timeout": 4,
        "remote_cwd": "~/work",
    }


def test_everything_that_was_configured_is_in_the_record(config: dict[str, Any]):
    record = launch_record(RemoteKernel.from_config(config), "/run/c.json", {"A": "1"})
    assert record == {
        "target": {"host": "me@gpu1:2222", "ssh": config["ssh"], "ssh_config": None},
        "shutdown_timeout_s": 4.0,
        "launch": {
            "connection_file": "/run/c.json",
            "python": "~/env/bin/python",
            "kernel_name": "ir",
            "launch_timeout_s": 90.0,
            "env": {"A": "1"},
            "cwd": "~/work",
        },
    }


def test_the_stand_in_reads_the_record(config: dict[str, Any]):
    record = launch_record(RemoteKernel.from_config(config), "/run/c.json", {})
    request = Request(record)
    assert request.target == RemoteKernel.from_config(config).target()
    assert request.launch == record["launch"]


def test_the_config_overrides_the_callers_environment(config: dict[str, Any]):
    config["remote_kernel_pythonhome"] = "/opt/python"
    env = {"PYTHONHOME": "/usr", "A": "1"}
    record = launch_record(RemoteKernel.from_config(config), "/run/c.json", env)
    assert record["launch"]["env"] == {"PYTHONHOME": "/opt/python", "A": "1"}


def test_no_folder_is_the_hosts_business(config: dict[str, Any]):
    del config["remote_cwd"]
    record = launch_record(RemoteKernel.from_config(config), "/run/c.json", {})
    assert record["launch"]["cwd"] == ""


def test_mounts_are_asked_for(config: dict[str, Any], tmp_path: Path):
    config["mount_local_on_remote"] = [f"{tmp_path}:~/data:ro,cache=yes"]
    record = launch_record(RemoteKernel.from_config(config), "/run/c.json", {})
    (mount,) = record["launch"]["mounts"]
    assert MountRequest.from_record(mount) == MountRequest(
        str(tmp_path), "~/data", ("ro", "cache=yes")
    )


def test_the_notebooks_folder_is_the_kernels_where_it_is_mounted(
    config: dict[str, Any], tmp_path: Path
):
    inner = tmp_path / "code" / "inner"
    (inner / "notebooks").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    del config["remote_cwd"]
    config["mount_local_on_remote"] = [f"{tmp_path}/code:~/code", f"{inner}:/data/inner"]
    remote = RemoteKernel.from_config(config)
    expected = {
        str(tmp_path / "code"): "~/code",
        str(inner / "notebooks"): "/data/inner/notebooks",
        str(inner / ".." / "inner"): "/data/inner",
        str(tmp_path / "other"): "",
        "": "",
    }
    for folder, path in expected.items():
        record = launch_record(remote, "/run/c.json", {}, local_cwd=folder)
        assert record["launch"]["cwd"] == path


def test_an_option_that_no_mount_may_have_is_refused(config: dict[str, Any]):
    config["mount_local_on_remote"] = ["~/data:~/data:ssh_command=sh"]
    with pytest.raises(InvalidInput, match="ssh_command is not an option"):
        launch_record(RemoteKernel.from_config(config), "/run/c.json", {})


def test_mounts_through_a_local_sshd_are_refused_in_words(config: dict[str, Any]):
    config["mount_local_on_remote"] = ["~/data:~/data"]
    config["ssh_host_alias_local_on_remote"] = "laptop"
    with pytest.raises(InvalidInput, match="not supported yet") as caught:
        launch_record(RemoteKernel.from_config(config), "/run/c.json", {})
    assert caught.value.host == "me@gpu1:2222"


def test_mounts_that_are_switched_off_are_no_obstacle(config: dict[str, Any]):
    config.update(mount_local_on_remote=["~/data:~/data"], sshfs_enabled=False)
    launch_record(RemoteKernel.from_config(config), "/run/c.json", {})


def test_an_ssh_that_is_not_there_is_refused(config: dict[str, Any]):
    config["ssh"] = "/no/such/ssh"
    with pytest.raises(InvalidInput, match="no executable ssh client"):
        launch_record(RemoteKernel.from_config(config), "/run/c.json", {})
