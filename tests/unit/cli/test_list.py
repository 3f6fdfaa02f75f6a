from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from sshpyk.cli import render
from sshpyk.cli.progress import _Waiting, checking
from sshpyk.cli.results import Item, KernelReport, Listing, Mark
from sshpyk.doctor.hosts import find_out
from sshpyk.errors import SshpykError
from sshpyk.ssh.command import SshTarget
from sshpyk.ssh.script import ScriptRunner
from tests.unit.fake_home import LOCAL, put

Run = Callable[..., Result]
Add = Callable[..., Path]


@pytest.fixture
def own_python(add: Add) -> Callable[..., Path]:
    """Return a function that adds a kernel of this very interpreter on a host of the fake ssh."""

    def adder(host: str, *words: str) -> Path:
        return add(host, "--remote-python", sys.executable, "--ssh-host-alias", host, *words)

    return adder


def sections(output: str) -> dict[str, str]:
    """Split the list's text by kernel: name -> its lines."""
    blocks = [block for block in output.split("\n\n") if block.strip()]
    return {block.split("Name:")[1].split()[0]: block for block in blocks}


def items_of(result: Result) -> dict[str, dict[str, Any]]:
    """Return kernel -> label -> item from the JSON."""
    kernels = json.loads(result.stdout)["kernels"]
    return {k["name"]: {item["label"]: item for item in k["items"]} for k in kernels}


def test_no_kernels(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sshpyk.kernelspecs.kernel_dirs", list)
    assert run("list").stdout == "No kernels available\n"
    assert json.loads(run("list", "--json").stdout) == {"kernels": []}


def test_local_kernel(run: Run, kernels: Path) -> None:
    put(kernels / "mine", LOCAL)
    lines = sections(run("list", "--local").stdout)["mine"].splitlines()
    assert "Local Kernel" in lines[0]
    assert [line.split(":", 1)[1].strip() for line in lines[1:]] == [
        *("mine", "Local", str(kernels / "mine"), "python -m x", "python", "signal"),
    ]


def test_ssh_kernel_that_is_fine(run: Run, own_python: Callable[..., Path]) -> None:
    own_python("gpu1", "--remote-cwd", "/tmp", "--shutdown-timeout", "3")
    items = items_of(run("list", "-r", "--json"))["gpu1"]
    marks = {label: item["mark"] for label, item in items.items() if item["mark"]}
    assert marks == {
        "Command": "ok",
        "Interrupt Mode": "ok",
        "SSH Path": "ok",
        "SSH Host Alias": "ok",
        "SSH Connection": "ok",
        "Remote System": "info",
        "Remote Python": "ok",
        "Remote Kernel Name": "ok",
        "Remote Interrupt Mode": "info",
        "Remote Command": "ok",
        "Remote Packages": "ok",
        "Remote Cwd": "ok",
    }
    assert "ipykernel_launcher" in items["Remote Command"]["value"]
    assert items["Shutdown Timeout"]["value"] == "3"
    hop = {part["label"]: part["value"] for part in items["SSH Host Alias"]["parts"]}
    assert hop == {"user": "me", "hostname": "gpu1.example", "port": "22"}


def test_jump_host_has_its_own_lines(run: Run, own_python: Callable[..., Path]) -> None:
    own_python("behind")
    text = sections(run("list", "-r").stdout)["behind"]
    assert "(i) proxyjump: bastion" in text
    assert "(v) bastion (jump)" in text
    assert "(i) hostname: bastion.example" in text


@pytest.mark.parametrize(
    ("host", "part"),
    [
        ("refused", "refused"),
        ("slow", "no usable answer within 0.5 s"),
        ("silent", ""),
        ("endless", "no usable answer"),
    ],
)
def test_host_that_does_not_answer(
    run: Run, own_python: Callable[..., Path], host: str, part: str
) -> None:
    own_python(host)
    started = time.monotonic()
    items = items_of(run("list", "-r", "--timeout", "0.5", "--json"))[host]
    assert time.monotonic() - started < 5
    assert items["SSH Connection"]["mark"] == "broken"
    assert part in items["SSH Connection"]["value"]
    assert items["Remote Python"]["mark"] == "unchecked"


def test_noise_of_a_login_does_not_matter(run: Run, own_python: Callable[..., Path]) -> None:
    own_python("noisy")
    assert "(v)" in [
        i["mark"] and "(v)" for i in items_of(run("list", "-r", "--json"))["noisy"].values()
    ]
    assert items_of(run("list", "-r", "--json"))["noisy"]["SSH Connection"]["mark"] == "ok"


def test_hosts_are_checked_side_by_side_once_each(
    run: Run, own_python: Callable[..., Path], home: Path, add: Add
) -> None:
    for name in ("slow", "gpu1"):
        own_python(name)
    for number in range(3):
        add(f"more{number}")
    started = time.monotonic()
    run("list", "-r", "--timeout", "1")
    assert time.monotonic() - started < 5
    calls = [line for line in (home / "ssh.log").read_text().splitlines() if "-G" not in line]
    assert len(calls) == 2
    assert all("BatchMode=yes" in call for call in calls)


def test_time_is_bounded_for_all_hosts_together(
    run: Run, own_python: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sshpyk.doctor.hosts._MAX_AT_ONCE", 1)
    for name in ("slow", "slow2", "slow3"):
        own_python(name)
    started = time.monotonic()
    listed = items_of(run("list", "-r", "--timeout", "0.7", "--json"))
    assert time.monotonic() - started < 4
    said = [listed[name]["SSH Connection"] for name in ("slow", "slow2", "slow3")]
    assert {item["code"] for item in said} == {"HOST-NO-ANSWER"}
    assert "no usable answer within 0.7 s" in said[0]["value"]
    assert "not asked: the 0.7 s were over" in said[2]["value"]


def test_slow_interpreter_is_not_taken_for_a_host_that_is_away(
    run: Run, add: Add, home: Path
) -> None:
    slow = home / "bin" / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    add("cold", "--remote-python", str(slow))
    items = items_of(run("list", "-r", "--timeout", "2", "--json"))["cold"]
    assert items["SSH Connection"]["mark"] == "ok"
    assert items["Remote Python"]["value"] == f"{slow}: gave no answer in time"
    assert items["Remote Python"]["code"] == "HOST-NO-ANSWER"


def test_server_with_too_many_logins_at_once_is_asked_again(
    run: Run, own_python: Callable[..., Path]
) -> None:
    own_python("crowded")
    assert items_of(run("list", "-r", "--json"))["crowded"]["SSH Connection"]["mark"] == "ok"


def test_settings_that_hurt_are_shown_at_their_host(
    run: Run, own_python: Callable[..., Path]
) -> None:
    own_python("week")
    item = items_of(run("list", "-r", "-n", "--json"))["week"]["SSH Host Alias"]
    assert item["mark"] == "advice"
    assert "15 is usual" in item["parts"][-1]["value"]


def test_progress_is_for_people(
    run: Run, own_python: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own_python("gpu1")
    assert run("list", "-r").stderr == ""
    targets = [SshTarget(f"h{number}", "ssh") for number in range(6)]
    waiting = _Waiting(6)
    assert waiting.text() == "0 of 6 hosts checked"
    for target in targets:
        text = waiting.text(target, "connecting")
    assert text.endswith("h3 (connecting) and 2 more")
    assert waiting.text(targets[0], "").startswith("1 of 6 hosts checked; h1 (connecting)")


def test_progress_is_shown_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    target = SshTarget("gpu1", "ssh")
    with checking([target], quiet=False) as tell:
        tell(target, "connecting")
    assert "hosts checked" in capsys.readouterr().err
    with checking([target], quiet=True) as tell:
        tell(target, "connecting")
    assert capsys.readouterr().err == ""


def test_no_check_connects_to_nobody(run: Run, own_python: Callable[..., Path], home: Path) -> None:
    own_python("gpu1")
    text = sections(run("list", "-r", "-n").stdout)["gpu1"]
    assert text.count("(?)") == 3
    assert "(i) hostname: gpu1.example" in text
    assert all(" -G " in f" {line} " for line in (home / "ssh.log").read_text().splitlines())


def test_interpreter_or_kernel_that_is_not_there(run: Run, add: Add) -> None:
    add("a", "--remote-python", "/no/python")
    add("b", "--remote-python", sys.executable, "--remote-kernel-name", "nope")
    add("c", "--remote-python", "/bin/false")
    listed = items_of(run("list", "-r", "--json"))
    assert listed["a"]["Remote Python"]["value"] == "/no/python: was not found"
    assert listed["a"]["Remote Python"]["mark"] == "broken"
    assert listed["b"]["Remote Python"]["mark"] == "ok"
    assert listed["b"]["Remote Kernel Name"]["mark"] == "broken"
    assert listed["c"]["Remote Python"]["mark"] == "broken"


def test_what_this_machine_lacks(run: Run, add: Add, home: Path) -> None:
    (home / "config").touch()
    path = add("gpu", "--ssh-config", home / "config", "--mount-local-on-remote", "/no/such:/x")
    (home / "config").unlink()
    document = json.loads(path.read_text())
    document["argv"][0] = "/gone/python"
    document["metadata"]["kernel_provisioner"]["config"]["lanch_timeout"] = 3
    path.write_text(json.dumps(document))
    items = items_of(run("list", "-r", "--json"))["gpu"]
    assert items["Command"]["mark"] == "advice"
    assert items["SSH Config"]["mark"] == "broken"
    assert items["SSH Connection"]["mark"] == "unchecked"
    assert items["Mount"]["mark"] == "broken"
    assert items["Unknown Setting"]["value"] == "lanch_timeout"


def test_missing_ssh(run: Run, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add("gpu")
    monkeypatch.setenv("PATH", "/nowhere")
    text = sections(run("list", "-r").stdout)["gpu"]
    assert "openssh-client" in text


def test_broken_kernels_are_listed_with_the_reason(run: Run, kernels: Path, add: Add) -> None:
    put(kernels / "bad_json", "{")
    path = add("bad_config")
    path.write_text(path.read_text().replace('"/opt/bin/python"', "3"))
    put(kernels / "mine", LOCAL)
    put(kernels / "my kernel", LOCAL)  # a name that Jupyter lists with a warning
    listed = run("list")
    assert listed.exit_code == 0
    assert "Broken Kernel" in listed.stdout
    assert "(x) remote_python 3: must be text" in sections(listed.stdout)["bad_config"]
    assert "not valid JSON" in sections(listed.stdout)["bad_json"]
    assert {"bad_json", "bad_config"} <= set(items_of(run("list", "-r", "--json")))
    local = set(items_of(run("list", "-l", "--json")))
    assert {"bad_json", "mine", "my kernel"} <= local
    assert "bad_config" not in local


def test_text_from_elsewhere_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    item = Item("Remote System", "Linux \x1b]0;evil\x07\u202e", Mark.INFO)
    render.render(Listing((KernelReport("ssh", "x", (item,)),)))
    assert "Linux \\x1b]0;evil\\x07\\u202e" in capsys.readouterr().out


def test_colours_are_for_terminals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Item("user", "me", Mark.INFO)
    listing = Listing((KernelReport("ssh", "x", (Item("Host", "[bold]h", Mark.OK, (part,)),)),))
    render.render(listing)
    plain = capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    render.render(listing)
    coloured = capsys.readouterr().out
    assert "\x1b[" in coloured
    assert "\x1b[" not in plain
    assert "[bold]h" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    render.render(listing)
    assert "\x1b[3" not in capsys.readouterr().out


def test_stop_ends_what_runs_and_what_would(home: Path) -> None:
    runner = ScriptRunner(timeout_s=50)
    target = SshTarget("slow", str(home / "bin" / "ssh"))
    errors: list[SshpykError] = []

    def ask() -> None:
        try:
            runner.run(target, "echo END", "END")
        except SshpykError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not (home / "ssh.log").exists():
        time.sleep(0.01)
    runner.stop()
    thread.join(5)
    assert not thread.is_alive()
    ask()
    assert len(errors) == 2


def test_ssh_that_cannot_be_started(home: Path) -> None:
    (home / "bin" / "broken").write_text("#!/no/interpreter\n")
    (home / "bin" / "broken").chmod(0o755)
    target = SshTarget("gpu1", str(home / "bin" / "broken"))
    findings = find_out({target: []}, connect=True)[target]
    assert isinstance(findings.chain, SshpykError)
    assert isinstance(findings.answer, SshpykError)
    assert "cannot be started" in str(findings.answer)
