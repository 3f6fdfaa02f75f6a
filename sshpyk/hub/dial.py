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
import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from sshpyk.errors import HostError, HubError, RemoteShellFailed, SshpykError, Unreachable
from sshpyk.hub.bundle import agent_bundle, locate_program
from sshpyk.hub.ssh_process import SshProcess
from sshpyk.hub.ssh_start import SshStart, first_command, framed, new_marker, start_ssh
from sshpyk.ssh.command import SshTarget, ssh_argv
from sshpyk.ssh.diagnose import diagnose
from sshpyk.ssh.masters import around_masters, masters_on_the_way
from sshpyk.wire.private import AGENT_SOCKET, HUB_FOLDER, private_folder

DIAL_DEADLINE_S = 60.0
MASTER_PATIENCE_S = 5.0  # how long a ControlMaster of the user's may take before one goes around it
ASK_DEADLINE_S = 600.0  # a person looks for a phone; sshd itself waits 120 s for each login
JUNK_CAP_BYTES = 64 * 1024  # what rc files may print before our marker
OLDEST_PYTHON = (3, 8)
_WORD_CAP_BYTES = 4096  # of an answer, with what may be printed in between

FirstFrames = Callable[[], bytes]

log = logging.getLogger(__name__)


def silence_advice(target: SshTarget) -> str:
    """Return what to do about a host that says nothing: whether it or its login shell, we cannot see."""
    return (
        "a startup file of the login shell (.bashrc, .profile, .cshrc) or a forced command may hang or "
        f"read its input, or the host may not answer; try it by hand: {target.typed} true"
    )


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
    *,
    behind: FirstFrames | None = None,
    start: SshStart | None = None,
) -> SshProcess:
    """Connect, bring the agent up, and return the ssh process; its next byte each way is a frame's.

    ssh asks nobody, or whoever sits at ``terminal``. ``behind``: no agent is expected there, so its code
    is sent without being asked for, and what ``behind`` returns follows it at once: two round trips less.
    It is asked once at most, and only for the connection that is returned, if any is. ``start``: an ssh
    that connects already, for ``python``. Raises an error that says which phase failed and what was said.
    """
    dialing = _Dialing(target, python, progress, terminal, behind)
    first = asyncio.ensure_future(dialing.go(target, start))
    attempts = [first]
    with contextlib.ExitStack() as stack:
        try:
            await asyncio.wait({first}, timeout=MASTER_PATIENCE_S if terminal is None else None)
            if await dialing.may_hang_at_a_master(first):
                dialing.behind = no_frames  # which of the two comes through is not known
                around = around_masters(target, private_folder(HUB_FOLDER))
                attempts.append(asyncio.ensure_future(dialing.go(stack.enter_context(around))))
            winner = await _first_through(attempts)
            attempts.remove(winner)
            return winner.result()
        finally:
            await _give_up(attempts)


_Going = asyncio.Task[SshProcess]


async def _first_through(attempts: list[_Going]) -> _Going:
    """Return the first that is through; if none is, the last, whose error no master is to blame for."""
    pending = set(attempts)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for attempt in done:
            if attempt.exception() is None:
                return attempt
    return attempts[-1]


async def _give_up(attempts: list[_Going]) -> None:
    for attempt in attempts:
        attempt.cancel()
        await asyncio.wait({attempt})
        if not attempt.cancelled() and attempt.exception() is None:
            attempt.result().end(close_pipes=True)


class _Dialing:
    """What the attempts of one dial have in common."""

    def __init__(
        self,
        target: SshTarget,
        python: str,
        progress: Callable[[str], None],
        terminal: Terminal | None,
        behind: FirstFrames | None,
    ) -> None:
        self._unasked = behind is not None
        self.behind = behind or no_frames
        self._target = target
        self._python = python
        self._progress = progress
        self._terminal = terminal
        self.answered = False  # the host has spoken to us

    async def go(self, over: SshTarget, start: SshStart | None = None) -> SshProcess:
        """Connect with the ssh and the config of ``over``, or by what was started so."""
        ssh, marker = await self._started(over, start)
        deadline_s = DIAL_DEADLINE_S if self._terminal is None else ASK_DEADLINE_S
        attempt = _Attempt(ssh, self._target, self._python, deadline_s)
        try:
            source = _own_code(lambda: locate_program(AGENT_SOCKET, bundle_follows=self._unasked))
            # Made while ssh connects: it takes 0.06 s of this processor.
            bundle = asyncio.get_running_loop().run_in_executor(None, _own_code, agent_bundle)
            upload = _Upload(source, bundle, (lambda: self.behind()) if self._unasked else None)
            await asyncio.wait_for(attempt.run(marker, upload, self._note), deadline_s)
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

    async def may_hang_at_a_master(self, first: _Going) -> bool:
        """Whether a ControlMaster of the user's may be what the first attempt waits for."""
        if first.done() or self.answered:
            return False
        loop = asyncio.get_running_loop()
        try:
            masters = await loop.run_in_executor(None, masters_on_the_way, self._target)
        except SshpykError as error:  # what we wait for will say more
            log.info("%s", error)
            return False
        if not masters or first.done() or self.answered:
            return False
        log.warning("no answer through %s: dialing around it", ", ".join(masters))
        return True

    async def _started(self, over: SshTarget, start: SshStart | None) -> tuple[SshProcess, str]:
        """Return ssh, and the word by which the host's Python will make itself known."""
        terminal = self._terminal
        try:
            if terminal is None:
                start = start or start_ssh(over, self._python, starts_agent=self._unasked)
                return SshProcess(start.process, start.pipes), start.marker
            marker = new_marker()
            words = first_command(self._python, marker, starts_agent=self._unasked)
            argv = ssh_argv(over, words, batch=not terminal.may_ask)
            return await terminal.start(argv), marker
        except OSError as failure:
            what = f"{over.ssh} cannot be started: {failure.strerror}"
            raise HostError(what, host=over.host, phase=Phase.CONNECT.value) from failure

    def _note(self, phase: Phase) -> None:
        self.answered = self.answered or phase is not Phase.CONNECT
        if phase is Phase.CONNECT:
            self._progress(f"{phase.value}: {self._target.host}")
        elif phase is Phase.UPLOAD:
            self._progress(phase.value)


class _Upload(NamedTuple):
    """What is sent: the program that looks for the agent, and the agent's code, which is being made."""

    source: bytes
    bundle: asyncio.Future[bytes]
    behind: FirstFrames | None  # the code at once, and this behind it


def no_frames() -> bytes:
    """Put nothing behind the agent's code: a :data:`FirstFrames` like any other."""
    return b""


def _own_code(read: Callable[[], bytes]) -> bytes:
    """Return a program of ours as the host reads it. Raises HubError where its files are gone."""
    try:
        return framed(read())
    except OSError as error:  # else taken for ssh's end
        raise HubError(
            f"sshpyk's own files cannot be read: {error}",
            phase=Phase.CONNECT.value,
            advice="it was removed or replaced while its hub ran: start Jupyter again",
        ) from error


class _Attempt:
    """The conversation of one dial, with its evidence."""

    def __init__(self, ssh: SshProcess, target: SshTarget, python: str, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self._ssh = ssh
        self._target = target
        self._python = python
        self._phase = Phase.CONNECT
        self._received = b""

    async def run(self, marker: str, upload: _Upload, note: Callable[[Phase], None]) -> None:
        note(self._phase)
        await self._skip_to(marker.encode() + b" ")
        self._phase = Phase.PYTHON
        note(self._phase)
        self._check_version(await self._word(b" "))
        self._phase = Phase.LOCATE
        await self._ssh.write(
            upload.source + (await upload.bundle + upload.behind() if upload.behind else b"")
        )
        answer = await self._word(b"\n")
        if answer == b"absent":
            self._phase = Phase.UPLOAD
            note(self._phase)
            if upload.behind is None:
                await self._ssh.write(await upload.bundle)
            answer = await self._word(b"\n")
        if answer not in (b"found", b"started"):
            raise self._no_answer(answer)
        self._ssh.unread = self._received
        log.info("the agent on %s was %s", self._target.host, answer.decode())

    async def _skip_to(self, marker: bytes) -> None:
        while True:
            junk, found, rest = self._received.partition(marker)
            if len(junk) > JUNK_CAP_BYTES:
                raise RemoteShellFailed(
                    f"more than {JUNK_CAP_BYTES} bytes were printed before our program started",
                    code="HOST-PRINTS-TOO-MUCH",
                    host=self._target.host,
                    phase=self._phase.value,
                    said=self._received[:500].decode("utf-8", "replace"),
                    advice="let the shell's startup files print only when it is interactive",
                )
            if found:
                break
            await self._more()
        self._received = rest
        if junk.strip():
            log.info("skipped what the host printed first: %r", junk[:500])

    async def _word(self, end: bytes) -> bytes:
        while end not in self._received:
            if len(self._received) > _WORD_CAP_BYTES:
                raise self._no_answer(self._received)
            await self._more()
        word, _, self._received = self._received.partition(end)
        return word

    async def _more(self) -> None:
        data = await self._ssh.read_some()
        if not data:
            raise await self.failure()
        self._received += data

    def _no_answer(self, said: bytes) -> RemoteShellFailed:
        return RemoteShellFailed(
            "something else was printed where our program's answer was due",
            code="HOST-ODD-ANSWER",
            host=self._target.host,
            phase=self._phase.value,
            said=said[:500].decode("utf-8", "replace"),
            advice="let the shell's startup files start nothing that prints later",
        )

    def _check_version(self, word: bytes) -> None:
        if not re.fullmatch(rb"\d{1,3}\.\d{1,3}", word):
            raise self._no_answer(word)
        version = word.decode()
        if tuple(int(part) for part in version.split(".")) < OLDEST_PYTHON:
            raise RemoteShellFailed(
                f"{self._python} is Python {version}; the agent needs 3.8 or newer",
                code="HOST-PYTHON-TOO-OLD",
                host=self._target.host,
                phase=self._phase.value,
                advice="name a newer interpreter: sshpyk edit … --remote-python PATH",
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
        connecting = self._phase is Phase.CONNECT
        by_hand = f"try it by hand: {self._target.typed}"
        return Unreachable(
            f"no answer within {self.deadline_s:.0f} s",
            host=self._target.host,
            phase=self._phase.value,
            said=self._ssh.stderr_tail or self._received[-500:].decode("utf-8", "replace"),
            advice=silence_advice(self._target) if connecting else by_hand,
        )
