"""``sshpyk-kernel`` as a person uses it: on a terminal, with a console at its connection file."""
# ruff: noqa: F401, F811

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest
from jupyter_client import BlockingKernelClient

from sshpyk.hub.client import reach_hub
from sshpyk.ssh.command import SshTarget
from tests.integration.kernels import (
    PATIENCE_S,
    AddKernel,
    add_kernel,
    assert_gone,
    await_ready,
    eventually,
    jupyter_folders,
    marked,
    new_environment,
    run,
)
from tests.integration.lifecycle_helpers import (
    OwnHub,
    change_kernel_json,
    hub_of,
    outcome_of,
)
from tests.integration.machines import Lab
from tests.integration.outages import Door, door
from tests.integration.printing import EXPECTED, LINES, PRINTING, client_text_up_to
from tests.integration.test_login import answer, otp_hub

BIN = Path(sys.executable).parent
HOST = "remote"
BUSY = "import time; print('sleeping', flush=True); time.sleep(100)"


@dataclass
class Terminal:
    """A window in which ``sshpyk-kernel`` was typed, and its kernel is ready."""

    window: pexpect.spawn[str]
    connection_file: str
    kernel_id: str
    pid: int

    @contextlib.contextmanager
    def client(self) -> Iterator[BlockingKernelClient]:
        """Connect as any program does that is given the connection file."""
        client = BlockingKernelClient(connection_file=self.connection_file)
        client.load_connection_file()
        client.start_channels()
        try:
            await_ready(client)
            yield client
        finally:
            client.stop_channels()

    def choose(self, key: str) -> None:
        """Choose from the menu."""
        self.window.sendcontrol("d")
        self.window.expect_exact("and Enter: ")
        self.window.sendline(key)

    def close_window(self) -> None:
        """Close the window as a person does, who kills nothing besides, and wait for the end."""
        self.window.ptyproc.fileobj.close()
        self.window.wait()

    def finish(self) -> str:
        """Wait for the command's end, and return what was shown last."""
        self.window.expect(pexpect.EOF)
        shown: str = self.window.before or ""
        self.window.wait()
        return shown


def typed(*words: str) -> Terminal:
    """Type ``sshpyk-kernel`` with these words, and wait for the kernel."""
    window = pexpect.spawn(
        str(BIN / "sshpyk-kernel"), list(words), encoding="utf-8", timeout=PATIENCE_S
    )
    window.expect(r"pid (\d+),")
    pid = int(window.match[1])
    window.expect(r"id +([0-9a-f]{32})\b")
    kernel_id = window.match[1]
    window.expect(r"file +(\S+)")
    file = window.match[1]
    window.expect_exact("Ctrl+D menu")
    return Terminal(window, file, kernel_id, pid)


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the test a folder of notes that no other test looks into."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "state" / "sshpyk" / "kernels"
    yield folder
    assert not list(folder.glob("*")), "notes were left behind"


@dataclass(frozen=True)
class Added:
    """A kernel that is marked: see ``marked``."""

    name: str
    mark: str


@pytest.fixture
def added(add_kernel: AddKernel, lab: Lab) -> Iterator[Added]:
    yield from marked_kernel(lab, add_kernel(HOST))


def marked_kernel(lab: Lab, name: str) -> Iterator[Added]:
    _, mark = new_environment()
    change_kernel_json(name, env={"SSHPYK_TEST_MARK": mark})
    yield Added(name, mark)
    for pid in marked(lab.remote, mark):  # of a test that failed
        lab.remote.kill(pid)


def test_a_console_connects_ctrl_c_interrupts_and_the_menu_shuts_down(
    lab: Lab, added: Added
) -> None:
    terminal = typed("--kernel", added.name)
    file = os.path.basename(terminal.connection_file)
    console = pexpect.spawn(
        str(BIN / "jupyter"),
        ["console", "--existing", file, "--simple-prompt", "--ZMQTerminalInteractiveShell.banner="],
        encoding="utf-8",
        timeout=PATIENCE_S,
        env={**os.environ, "TERM": "dumb", "NO_COLOR": "1"},
    )
    console.expect(r"In \[1\]:")
    console.sendline(BUSY)
    console.expect(r"sleeping\r\n")
    terminal.window.sendintr()
    console.expect("KeyboardInterrupt")
    console.expect(r"In \[2\]:")
    console.sendline("print(40 + 2, 'on', __import__('socket').gethostname())")
    console.expect("42 on remote")
    console.close(force=True)
    terminal.choose("s")
    assert "has ended with exit code 0" in terminal.finish()
    assert terminal.window.exitstatus == 0
    assert not Path(terminal.connection_file).exists()
    assert_gone(lab, added.mark)


def test_restart_keeps_the_clients_and_the_connection_file(lab: Lab, added: Added) -> None:
    terminal = typed("--kernel", added.name)
    with terminal.client() as client:
        run(client, "marker = 1")
        terminal.window.kill(signal.SIGUSR1)
        terminal.window.expect(r"pid (\d+),")
        assert int(terminal.window.match[1]) != terminal.pid
        terminal.window.expect_exact(terminal.connection_file)
        await_ready(client)
        outcome = outcome_of(client, client.execute("'marker' in dir()"))
        assert (outcome.result, outcome.reply["content"]["execution_count"]) == ("False", 1)
        terminal.window.kill(signal.SIGUSR2)
        terminal.finish()
    assert_gone(lab, added.mark)


def test_a_closed_terminal_ends_the_kernel(lab: Lab, added: Added) -> None:
    terminal = typed("--kernel", added.name)
    terminal.close_window()
    assert not Path(terminal.connection_file).exists()
    assert_gone(lab, added.mark)


def test_a_killed_kernel_ends_the_command_in_the_same_way(lab: Lab, added: Added) -> None:
    terminal = typed("--kernel", added.name)
    lab.remote.kill(terminal.pid)
    assert "the kernel was ended by SIGKILL" in terminal.finish()
    assert terminal.window.signalstatus == signal.SIGKILL
    assert not Path(terminal.connection_file).exists()


def test_an_outage_is_told_of_and_no_line_is_lost(
    lab: Lab, add_kernel: AddKernel, door: Door, tmp_path: Path
) -> None:
    with hub_of(lab, "remote-jump", tmp_path / "ssh_config", door.ssh_config) as hub:
        for added in marked_kernel(lab, add_kernel(hub.host, *hub.options)):
            terminal = typed("--kernel", added.name)
            with terminal.client() as client:
                run(client, "number = None")
                msg_id = client.execute(PRINTING)
                text = client_text_up_to(client, "line 20\n")
                with door.cut():
                    terminal.window.expect(r"\d\d:\d\d:\d\d remote-jump: the connection is down")
                    terminal.choose("?")
                    terminal.window.expect_exact(terminal.kernel_id)
                terminal.window.expect("connected again after")
                assert text + outcome_of(client, msg_id).text() == EXPECTED
            terminal.choose("s")
            terminal.finish()
            assert_gone(lab, added.mark)


def test_a_host_that_is_unknown_is_an_error_and_leaves_nothing(
    add_kernel: AddKernel, jupyter_folders: Path
) -> None:
    window = pexpect.spawn(
        str(BIN / "sshpyk-kernel"),
        ["-k", add_kernel("no-such-host.invalid")],
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    window.expect("no-such-host.invalid: .*")
    window.expect(pexpect.EOF)
    window.wait()
    assert window.exitstatus == 1
    assert list(jupyter_folders.glob("kernel-*")) == []


def test_a_host_that_asks_is_answered_on_the_same_terminal(
    lab: Lab, add_kernel: AddKernel, otp_hub: OwnHub
) -> None:
    for added in marked_kernel(lab, add_kernel(otp_hub.host, *otp_hub.options)):
        window = pexpect.spawn(
            str(BIN / "sshpyk-kernel"), ["-k", added.name], encoding="utf-8", timeout=PATIENCE_S
        )
        answer(window)
        window.expect_exact("Ctrl+D menu")
        window.sendcontrol("d")
        window.expect_exact("and Enter: ")
        window.sendline("s")
        window.expect_exact("has ended with exit code 0")
        window.expect(pexpect.EOF)
        window.wait()
        assert_gone(lab, added.mark)


# Kept, left, found again


def test_left_with_ctrl_backslash_it_goes_on_and_what_it_printed_is_there_on_return(
    lab: Lab, added: Added, jupyter_folders: Path
) -> None:
    terminal = typed("--kernel", added.name)
    with terminal.client() as client:
        run(client, "number = None")
        client.execute(PRINTING)
        text = client_text_up_to(client, "line 20\n")
        terminal.window.sendcontrol("\\")
        assert f"sshpyk-kernel --existing {terminal.kernel_id[:8]}" in terminal.finish()
        assert terminal.window.exitstatus == 0
        assert not Path(terminal.connection_file).exists()
        with contextlib.suppress(queue.Empty):  # what was on its way
            while message := client.get_iopub_msg(timeout=0.5):
                text += message["content"].get("text", "")
        assert marked(lab.remote, added.mark), "the kernel has ended"
        back = typed("--existing", terminal.kernel_id[:8])
        # The same file, so that the client that stayed goes on.
        assert (back.pid, back.connection_file) == (terminal.pid, terminal.connection_file)
        text += client_text_up_to(client, f"line {LINES - 1}\n")
        assert text == EXPECTED
    back.choose("s")
    back.finish()
    assert not Path(back.connection_file).exists()
    assert_gone(lab, added.mark)


def carried(kernel_id: str) -> str:
    """Ask the host who has a kernel."""
    hub = reach_hub(SshTarget.parse(HOST))
    hub.say("survey", python="python3")
    answer = hub.hear()
    hub.close()
    assert answer is not None
    (kernel,) = [one for one in answer["on_host"] if one["kernel_id"] == kernel_id]
    return str(kernel["carried"])


def test_leave_a_killed_stand_in_and_a_closed_terminal_keep_a_persistent_kernel(
    lab: Lab, added: Added, notes: Path
) -> None:
    window = pexpect.spawn(
        str(BIN / "sshpyk-kernel"),
        ["-k", added.name, "--leave"],
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    window.expect(r"sshpyk-kernel --existing ([0-9a-f]{8})\r")
    beginning = window.match[1]
    window.expect(pexpect.EOF)
    window.wait()
    assert window.exitstatus == 0
    terminal = typed("--existing")  # the one that was left last
    assert terminal.kernel_id.startswith(beginning)
    with terminal.client() as client:
        run(client, "marker = 41")
    terminal.window.kill(signal.SIGKILL)
    terminal.finish()
    # Elsewhere there are no notes: the host says which kernel it is.
    Path(terminal.connection_file).unlink()
    shutil.rmtree(notes)
    eventually(lambda: carried(terminal.kernel_id) == "left", "that it is left")
    terminal = typed("--existing", beginning, "--host", HOST)
    with terminal.client() as client:
        assert run(client, "marker + 1").result == "42"
    terminal.close_window()
    assert marked(lab.remote, added.mark), "the kernel has ended"
    terminal = typed("--existing", terminal.kernel_id)
    terminal.window.kill(signal.SIGUSR2)
    assert "has ended with exit code 0" in terminal.finish()
    assert_gone(lab, added.mark)
