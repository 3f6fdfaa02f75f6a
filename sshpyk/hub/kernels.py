"""The kernels in the hub's care: interrupt, leave, stop, and the end of each (they come by ``arrivals``).

A kernel has an owner, the stand-in that asked for it; when the owner goes without a word the kernel
is killed, as a local one would be, or left if it is persistent. The local sockets outlive the kernel
for a while, so that a restart finds its clients still connected.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sshpyk.errors import HubError, KernelTaken, SshpykError
from sshpyk.hub import connection_file
from sshpyk.hub.arrivals import Arrivals
from sshpyk.hub.departures import Departures
from sshpyk.hub.endpoint_pool import EndpointPool
from sshpyk.hub.host import HostLink
from sshpyk.hub.mounts import Mounts
from sshpyk.hub.requests import HubKernel, LaunchRequest, Left, Taken, Ticket
from sshpyk.wire.driver import LinkDriver

SUBSCRIPTION_PATIENCE_S = 3.0  # a client needs 0.1 s or more to come back to its endpoints
LATE_CLIENT_S = 15.0  # on a busy machine; its output waits, the rest goes on
LEAVE_PATIENCE_S = 5.0  # for the agent's word that a kernel was left


log = logging.getLogger(__name__)


class Kernels:
    """All kernels of one hub, by id, and the local sockets that wait for a restart."""

    def __init__(self, host: HostLink, mounts: Mounts | None = None) -> None:
        self._host = host
        self.mounts = mounts or Mounts(host)
        self._pool = EndpointPool(lambda: host.outage.duration_s is not None)
        self._kernels: dict[str, HubKernel] = {}
        self._stopping: dict[str, float] = {}  # with what grace
        self._taken: dict[str, Taken] = {}  # while nobody stood in for them
        self._departures = Departures(host)
        self._arrivals = Arrivals(
            host, self.mounts, self._pool, self._departures, self._join, self.abandon
        )
        self._stand_ins_may_come = host.took_over
        self._ending_orphans: asyncio.Task[None] | None = None
        host.on_lost_link = self._fail_all
        host.on_agent_replaced = self._agent_replaced
        host.on_kernel_welcomes = self._welcomes
        host.on_kernel_taken = self._note_taken

    @property
    def busy(self) -> bool:
        """Whether any kernel lives or any local socket is bound."""
        return bool(self._kernels or self._pool.busy or self._departures.busy)

    @property
    def count(self) -> int:
        """How many kernels live."""
        return len(self._kernels)

    def summaries(self) -> list[dict[str, Any]]:
        """Describe each kernel for ``sshpyk ps``. Without the link nobody knows how it is."""
        return [
            {
                "kernel_id": kernel.kernel_id,
                "name": kernel.request.kernel_name,
                "pid": kernel.ticket.pid,
                "session": kernel.request.session,
                "persistent": kernel.request.persistent,
                "state": "alive"
                if self._host.is_up and not self._host.is_silent
                else "unreachable",
            }
            for kernel in self._kernels.values()
        ]

    async def launch(self, request: LaunchRequest) -> HubKernel:
        """Start a kernel; see :meth:`.Arrivals.launch`."""
        return await self._arrivals.launch(request)

    async def attach(self, kernel_id: str, request: LaunchRequest) -> HubKernel:
        """Carry a kernel that runs already; see :meth:`.Arrivals.attach`."""
        return await self._arrivals.attach(kernel_id, request)

    def _join(self, kernel: HubKernel, kernel_info: str = "") -> None:
        self._kernels[kernel.kernel_id] = kernel
        main, control = kernel.ticket.streams
        kernel.endpoints.attach(
            self._host.driver,
            (main, control),
            lambda status: self._ended(kernel, status),
            kernel.request.limits,
            kernel_info,
        )

    async def reattach(self, request: LaunchRequest, ticket: Ticket) -> HubKernel:
        """Take a kernel over from a hub that was killed; its clients find the same endpoints.

        Raises a HubError when this hub knows nothing of the link that the kernel was on.
        """
        if not self._host.took_over:
            raise HubError(
                "the hub that was killed left no notes, or what they lead to is gone",
                host=self._host.target.host,
                phase="taking the kernel over",
            )
        taken = self._taken.pop(ticket.kernel_id, None)
        if taken is not None:
            raise KernelTaken(
                f"the kernel was taken over by {taken.by}", advice=KernelTaken.TAKE_BACK
            )
        kernel = HubKernel(
            ticket, request, self._pool.take(connection_file.read(request.connection_file))
        )
        self._kernels[kernel.kernel_id] = kernel
        driver = self._host.driver
        self._host.keep_up(request.python)
        try:
            await kernel.endpoints.wait_resubscribed(SUBSCRIPTION_PATIENCE_S)
        except BaseException:
            self.abandon(kernel)
            if not request.persistent:
                _abandon_unclaimed(driver, ticket.streams)
            raise
        if self._kernels.get(kernel.kernel_id) is not kernel:  # lost, left or taken over meanwhile
            if kernel.has_ended:
                _abandon_unclaimed(driver, ticket.streams)
            return kernel
        kernel.endpoints.hold_for_client()
        if request.kernel_name:  # else it was attached to, and its first client may be hours away
            loop = asyncio.get_running_loop()
            loop.call_later(LATE_CLIENT_S, kernel.endpoints.end_hold)
        self._join(kernel)
        if request.mounted_folders:
            self.mounts.remount(kernel.kernel_id, request.mounted_folders)
        self._host.rpc.notify("welcomes", kernel_id=kernel.kernel_id)
        return kernel

    async def end_orphans(self) -> None:
        """End the kernels of a killed hub whose stand-ins did not come back.

        After the agent was replaced: those that it had been asked to end.
        """
        self._stand_ins_may_come = False
        try:
            listed = await self._host.rpc.call("list")
        except SshpykError as error:
            log.warning("kernels without an owner were not looked for: %s", error)
            return
        ours = self._kernels.keys() | self._arrivals.under_way
        for found in listed["kernels"]:
            if not found["mine"]:
                self._taken_unheard(found)
            elif found["kernel_id"] not in ours:
                self._end_orphan(found)

    def _end_orphan(self, found: dict[str, Any]) -> None:
        kernel_id = found["kernel_id"]
        if found.get("persistent"):
            log.warning("leaving kernel %s: its stand-in has gone", kernel_id)
            self._departures.tell(kernel_id, found["streams"])
        else:
            log.warning("ending kernel %s: its stand-in has gone", kernel_id)
            self._host.rpc.notify("stop", kernel_id=kernel_id, grace_s=0)
            _abandon_unclaimed(self._host.driver, found.get("streams", []))

    def _taken_unheard(self, found: dict[str, Any]) -> None:
        """A kernel is another's by now, and the agent that was to tell us was killed before."""
        kernel = self._kernels.get(found["kernel_id"])
        if kernel is not None:
            by = found.get("owner") or "another sshpyk"
            self._note_taken(kernel.kernel_id, kernel.ticket.streams, by)

    def _welcomes(self, kernel_id: str) -> None:
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            self._arrivals.welcomes(kernel_id)
        else:
            kernel.endpoints.greet_subscribers()

    # What may be asked of a kernel

    def interrupt(self, kernel: HubKernel) -> None:
        """Interrupt the running cell, in the way that the host's kernelspec asks for."""
        seen = kernel.endpoints.seen
        self._order("interrupt", kernel, seen=seen)

    def signal(self, kernel: HubKernel, number: int) -> None:
        """Send a signal to the kernel's process group."""
        self._order("signal", kernel, signal=number)

    def stop(self, kernel: HubKernel, grace_s: float) -> None:
        """End a kernel: politely if there is grace, then by force. Its exit is told as any other."""
        self._stopping[kernel.kernel_id] = grace_s
        kernel.endpoints.end_hold()
        self._order("stop", kernel, grace_s=grace_s)

    def _order(self, op: str, kernel: HubKernel, **params: Any) -> None:
        """Ask for something that is for this kernel as we carry it, and not for who has taken it over."""
        ticket = kernel.ticket
        self._host.rpc.notify(op, kernel_id=kernel.kernel_id, streams=ticket.streams, **params)

    def _agent_replaced(self) -> None:
        """Ask anew for what the dead agent had not brought to its end."""
        self.mounts.agent_replaced()
        for kernel_id in self._kernels.keys() & self._stopping.keys():
            self._order("stop", self._kernels[kernel_id], grace_s=self._stopping[kernel_id])
        if not self._stand_ins_may_come:
            self._ending_orphans = asyncio.ensure_future(self.end_orphans())

    def abandon(self, kernel: HubKernel) -> None:
        """End a kernel whose owner has gone; its sockets are there for the next one at once.

        A persistent one is left.
        """
        if kernel.request.persistent and kernel.kernel_id not in self._stopping:
            self.leave(kernel)
            return
        self.stop(kernel, grace_s=0)
        if kernel.kernel_id in self._kernels:
            self._let_go(kernel)

    def leave(self, kernel: HubKernel) -> None:
        """Let a kernel go on without us; what its clients have not got waits on the host."""
        if kernel.kernel_id not in self._kernels or kernel.kernel_id in self._stopping:
            return  # it has ended in this moment, or is to
        self._let_go(kernel, keep_unread=True)
        telling = self._departures.tell(kernel.kernel_id, kernel.ticket.streams)
        telling.add_done_callback(lambda _: kernel.end(Left(told=True)))
        loop = asyncio.get_running_loop()
        loop.call_later(LEAVE_PATIENCE_S, lambda: kernel.end(Left(told=False)))

    def find(self, *, connection_file: str = "", kernel_id: str = "") -> HubKernel | None:
        """Return the kernel of an id, or of a local connection file."""
        for kernel in self._kernels.values():
            if kernel.kernel_id == kernel_id or kernel.request.connection_file == connection_file:
                return kernel
        return None

    async def stop_all(self) -> None:
        """End every kernel that an owner has left behind; called when the hub leaves.

        Those that are persistent are left.
        """
        self._arrivals.successors.give_up_all()
        for kernel in list(self._kernels.values()):
            if kernel.request.persistent:
                self.leave(kernel)
        for kernel_id, kernel in list(self._kernels.items()):
            streams = kernel.ticket.streams
            await self._host.rpc.call("stop", kernel_id=kernel_id, streams=streams, grace_s=0)
        await self._departures.wait()

    # Ends

    def _ended(self, kernel: HubKernel, status: int) -> None:
        log.info("kernel %s ended with status %d", kernel.kernel_id, status)
        self._let_go(kernel)
        if kernel.endpoints.restarts:
            self._arrivals.successors.ask_for(kernel.request, kernel.endpoints.info)
        kernel.end(status)

    def _fail_all(self, error: SshpykError) -> None:
        self._arrivals.successors.give_up_all()
        for kernel in list(self._kernels.values()):
            self._let_go(kernel)
            kernel.end(error)

    def _note_taken(self, kernel_id: str, streams: list[int], by: str) -> None:
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            if self._stand_ins_may_come:
                self._taken[kernel_id] = Taken(by)
            return
        if kernel.ticket.streams == streams:
            log.warning("kernel %s was taken over by %s", kernel_id, by)
            self._let_go(kernel)
            kernel.end(Taken(by))

    def _let_go(self, kernel: HubKernel, *, keep_unread: bool = False) -> None:
        """Keep the local sockets for the kernel that a restart will put behind them."""
        self._kernels.pop(kernel.kernel_id, None)
        self.mounts.release(kernel.kernel_id)
        self._stopping.pop(kernel.kernel_id, None)
        kernel.endpoints.detach(keep_unread=keep_unread)
        self._pool.keep(kernel.endpoints)

    def close(self) -> None:
        """Unbind everything."""
        for kernel in self._kernels.values():
            kernel.endpoints.close()
        self._pool.close()


def _abandon_unclaimed(driver: LinkDriver, streams: list[int]) -> None:
    """Let go of a kernel's streams that nobody reads: its end would wait there for us for ever."""
    for stream in streams:
        driver.abandon(stream)
