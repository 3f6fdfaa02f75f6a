"""One kernel in the agent's care: its process, its channels, and what may be asked of it.

States: STARTING -> RUNNING -> ENDED; a kernel that dies while it starts goes straight to ENDED.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import logging
import os
import re
import shlex
import signal
from dataclasses import replace
from typing import Any, Awaitable, Callable, Sequence

from sshpyk.agent.adoption import Adoption, Loss
from sshpyk.agent.answers import Answers
from sshpyk.agent.channels import KernelChannels, Streams
from sshpyk.agent.process import KernelProcess
from sshpyk.agent.record import SHELF, KernelRecord
from sshpyk.agent.unanswered import UnansweredRequests
from sshpyk.errors import KernelDied, SshpykError
from sshpyk.wire.driver import LinkDriver
from sshpyk.wire.jupyter_messages import CONTENT, HEADER, frame_of
from sshpyk.wire.kernel_messages import Part

_CONNECT_POLL_S = (0.005, 0.02)
_TERM_GRACE_S = 1.0
_HEARD_POLL_S = 0.05
_INFO_PATIENCE_S = 1.0  # some kernels listen seconds before they answer
_LEFT_POLL_S = 1.0

log = logging.getLogger(__name__)


class KernelState(enum.Enum):
    """Where a kernel is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


class Kernel:
    """See the module. ``driver`` is the link that carries the kernel's streams.

    What another agent needs to adopt the kernel is written down as it changes.
    """

    def __init__(self, record: KernelRecord, process: KernelProcess, driver: LinkDriver) -> None:
        self.kernel_id = record.kernel_id
        self.process = process
        self.driver = driver
        self.streams = Streams(*record.streams)
        self.record = record
        self._found: int | None = None  # how much the hub had got of an agent before us
        self.state = KernelState.STARTING
        self.status: int | None = None
        self.info = ""  # its first answer to kernel_info_request, JSON
        self._channels = KernelChannels(process.info, driver, self.streams)
        self._answers = Answers(process, self._channels)
        self._unanswered = UnansweredRequests(os.path.join(process.folder, "requests"))
        self._channels.on_asked = self._asked
        self._channels.on_answered = self._answered
        self._spokesman = self._channels.spokesman
        self._adoption: Adoption | None = None
        self._adopting: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self.on_heard: Callable[[], None] = lambda: None  # the hub knows of the end

    async def wait_ready(self) -> None:
        """Return when the kernel listens. Raises :class:`KernelDied` with its last words."""
        fastest_s, slowest_s = _CONNECT_POLL_S
        pause_s = fastest_s
        while self.state is KernelState.STARTING and not self._channels.try_connect():
            await asyncio.sleep(pause_s)
            pause_s = min(slowest_s, pause_s * 1.2)
        if await self._either(self._channels.wait_listening(), self._ended.wait()):
            raise self._death()
        # It listens before its start-up files have run, which may still end it.
        if await self._ask_info(patience_s=_INFO_PATIENCE_S):
            raise self._death()
        self.state = KernelState.RUNNING
        if self.process.activation is not None:
            self.process.activation.forget()
        self.note(ready=True, welcomes=self.welcomes)
        if any("ipykernel" in word for word in self.process.spec.argv):
            self._spokesman.log_crashes()

    async def _ask_info(self, patience_s: float) -> bool:
        """Ask what every client asks first, for the hub to answer without another round trip.

        Return whether the kernel has ended instead.
        """
        answered = asyncio.Event()

        def on_answer(parts: Sequence[bytes]) -> None:
            if b'"kernel_info_reply"' in frame_of(parts, HEADER):
                self.info = _well_answered(frame_of(parts, CONTENT))
                answered.set()

        self._channels.on_own_answer = on_answer
        self._spokesman.ask()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._either(answered.wait(), self._ended.wait()), patience_s)
        return self.state is KernelState.ENDED

    def note_process(self) -> None:
        """Write down which process the kernel is; called right after its start."""
        self.record = self.record.of_process(self.process.pid)
        self.note()

    def note(self, **changes: Any) -> None:
        """Write down what another agent will need to know."""
        self.record = replace(self.record, **changes)
        self.record.write(self.process.folder)

    def adopt(self, since_s: float) -> None:
        """Take care of a kernel whose agent was killed after ``since_s``; the hub has what was before.

        One that has ended meanwhile is noticed by the next :meth:`check_alive`.
        """
        self.state = KernelState.RUNNING
        self._channels.welcomes = self.record.welcomes
        if self.record.status is not None:
            return  # the agent had seen its end; only the hub may not have heard of it
        self._unanswered.forget_untaken(self.driver.link.consumed_seq(self.streams.main))
        loss = Loss(since_s, self._found_seq)
        self._adoption = Adoption(self._channels, self._spokesman, self._unanswered, loss)
        if self.process.poll() is None:
            self._adopting = asyncio.ensure_future(self._adoption.run())
        else:
            self._adoption.tell_loss()

    def _found_seq(self) -> int | None:
        if self._found is None:
            self._found = self.driver.link.found_seq(self.streams.main)
        return self._found

    @property
    def link_id(self) -> str:
        """The link that carries the kernel."""
        return self.driver.link.link_id

    def is_carried_by(self, driver: LinkDriver, streams: object) -> bool:
        """Whether it is behind that link, on these streams where any are named."""
        return self.driver is driver and streams in (None, list(self.streams))

    def move_to(self, driver: LinkDriver, streams: tuple[int, int]) -> None:
        """Let another link carry the kernel; what the first had not taken goes with it."""
        self.forget_heard()
        if self._found_seq() is None:
            self._found = 0  # its hub will not say so any more
        self._channels.move_to(driver, Streams(*streams))
        self.driver, self.streams = driver, Streams(*streams)
        self._unanswered.moved()
        self._answers.new_clients()
        self.record = self.record.moved(self.link_id, streams)
        self.note()

    @property
    def active_s(self) -> float:
        """When something passed last, from or to the kernel."""
        return self._channels.active_s

    @property
    def activity(self) -> str:
        """What the kernel does: starting, idle, busy; or ended."""
        if self.state is KernelState.RUNNING:
            return "busy" if self._answers.is_busy else "idle"
        return str(self.state.value)

    def _asked(self, parts: Sequence[Part], seq: int) -> None:
        self._unanswered.asked(parts, seq)
        self.forget_heard()

    def _answered(self, parts: Sequence[bytes]) -> None:
        queued = self.driver.link.queued_seq(self.streams.main)
        if self._adoption is not None:
            queued = self._adoption.place_of(parts, queued)
        self._unanswered.answered(parts, queued)

    def forget_heard(self) -> None:
        """Forget the requests whose answers the hub has taken."""
        self._unanswered.heard(self.driver.link.acknowledged_seq(self.streams.main))

    async def _either(self, wanted: Awaitable[Any], end: Awaitable[Any]) -> bool:
        """Wait for one of the two; return whether the kernel has ended."""
        waits = [asyncio.ensure_future(wanted), asyncio.ensure_future(end)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self.state is KernelState.ENDED

    def _death(self) -> SshpykError:
        status, said = describe_status(self.status), self.process.log_tail()
        activation = self.process.activation
        if activation is not None and not activation.over:
            return activation.failure(status, said)
        code, advice = _cause(said, self.process.spec.argv)
        return KernelDied(
            f"the kernel ended with {status} before it was ready",
            phase="starting the kernel",
            said=said or "(the kernel printed nothing)",
            advice=advice,
            code=code,
        )

    @property
    def welcomes(self) -> bool:
        """Whether the kernel greets new subscribers of iopub (JEP 65)."""
        return self._channels.welcomes

    def tell_welcome(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` if :attr:`welcomes` turns out only later."""

        def on_welcome() -> None:
            self.note(welcomes=True)
            tell()

        self._channels.on_welcome = on_welcome

    def check_alive(self) -> bool:
        """Notice a death (called when a child of the agent has ended); return whether it lives."""
        if self.state is KernelState.ENDED:
            return False
        status = self.process.poll()
        if status is None:
            self._answers.note_alive()
            return True
        was_running = self.state is KernelState.RUNNING
        self.state = KernelState.ENDED
        self.status = status
        log.info("kernel %s ended with %s", self.kernel_id, describe_status(status))
        self.process.end_children()
        if self._adopting is not None:
            self._adopting.cancel()
        if was_running:
            self.note(status=status)  # until the hub has heard of it
            self._channels.finish(status)
        else:
            self._channels.close()
        self._remove_files_when_heard()
        self._ended.set()
        return False

    def _remove_files_when_heard(self) -> None:
        if not self.remove_files_if_heard():
            loop = asyncio.get_running_loop()
            pause_s = _LEFT_POLL_S if self.link_id == SHELF else _HEARD_POLL_S
            loop.call_later(pause_s, self._remove_files_when_heard)

    def remove_files_if_heard(self) -> bool:
        """Remove the files once no other agent would have to tell the hub of the kernel's end."""
        link, main = self.driver.link, self.streams.main
        if not (self.driver.left or link.acknowledged({main: link.queued_seq(main)})):
            return False
        self._unanswered.close()
        self.process.remove_files()
        self.on_heard()
        return True

    # What may be asked of it

    def interrupt(self, seen: int) -> None:
        """Interrupt the cell that runs, or ran when the client had been handed ``seen`` messages."""
        self._answers.interrupt(self._channels.place_seen(seen))

    async def stop(self, grace_s: float) -> None:
        """End the kernel: ask it, then SIGTERM, then SIGKILL. With no grace, at once."""
        if grace_s > 0 and self.state is KernelState.RUNNING:
            # A client that asked already has waited as long as it cares to.
            if not self._answers.shutdown_asked:
                self._spokesman.order("shutdown_request", {"restart": False})
                if await self._ends_within(grace_s):
                    return
            self.process.signal(signal.SIGTERM)
            if await self._ends_within(_TERM_GRACE_S):
                return
        self.process.signal(signal.SIGKILL)
        await self._ended.wait()

    async def _ends_within(self, patience_s: float) -> bool:
        try:
            await asyncio.wait_for(self._ended.wait(), patience_s)
        except asyncio.TimeoutError:
            return False
        return True


def _well_answered(content: bytes) -> str:
    """Return a reply's content; empty where it is none, or says that something went wrong."""
    try:
        record = json.loads(content)
    except ValueError:
        return ""
    good = isinstance(record, dict) and record.get("status", "ok") == "ok"
    return content.decode("utf-8", "replace") if good else ""


def describe_status(status: int | None) -> str:
    """Return an exit status in words."""
    if status is not None and status < 0:
        try:
            return f"signal {signal.Signals(-status).name}"
        except ValueError:
            return f"signal {-status}"
    return f"status {status}"


# What a kernel's last words mean: a code of docs/errors.md, and what to do.
_LAST_WORDS = (
    (
        r"No module named '?zmq",
        "KERNEL-NO-PYZMQ",
        "install it on the host, in that environment: python -m pip install pyzmq",
    ),
    (
        r"No module named \S*ipykernel",
        "KERNEL-NO-IPYKERNEL",
        "install it on the host, in that environment: python -m pip install ipykernel",
    ),
    (
        r"No space left on device|[Dd]isk quota exceeded",
        "HOST-DISK-FULL",
        "make room on the host: df -h ~ /tmp; quota",
    ),
)


def _cause(log_tail: str, argv: list[str]) -> tuple[str, str]:
    """Return the code of a death and the advice; the first that fits counts."""
    for pattern, code, advice in _LAST_WORDS:
        if re.search(pattern, log_tail):
            return code, advice
    return KernelDied.code, f"its command on the host was: {shlex.join(argv)}"
