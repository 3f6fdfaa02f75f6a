"""What local processes may ask of the hub about tunnels; the records are one JSON line each.

::

    -> {"op": "forward", "request": {"listen": {…}, "target": {…}, "python": "python3", …}}
    <- {"event": "forwarding", "tunnel": {…}, "link": {…}}    or  {"event": "failed", "error": {…}}
    -> {"op": "look"}
    <- {"event": "tunnel", "tunnel": {…}, "link": {…}}
    <- {"event": "closed"}          by somebody else, or because the hub leaves

The tunnel is closed when the conversation ends. ``{"op": "tunnels"}`` answers one record with all of a
hub, ``{"op": "close_tunnel", "tunnel": "t12ab"}`` closes one.

A Jupyter server takes a step more, and ends with the conversation unless it is kept::

    -> {"op": "serve", "request": {"server_id": "s3f2a", "start": true, "app": "lab", "port": 0, …}}
    <- {"event": "progress", "text": "starting the server"}
    <- {"event": "serving", "server": {…, "token": "…"}}, then as for ``forward``
    <- {"event": "closed", "reason": "it ended with status 0"}

``forward`` with a ``server`` does the second half again, for the next hub.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sshpyk.errors import SshpykError
from sshpyk.servers.jupyter import Servers
from sshpyk.servers.tunnels import Tunnel, TunnelRequest, Tunnels
from sshpyk.wire.endpoint import Endpoint

Record = dict[str, Any]
Read = Callable[[], Awaitable[Record | None]]
Say = Callable[..., None]


TUNNEL_OPERATIONS = ("forward", "serve", "tunnels", "close_tunnel")


async def serve_tunnels(
    tunnels: Tunnels, servers: Servers, record: Record, read: Read, say: Say
) -> None:
    """Do what a record asks for; a ``forward`` takes until its tunnel is closed."""
    if record["op"] == "forward":
        request = TunnelRequest.from_record(record["request"])
        await _Keeper(tunnels, servers, read, say).keep(_given(request, record.get("server")))
    elif record["op"] == "serve":
        await _Keeper(tunnels, servers, read, say).keep(_served(servers, record["request"], say))
    elif record["op"] == "close_tunnel":
        tunnel = tunnels.find(str(record["tunnel"]))
        if tunnel is not None:
            tunnels.close(tunnel)
        say(event="closed", known=tunnel is not None)
    else:
        say(event="tunnels", link=tunnels.state(), tunnels=tunnels.summaries())


_Wanted = tuple[TunnelRequest, str]  # what to open, and the server that hangs on it, if one does


async def _given(request: TunnelRequest, server_id: Any) -> _Wanted:
    return request, str(server_id or "")


async def _served(servers: Servers, request: Record, say: Say) -> _Wanted:
    """Start or open a server; return the tunnel that leads to it."""
    listen = Endpoint("localhost", int(request["port"]))
    if not request.get("any_port"):
        Tunnels.check(listen)  # before anything is started
    server = await servers.obtain(request, lambda text: say(event="progress", text=text))
    say(event="serving", server=server)
    target, python = Endpoint.from_record(server["target"]), str(request["agent_python"])
    any_port = bool(request.get("any_port"))
    return TunnelRequest(listen, target, python, any_port=any_port), server["server_id"]


class _Keeper:
    """Opens one tunnel and keeps it for as long as its owner is there."""

    def __init__(self, tunnels: Tunnels, servers: Servers, read: Read, say: Say) -> None:
        self._tunnels = tunnels
        self._servers = servers
        self._read = read
        self._say = say
        self._server_id = ""
        self._tunnel: Tunnel | None = None
        self._reason = ""
        self._failure: SshpykError | None = None

    async def keep(self, wanted: Awaitable[_Wanted]) -> None:
        """Do it; return when it is closed, or the owner has gone."""
        opening = asyncio.ensure_future(self._open(wanted))
        order = asyncio.ensure_future(self._read())
        try:
            await asyncio.wait({opening, order}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():  # else the owner has gone, or does not keep to the order of things
                await self._keep(opening.result(), order)
        except SshpykError as error:
            self._say(event="failed", error=error.to_record())
        finally:
            opening.cancel()
            order.cancel()
            await asyncio.wait({opening})
            if not opening.cancelled() and opening.exception() is None:
                self._tunnels.close(opening.result())
            if self._server_id:
                self._servers.release(self._server_id, self._server_ended)

    async def _open(self, wanted: Awaitable[_Wanted]) -> Tunnel:
        request, self._server_id = await wanted
        if self._server_id:
            self._servers.hold(self._server_id, self._server_ended)
        return await self._tunnels.open(request)

    def _server_ended(self, how: str, error: SshpykError | None) -> None:
        self._reason, self._failure = how, error
        if self._tunnel is not None:
            self._tunnels.close(self._tunnel)

    async def _keep(self, tunnel: Tunnel, order: asyncio.Future[Record | None]) -> None:
        self._tunnel = tunnel
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        tunnel.on_closed = lambda: closed.set_result(None)
        self._say(event="forwarding", tunnel=tunnel.summary(), link=self._tunnels.state())
        if self._reason and not tunnel.closed:  # the server has ended meanwhile
            self._tunnels.close(tunnel)
        try:
            while True:
                waits: set[asyncio.Future[Any]] = {order, closed}
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if closed.done():
                    if self._failure is not None:
                        raise self._failure
                    self._say(event="closed", reason=self._reason)
                    return
                if order.result() is None:
                    return
                self._say(event="tunnel", tunnel=tunnel.summary(), link=self._tunnels.state())
                order = asyncio.ensure_future(self._read())
        finally:
            order.cancel()
