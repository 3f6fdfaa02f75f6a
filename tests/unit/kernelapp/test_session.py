"""``sshpyk-kernel`` on a terminal, in front of a hub that the test plays."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from sshpyk.errors import KernelDied, KernelError
from sshpyk.kernelapp.files import new_connection_file, notes
from sshpyk.kernelapp.keyboard import MENU
from sshpyk.kernelapp.session import _STEPS, Phase
from sshpyk.standin import SIGNALS, Action
from tests.unit.staged_hub import PATIENCE_S, Stage

TICKET = {"kernel_id": "3fa9c0de", "streams": [1, 3], "pid": 4242}
STOP = {"op": "stop", "grace_s": 3.0}
INTERRUPT = {"op": "interrupt"}
LEAVE = {"op": "leave"}
KILL = {"op": "stop", "grace_s": 0}
Typing = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture
def typing(stage: Stage) -> Iterator[Typing]:
    """Return a function that types ``sshpyk-kernel`` with some words into a terminal of its own."""
    terminals: list[pexpect.spawn[str]] = []

    def start(*words: str, program: str = stage.program, **more: Any) -> pexpect.spawn[str]:
        argv = ["-c", program, *words]
        spawned = pexpect.spawn(
            sys.executable, argv, encoding="utf-8", timeout=PATIENCE_S, echo=True, **more
        )
        terminals.append(spawned)
        return spawned

    yield start
    for spawned in terminals:
        if not spawned.closed:
            spawned.kill(signal.SIGKILL)
            spawned.close()


@pytest.fixture
def ready(stage: Stage, typing: Typing) -> Typing:
    """Return a function that does the same and waits until the kernel is ready."""

    def start(*words: str, **more: Any) -> pexpect.spawn[str]:
        terminal = typing(*(words or ("-k", "remote")), **more)
        stage.hub.opening()
        stage.hub.say(event="ready", ticket=TICKET)
        terminal.expect_exact("Ctrl+D menu")
        return terminal

    return start


def finish(terminal: pexpect.spawn[str]) -> str:
    """Wait for the end; return what was shown last."""
    terminal.expect(pexpect.EOF)
    shown: str = terminal.before or ""
    terminal.wait()
    return shown


def files(home: Path) -> list[str]:
    """Return the connection files and notes that there are."""
    folders = (home / "runtime", home / "state" / "sshpyk" / "kernels")
    return [path.name for folder in folders if folder.exists() for path in folder.iterdir()]


def press(terminal: pexpect.spawn[str], key: str) -> None:
    if key == "quit":
        terminal.sendcontrol("\\")
    else:
        terminal.sendcontrol(key)


def choose(terminal: pexpect.spawn[str], key: str) -> None:
    terminal.sendcontrol("d")
    terminal.expect_exact("and Enter: ")
    terminal.sendline(key)


def test_what_there_is_to_know_is_shown_and_all_is_removed_in_the_end(
    stage: Stage, typing: Typing, kernelspecs: Path
) -> None:
    terminal = typing("-k", "remote")
    request = stage.hub.launch()
    stage.hub.say(event="ready", ticket=TICKET)
    file = request["connection_file"]
    for words in ("kernel   remote on gpu1, pid 4242", "3fa9c0de", file):
        terminal.expect_exact(words)
    terminal.expect_exact(f"jupyter console --existing {os.path.basename(file)}")
    assert len(files(kernelspecs)) == 2
    stage.hub.say(event="exited", status=0)
    assert "the kernel has ended with exit code 0" in finish(terminal)
    assert terminal.exitstatus == 0
    assert files(kernelspecs) == []


@pytest.mark.parametrize("status", [1, 42, -signal.SIGKILL])
def test_the_exit_is_the_kernels(stage: Stage, ready: Typing, status: int) -> None:
    terminal = ready()
    stage.hub.say(event="exited", status=status)
    finish(terminal)
    assert (terminal.exitstatus, terminal.signalstatus) == (
        (status, None) if status > 0 else (None, -status)
    )


@pytest.mark.parametrize(
    ("number", "order", "order_if_persistent"),
    [
        (signal.SIGINT, INTERRUPT, INTERRUPT),
        (signal.SIGTERM, STOP, LEAVE),
        (signal.SIGHUP, STOP, LEAVE),
        (signal.SIGUSR1, STOP, STOP),
        (signal.SIGUSR2, STOP, STOP),
        (signal.SIGQUIT, LEAVE, LEAVE),
    ],
)
@pytest.mark.parametrize("persistent", [False, True], ids=["", "persistent"])
def test_each_signal_is_an_order(
    stage: Stage,
    ready: Typing,
    number: signal.Signals,
    order: dict[str, Any],
    order_if_persistent: dict[str, Any],
    persistent: bool,
) -> None:
    terminal = ready("-k", "remote", *(["-p"] if persistent else []))
    terminal.kill(number)
    assert stage.hub.hear() == (order_if_persistent if persistent else order)
    assert terminal.isalive()


@pytest.mark.parametrize(("key", "order"), [("c", INTERRUPT), ("quit", LEAVE)], ids=["C", "\\"])
def test_each_key_is_an_order(stage: Stage, ready: Typing, key: str, order: dict[str, Any]) -> None:
    terminal = ready()
    press(terminal, key)
    assert stage.hub.hear() == order


@pytest.mark.parametrize(
    ("choice", "order"),
    [
        ("i", INTERRUPT),
        ("r", STOP),
        ("s", STOP),
        ("l", LEAVE),
        ("LEAVE", LEAVE),
    ],
)
def test_each_choice_of_the_menu_is_an_order(
    stage: Stage, ready: Typing, choice: str, order: dict[str, Any]
) -> None:
    terminal = ready("-k", "remote", "-p")  # shut down: also then
    choose(terminal, choice)
    assert stage.hub.hear() == order


def test_the_menu_shows_resumes_and_asks_again(stage: Stage, ready: Typing) -> None:
    terminal = ready()
    choose(terminal, "?")
    terminal.expect_exact("pid 4242")
    choose(terminal, "nonsense")
    terminal.expect_exact("not in the menu: nonsense")
    terminal.expect_exact("and Enter: ")
    terminal.sendline("")
    terminal.send("half a line")
    terminal.sendcontrol("d")
    terminal.expect_exact("and Enter: ")
    terminal.sendcontrol("d")
    terminal.expect_exact("resumed")
    terminal.sendline("text")
    terminal.expect_exact("Ctrl+D menu")
    press(terminal, "c")
    assert stage.hub.hear() == INTERRUPT


def test_restart_launches_again_behind_the_same_connection_file(
    stage: Stage, typing: Typing, kernelspecs: Path
) -> None:
    terminal = typing("-k", "remote")
    first = stage.hub.launch()
    stage.hub.say(event="ready", ticket=TICKET)
    terminal.expect_exact("pid 4242")
    before = files(kernelspecs)
    terminal.kill(signal.SIGUSR1)
    assert stage.hub.hear() == STOP
    stage.hub.say(event="exited", status=0)
    assert stage.hub.launch() == first
    stage.hub.say(event="ready", ticket={**TICKET, "kernel_id": "4fa9c0de", "pid": 43})
    terminal.expect_exact("pid 43,")
    assert [note.kernel_id for note in notes()] == ["4fa9c0de"]
    assert len(files(kernelspecs)) == len(before)
    press(terminal, "c")
    assert stage.hub.hear() == INTERRUPT


def test_restart_that_fails_says_why_and_leaves_nothing(
    stage: Stage, ready: Typing, kernelspecs: Path
) -> None:
    terminal = ready()
    terminal.kill(signal.SIGUSR1)
    stage.hub.hear()
    stage.hub.say(event="exited", status=0)
    stage.hub.launch()
    stage.hub.say(event="failed", error=KernelDied("no luck", host="gpu1").to_record())
    assert "host gpu1: no luck" in finish(terminal)
    assert terminal.exitstatus == 1
    assert files(kernelspecs) == []


def test_shut_down_during_a_restart_ends_it(stage: Stage, ready: Typing) -> None:
    terminal = ready()
    terminal.kill(signal.SIGUSR1)
    assert stage.hub.hear() == STOP
    terminal.kill(signal.SIGTERM)
    assert stage.hub.hear() == STOP
    stage.hub.say(event="exited", status=0)
    finish(terminal)
    assert terminal.exitstatus == 0


def test_left_says_how_to_come_back_and_keeps_a_note_only(
    stage: Stage, ready: Typing, kernelspecs: Path
) -> None:
    terminal = ready()
    press(terminal, "quit")
    assert stage.hub.hear() == LEAVE
    stage.hub.say(event="left")
    assert "sshpyk-kernel --existing 3fa9c0de" in finish(terminal)
    assert terminal.exitstatus == 0
    assert files(kernelspecs) == ["3fa9c0de.json"]


def test_existing_comes_back_to_the_same_connection_file(stage: Stage, ready: Typing) -> None:
    terminal = ready()
    (note,) = notes()
    press(terminal, "quit")
    stage.hub.hear()
    stage.hub.say(event="left")
    finish(terminal)
    again = pexpect.spawn(
        sys.executable, ["-c", stage.program, "--existing"], encoding="utf-8", timeout=PATIENCE_S
    )
    opening = stage.hub.opening()
    assert (opening["op"], opening["kernel_id"]) == ("attach", "3fa9c0de")
    assert opening["request"]["connection_file"] == note.connection_file
    stage.hub.say(event="ready", ticket=TICKET)
    again.expect_exact("pid 4242, kept")
    again.kill(signal.SIGUSR2)
    assert stage.hub.hear() == STOP
    stage.hub.say(event="exited", status=0)
    finish(again)
    assert notes() == []
    assert not Path(note.connection_file).exists()


def test_leave_launches_and_goes(stage: Stage, typing: Typing) -> None:
    terminal = typing("-k", "remote", "--leave")
    assert stage.hub.launch()["persistent"] is True
    stage.hub.say(event="ready", ticket=TICKET)
    assert stage.hub.hear() == LEAVE
    stage.hub.say(event="left")
    assert "sshpyk-kernel --existing 3fa9c0de" in finish(terminal)
    assert terminal.exitstatus == 0


def test_leave_during_the_launch_waits_for_the_kernel(stage: Stage, typing: Typing) -> None:
    terminal = typing("-k", "remote")
    stage.hub.launch()
    press(terminal, "quit")
    terminal.expect_exact("will leave as soon as the kernel is ready")
    stage.hub.say(event="ready", ticket=TICKET)
    assert stage.hub.hear() == LEAVE


def test_interrupt_during_the_launch_gives_it_up(
    stage: Stage, typing: Typing, kernelspecs: Path
) -> None:
    terminal = typing("-k", "remote")
    stage.hub.launch()
    press(terminal, "c")
    assert stage.hub.hear() == KILL
    stage.hub.say(event="failed", error=KernelError("stopped while it was starting").to_record())
    assert "stopped while it was starting" in finish(terminal)
    assert terminal.exitstatus == 1
    assert files(kernelspecs) == []


def test_what_cannot_be_done_now_is_said(stage: Stage, typing: Typing) -> None:
    terminal = typing("-k", "remote")
    stage.hub.launch()
    terminal.kill(signal.SIGUSR1)
    terminal.expect_exact("cannot restart now: launching")
    choose(terminal, "?")
    terminal.expect_exact("no kernel on gpu1 yet: launching")


def test_a_shutdown_that_takes_long_is_pressed_on_step_by_step(
    stage: Stage, ready: Typing, kernelspecs: Path
) -> None:
    terminal = ready()
    for _ in range(2):  # a closed terminal is told of twice, by the system and by the shell
        terminal.kill(signal.SIGHUP)
    assert stage.hub.hear() == STOP
    press(terminal, "c")
    assert stage.hub.hear() == KILL
    press(terminal, "c")
    assert "not waited for any longer" in finish(terminal)
    assert terminal.exitstatus == 1
    assert stage.hub.hear() is None  # which the hub takes for the owner's end
    assert files(kernelspecs) == []


def test_who_does_not_wait_for_the_end_of_a_persistent_kernel_is_not_offered_it_again(
    stage: Stage, ready: Typing, kernelspecs: Path
) -> None:
    terminal = ready("-k", "remote", "-p")
    for number in (signal.SIGUSR2, signal.SIGUSR2, signal.SIGINT):
        terminal.kill(number)
        if number is signal.SIGUSR2:
            assert stage.hub.hear() in (STOP, KILL)
    finish(terminal)
    assert terminal.exitstatus == 1
    assert files(kernelspecs) == []


def test_a_closed_terminal_shuts_the_kernel_down(
    stage: Stage, ready: Typing, kernelspecs: Path
) -> None:
    terminal = ready()
    terminal.ptyproc.fileobj.close()  # as the window's end does
    assert stage.hub.hear() == STOP
    stage.hub.say(event="notice", text="for nobody")
    stage.hub.say(event="exited", status=0)
    assert os.waitpid(terminal.pid, 0)[1] == 0
    terminal.ptyproc.closed = terminal.ptyproc.terminated = True
    terminal.closed = terminal.terminated = True
    assert files(kernelspecs) == []


def test_nohup_outlives_the_terminal(stage: Stage, ready: Typing) -> None:
    terminal = ready(ignore_sighup=True)
    terminal.kill(signal.SIGHUP)
    terminal.kill(signal.SIGINT)
    assert stage.hub.hear() == INTERRUPT


def test_notices_have_the_time_of_day(stage: Stage, ready: Typing) -> None:
    terminal = ready()
    stage.hub.say(event="notice", text="gpu1: the connection is down")
    terminal.expect(r"\n\d\d:\d\d:\d\d gpu1: the connection is down\r\n")


def test_somebody_else_who_takes_the_kernel_is_told_of(stage: Stage, ready: Typing) -> None:
    terminal = ready()
    stage.hub.say(event="taken", by="ann@laptop")
    assert "ann@laptop has taken the kernel over" in finish(terminal)
    assert terminal.exitstatus == 0


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_the_terminal_is_as_it_was(stage: Stage, typing: Typing, end: str) -> None:
    terminal = typing("-k", "remote")
    before = termios.tcgetattr(terminal.child_fd)
    stage.hub.launch()
    stage.hub.say(event="ready", ticket=TICKET)
    choose(terminal, "?")
    terminal.expect_exact("pid 4242")
    assert termios.tcgetattr(terminal.child_fd) == before
    if end == "kill":
        terminal.kill(signal.SIGKILL)
    else:
        stage.hub.say(event="exited", status=0)
    finish(terminal)
    assert termios.tcgetattr(terminal.child_fd) == before


def test_f14_the_next_hub_knows_that_the_kernel_is_persistent(stage: Stage, ready: Typing) -> None:
    ready("-k", "remote", "-p")
    stage.hub.go()
    opening = stage.hub.opening()
    assert opening["op"] == "reattach"
    assert opening["request"]["persistent"] is True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_given_up_before_there_is_a_hub_nothing_is_left(
    stage: Stage, typing: Typing, kernelspecs: Path, number: signal.Signals
) -> None:
    terminal = typing("-k", "remote", env={**os.environ, "TERM": "xterm"}, program=stage.hangs)
    terminal.expect_exact("starting the local hub")
    terminal.kill(number)
    assert "given up" in finish(terminal)
    assert terminal.exitstatus == 1
    assert files(kernelspecs) == []


def test_f14_a_hub_that_goes_during_a_shutdown_is_replaced_and_told(
    stage: Stage, ready: Typing
) -> None:
    terminal = ready()
    terminal.kill(signal.SIGTERM)
    assert stage.hub.hear() == STOP
    stage.hub.go()
    assert stage.hub.opening()["op"] == "reattach"
    assert stage.hub.hear() == STOP
    stage.hub.say(event="exited", status=0)
    finish(terminal)
    assert terminal.exitstatus == 0


class TestProgram:
    """Started with a connection file that exists: what a program without provisioners does."""

    @pytest.fixture
    def words(self) -> list[str]:
        return ["-k", "remote", "-f", new_connection_file("remote")]

    def test_nothing_is_said_and_the_connection_file_stays(
        self, stage: Stage, words: list[str], kernelspecs: Path
    ) -> None:
        process = stage.start(*words)
        assert stage.hub.launch()["connection_file"] == words[-1]
        process.send_signal(signal.SIGINT)
        assert stage.hub.hear() == INTERRUPT  # and the launch goes on
        stage.hub.say(event="ready", ticket=TICKET)
        while not stage.hub.has_more(0.2):  # once it has heard of that
            process.send_signal(signal.SIGUSR1)
        assert stage.hub.hear() == STOP
        stage.hub.say(event="exited", status=0)
        stage.hub.launch()
        stage.hub.say(event="ready", ticket=TICKET)
        stage.hub.say(event="exited", status=5)
        assert process.communicate(timeout=PATIENCE_S) == (b"", b"")
        assert process.returncode == 5
        assert files(kernelspecs) == [os.path.basename(words[-1])]

    def test_also_on_a_terminal(self, stage: Stage, typing: Typing, words: list[str]) -> None:
        terminal = typing(*words)
        stage.hub.launch()
        stage.hub.say(event="ready", ticket=TICKET)
        stage.hub.say(event="notice", text="gpu1: away")
        stage.hub.say(event="exited", status=0)
        assert finish(terminal) == "sshpyk: gpu1: away\r\n"

    def test_a_failed_launch_goes_to_stderr(self, stage: Stage, words: list[str]) -> None:
        process = stage.start(*words)
        stage.hub.launch()
        stage.hub.say(event="failed", error=KernelDied("no luck", said="words").to_record())
        _, said = process.communicate(timeout=PATIENCE_S)
        assert said.decode() == "no luck [KERNEL-DIED]\n  | words\n"
        assert process.returncode == 1


def test_without_a_terminal_lines_say_what_a_terminal_would_show(
    stage: Stage, kernelspecs: Path
) -> None:
    process = stage.start("-k", "remote")
    stage.hub.launch()
    stage.hub.say(event="ready", ticket=TICKET)
    stage.hub.say(event="exited", status=0)
    said, errors = process.communicate(timeout=PATIENCE_S)
    assert errors == b""
    assert re.match(rb"ready after [\d.]+ s\nkernel   remote on gpu1, pid 4242", said)
    assert f"kill -INT {process.pid}".encode() in said


def test_every_phase_and_action_meets_a_step_or_a_refusal() -> None:
    assert _STEPS.keys() == set(Phase)
    assert set(_STEPS[Phase.RUNNING]) == set(Action) == set(SIGNALS.values())
    in_menu = {choice.action for choice in MENU} - {None}
    assert in_menu == set(Action) - {Action.SHUT_DOWN}


def test_a_note_holds_what_existing_needs(stage: Stage, ready: Typing, kernelspecs: Path) -> None:
    ready()
    (note,) = notes()
    assert (note.kernel_id, note.kernel, note.host) == ("3fa9c0de", "remote", "gpu1")
    assert note.connection == json.loads(Path(note.connection_file).read_text())
