"""``sshpyk add | list | edit | delete`` against the lab's hosts, as a person types them.

A user adds a kernel, looks whether its host, interpreter and kernelspec are all right, changes it,
deletes it; and mistypes, loses the power in the middle, or names a kernel that is another's.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.lifecycle_helpers import silent_port

PREFIX = "/opt/venv"
PYTHON = f"{PREFIX}/bin/python"


def sshpyk(*words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the installed command; a wrong exit code shows what it said."""
    done = subprocess.run(["sshpyk", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    return done


def add(host: str, name: str, *more: str) -> None:
    python = [] if "--remote-python" in more else ["--remote-python-prefix", PREFIX]
    sshpyk("add", "--no-check", "--ssh-host-alias", host, "--kernel-name", name, *python, *more)


def shown(name: str, *options: str) -> dict[str, str]:
    """Return what ``sshpyk list`` says of one kernel: label -> marked value, last line wins."""
    for block in sshpyk("list", "--remote", *options).stdout.split("\n\n"):
        lines = [line.partition(":") for line in block.splitlines() if re.match(r"[A-Z]", line)]
        items = {label: value.strip() for label, _, value in lines}
        if items.get("Name") == name:
            return items
    raise AssertionError(f"{name} is not listed")


@pytest.fixture(autouse=True)
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of kernelspecs for each test; the installed ones are still there as well."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "data" / "kernels"


def test_list_good_kernel_is_marked_ok_everywhere(host_alias: str) -> None:
    add(host_alias, "good")
    items = shown("good")
    assert items["SSH Connection"] == f"(v) {host_alias}"
    assert re.fullmatch(rf"\(v\) {PYTHON} \(Python 3\.\d+\.\d+\)", items["Remote Python"])
    assert items["Remote Kernel Name"] == "(v) python3"
    assert items["Remote Interrupt Mode"] == "(i) signal"
    assert items["Remote System"].startswith("(i) Linux ")
    assert items["Command"].startswith("(v) /opt/venv/bin/python")
    assert "(x)" not in str(items)


def test_list_names_the_jump_host() -> None:
    add("remote-jump", "behind")
    listed = sshpyk("list", "--remote").stdout
    assert "SSH Host Alias:        (v) bastion (jump)" in listed
    assert "(i) proxyjump: bastion" in listed


def test_list_broken_kernels_say_why(host_alias: str) -> None:
    add(host_alias, "no-python", "--remote-python", "/no/such/python")
    add(host_alias, "no-spec", "--remote-kernel-name", "nope")
    add(f"{host_alias}:9", "no-sshd")
    add("no-such-host.invalid", "no-host")
    assert shown("no-python")["Remote Python"] == "(x) /no/such/python: was not found"
    assert shown("no-spec")["Remote Kernel Name"] == "(x) nope: not found"
    refused = shown("no-sshd")["SSH Connection"]
    assert refused.startswith("(x)")
    assert "Connection refused" in refused
    unknown = shown("no-host")["SSH Connection"]
    assert unknown.startswith("(x)")
    assert "could not be resolved" in unknown


def test_list_kernel_json_that_is_no_json_is_listed_with_the_reason(kernels: Path) -> None:
    (kernels / "half").mkdir(parents=True)
    (kernels / "half" / "kernel.json").write_text('{"argv": [')
    listed = sshpyk("list", "--no-check").stdout
    assert re.search(r"Problem: +\(x\) .*half/kernel\.json is not valid JSON", listed)


def test_list_no_check_connects_to_no_host(host_alias: str) -> None:
    add(host_alias, "unasked")
    items = shown("unasked", "--no-check")
    assert items["SSH Connection"] == f"(?) {host_alias}"
    assert items["Remote Python"] == f"(?) {PYTHON}"


def test_list_silent_host_is_bounded_and_holds_up_no_other(silent_port: int) -> None:
    silent_host = f"localhost:{silent_port}"
    add(silent_host, "silent")
    add("remote", "good")
    started = time.monotonic()
    listed = sshpyk("list", "--remote", "--timeout", "10").stdout
    assert time.monotonic() - started < 17
    assert "SSH Connection:        (v) remote\n" in listed
    assert (
        f"SSH Connection:        (x) {silent_host}: the server accepted the connection but did not answer"
        in listed
    )


def test_edit_changes_what_is_named_and_keeps_the_rest(host_alias: str, kernels: Path) -> None:
    add(host_alias, "k", "--launch-timeout", "7")
    before = json.loads((kernels / "k" / "kernel.json").read_text())
    sshpyk("edit", "--kernel-name", "k", "--display-name", "Другой", "--remote-cwd", "/tmp")
    after = json.loads((kernels / "k" / "kernel.json").read_text())
    assert after["display_name"] == "Другой"
    config = after["metadata"]["kernel_provisioner"]["config"]
    assert config.pop("remote_cwd") == "/tmp"
    assert {**after, "display_name": before["display_name"]} == before
    assert shown("k")["Launch Timeout"] == "7"


def test_delete_removes_the_folder(host_alias: str, kernels: Path) -> None:
    add(host_alias, "k")
    sshpyk("delete", "k")
    assert not (kernels / "k").exists()


ADD = ("add", "--ssh-host-alias", "remote", "--no-check", "--kernel-name", "k")


@pytest.mark.parametrize(
    "words",
    [
        ("delete", "nope"),
        ("edit", "--kernel-name", "nope", "--language", "R"),
        (*ADD[:4], "--kernel-name", "a b", "--remote-python-prefix", PREFIX),
        (*ADD[:4], "--kernel-name", "../k", "--remote-python-prefix", PREFIX),
        ("add", "--ssh-host-alias", "-oProxyCommand=touch pwned", "--remote-python-prefix", PREFIX),
        (*ADD, "--remote-python-prefix", "/opt/\nvenv"),
        (*ADD, "--remote-python", "/opt/'venv"),
        (*ADD, "--remote-python-prefix", PREFIX, "--ssh", "/no/such/ssh"),
        (*ADD, "--remote-python-prefix", PREFIX, "--ssh-config", "/no/such/config"),
        (*ADD, "--remote-python-prefix", PREFIX, "--remote-python", PYTHON),
        (*ADD, "--remote-python-prefix", PREFIX, "--launch-timeout", "-1"),
        ("add",),
        (*ADD, "other-host"),
        (*ADD, "--all", "--match", "x"),
        (*ADD, "--remote-python", PYTHON, "--install-ipykernel"),
        ("frobnicate",),
        ("list", "--no-such-flag"),
    ],
    ids=lambda words: " ".join(words)[-40:],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    words: tuple[str, ...], kernels: Path, tmp_path: Path
) -> None:
    done = sshpyk(*words, expect=2)
    assert done.stdout == ""
    assert re.fullmatch(r"sshpyk.*: .*\n", done.stderr)
    assert not kernels.exists()
    assert not (tmp_path / "pwned").exists()


def test_missing_ssh_on_path_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    sshpyk_itself = shutil.which("sshpyk")
    assert sshpyk_itself
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    words = [sshpyk_itself, *ADD, "--remote-python-prefix", PREFIX]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "ssh" in done.stderr


def test_failed_operation_is_exit_code_1(kernels: Path) -> None:
    kernels.mkdir(parents=True)
    kernels.chmod(0o500)
    done = sshpyk(*ADD, "--remote-python-prefix", PREFIX, expect=1)
    assert (
        done.stderr == f"sshpyk: cannot write {kernels / 'k' / 'kernel.json'}: Permission denied\n"
    )
    kernels.chmod(0o700)
    assert list(kernels.iterdir()) == []


@pytest.mark.parametrize("verb", ["delete", "edit", "add"])
def test_kernel_of_another_is_refused_and_stays(verb: str, kernels: Path) -> None:
    folder = kernels / "theirs"
    folder.mkdir(parents=True)
    text = '{"argv": ["x", "{connection_file}"], "display_name": "theirs", "language": "x"}'
    (folder / "kernel.json").write_text(text)
    words = {
        "delete": ["delete", "theirs"],
        "edit": ["edit", "--kernel-name", "theirs", "--language", "y"],
        "add": [*ADD[:4], "--kernel-name", "theirs", "--remote-python-prefix", PREFIX, "--replace"],
    }[verb]
    assert "is not an SSH kernel" in sshpyk(*words, expect=2).stderr
    assert (folder / "kernel.json").read_text() == text


def test_delete_folder_with_foreign_files_is_refused_and_stays(kernels: Path) -> None:
    add("remote", "k")
    (kernels / "k" / "notes.txt").write_text("mine")
    assert "notes.txt" in sshpyk("delete", "k", expect=1).stderr
    assert sorted(path.name for path in (kernels / "k").iterdir()) == ["kernel.json", "notes.txt"]


def test_killed_add_leaves_no_half_written_kernel_json(kernels: Path) -> None:
    """SIGKILL at random moments: the file is whole, in its old or its new form, or not there."""
    chance = random.Random(20_240_607)
    written, survived = kernels / "k" / "kernel.json", 0
    started = time.monotonic()
    sshpyk(*ADD, "--remote-python-prefix", PREFIX)
    usual_s = time.monotonic() - started
    for attempt in range(25):
        words = ["sshpyk", *ADD, "--remote-python-prefix", PREFIX, "--replace"]
        running = subprocess.Popen(
            [*words, "--display-name", f"attempt {attempt}" + "x" * 100_000],
            stdout=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(0.5, 1.2) * usual_s)
        running.kill()
        survived += running.wait() == 0
        document = json.loads(written.read_text())
        assert document["metadata"]["kernel_provisioner"]["config"]["ssh_host_alias"] == "remote"
    assert survived < 25
    sshpyk("delete", "k")
    assert os.listdir(kernels) == []
