from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.unit.fake_home import LOCAL, config_of, put

Run = Callable[..., Result]
Refused = Callable[..., str]
Add = Callable[..., Path]
EDIT = ("edit", "--kernel-name", "gpu")


def test_what_is_not_named_stays(add: Add, run: Run) -> None:
    path = add("gpu")
    document = json.loads(path.read_text())
    document["env"] = {"A": "b"}
    document["future"] = [1, None]
    document["metadata"]["other"] = {"x": 1}
    document["metadata"]["kernel_provisioner"]["config"]["unknown"] = "kept"
    path.write_text(json.dumps(document))
    result = run(*EDIT, "--display-name", "New", "--launch-timeout", "120")
    assert result.stdout.splitlines()[1:] == [
        '  display_name: "gpu1: opt (Python)" -> "New"',
        "  launch_timeout: - -> 120",
    ]
    document["display_name"] = "New"
    document["metadata"]["kernel_provisioner"]["config"]["launch_timeout"] = 120
    assert json.loads(path.read_text()) == document


def test_same_again_changes_nothing(add: Add, run: Run) -> None:
    path = add("gpu")
    before = path.stat()
    result = run(*EDIT, "--display-name", "gpu1: opt (Python)")
    assert "already so" in result.stdout
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("other", ["--remote-python-prefix", "--remote-python"])
def test_interpreter_and_prefix_take_each_others_place(add: Add, run: Run, other: str) -> None:
    path = add("gpu", "--remote-python", "/a")
    run(*EDIT, "--remote-python-prefix", "/b")
    run(*EDIT, other, "/c")
    assert config_of(path)[other[2:].replace("-", "_")] == "/c"
    assert len([key for key in config_of(path) if key.startswith("remote_python")]) == 1


def test_empty_value_removes_a_setting(add: Add, run: Run) -> None:
    path = add("gpu", "--remote-cwd", "/x", "--mount-local-on-remote", "/a:/b")
    run(*EDIT, "--remote-cwd", "", "--mount-local-on-remote", "")
    assert {"remote_cwd", "mount_local_on_remote"}.isdisjoint(config_of(path))


def test_mounts_are_replaced(add: Add, run: Run) -> None:
    path = add("gpu", "--mount-local-on-remote", "/a:/b")
    run(*EDIT, "--mount-local-on-remote", "/c:/d", "--mount-local-on-remote", "/e:/f")
    assert config_of(path)["mount_local_on_remote"] == ["/c:/d", "/e:/f"]


def test_older_key_gives_way(add: Add, run: Run) -> None:
    path = add("gpu")
    path.write_text(
        path.read_text().replace('"ssh_host_alias"', '"shutdown_time": 9, "ssh_host_alias"')
    )
    run(*EDIT, "--shutdown-timeout", "5")
    assert config_of(path)["shutdown_timeout"] == 5
    assert "shutdown_time" not in config_of(path)


def test_broken_setting_can_be_mended(add: Add, run: Run, refused: Refused) -> None:
    path = add("gpu")
    path.write_text(path.read_text().replace('"/opt/bin/python"', '"-x"'))
    assert "remote_python" in refused(*EDIT, "--launch-timeout", "5")
    assert run(*EDIT, "--remote-python", "/good").exit_code == 0
    assert config_of(path)["remote_python"] == "/good"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--launch-timeout", "-1"],
        ["--ssh-host-alias", ""],
        ["--ssh-host-alias", "-x"],
        ["--remote-python", ""],
        ["--remote-python", "/a", "--remote-python-prefix", "/b"],
        ["--display-name", ""],
        ["--language", "a\nb"],
        ["--ssh", "/no/ssh"],
        ["--ssh-config", "/no/config"],
        ["--mount-local-on-remote", "nonsense"],
    ],
)
def test_bad_input_leaves_the_file_as_it_was(add: Add, refused: Refused, words: list[str]) -> None:
    path = add("gpu")
    before = (path.read_bytes(), path.stat())
    refused(*EDIT, *words)
    assert (path.read_bytes(), path.stat()) == before


def test_unknown_kernel(refused: Refused, add: Add) -> None:
    add("gpu1")
    assert "did you mean gpu1" in refused("edit", "--kernel-name", "gpu", "--language", "R")


@pytest.mark.parametrize("document", [LOCAL, "{", []])
def test_kernel_of_another_is_refused(refused: Refused, kernels: Path, document: object) -> None:
    path = put(kernels / "gpu", document)
    before = path.read_text()
    refused(*EDIT, "--display-name", "Mine")
    assert path.read_text() == before


def test_failed_write_leaves_the_file_as_it_was(
    add: Add, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = add("gpu")
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = run(*EDIT, "--language", "R")
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


def test_variables_are_added_to_those_there_are_and_never_shown(add: Add, run: Run) -> None:
    path = add("gpu", "--env", "A=s3cret", "--env", "B=x=y")
    assert config_of(path)["env"] == {"A": "s3cret", "B": "x=y"}
    assert path.stat().st_mode & 0o777 == 0o600
    result = run(*EDIT, "--env", "A=s3cret2", "--env", "C=")
    assert config_of(path)["env"] == {"A": "s3cret2", "B": "x=y", "C": ""}
    assert "s3cret" not in result.stdout
    assert '  env: {"A": "***", "B": "***"} -> ' in result.stdout
    run(*EDIT, "--env", "", "--env", "D=1")
    assert config_of(path)["env"] == {"D": "1"}
    run(*EDIT, "--env", "")
    assert "env" not in config_of(path)


def test_what_is_around_the_kernel_is_set_and_removed(add: Add, run: Run) -> None:
    path = add("gpu", "--activate", "module load cuda", "--pass-env", "AWS_*", "--pass-env", "T")
    run(*EDIT, "--remote-command", "nice -n 5", "--pass-env", "HF_TOKEN")
    config = config_of(path)
    assert config["activate"] == "module load cuda"
    assert config["remote_command"] == "nice -n 5"
    assert config["pass_env"] == ["HF_TOKEN"]
    run(*EDIT, "--activate", "", "--remote-command", "", "--pass-env", "")
    assert {"activate", "remote_command", "pass_env"}.isdisjoint(config_of(path))


def test_a_variable_without_a_value_is_refused(add: Add, refused: Refused) -> None:
    add("gpu")
    said = refused(*EDIT, "--env", "TOKEN")
    assert "'TOKEN': must be NAME=VALUE" in said
    assert "--pass-env NAME" in said
    assert "s3cret" not in refused(*EDIT, "--env", "=s3cret")
    assert "s3cret" not in refused(*EDIT, "--env", "A B=s3cret")
