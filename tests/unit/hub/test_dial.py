"""One connection from nothing to the first frame, through an ssh that is a script on this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

from sshpyk.errors import (
    AuthenticationFailed,
    HostKeyRejected,
    HubError,
    RemoteShellFailed,
    SshpykError,
    UnknownHost,
    Unreachable,
)
from sshpyk.hub import dial as dial_module
from sshpyk.hub import ssh_process as ssh_process_module
from sshpyk.hub.dial import FirstFrames, dial
from sshpyk.hub.ssh_process import SshProcess
from sshpyk.hub.ssh_start import SshStart, start_ssh
from sshpyk.ssh.command import SshTarget
from tests.unit.agent.service_bench import alive
from tests.unit.wire.harness import in_loop, until

# What sshd does with the words behind the host: the login shell gets them as one line.
SSH = """#!/bin/sh
echo $$ >> {folder}/pids
while [ "$1" != "--" ]; do shift; done
shift 2
{before}
exec {shell} -c "$*"
"""
SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish", "csh", "tcsh")  # the lab has them all
FOUND = b"import os,sys\nos.write(1, b'found\\n')\n"
ECHO = b"while 1:\n    d = os.read(0, 4096)\n    if not d: break\n    os.write(1, d)\n"
READ_BUNDLE = (
    b"import os,sys\n"
    b"def exactly(n):\n    d = b''\n    while len(d) < n: d += os.read(0, n - len(d))\n    return d\n"
    b"def bundle():\n    return exactly(int(exactly(8), 16)) == b'bundle' * 9999\n"
)
ABSENT = READ_BUNDLE + (
    b"os.write(1, b'absent\\n')\nos.write(1, b'started\\n' if bundle() else b'wrong\\n')\n"
)
ABSENT_OF_FIRST = READ_BUNDLE + (
    b"right = bundle()\nos.write(1, b'absent\\n')\nos.write(1, b'started\\n' if right else b'wrong\\n')\n"
)
FOUND_OF_FIRST = READ_BUNDLE + b"os.write(1, b'found\\n' if bundle() else b'wrong\\n')\n"


class Stage:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.target = SshTarget("gpu1", str(folder / "ssh"))
        self.said: list[str] = []
        self.ssh()
        self.program(monkeypatch, FOUND)

    def ssh(self, before: str = "", shell: str = "sh") -> None:
        path = self.folder / "ssh"
        path.write_text(SSH.format(folder=self.folder, before=before, shell=shell))
        path.chmod(0o755)

    def program(self, monkeypatch: pytest.MonkeyPatch, program: bytes) -> None:
        monkeypatch.setattr(dial_module, "locate_program", lambda name, bundle_follows: program)
        monkeypatch.setattr(dial_module, "agent_bundle", lambda: b"bundle" * 9999)

    async def dial(
        self,
        python: str = sys.executable,
        *,
        behind: FirstFrames | None = None,
        start: SshStart | None = None,
    ) -> SshProcess:
        return await dial(self.target, python, self.said.append, behind=behind, start=start)

    def pids(self) -> list[int]:
        return [int(line) for line in (self.folder / "pids").read_text().split()]

    async def fails(self, python: str = sys.executable) -> SshpykError:
        with pytest.raises(SshpykError) as caught:
            await self.dial(python)
        assert caught.value.host == "gpu1"
        await self.gone()
        return caught.value

    async def gone(self) -> None:
        """Wait until every ssh has ended and was reaped."""
        await until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in self.pids()))


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


async def end(ssh: SshProcess) -> None:
    ssh.end(close_pipes=True)
    await until(lambda: not alive(ssh.pid), "the end of ssh")
    await until(lambda: ssh._process.returncode is not None, "somebody to reap it")


@in_loop
async def test_the_next_byte_each_way_is_the_links(stage: Stage, monkeypatch):
    stage.program(monkeypatch, FOUND + ECHO)
    ssh = await stage.dial()
    os.write(ssh.stdin_fd, b"first frame")
    assert await ssh.read_some() == b"first frame"
    assert stage.said == ["connecting with ssh: gpu1"]
    await end(ssh)


@in_loop
async def test_the_agent_is_sent_where_there_is_none(stage: Stage, monkeypatch):
    stage.program(monkeypatch, ABSENT + ECHO)
    ssh = await stage.dial()
    assert stage.said == ["connecting with ssh: gpu1", "starting the agent on the host"]
    os.write(ssh.stdin_fd, b"first frame")
    assert await ssh.read_some() == b"first frame"
    await end(ssh)


@pytest.mark.parametrize("program", [ABSENT_OF_FIRST, FOUND_OF_FIRST])
@in_loop
async def test_a_first_dial_sends_the_agent_and_the_first_frames_unasked(
    stage: Stage, monkeypatch, program: bytes
):
    stage.program(monkeypatch, program + ECHO)
    ssh = await stage.dial(behind=lambda: b"first frames, ")
    os.write(ssh.stdin_fd, b"second")
    said = ssh.unread  # their answer may come right behind the last word of the dial
    while len(said) < len(b"first frames, second"):
        said += await ssh.read_some()
    assert said == b"first frames, second"
    await end(ssh)


@in_loop
async def test_an_ssh_that_was_started_in_advance_is_used(stage: Stage, monkeypatch):
    stage.program(monkeypatch, FOUND + ECHO)
    start = start_ssh(stage.target, sys.executable, starts_agent=True)
    ssh = await stage.dial(start=start)
    assert ssh.pid == start.process.pid
    os.write(ssh.stdin_fd, b"first frame")
    assert await ssh.read_some() == b"first frame"
    await end(ssh)


@in_loop
async def test_what_an_ssh_that_was_started_in_advance_said_before_the_dial_is_its_error(
    stage: Stage,
):
    stage.ssh(before="echo 'ssh: connect to host gpu1 port 22: Connection refused' >&2; exit 255")
    start = start_ssh(stage.target, sys.executable, starts_agent=True)
    await until(lambda: start.process.poll() is not None)
    with pytest.raises(Unreachable, match="Connection refused"):
        await stage.dial(start=start)
    assert len(stage.pids()) == 1


@pytest.mark.parametrize("path", ["", ":/nowhere"])
@in_loop
async def test_modules_of_the_users_in_the_home_folder_are_not_imported(
    stage: Stage, monkeypatch, path: str
):
    for name in ("json", "asyncio", "tempfile"):
        (stage.folder / f"{name}.py").write_text("raise RuntimeError('not meant')")
    stage.ssh(before=f"cd {stage.folder}; export PYTHONPATH={path}")
    stage.program(monkeypatch, b"import json, tempfile\n" + FOUND)
    await end(await stage.dial(behind=lambda: b""))


@pytest.mark.parametrize("shell", list(filter(shutil.which, SHELLS)))
@in_loop
async def test_the_command_passes_every_login_shell_of_this_machine(stage: Stage, shell: str):
    stage.ssh(shell=shell)
    await end(await stage.dial())


@pytest.mark.parametrize("words", ["Welcome to gpu1!", "x" * 40_000, "\\0303\\0251 \\0377"])
@in_loop
async def test_what_startup_files_print_is_skipped(stage: Stage, words: str):
    stage.ssh(before=f"printf '{words}\\n'")
    await end(await stage.dial())


@in_loop
async def test_a_startup_file_without_a_newline_is_skipped_too(stage: Stage):
    stage.ssh(before="printf 'no newline'")
    await end(await stage.dial())


@in_loop
async def test_a_startup_file_that_never_stops_is_an_error(stage: Stage):
    stage.ssh(before="yes")
    error = await stage.fails()
    assert isinstance(error, RemoteShellFailed)
    assert "bytes were printed before" in str(error)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("me@gpu1: Permission denied (publickey).", AuthenticationFailed),
        ("Host key verification failed.", HostKeyRejected),
        ("ssh: Could not resolve hostname gpu1: Name or service not known", UnknownHost),
        ("ssh: connect to host gpu1 port 22: Connection refused", Unreachable),
    ],
)
@in_loop
async def test_what_ssh_says_decides_the_error(stage: Stage, words: str, kind: type[SshpykError]):
    stage.ssh(before=f"echo '{words}' >&2; exit 255")
    error = await stage.fails()
    assert type(error) is kind
    assert words in error.said
    assert error.phase == "connecting with ssh"


@in_loop
async def test_a_python_that_is_not_there_is_an_error_of_the_host(stage: Stage):
    error = await stage.fails("/no/such/python")
    assert isinstance(error, RemoteShellFailed)
    assert "/no/such/python" in str(error)


@in_loop
async def test_a_python_that_is_too_old_is_named(stage: Stage):
    old = stage.folder / "python2"
    # As Python 2.7 would answer: the marker is the word behind the code.
    old.write_text('#!/bin/sh\nprintf "%s 2.7 " "$3"\ncat > /dev/null\n')
    old.chmod(0o755)
    error = await stage.fails(str(old))
    assert isinstance(error, RemoteShellFailed)
    assert "is Python 2.7; the agent needs 3.8 or newer" in str(error)


@in_loop
async def test_what_is_printed_in_between_is_quoted(stage: Stage):
    odd = stage.folder / "odd"
    odd.write_text('#!/bin/sh\nprintf "%s conda is out of date " "$3"\ncat > /dev/null\n')
    odd.chmod(0o755)
    error = await stage.fails(str(odd))
    assert isinstance(error, RemoteShellFailed)
    assert error.code == "HOST-ODD-ANSWER"
    assert "conda" in error.said


@in_loop
async def test_the_words_of_a_program_that_fails_are_told(stage: Stage, monkeypatch):
    stage.program(monkeypatch, b"raise SystemExit('no room for sockets')\n")
    error = await stage.fails()
    assert "no room for sockets" in str(error)
    assert error.phase == "looking for the agent on the host"


@in_loop
async def test_an_agent_that_does_not_start_is_told(stage: Stage, monkeypatch):
    program = ABSENT.replace(
        b"os.write(1, b'started", b"sys.exit('it did not start') or (b'started"
    )
    stage.program(monkeypatch, program)
    error = await stage.fails()
    assert "it did not start" in str(error)
    assert error.phase == "starting the agent on the host"


@in_loop
async def test_silence_has_an_end_and_says_where_it_was(stage: Stage, monkeypatch):
    monkeypatch.setattr(dial_module, "DIAL_DEADLINE_S", 0.3)
    stage.ssh(before="printf 'Password: '; echo 'debug words' >&2; sleep 600")
    error = await stage.fails()
    assert isinstance(error, Unreachable)
    assert "debug words" in error.said
    assert error.phase == "connecting with ssh"


@in_loop
async def test_a_cancelled_dial_leaves_no_ssh(stage: Stage):
    stage.ssh(before="sleep 600")
    dialing = asyncio.ensure_future(stage.dial())
    await until((stage.folder / "pids").exists)
    dialing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialing
    await stage.gone()


@in_loop
async def test_an_ssh_that_ignores_its_end_is_killed(stage: Stage, monkeypatch):
    monkeypatch.setattr(ssh_process_module, "_END_PATIENCE_S", 0.1)
    stage.ssh(before="trap '' TERM HUP PIPE; while :; do sleep 0.05; done")
    dialing = asyncio.ensure_future(stage.dial())
    await until((stage.folder / "pids").exists)
    await asyncio.sleep(0.1)
    dialing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialing
    await stage.gone()


@in_loop
async def test_an_ssh_that_cannot_be_started_is_an_error_in_words(stage: Stage):
    (stage.folder / "ssh").unlink()
    (stage.folder / "pids").touch()
    error = await stage.fails()
    assert "cannot be started: No such file or directory" in str(error)


@in_loop
async def test_the_end_of_what_ssh_said_is_kept(stage: Stage, monkeypatch):
    stage.ssh(before="i=0; while [ $i -lt 3000 ]; do echo noise $i >&2; i=$((i+1)); done")
    ssh = await stage.dial()
    await until(lambda: "noise 2999" in ssh.stderr_tail)
    assert len(ssh.stderr_tail) <= 8192
    await end(ssh)


# Masters of the user's that hang. The script asks one, as it were, unless a config keeps it from that.

HANGS_AT_MASTER = """
case " $* " in *" -G "*) echo "controlpath {folder}/master"; exit;; esac
"""
ASKS_MASTER = """case "$all" in *.conf*) ;; *) {then};; esac"""


def hanging_master(stage: Stage, monkeypatch: pytest.MonkeyPatch, then: str = "sleep 600") -> None:
    monkeypatch.setattr(dial_module, "MASTER_PATIENCE_S", 0.2)
    monkeypatch.setattr(dial_module, "private_folder", lambda name: str(stage.folder))
    with socket.socket(socket.AF_UNIX) as master:
        master.bind(str(stage.folder / "master"))
    stage.ssh(before=ASKS_MASTER.format(then=then))
    script = stage.folder / "ssh"
    head = '#!/bin/sh\nall="$*"' + HANGS_AT_MASTER.format(folder=stage.folder)
    script.write_text(script.read_text().replace("#!/bin/sh\n", head))


@in_loop
async def test_f08_a_master_that_hangs_is_dialed_around(stage: Stage, monkeypatch):
    hanging_master(stage, monkeypatch)
    ssh = await stage.dial()
    assert len(stage.pids()) == 2
    assert stage.pids()[1] == ssh.pid
    assert not list(stage.folder.glob("*.conf"))
    await until(lambda: not alive(stage.pids()[0]), "the end of the ssh that hangs")
    await end(ssh)
    await stage.gone()


@in_loop
async def test_f08_a_master_that_is_merely_slow_may_be_the_only_way(stage: Stage, monkeypatch):
    hanging_master(stage, monkeypatch, then="sleep 1")
    text = (stage.folder / "ssh").read_text()
    refuse = '*.conf*) echo "me@gpu1: Permission denied (password)." >&2; exit 255;;'
    (stage.folder / "ssh").write_text(text.replace("*.conf*) ;;", refuse))
    ssh = await stage.dial()
    assert stage.pids()[0] == ssh.pid
    await end(ssh)
    await stage.gone()


@in_loop
async def test_f08_without_a_way_around_a_master_the_error_says_what_is_in_the_way(
    stage: Stage, monkeypatch
):
    monkeypatch.setattr(dial_module, "DIAL_DEADLINE_S", 1.0)
    hanging_master(stage, monkeypatch)
    text = (stage.folder / "ssh").read_text()
    refuse = '*.conf*) echo "me@gpu1: Permission denied (password)." >&2; exit 255;;'
    (stage.folder / "ssh").write_text(text.replace("*.conf*) ;;", refuse))
    assert isinstance(await stage.fails(), AuthenticationFailed)


@in_loop
async def test_a_slow_host_without_a_master_is_dialed_once(stage: Stage, monkeypatch):
    monkeypatch.setattr(dial_module, "MASTER_PATIENCE_S", 0.1)
    stage.ssh(before="case $1 in -G) exit;; esac; sleep 1")
    ssh = await stage.dial()
    assert ssh.pid in stage.pids()
    await end(ssh)


@pytest.mark.parametrize("which", ["locate_program", "agent_bundle"])
@in_loop
async def test_an_agent_whose_code_cannot_be_read_is_said_and_leaves_no_ssh_behind(
    stage: Stage, monkeypatch, which: str
):
    def removed(*args: object, **more: object) -> bytes:
        raise FileNotFoundError("the environment was removed")

    monkeypatch.setattr(dial_module, which, removed)
    start = start_ssh(stage.target, sys.executable, starts_agent=True)
    with pytest.raises(HubError, match="own files cannot be read: the environment was removed"):
        await stage.dial(start=start, behind=lambda: b"")
    await until(lambda: start.process.returncode is not None)
