"""How a kernel comes into the hub's care: it is started on the host, or attached to where it runs.

Those of a hub that was killed are :meth:`.Kernels.reattach`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from sshpyk.errors import LinkLost, SshpykError
from sshpyk.hub import connection_file
from sshpyk.hub.departures import Departures
from sshpyk.hub.endpoint_pool import EndpointPool
from sshpyk.hub.endpoints import Endpoints
from sshpyk.hub.host import HostLink
from sshpyk.hub.kernel_mounts import mount_for_launch, mount_for_running
from sshpyk.hub.kernel_start import STARTING, KernelStart, new_kernel_id
from sshpyk.hub.launch_timeout import timed_out
from sshpyk.hub.mounts import Mounts
from sshpyk.hub.requests import HubKernel, LaunchRequest, Ticket, owner
from sshpyk.hub.successors import Successors
from sshpyk.wire.rpc import Params

log = logging.getLogger(__name__)


class Arrivals:
    """See the module.

    ``join`` puts a kernel behind its local sockets, with its first answer to kernel_info_request;
    ``abandon`` gets one that came when nobody wanted it any more.
    """

    def __init__(
        self,
        host: HostLink,
        mounts: Mounts,
        pool: EndpointPool,
        departures: Departures,
        join: Callable[[HubKernel, str], None],
        abandon: Callable[[HubKernel], None],
    ) -> None:
        self._host = host
        self._mounts = mounts
        self._pool = pool
        self._departures = departures
        self._join = join
        self._abandon = abandon
        self.successors = Successors(host)
        self._coming: set[str] = set()
        self._welcoming: set[str] = set()  # they greet already, and have not come yet

    @property
    def under_way(self) -> set[str]:
        """The ids of kernels that are about to come."""
        return self._coming | self.successors.kernel_ids

    async def launch(self, request: LaunchRequest) -> HubKernel:
        """Start a kernel and join it to its local sockets; nothing stays behind if that fails.

        Raises what went wrong: a HostError, a KernelError (LaunchTimeout among them), a HubError.
        """
        return await self._within_timeout(request, self._launch_on_a_living_link(request))

    async def attach(self, kernel_id: str, request: LaunchRequest) -> HubKernel:
        """Carry a kernel that runs already, and write the connection file that leads to it.

        What it said while nobody carried it is handed to the first client. Raises as :meth:`launch`;
        KernelInUse where somebody else has the kernel.
        """
        request = replace(request, persistent=True)
        return await self._within_timeout(request, self._attach(kernel_id, request))

    async def _within_timeout(
        self, request: LaunchRequest, getting: Coroutine[Any, Any, HubKernel]
    ) -> HubKernel:
        starting = asyncio.ensure_future(getting)
        try:
            done, _ = await asyncio.wait({starting}, timeout=request.launch_timeout_s)
            if done:
                return starting.result()
        except asyncio.CancelledError:
            if starting.done() and not starting.cancelled() and not starting.exception():
                self._abandon(starting.result())  # it came up in the moment that it was given up
            raise
        finally:
            starting.cancel()
        raise timed_out(request, self._host)

    async def _launch_on_a_living_link(self, request: LaunchRequest) -> HubKernel:
        """Launch; once more on the next link where this one turns out to be lost.

        An agent that has nothing to hold leaves while a laptop sleeps. What was lost with the link is
        told to its owners; this launch had only begun, and its kernel is nowhere.
        """
        deadline_s = asyncio.get_running_loop().time() + request.launch_timeout_s
        try:
            return await self._launch(request, deadline_s)
        except LinkLost as error:
            log.info("launching again: %s", error.what)
            return await self._launch(request, deadline_s)

    async def _launch(self, request: LaunchRequest, deadline_s: float) -> HubKernel:
        bringing_up = asyncio.ensure_future(self._host.bring_up(request.python))
        # A request that rode along with the first HELLO fails as the dial does, and says it.
        bringing_up.add_done_callback(self._note_up)
        endpoints: Endpoints | None = None
        kernel_id = new_kernel_id()
        try:
            endpoints = self._pool.take(connection_file.read(request.connection_file))
            start = self.successors.take(request, endpoints.info)
            if start is not None:
                return await self._come(start, request, endpoints)
            waits_for_link = request.mounted_folders or request.activate  # its time begins then
            if not waits_for_link:
                await _first_of(bringing_up, self._host.takes_requests.wait())
            if waits_for_link or not self._host.takes_requests.is_set():
                await bringing_up
            request, missing = await mount_for_launch(self._mounts, kernel_id, request)
            start = KernelStart(self._host, kernel_id, request, endpoints.info, deadline_s)
            kernel = await self._come(start, request, endpoints)
            kernel.notice = "; ".join(filter(None, (*missing, kernel.notice)))
            return kernel
        except BaseException as error:
            bringing_up.cancel()
            self._mounts.release(kernel_id)
            if endpoints is not None and isinstance(error, LinkLost):
                self._pool.keep(endpoints)
            elif endpoints is not None:
                endpoints.close()
            if isinstance(error, SshpykError) and not error.host:
                error.host = self._host.target.host
            raise

    def _note_up(self, bringing_up: asyncio.Task[None]) -> None:
        if not bringing_up.cancelled() and bringing_up.exception() is None:
            self._host.phase = STARTING

    async def _come(
        self, start: KernelStart, request: LaunchRequest, endpoints: Endpoints
    ) -> HubKernel:
        """Join a kernel to its local sockets when it is there."""
        self._coming.add(start.kernel_id)
        try:
            started = await start.answer
        except BaseException:
            start.give_up()
            raise
        finally:
            self._coming.discard(start.kernel_id)
        ticket = Ticket(start.kernel_id, start.streams, started["pid"])
        kernel = HubKernel(ticket, request, endpoints)
        kernel.notice = started.get("notice", "")
        self._join(kernel, started.get("kernel_info", ""))
        self._greet(kernel, started)
        return kernel

    async def _attach(self, kernel_id: str, request: LaunchRequest) -> HubKernel:
        try:
            await self._host.bring_up(request.python)
            return await self._join_running(kernel_id, request)
        except SshpykError as error:
            error.host = error.host or self._host.target.host
            raise

    async def _join_running(self, kernel_id: str, request: LaunchRequest) -> HubKernel:
        rpc, streams = self._host.rpc, self._host.new_streams(2)
        self._host.phase = "attaching to the kernel"
        self._coming.add(kernel_id)
        try:
            found = await rpc.call(
                "attach",
                kernel_id=kernel_id,
                streams=streams,
                owner=owner(),
                takeover=request.takeover,
            )
            info = connection_file.for_attaching(request.connection_file, found)
            endpoints = self._pool.take(info)
            connection_file.write(request.connection_file, info)
        except BaseException:
            # Also when we only gave up waiting: the request may be on its way, and this follows it.
            self._departures.tell(kernel_id, streams)
            raise
        finally:
            self._coming.discard(kernel_id)
        request = replace(request, kernel_name=found["kernel_name"])
        kernel = HubKernel(Ticket(kernel_id, streams, found["pid"]), request, endpoints)
        endpoints.hold_for_client()
        self._join(kernel, "")
        try:
            kernel.notice = await mount_for_running(self._mounts, kernel)
        except BaseException:
            self._abandon(kernel)
            raise
        self._greet(kernel, found)
        return kernel

    def welcomes(self, kernel_id: str) -> None:
        """Note that a kernel greets its subscribers, which was told before the kernel has come."""
        if kernel_id in self.under_way:
            self._welcoming.add(kernel_id)

    def _greet(self, kernel: HubKernel, told: Params) -> None:
        early = kernel.kernel_id in self._welcoming
        self._welcoming.discard(kernel.kernel_id)
        if (told["welcomes"] or early) and not kernel.has_ended:
            kernel.endpoints.greet_subscribers()


async def _first_of(first: asyncio.Future[None], other: Coroutine[Any, Any, Any]) -> None:
    """Return when one of the two is done; ``other`` is given up then."""
    waiting = asyncio.ensure_future(other)
    try:
        await asyncio.wait({first, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
