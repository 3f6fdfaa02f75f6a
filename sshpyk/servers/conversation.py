"""What local processes may ask of the hub about tunnels; the records are one JSON line each.

::

    -> {"op": "forward", "request": {"listen": {…}, "target": {…}, "python": "python3", …}}
    <- {"event": "forwarding", "tunnel": {…}, "link": {…}}    or  {"event": "failed", "error": {…}}
    -> {"op": "look"}
    <- {"event": "tunnel", "tunnel": {…}, "link": {…}}
    <- {"event": "closed"}          by somebody else, or because the hub leaves

The tunnel is closed when the conversation ends. ``{"op": "tunnels"}`` answers one record with all of a
hub, ``{"op": "close_tunnel", "tunnel": "t12ab"}`` closes one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sshpyk.errors import SshpykError
from sshpyk.servers.tunnels import Tunnel, TunnelRequest, Tunnels

Record = dict[str, Any]
Read = Callable[[], Awaitable[Record | None]]
Say = Callable[..., None]


TUNNEL_OPERATIONS = ("forward", "tunnels", "close_tunnel")


async def serve_tunnels(tunnels: Tunnels, record: Record, read: Read, say: Say) -> None:
    """Do what a record asks for; a ``forward`` takes until its tunnel is closed."""
    if record["op"] == "forward":
        await _serve_forward(tunnels, record, read, say)
    elif record["op"] == "close_tunnel":
        tunnel = tunnels.find(str(record["tunnel"]))
        if tunnel is not None:
            tunnels.close(tunnel)
        say(event="closed", known=tunnel is not None)
    else:
        say(event="tunnels", link=tunnels.state(), tunnels=tunnels.summaries())


async def _serve_forward(tunnels: Tunnels, record: Record, read: Read, say: Say) -> None:
    """Open a tunnel and keep it for as long as its owner is there."""
    opening = asyncio.ensure_future(tunnels.open(TunnelRequest.from_record(record["request"])))
    order = asyncio.ensure_future(read())
    try:
        await asyncio.wait({opening, order}, return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():  # the owner has gone, or does not keep to the order of things
            return
        tunnel = opening.result()
        await _keep(tunnels, tunnel, order, read, say)
    except SshpykError as error:
        say(event="failed", error=error.to_record())
    finally:
        opening.cancel()
        order.cancel()
        await asyncio.wait({opening})
        if not opening.cancelled() and opening.exception() is None:
            tunnels.close(opening.result())


async def _keep(
    tunnels: Tunnels, tunnel: Tunnel, order: asyncio.Future[Record | None], read: Read, say: Say
) -> None:
    closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    tunnel.on_closed = lambda: closed.set_result(None)
    say(event="forwarding", tunnel=tunnel.summary(), link=tunnels.state())
    try:
        while True:
            waits: set[asyncio.Future[Any]] = {order, closed}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if closed.done():
                say(event="closed")
                return
            if order.result() is None:
                return
            say(event="tunnel", tunnel=tunnel.summary(), link=tunnels.state())
            order = asyncio.ensure_future(read())
    finally:
        order.cancel()
