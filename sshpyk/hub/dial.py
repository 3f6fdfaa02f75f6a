"""One ssh connection, from nothing to an agent that is ready for the first frame of the link.

The phases, in order (:class:`Phase`). Each byte on the way is either what the protocol of the phase
expects or is kept as evidence: when something fails, the error carries the phase, the tail of what
ssh wrote to stderr, and what the remote side printed to stdout before the marker (rc files do).
"""

from __future__ import annotations

import asyncio
import enum
import logging
import secrets
from collections.abc import Callable
from typing import Protocol

from sshpyk.errors import HostError, RemoteShellFailed, SshpykError, Unreachable
from sshpyk.hub.bundle import agent_bundle, locate_program
from sshpyk.hub.ssh_process import SshProcess
from sshpyk.ssh.command import SshTarget, remote_python_command, ssh_argv
from sshpyk.ssh.diagnose import diagnose
from sshpyk.wire.private import AGENT_SOCKET

DIAL_DEADLINE_S = 60.0
ASK_DEADLINE_S = 600.0  # a person looks for a phone; sshd itself waits 120 s for each login
JUNK_CAP_BYTES = 64 * 1024  # what rc files may print before our marker
OLDEST_PYTHON = (3, 8)

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


class Phase(enum.Enum):
    """What was being done when something failed; the words that a user reads."""

    CONNECT = "connecting with ssh"
    PYTHON = "starting Python on the host"
    LOCATE = "looking for the agent on the host"
    UPLOAD = "starting the agent on the host"


class Terminal(Protocol):
    """Where ``sshpyk login`` was typed: it starts ssh where a person can be asked."""

    @property
    def may_ask(self) -> bool:
        """Whether somebody is there."""

    async def start(self, argv: list[str]) -> SshProcess:
        """Start ssh there with pipes of ours. Raises SshpykError."""


async def dial(
    target: SshTarget,
    python: str,
    progress: Callable[[str], None],
    terminal: Terminal | None = None,
) -> SshProcess:
    """Connect, bring the agent up, and return the ssh process; its next byte each way is a frame's.

    ssh asks nobody, or whoever sits at ``terminal``. Raises an error that says which phase failed and
    what was said.
    """
    marker = secrets.token_hex(8)
    source = locate_program(AGENT_SOCKET)
    words = remote_python_command(python, _FIRST_WORDS, marker, str(len(source)))
    argv = ssh_argv(target, words, batch=terminal is None or not terminal.may_ask)
    try:
        ssh = SshProcess.started(argv) if terminal is None else await terminal.start(argv)
    except OSError as failure:
        what = f"{target.ssh} cannot be started: {failure.strerror}"
        raise HostError(what, host=target.host, phase=Phase.CONNECT.value) from failure
    attempt = _Attempt(ssh, target, python, DIAL_DEADLINE_S if terminal is None else ASK_DEADLINE_S)
    try:
        await asyncio.wait_for(attempt.run(marker, source, progress), attempt.deadline_s)
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

    def __init__(self, ssh: SshProcess, target: SshTarget, python: str, deadline_s: float) -> None:
        self.deadline_s = deadline_s
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
            said,
            status,
            host=self._target.host,
            phase=self._phase.value,
            login=self._target.typed,
            reopen=self._target.login_command,
        )

    def timed_out(self) -> Unreachable:
        """Return the error for a connection that came to nothing in time."""
        advice = f"try it by hand: {self._target.typed}"
        if self._phase is Phase.CONNECT and self._received:
            advice = "a startup file of the login shell may be waiting for input; " + advice
        return Unreachable(
            f"no answer within {self.deadline_s:.0f} s",
            host=self._target.host,
            phase=self._phase.value,
            said=self._ssh.stderr_tail or self._received[-500:].decode("utf-8", "replace"),
            advice=advice,
        )
