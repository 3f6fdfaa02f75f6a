"""What the agent answers in the kernel's place: interrupts by signal, and what came too late.

See :mod:`sshpyk.agent.seen` for what too late means.
"""

from __future__ import annotations

import logging
import signal
from collections import deque
from typing import Sequence

from sshpyk.agent.channels import KernelChannels
from sshpyk.agent.memory import oom_kills
from sshpyk.agent.process import KernelProcess
from sshpyk.agent.seen import ClientView, Verdict
from sshpyk.wire.clock import now_s
from sshpyk.wire.kernel_messages import CONTROL, SHELL

_TOO_LATE = (
    "an interrupt arrived too late for the cell that it was meant for and was not applied to this one;"
    " interrupt again to stop this cell"
)
_OUT_OF_MEMORY = (
    "the kernel was killed by SIGKILL while the host's out-of-memory killer was at work"
)
_KILLED = (
    "the kernel was killed by SIGKILL, and not by sshpyk; on a host that is often the out-of-memory"
    " killer, or the limits of a batch system"
)

_REMEMBERED_INTERRUPTS = 4096

log = logging.getLogger(__name__)


class Answers:
    """Stands before one kernel; its :meth:`intercept` sees every request of a client first."""

    def __init__(self, process: KernelProcess, channels: KernelChannels) -> None:
        self.shutdown_asked = False
        self._process = process
        self._spokesman = channels.spokesman
        self._signer = channels.signer
        self._view = ClientView()
        self._interrupts: deque[bytes] = deque(maxlen=_REMEMBERED_INTERRUPTS)
        self._oom_kills = oom_kills()
        channels.intercept = self.intercept
        channels.on_last_words = self._explain
        channels.on_published = lambda channel, number, parts: self._view.published(
            channel, number, parts, now_s()
        )

    def intercept(self, channel: int, seen: int, parts: list[bytes]) -> bool:
        """Return whether the request was dealt with here, and must not reach the kernel."""
        if channel == CONTROL:
            return self._intercept_control(seen, parts)
        verdict = self._view.judge(channel, seen, parts)
        if verdict is Verdict.ABORT:
            self._abort(parts)
        elif verdict is Verdict.DROP:
            log.info("dropped an answer to an earlier prompt")
        return verdict is not Verdict.TAKE

    def interrupt(self, seen: int) -> None:
        """Interrupt the running cell, in the way that the host's kernelspec asks for."""
        if not self._is_in_time(seen):
            return
        if self._by_message:
            self._spokesman.order("interrupt_request", {})
        else:
            self._process.signal(signal.SIGINT)

    def new_clients(self) -> None:
        """The kernel is carried to others: what they have not seen is not theirs."""
        self._view.forget_clients()

    @property
    def is_busy(self) -> bool:
        """Whether the kernel executes a cell."""
        return self._view.running is not None

    def note_alive(self) -> None:
        """Remember how the host is while the kernel lives; called every few seconds."""
        self._oom_kills = oom_kills()

    def _explain(self, status: int) -> None:
        """Say what is known about a SIGKILL that was none of ours, in the cell that it ended."""
        if status != -signal.SIGKILL or self._process.killed_by_us:
            return
        text = _OUT_OF_MEMORY if oom_kills() != self._oom_kills else _KILLED
        log.warning("%s", text)
        self._tell_cell(text)

    def _tell_cell(self, text: str) -> None:
        if self._view.running is not None:
            self._spokesman.remark(text, self._view.running)

    @property
    def _by_message(self) -> bool:
        return self._process.spec.interrupt_mode == "message"

    def _intercept_control(self, seen: int, parts: list[bytes]) -> bool:
        """Answer an ``interrupt_request`` for a kernel that knows signals only, or that is late.

        The client's kernelspec may say ``message`` where the host's says ``signal``. A
        ``shutdown_request`` passes, but is remembered.
        """
        request = self._signer.read(parts)
        if request is None:
            return False
        kind = request.header.get("msg_type")
        self.shutdown_asked = self.shutdown_asked or kind == "shutdown_request"
        if kind != "interrupt_request":
            return False
        if request.header_bytes in self._interrupts:
            log.warning("dropped an interrupt_request that came before")  # as a local kernel does
            return True
        self._interrupts.append(request.header_bytes)
        in_time = self._is_in_time(seen)
        if in_time and self._by_message:
            return False
        self._spokesman.busy(request)
        if in_time:
            self._process.signal(signal.SIGINT)
        self._spokesman.answer(CONTROL, request, {"status": "ok"})
        return True

    def _is_in_time(self, seen: int) -> bool:
        if self._view.judge_interrupt(seen, now_s()) is Verdict.TAKE:
            return True
        log.info("an interrupt came too late, or twice")
        if self._view.is_late(seen, now_s()):
            self._tell_cell(_TOO_LATE)
        return False

    def _abort(self, parts: Sequence[bytes]) -> None:
        """Do as the kernel does with cells that waited behind an error."""
        request = self._signer.read(parts)
        if request is not None:
            self._spokesman.busy(request)
            self._spokesman.answer(SHELL, request, {"status": "aborted"})
