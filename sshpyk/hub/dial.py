"""One ssh connection, from nothing to an agent that is ready for the first frame of the link.

The phases, in order (:class:`Phase`). Each byte on the way is either what the protocol of the phase
expects or is kept as evidence: when something fails, the error carries the phase, the tail of what
ssh wrote to stderr, and what the remote side printed to stdout before the marker (rc files do).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import secrets
import signal
import subprocess
from collections.abc import Callable

from sshpyk.errors import HostError, RemoteShellFailed, SshpykError, Unreachable
from sshpyk.hub.bundle import agent_bundle, locate_program
from sshpyk.ssh.command import SshTarget, batch_environment, remote_python_command, ssh_argv
from sshpyk.ssh.diagnose import diagnose
from sshpyk.wire.private import AGENT_SOCKET

DIAL_DEADLINE_S = 60.0
JUNK_CAP_BYTES = 64 * 1024  # what rc files may print before our marker
OLDEST_PYTHON = (3, 8)
_TAIL_BYTES = 8192
_END_PATIENCE_S = 2.0

# Runs under any Python from 2.6 on, so that one that is too old can say so. Reads its program from
# stdin byte-exactly: what follows belongs to the program. Double quotes only, no newline: it travels
# as one single-quoted word through whatever login shell the account has.
_FIRST_WORDS = (
    "import os,sys;"
    'os.write(1,("%s %d.%d "%((sys.argv[1],)+sys.version_info[:2])).encode());'
    'f=lambda n:(lambda d:d+f(n-len(d)) if d else sys.exit(9))(os.read(0,n)) if n else "".encode();'
    'exec(compile(f(int(sys.argv[2])),"<sshpyk:locate>","exec",0,1))'
)

log = logging.getLogger(__name__)


def silence_advice(target: SshTarget) -> str:
    """Return what to do about a host that says nothing: whether it or its login shell, we cannot see."""
    return (
        "a startup file of the login shell (.bashrc, .profile, .cshrc) may hang or read its input, or "
        f"the host may not answer; try it by hand: {target.typed} true"
    )


class Phase(enum.Enum):
    """What was being done when something failed; the words that a user reads."""

    CONNECT = "connecting with ssh"
    PYTHON = "starting Python on the host"
    LOCATE = "looking for the agent on the host"
    UPLOAD = "starting the agent on the host"


class SshProcess:
    """A running ssh with pipes on all three ends. Owns the process; the pipes may be taken over."""

    def __init__(self, argv: list[str]) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=batch_environment(os.environ),
            start_new_session=True,  # a Ctrl+C in the user's terminal is not for ssh
        )
        assert self._process.stdin
        assert self._process.stdout
        assert self._process.stderr
        self.stdin_fd = os.dup(self._process.stdin.fileno())
        self.stdout_fd = os.dup(self._process.stdout.fileno())
        self._process.stdin.close()
        self._process.stdout.close()
        self._stderr = self._process.stderr
        self._tail = b""
        os.set_blocking(self._stderr.fileno(), False)
        os.set_blocking(self.stdout_fd, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._stderr, self._read_stderr)

    @property
    def pid(self) -> int:
        """The process id of ssh."""
        return self._process.pid

    @property
    def stderr_tail(self) -> str:
        """What ssh and the remote side wrote to stderr last."""
        return self._tail.decode("utf-8", "replace")

    def _read_stderr(self) -> None:
        try:
            data = os.read(self._stderr.fileno(), 65536)
        except BlockingIOError:
            return
        for line in data.decode("utf-8", "replace").splitlines():
            log.info("ssh: %s", line)
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        if not data:
            self._loop.remove_reader(self._stderr)

    async def read_some(self) -> bytes:
        """Return the next bytes of stdout, b"" at its end."""
        readable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self.stdout_fd, _settle, readable)
        try:
            await readable
            return os.read(self.stdout_fd, 65536)
        except BlockingIOError:
            return b"" if self._process.poll() is not None else await self.read_some()
        finally:
            self._loop.remove_reader(self.stdout_fd)

    async def write(self, data: bytes) -> None:
        """Write all of ``data`` to stdin; OSError when ssh has gone."""
        await self._loop.run_in_executor(None, _write_all, self.stdin_fd, data)

    async def wait(self, patience_s: float = _END_PATIENCE_S) -> int | None:
        """Return the exit status if ssh ends within ``patience_s``."""
        deadline_s = self._loop.time() + patience_s
        while self._process.poll() is None and self._loop.time() < deadline_s:
            await asyncio.sleep(0.01)
        if self._loop.is_running() and self._process.poll() is not None and not self._stderr.closed:
            self._read_stderr()
        return self._process.poll()

    def end(self, *, close_pipes: bool) -> None:
        """End ssh now and reap it; its pipes are closed unless somebody took them over."""
        if close_pipes:
            for fd in (self.stdin_fd, self.stdout_fd):
                with contextlib.suppress(OSError):
                    os.close(fd)
        if not self._stderr.closed:
            self._loop.remove_reader(self._stderr)
            self._stderr.close()
        if self._process.poll() is None:
            # SIGCONT first: a stopped ssh must be able to die. Its ProxyJump child is in the group.
            for number in (signal.SIGCONT, signal.SIGTERM):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, number)
            self._loop.call_later(_END_PATIENCE_S, self._reap)
        self._reap_soon()

    def _reap_soon(self) -> None:
        if self._process.poll() is None:
            self._loop.call_later(0.05, self._reap_soon)

    def _reap(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


async def dial(target: SshTarget, python: str, progress: Callable[[str], None]) -> SshProcess:
    """Connect, bring the agent up, and return the ssh process; its next byte each way is a frame's.

    Raises an error that says which phase failed and what was said.
    """
    marker = secrets.token_hex(8)
    source = locate_program(AGENT_SOCKET)
    words = remote_python_command(python, _FIRST_WORDS, marker, str(len(source)))
    try:
        ssh = SshProcess(ssh_argv(target, words))
    except OSError as failure:
        what = f"{target.ssh} cannot be started: {failure.strerror}"
        raise HostError(what, host=target.host, phase=Phase.CONNECT.value) from failure
    attempt = _Attempt(ssh, target, python)
    try:
        await asyncio.wait_for(attempt.run(marker, source, progress), DIAL_DEADLINE_S)
    except asyncio.TimeoutError:
        ssh.end(close_pipes=True)
        raise attempt.timed_out() from None
    except OSError:
        error = await attempt.failure()
        ssh.end(close_pipes=True)
        raise error from None
    except BaseException:
        ssh.end(close_pipes=True)
        raise
    return ssh


class _Attempt:
    """The conversation of one dial, with its evidence."""

    def __init__(self, ssh: SshProcess, target: SshTarget, python: str) -> None:
        self._ssh = ssh
        self._target = target
        self._python = python
        self._phase = Phase.CONNECT
        self._received = b""
        self._junk = b""

    async def run(self, marker: str, source: bytes, progress: Callable[[str], None]) -> None:
        progress(f"{Phase.CONNECT.value}: {self._target.host}")
        await self._skip_to(marker.encode() + b" ")
        self._phase = Phase.PYTHON
        self._check_version((await self._word(b" ")).decode())
        self._phase = Phase.LOCATE
        await self._ssh.write(source)
        answer = await self._word(b"\n")
        if answer == b"absent":
            self._phase = Phase.UPLOAD
            progress(Phase.UPLOAD.value)
            bundle = agent_bundle()
            await self._ssh.write(b"%08x" % len(bundle) + bundle)
            answer = await self._word(b"\n")
        log.info("the agent on %s was %s", self._target.host, answer.decode())

    async def _skip_to(self, marker: bytes) -> None:
        while marker not in self._received:
            if len(self._received) > JUNK_CAP_BYTES:
                raise RemoteShellFailed(
                    f"more than {JUNK_CAP_BYTES} bytes were printed before our program started",
                    host=self._target.host,
                    phase=self._phase.value,
                    said=self._received[:500].decode("utf-8", "replace"),
                    advice="let the shell's startup files print only when it is interactive",
                )
            await self._more()
        self._junk, _, self._received = self._received.partition(marker)
        if self._junk.strip():
            log.info("skipped what the host printed first: %r", self._junk[:500])

    async def _word(self, end: bytes) -> bytes:
        while end not in self._received:
            await self._more()
        word, _, self._received = self._received.partition(end)
        return word

    async def _more(self) -> None:
        data = await self._ssh.read_some()
        if not data:
            raise await self.failure()
        self._received += data

    def _check_version(self, version: str) -> None:
        if tuple(int(part) for part in version.split(".")) < OLDEST_PYTHON:
            raise RemoteShellFailed(
                f"{self._python} is Python {version}; the agent needs 3.8 or newer",
                host=self._target.host,
                phase=self._phase.value,
                advice="name a newer interpreter: sshpyk edit --kernel-name … --remote-python PATH",
            )

    async def failure(self) -> SshpykError:
        """Return what ended the connection, as an error."""
        status = await self._ssh.wait()
        said = self._ssh.stderr_tail or self._received.decode("utf-8", "replace")
        return diagnose(
            said, status, host=self._target.host, phase=self._phase.value, login=self._target.typed
        )

    def timed_out(self) -> Unreachable:
        """Return the error for a connection that came to nothing in time."""
        connecting = self._phase is Phase.CONNECT
        by_hand = f"try it by hand: {self._target.typed}"
        return Unreachable(
            f"no answer within {DIAL_DEADLINE_S:.0f} s",
            host=self._target.host,
            phase=self._phase.value,
            said=self._ssh.stderr_tail or self._received[-500:].decode("utf-8", "replace"),
            advice=silence_advice(self._target) if connecting else by_hand,
        )
