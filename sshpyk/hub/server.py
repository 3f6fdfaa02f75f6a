"""What local processes may ask of the hub: JSON lines on its unix socket.

One connection, one conversation. A stand-in's goes on for the life of its kernel::

    -> {"op": "launch", "request": {"connection_file": …, "python": …, "kernel_name": …, …}}
    <- {"event": "ready", "ticket": {…}}       or  {"event": "failed", "error": {…}}
    -> {"op": "interrupt"} | {"op": "stop", "grace_s": 5} | {"op": "signal", "signal": 10}
    <- {"event": "notice", "text": "gpu1: the connection is down …"}
    <- {"event": "exited", "status": 0}        or  {"event": "failed", "error": {…}}

If it ends before ``exited``, its kernel is killed. When the *hub* was killed, the stand-in starts another
and says ``{"op": "reattach", "request": …, "ticket": …}`` instead of ``launch``.

``{"op": "status"}`` answers one record at once, ``{"op": "survey", "python": …}`` adds what the host
says, and ``{"op": "quit"}`` makes the hub leave. ``login`` is told in :mod:`.login`; ``forward``,
``tunnels`` and ``close_tunnel`` in :mod:`sshpyk.servers.conversation`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any

from sshpyk.errors import HubError, KernelError, SshpykError
from sshpyk.hub.host import HostLink
from sshpyk.hub.kernels import HubKernel, Kernels, LaunchRequest, Outcome, Ticket
from sshpyk.hub.linkstate import LinkState
from sshpyk.hub.login import serve_login
from sshpyk.servers.conversation import TUNNEL_OPERATIONS, serve_tunnels
from sshpyk.servers.tunnels import Tunnels

_Orders = asyncio.Future[dict[str, Any] | None]

_LINE_LIMIT_BYTES = 16 * 1024 * 1024

log = logging.getLogger(__name__)


class Server:
    """See the module."""

    def __init__(self, host: HostLink, kernels: Kernels) -> None:
        self.quit = asyncio.Event()
        self._host = host
        self._kernels = kernels
        self.tunnels = Tunnels(host)
        self._conversations: set[asyncio.Task[None]] = set()
        self.owners: set[_Conversation] = set()
        host.on_notice = self._notify

    @property
    def busy(self) -> bool:
        """Whether anybody is connected or anything lives."""
        return bool(self._conversations) or self._kernels.busy or self.tunnels.busy

    async def listen(self, path: str) -> asyncio.AbstractServer:
        """Begin to accept conversations."""
        return await asyncio.start_unix_server(self._accept, path, limit=_LINE_LIMIT_BYTES)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        try:
            await _Conversation(self, reader, writer).run()
        except asyncio.CancelledError:
            pass  # the hub leaves
        except (ConnectionError, LookupError, TypeError, ValueError, RecursionError) as error:
            log.warning("a conversation ended: %s: %.200s", type(error).__name__, error)
        finally:
            self._conversations.discard(task)
            writer.close()

    def status(self) -> dict[str, Any]:
        """Return the state of the link with the latest reason and, apart from it, each kernel's."""
        target, outage, reason = self._host.target, self._host.outage, self._host.reason
        return {
            "pid": os.getpid(),
            "host": target.host,
            "ssh_config": target.ssh_config,
            # A connection that has fallen silent is up for the dialling, not for people.
            "link": LinkState.DIALING.value if self._host.is_silent else self._host.state.value,
            "reason": None if reason is None else reason.to_record(),
            "away_reason": outage.reason,
            "away_s": outage.duration_s,
            "kernels": self._kernels.summaries(),
        }

    async def survey(self, python: str) -> dict[str, Any]:
        """Return the status with all kernels of this user on the host. Raises what a dial met."""
        await self._host.bring_up(python)
        listed = await self._host.rpc.call("list")
        return {**self.status(), "on_host": listed["kernels"]}

    def _notify(self, text: str) -> None:
        log.warning("%s", text)
        for owner in self.owners:
            owner.notify(text)

    @property
    def host(self) -> HostLink:
        """The link to the host."""
        return self._host

    @property
    def kernels(self) -> Kernels:
        """The kernels in this hub's care."""
        return self._kernels


class _Conversation:
    """One connection of a local process."""

    def __init__(
        self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Answer until the other end goes or its kernel has ended."""
        while True:
            record = await self._read()
            if record is None:
                return
            if record["op"] == "launch":
                request = LaunchRequest(**record["request"])
                await self._own(self._server.kernels.launch(request))
                return
            if record["op"] == "reattach":
                request, ticket = LaunchRequest(**record["request"]), Ticket(**record["ticket"])
                await self._own(self._server.kernels.reattach(request, ticket))
                return
            if record["op"] == "login":
                await self._log_in(record)
                return
            if record["op"] in TUNNEL_OPERATIONS:
                tunnels = self._server.tunnels
                await serve_tunnels(tunnels, record, self._read_order, self._say)
            elif record["op"] == "status":
                self._say(**self._server.status())
            elif record["op"] == "survey":
                await self._survey(record["python"])
            elif record["op"] == "quit":
                self._server.quit.set()
                self._say(event="leaving")
            else:
                error = HubError(f"the hub does not know the operation {record['op']}")
                self._say(event="failed", error=error.to_record())

    async def _survey(self, python: str) -> None:
        try:
            self._say(**await self._server.survey(python))
        except SshpykError as error:
            self._say(event="failed", error=error.to_record())

    def notify(self, text: str) -> None:
        """Tell the owner something that a person should know."""
        self._say(event="notice", text=text)

    async def _log_in(self, record: dict[str, Any]) -> None:
        server = self._server
        await serve_login(
            server.host, lambda: server.kernels.count, record, self._reader, self._writer
        )

    async def _read(self) -> dict[str, Any] | None:
        line = await self._reader.readline()
        return json.loads(line) if line else None

    async def _read_order(self) -> dict[str, Any] | None:
        """Return the owner's next order; None when it has gone, or makes no sense any more."""
        try:
            record = await self._read()
        except (ConnectionError, ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) and "op" in record else None

    def _say(self, **record: Any) -> None:
        self._writer.write(json.dumps(record).encode() + b"\n")

    async def _own(self, getting: Coroutine[Any, Any, HubKernel]) -> None:
        launching = asyncio.ensure_future(getting)
        orders: _Orders = asyncio.ensure_future(self._read_order())
        try:
            orders = await self._listen_during_launch(launching, orders)
            kernel = launching.result()
        except SshpykError as error:
            orders.cancel()
            self._say(event="failed", error=error.to_record())
            return
        self._say(event="ready", ticket=asdict(kernel.ticket))
        kernel.watch(self._ended)
        self._server.owners.add(self)
        try:
            await self._obey(kernel, orders)
        finally:
            self._server.owners.discard(self)

    async def _listen_during_launch(
        self, launching: asyncio.Task[HubKernel], orders: _Orders
    ) -> _Orders:
        """Wait for the launch; give it up when the owner goes or wants the kernel stopped."""
        while not launching.done():
            waits: list[asyncio.Future[Any]] = [launching, orders]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if orders.done() and not launching.done():
                record = orders.result()
                if record is None or record["op"] == "stop":
                    launching.cancel()
                    await asyncio.wait({launching})
                    raise KernelError("stopped while it was starting")
                orders = asyncio.ensure_future(
                    self._read_order()
                )  # there is nothing to interrupt yet
        return orders

    async def _obey(self, kernel: HubKernel, orders: _Orders) -> None:
        """Carry out the owner's orders until the kernel has ended or the owner is gone."""
        over = asyncio.ensure_future(self._over.wait())
        while True:
            waits: list[asyncio.Future[Any]] = [orders, over]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                orders.cancel()
                await self._writer.drain()
                return
            record = orders.result()
            if record is None:
                over.cancel()
                kernel.watch(lambda outcome: None)
                log.info("the owner of kernel %s has gone; ending it", kernel.kernel_id)
                self._server.kernels.abandon(kernel)
                return
            try:
                self._carry_out(kernel, record)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                log.warning("ignored the order %.200s: %r", record, error)
            orders = asyncio.ensure_future(self._read_order())

    def _carry_out(self, kernel: HubKernel, record: dict[str, Any]) -> None:
        kernels = self._server.kernels
        if record["op"] == "interrupt":
            kernels.interrupt(kernel)
        elif record["op"] == "stop":
            kernels.stop(kernel, float(record["grace_s"]))
        elif record["op"] == "signal":
            kernels.signal(kernel, int(record["signal"]))

    def _ended(self, outcome: Outcome) -> None:
        if isinstance(outcome, SshpykError):
            self._say(event="failed", error=outcome.to_record())
        else:
            self._say(event="exited", status=outcome)
        self._over.set()
