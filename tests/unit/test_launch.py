from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sshpyk.errors import InvalidInput
from sshpyk.hub.mount_request import MountRequest
from sshpyk.kernelconfig import Mount, RemoteKernel
from sshpyk.launch import Caller, folders_on_host, launch_record, passed_on
from sshpyk.standin import Request


def caller(env: dict[str, str] | None = None, **more: Any) -> Caller:
    return Caller(**{"env": env or {}, "surroundings": {}, "folder": "/n", **more})


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
    record = launch_record(RemoteKernel.from_config(config), "/run/c.json", caller({"A": "1"}))
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
    record = launch_record(RemoteKernel.from_config(config), "/run/c.json", caller())
    request = Request(record)
    assert request.target == RemoteKernel.from_config(config).target()
    assert request.launch == record["launch"]


def test_the_config_overrides_the_callers_environment(config: dict[str, Any]):
    config["remote_kernel_pythonhome"] = "/opt/python"
    env = {"PYTHONHOME": "/usr", "A": "1"}
    record = launch_record(RemoteKernel.from_config(config), "/run/c.json", caller(env))
    assert record["launch"]["env"] == {"PYTHONHOME": "/opt/python", "A": "1"}


def test_no_folder_is_the_hosts_business(config: dict[str, Any]):
    del config["remote_cwd"]
    record = launch_record(RemoteKernel.from_config(config), "/run/c.json", caller())
    assert record["launch"]["cwd"] == ""


def test_mounts_are_asked_for(config: dict[str, Any], tmp_path: Path):
    config["mount_local_on_remote"] = [f"{tmp_path}:~/data:ro,cache=yes"]
    record = launch_record(RemoteKernel.from_config(config), "/run/c.json", caller())
    (mount,) = record["launch"]["mounts"]
    assert MountRequest.from_record(mount) == MountRequest(
        str(tmp_path), "~/data", ("ro", "cache=yes")
    )


def test_mounts_may_be_optional(config: dict[str, Any], tmp_path: Path):
    config.update(mount_local_on_remote=[f"{tmp_path}:~/data"], mount_optional=True)
    record = launch_record(RemoteKernel.from_config(config), "/f", caller())
    assert record["launch"]["mount_optional"] is True


def test_the_notebooks_folder_is_the_kernels_where_it_is_mounted(
    config: dict[str, Any], tmp_path: Path
):
    del config["remote_cwd"]
    config["mount_local_on_remote"] = [f"{tmp_path}/code:~/code"]
    remote = RemoteKernel.from_config(config)
    inside = Caller(env={}, surroundings={}, folder=str(tmp_path / "code" / "notebooks"))
    launch = launch_record(remote, "/run/c.json", inside)["launch"]
    assert (launch["cwd"], launch["folders"]) == ("", ["~/code/notebooks"])
    elsewhere = Caller(env={}, surroundings={}, folder=str(tmp_path / "other"))
    launch = launch_record(remote, "/run/c.json", elsewhere)["launch"]
    assert launch["cwd"] == ""
    assert "folders" not in launch


def test_an_option_that_no_mount_may_have_is_refused(config: dict[str, Any]):
    config["mount_local_on_remote"] = ["~/data:~/data:ssh_command=sh"]
    with pytest.raises(InvalidInput, match="ssh_command is not an option"):
        launch_record(RemoteKernel.from_config(config), "/run/c.json", caller())


def test_mounts_through_a_login_from_the_host_name_alias_and_sshd(config: dict[str, Any]):
    """As sshpyk 1.x has written them, and in the form of the versions before."""
    config["sshd"] = "/opt/sbin/sshd"
    config["remote_sshfs"] = "/opt/bin/sshfs"
    config["ssh_host_alias_local_on_remote"] = "laptop"
    config["mount_local_on_remote"] = [["/data", "~/data", ""], "/code:~/code:ro"]
    launch = launch_record(RemoteKernel.from_config(config), "/run/c.json", caller())["launch"]
    expected = {"sshfs": "/opt/bin/sshfs", "alias": "laptop", "sshd": "/opt/sbin/sshd"}
    assert launch["mounts"] == [
        {"local": "/data", "remote": "~/data", "options": [], **expected},
        {"local": "/code", "remote": "~/code", "options": ["ro"], **expected},
    ]


@pytest.mark.parametrize("alias", ["lap top", "a,b", "a:b", "a/b", ".a"])
def test_an_alias_that_cannot_be_is_refused(config: dict[str, Any], alias: str):
    config["mount_local_on_remote"] = ["/data:~/data"]
    config["ssh_host_alias_local_on_remote"] = alias
    with pytest.raises(InvalidInput, match="cannot be a host of an ssh config") as caught:
        launch_record(RemoteKernel.from_config(config), "/run/c.json", caller())
    assert caught.value.host == "me@gpu1:2222"


def test_mounts_that_are_switched_off_are_no_obstacle(config: dict[str, Any]):
    config.update(mount_local_on_remote=["~/data:~/data"], sshfs_enabled=False)
    launch_record(RemoteKernel.from_config(config), "/run/c.json", caller())


def test_an_ssh_that_is_not_there_is_refused(config: dict[str, Any]):
    config["ssh"] = "/no/such/ssh"
    with pytest.raises(InvalidInput, match="no executable ssh client"):
        launch_record(RemoteKernel.from_config(config), "/run/c.json", caller())


def launch_of(config: dict[str, Any], by: Caller) -> dict[str, Any]:
    launch: dict[str, Any] = launch_record(RemoteKernel.from_config(config), "/c.json", by)[
        "launch"
    ]
    return launch


def test_variables_are_passed_set_by_the_caller_and_configured_in_that_order(
    config: dict[str, Any],
):
    config.update(env={"C": "config"}, pass_env=["A", "B", "C", "NOT_SET"])
    surroundings = {"A": "passed", "B": "passed", "C": "passed", "D": "passed"}
    launch = launch_of(config, caller({"B": "caller", "C": "caller"}, surroundings=surroundings))
    assert launch["env"] == {"A": "passed", "B": "caller", "C": "config"}


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["AWS_*"], {"AWS_KEY", "AWS_ID"}),
        (["AWS_K??"], {"AWS_KEY"}),
        (["aws_*"], set()),
        (["P*", "H*"], {"PROJECT"}),
        (["PATH"], {"PATH"}),
        ([], set()),
    ],
)
def test_names_and_patterns_choose_variables(patterns: list[str], found: set[str]):
    names = ("AWS_KEY", "AWS_ID", "PROJECT", "PATH", "HOME", "PYTHONPATH")
    assert set(passed_on(patterns, dict.fromkeys(names, "x"))) == found


def test_activation_and_wrapper_are_in_the_record(config: dict[str, Any]):
    config.update(activate="module load cuda\nconda activate x", remote_command="nice -n 5 'a b'")
    launch = launch_of(config, caller())
    assert launch["activate"] == "module load cuda\nconda activate x"
    assert launch["wrapper"] == ["nice", "-n", "5", "a b"]


def test_the_notebooks_folder_is_looked_for_below_home_and_as_it_is(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", "/home/me")
    config["remote_cwd"] = "{notebook_dir}/run"
    launch = launch_of(config, caller(folder="/home/me/a b"))
    assert (launch["cwd"], launch["folders"]) == ("", ["~/a b/run", "/home/me/a b/run"])


MOUNTS = (Mount("~/code", "/remote/code"), Mount("~/code/big", "~/big"), Mount("/data", "/mnt"))


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("/home/me", ["~", "/home/me"]),
        ("/home/me/x/y", ["~/x/y", "/home/me/x/y"]),
        ("/home/me/code", ["/remote/code"]),
        ("/home/me/code/x", ["/remote/code/x"]),
        ("/home/me/code/big/x", ["~/big/x"]),
        ("/home/me/codes", ["~/codes", "/home/me/codes"]),
        ("/data/x", ["/mnt/x"]),
        ("/home/menace", ["/home/menace"]),
        ("/", ["/"]),
    ],
)
def test_a_folder_is_mapped_through_the_innermost_mount_or_home(folder: str, found: list[str]):
    assert folders_on_host(folder, MOUNTS, "/home/me") == found
