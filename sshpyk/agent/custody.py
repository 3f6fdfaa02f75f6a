"""Who carries which kernel: what a hub may ask to leave one, to attach to one, and to see them all.

Attaching to a kernel that another link carries is a takeover: the newest wins, the other hub is told
who, and its streams end. What that hub's clients had asked and the agent had not got yet is dropped.
"""

from __future__ import annotations

import logging
import os
import subprocess
from typing import Any

from sshpyk.agent.book import Book
from sshpyk.agent.kernel import Kernel, KernelState
from sshpyk.agent.record import boot_id
from sshpyk.errors import KernelDied, KernelError, KernelInUse
from sshpyk.wire.clock import now_s
from sshpyk.wire.driver import LinkDriver
from sshpyk.wire.rpc import Operation, Params

_LONGEST_LABEL = 200
_PHASE = "attaching to the kernel"

log = logging.getLogger(__name__)


def label(value: object) -> str:
    """Return what a hub calls its user or a notebook: text to be shown, of a sensible length."""
    return value[:_LONGEST_LABEL] if isinstance(value, str) else ""


class Custody:
    """The operations of one link."""

    def __init__(self, driver: LinkDriver, book: Book, sockets: str) -> None:
        self._driver = driver
        self._book = book
        self._sockets = sockets
        self.operations: dict[str, Operation] = {
            "leave": self._leave,
            "attach": self._attach,
            "list": self._list,
            "gc": self._gc,
        }

    async def _leave(self, params: Params) -> Params:
        """Keep a kernel that this link carries; one that it does not carry any more is no error."""
        kernel = self._book.find(params["kernel_id"])
        if kernel is not None and kernel.is_carried_by(self._driver, params.get("streams")):
            self._book.leave(kernel)
        for stream in params.get("streams") or []:
            self._driver.abandon(stream)
        return {}

    async def _attach(self, params: Params) -> Params:
        main, control = params["streams"]
        try:
            kernel = self._find(params["kernel_id"])
            if not kernel.is_carried_by(self._driver, [main, control]):  # else we are asked again
                self._take(kernel, (main, control), params)
        except BaseException:
            for stream in (main, control):
                self._driver.abandon(stream)
            raise
        log.info("kernel %s is attached to", kernel.kernel_id)
        info = kernel.process.info
        return {
            "pid": kernel.process.pid,
            "kernel_name": info["kernel_name"],
            "key": info["key"],
            "signature_scheme": info["signature_scheme"],
            "interrupt_mode": kernel.process.spec.interrupt_mode,
            "language": kernel.process.spec.language,
            "welcomes": kernel.welcomes,
        }

    def _find(self, kernel_id: str) -> Kernel:
        kernel = self._book.find(kernel_id)
        if kernel is None:
            raise KernelDied("there is no such kernel on the host any more", phase=_PHASE)
        if kernel.state is KernelState.STARTING:
            raise KernelError("the kernel is still starting", phase=_PHASE, advice="try again")
        return kernel

    def _take(self, kernel: Kernel, streams: tuple[int, int], params: Params) -> None:
        owner = label(params.get("owner"))
        mine_and_away = kernel.record.owner == owner and kernel.driver.carrier is None
        if not (params.get("takeover") or self._book.is_left(kernel) or mine_and_away):
            raise KernelInUse(
                f"kernel {kernel.kernel_id[:8]} is in use by {_who(kernel)}"
                f" ({self._carried(kernel)})",
                phase=_PHASE,
                advice="take it over with --takeover: it goes on here and is told to end there",
            )
        by = owner or "another sshpyk"
        self._book.tell(kernel, "taken", streams=list(kernel.streams), by=by)
        self._book.attach(kernel, self._driver, streams)
        kernel.note(owner=owner)

    def _carried(self, kernel: Kernel) -> str:
        if self._book.is_left(kernel):
            return "left"
        return "connected" if kernel.driver.carrier is not None else "away"

    async def _list(self, params: Params) -> Params:
        """Describe every kernel; an owner that asks is heard of."""
        self._book.hear_of(label(params.get("owner")))
        found = sorted(self._book.unheard, key=lambda one: one.record.born_s)
        return {"kernels": [self._describe(kernel) for kernel in found if self._is_told(kernel)]}

    def _is_told(self, kernel: Kernel) -> bool:
        return kernel.state is not KernelState.ENDED or self._book.is_left(kernel)

    def _describe(self, kernel: Kernel) -> dict[str, Any]:
        record = kernel.record
        mine = kernel.driver is self._driver
        return {
            "kernel_id": kernel.kernel_id,
            "name": kernel.process.info["kernel_name"],
            "pid": kernel.process.pid,
            "state": kernel.activity,
            "status": kernel.status,
            "owner": record.owner,
            "session": record.session,
            "persistent": record.persistent,
            "mounts": list(record.mounts),
            "carried": self._carried(kernel),
            "mine": mine,
            "streams": list(kernel.streams) if mine else [],
            "started_s": record.born_s,
            "idle_s": max(0.0, now_s() - kernel.active_s),
            "memory_bytes": resident_bytes(kernel.process.pid),
            "lease_s": self._book.lease_s(kernel),
            "waiting_bytes": kernel.driver.link.backlog_bytes(kernel.streams.main),
        }

    async def _gc(self, params: Params) -> Params:
        """End kernels that nobody carries and that were idle for ``idle_s``; sweep what is stale.

        Without ``idle_s`` only those that have ended go, and those whose lease is over. Returns what
        was (``dry_run``: would be) done.
        """
        idle_s, dry_run = params.get("idle_s"), bool(params.get("dry_run"))
        ended = []
        for kernel in list(self._book.unheard):
            if self._is_over(kernel, idle_s):
                ended.append(self._describe(kernel))
                if not dry_run:
                    await kernel.stop(0)
                    self._book.discard(kernel)
        swept = self._book.sweep_stale(self._sockets, boot_id(), dry_run=dry_run)
        return {"ended": ended, "swept": swept}

    def _is_over(self, kernel: Kernel, idle_s: float | None) -> bool:
        left = self._book.is_left(kernel)
        if left and (kernel.state is KernelState.ENDED or self._book.lease_s(kernel) < 0):
            return True
        if kernel.driver.carrier is not None or kernel.activity != "idle" or idle_s is None:
            return False
        return now_s() - kernel.active_s >= idle_s


def _who(kernel: Kernel) -> str:
    record = kernel.record
    session = f" for {record.session}" if record.session else ""
    return (record.owner or "another sshpyk") + session


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has; 0 when it has gone."""
    try:
        with open("/proc/%d/statm" % pid) as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    if os.path.isdir("/proc/self"):
        return 0
    asked = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True)
    said = asked.stdout.strip()
    return int(said) * 1024 if said.isdigit() else 0
