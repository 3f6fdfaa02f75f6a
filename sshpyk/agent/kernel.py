"""One kernel in the agent's care: its process, its channels, and what may be asked of it.

States: STARTING -> RUNNING -> ENDED; a kernel that dies while it starts goes straight to ENDED.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import shlex
import signal
from typing import Any, Awaitable, Callable

from sshpyk.agent.answers import Answers
from sshpyk.agent.channels import KernelChannels, Streams
from sshpyk.agent.process import KernelProcess
from sshpyk.errors import KernelDied
from sshpyk.wire.driver import LinkDriver

_CONNECT_POLL_S = (0.005, 0.02)
_TERM_GRACE_S = 1.0

log = logging.getLogger(__name__)


class KernelState(enum.Enum):
    """Where a kernel is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


class Kernel:
    """See the module. ``driver`` is the link that carries the kernel's streams."""

    def __init__(
        self, kernel_id: str, process: KernelProcess, driver: LinkDriver, streams: Streams
    ) -> None:
        self.kernel_id = kernel_id
        self.process = process
        self.driver = driver
        self.state = KernelState.STARTING
        self.status: int | None = None
        self._channels = KernelChannels(process.info, driver, streams)
        self._answers = Answers(process, self._channels)
        self._ended = asyncio.Event()

    async def wait_ready(self) -> None:
        """Return when the kernel listens. Raises :class:`KernelDied` with its last words."""
        fastest_s, slowest_s = _CONNECT_POLL_S
        pause_s = fastest_s
        while self.state is KernelState.STARTING and not self._channels.try_connect():
            await asyncio.sleep(pause_s)
            pause_s = min(slowest_s, pause_s * 1.2)
        if await self._either(self._channels.wait_listening(), self._ended.wait()):
            raise self._death()
        self.state = KernelState.RUNNING

    async def _either(self, wanted: Awaitable[Any], end: Awaitable[Any]) -> bool:
        """Wait for one of the two; return whether the kernel has ended."""
        waits = [asyncio.ensure_future(wanted), asyncio.ensure_future(end)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return self.state is KernelState.ENDED

    def _death(self) -> KernelDied:
        return KernelDied(
            f"the kernel ended with {describe_status(self.status)} before it was ready",
            phase="starting the kernel",
            said=self.process.log_tail() or "(the kernel printed nothing)",
            advice=_advice(self.process.log_tail(), self.process.spec.argv),
        )

    @property
    def welcomes(self) -> bool:
        """Whether the kernel greets new subscribers of iopub (JEP 65)."""
        return self._channels.welcomes

    def tell_welcome(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` if :attr:`welcomes` turns out only later."""
        self._channels.on_welcome = tell

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
        if was_running:
            self._channels.finish(status)
        else:
            self._channels.close()
        self.process.remove_files()
        self._ended.set()
        return False

    # What may be asked of it

    def interrupt(self, seen: int) -> None:
        """Interrupt the cell that runs, or ran when the client had been handed ``seen`` messages."""
        self._answers.interrupt(seen)

    async def stop(self, grace_s: float) -> None:
        """End the kernel: ask it, then SIGTERM, then SIGKILL. With no grace, at once."""
        if grace_s > 0 and self.state is KernelState.RUNNING:
            # A client that asked already has waited as long as it cares to.
            if not self._answers.shutdown_asked:
                self._answers.inject("shutdown_request", {"restart": False})
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


def describe_status(status: int | None) -> str:
    """Return an exit status in words."""
    if status is not None and status < 0:
        try:
            return f"signal {signal.Signals(-status).name}"
        except ValueError:
            return f"signal {-status}"
    return f"status {status}"


def _advice(log_tail: str, argv: list[str]) -> str:
    if "No module named" in log_tail and "ipykernel" in log_tail:
        return "install it on the host, in that environment: python -m pip install ipykernel"
    return f"its command on the host was: {shlex.join(argv)}"


def summary(kernel: Kernel) -> dict[str, Any]:
    """Return what is known of a kernel, for lists."""
    return {
        "kernel_id": kernel.kernel_id,
        "name": kernel.process.info["kernel_name"],
        "pid": kernel.process.pid,
        "state": kernel.state.value,
    }
