from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.unit.fake_home import LOCAL, config_of, put

Run = Callable[..., Result]
Refused = Callable[..., str]
Add = Callable[..., Path]
HOST = ("add", "--ssh-host-alias", "gpu1", "--no-check")
PYTHON = ("--remote-python", "/opt/bin/python")


def test_least_words(run: Run, kernels: Path) -> None:
    result = run(*HOST, "--remote-python-prefix", "/opt/env")
    assert result.exit_code == 0
    path = kernels / "ssh_gpu1_env" / "kernel.json"
    assert result.stdout == f"Added kernel 'ssh_gpu1_env' (gpu1: env (Python)): {path}\n"
    document = json.loads(path.read_text())
    assert document["argv"][:5] == [
        sys.executable,
        "-m",
        "sshpyk.standin",
        "--kernel",
        "ssh_gpu1_env",
    ]
    assert (document["display_name"], document["language"]) == ("gpu1: env (Python)", "python")
    assert config_of(path) == {
        "ssh_host_alias": "gpu1",
        "remote_python_prefix": "/opt/env",
        "remote_kernel_name": "python3",
    }


def test_all_words(add: Add, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "lab.config").touch()
    monkeypatch.chdir(home)
    path = add(
        "GPU",
        *("--display-name", "R \u00e4", "--language", "R", "--remote-kernel-name", "ir"),
        *("--launch-timeout", "90", "--shutdown-timeout", "2.5", "--ssh", "ssh"),
        *("--ssh-config", "lab.config", "--remote-cwd", "~/work", "--sshd", "/usr/sbin/sshd"),
        *("--remote-sshfs", "/usr/bin/sshfs", "--ssh-host-alias-local-on-remote", "laptop"),
        *("--mount-local-on-remote", "/a:/b", "--mount-local-on-remote", "~/c:~/d:allow_other,x=1"),
    )
    assert path.parent.name == "gpu"
    assert json.loads(path.read_text())["display_name"] == "R \u00e4"
    assert config_of(path) == {
        "ssh_host_alias": "gpu1",
        "remote_kernel_name": "ir",
        "remote_python": "/opt/bin/python",
        "launch_timeout": 90,
        "shutdown_timeout": 2.5,
        "ssh": "ssh",
        "ssh_config": str(home / "lab.config"),
        "remote_cwd": "~/work",
        "sshd": "/usr/sbin/sshd",
        "remote_sshfs": "/usr/bin/sshfs",
        "ssh_host_alias_local_on_remote": "laptop",
        "mount_local_on_remote": ["/a:/b", "~/c:~/d:allow_other,x=1"],
    }


def test_default_name_of_a_host_with_odd_characters(run: Run, kernels: Path) -> None:
    assert run("add", "Me@[::1]:2222", "--no-check", *PYTHON).exit_code == 0
    assert [folder.name for folder in kernels.iterdir()] == ["ssh_me_1_2222_opt"]


def test_connects_to_nobody(add: Add, home: Path) -> None:
    add("gpu")
    assert not (home / "ssh.log").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["add", *PYTHON], "sshpyk add HOST"),
        (["add", "--ssh-host-alias", "", *PYTHON], "sshpyk add HOST"),
        (["add", "gpu2", *HOST[1:], *PYTHON], "two hosts"),
        (["add", "gpu1", "--all", "--match", "x"], "not both"),
        (["add", "gpu1", "--all", "--install-ipykernel"], "--yes"),
        (["add", "--ssh-host-alias=-oProxyCommand=x", *PYTHON], "-oProxyCommand=x"),
        (["add", "--ssh-host-alias", "a b", *PYTHON], "'a b'"),
        ([*HOST, *PYTHON, "--remote-python-prefix", "/opt"], "not both"),
        ([*HOST, "--remote-python", "/opt/a\nb"], r"'/opt/a\nb'"),
        ([*HOST, *PYTHON, "--kernel-name", "a b"], "'a b'"),
        ([*HOST, *PYTHON, "--kernel-name", "\u00e4"], "Jupyter"),
        ([*HOST, *PYTHON, "--kernel-name", ".."], "'..'"),
        ([*HOST, *PYTHON, "--kernel-name", ""], "kernel name"),
        ([*HOST, *PYTHON, "--remote-kernel-name", "a/b"], "remote_kernel_name 'a/b'"),
        ([*HOST, *PYTHON, "--display-name", "a\nb"], "display name"),
        ([*HOST, *PYTHON, "--language", ""], "language"),
        ([*HOST, *PYTHON, "--launch-timeout", "0"], "launch_timeout"),
        ([*HOST, *PYTHON, "--launch-timeout", "nan"], "launch_timeout nan"),
        ([*HOST, *PYTHON, "--launch-timeout", "soon"], "'soon'"),
        ([*HOST, *PYTHON, "--shutdown-timeout", "-1"], "shutdown_timeout -1"),
        ([*HOST, *PYTHON, "--shutdown-timeout", "inf"], "shutdown_timeout inf"),
        ([*HOST, *PYTHON, "--mount-local-on-remote", "/a"], "LOCAL:REMOTE"),
        ([*HOST, *PYTHON, "--ssh", "/no/ssh"], "/no/ssh"),
        ([*HOST, *PYTHON, "--ssh-config", "/no/config"], "/no/config"),
        ([*HOST, *PYTHON, "--remote-cwd", "/a\x1bb"], "remote_cwd"),
    ],
)
def test_bad_input_writes_nothing(
    refused: Refused, kernels: Path, words: list[str], part: str
) -> None:
    assert part in refused(*words)
    assert not kernels.exists()


def test_missing_ssh_says_what_to_install(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, kernels: Path
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "openssh-client" in refused(*HOST, *PYTHON)
    assert not kernels.exists()


def test_existing_kernel_needs_replace(add: Add, refused: Refused, run: Run) -> None:
    path = add("gpu")
    before = path.read_text()
    assert "--replace" in refused(*HOST, *PYTHON, "--kernel-name", "GPU")
    assert path.read_text() == before
    result = run(*HOST, "--remote-python", "/new", "--kernel-name", "gpu", "--replace")
    assert result.stdout.startswith("Replaced kernel 'gpu'")
    assert config_of(path)["remote_python"] == "/new"


@pytest.mark.parametrize("document", [LOCAL, "{", {"metadata": {"kernel_provisioner": 3}}])
def test_kernel_of_another_is_never_replaced(
    refused: Refused, kernels: Path, document: object
) -> None:
    path = put(kernels / "Other", document)
    before = path.read_text()
    refused(*HOST, *PYTHON, "--kernel-name", "other", "--replace")
    assert path.read_text() == before
    assert [folder.name for folder in kernels.iterdir()] == ["Other"]


def test_kernel_of_another_folder_is_not_hidden(
    refused: Refused, home: Path, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(home / "shared"))
    put(home / "shared" / "kernels" / "gpu", LOCAL)
    refused(*HOST, *PYTHON, "--kernel-name", "gpu", "--replace")
    assert not kernels.exists()


def test_link_in_the_way_is_not_followed(refused: Refused, home: Path, kernels: Path) -> None:
    kernels.mkdir(parents=True)
    (home / "elsewhere").mkdir()
    (kernels / "gpu").symlink_to(home / "elsewhere")
    refused(*HOST, *PYTHON, "--kernel-name", "gpu")
    assert list((home / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written_is_a_failed_operation(run: Run, kernels: Path) -> None:
    kernels.mkdir(parents=True)
    kernels.chmod(0o500)
    result = run(*HOST, *PYTHON)
    assert result.exit_code == 1
    assert "Permission denied" in result.stderr


def test_folder_that_cannot_be_made_is_a_failed_operation(run: Run, kernels: Path) -> None:
    kernels.parent.mkdir()
    kernels.touch()
    result = run(*HOST, *PYTHON)
    assert result.exit_code == 1
    assert "cannot write" in result.stderr
