"""Tunnels at the host's end: connections to what listens here, and from what connects here.

All numbers of streams are the hub's. A tunnel that listens here asks the hub for one (``accept``) for
each connection; the hub connects to its own target before it answers.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any, Awaitable, Callable

from sshpyk.errors import SshpykError, TunnelError
from sshpyk.wire.bytestream import Allowance, ByteStream, SocketEnds
from sshpyk.wire.driver import LinkDriver
from sshpyk.wire.endpoint import Endpoint, Listener
from sshpyk.wire.rpc import Operation, Params

log = logging.getLogger(__name__)


class _Tunnel:
    """One tunnel: where connections of the hub's go, or where we listen."""

    def __init__(self, target: Endpoint | None) -> None:
        self.target = target
        self.listener: Listener | None = None
        self.streams: set[ByteStream] = set()
        self.closed = False

    @property
    def answer(self) -> Params:
        return {"listens": self.listener.endpoint.to_record()} if self.listener else {}

    def close(self) -> None:
        self.closed = True
        if self.listener is not None:
            self.listener.close()
        for stream in list(self.streams):
            stream.abort()


class Forwards:
    """The tunnels of one link; ``call`` asks the hub. See ``operations`` for what it may ask."""

    def __init__(self, driver: LinkDriver, call: Callable[..., Awaitable[Params]]) -> None:
        self._driver = driver
        self._call = call
        self._allowance = Allowance(driver)
        self._tunnels: dict[str, _Tunnel] = {}
        self._accepting: set[asyncio.Task[None]] = set()
        self.operations: dict[str, Operation] = {
            "forward": self._forward,
            "unforward": self._unforward,
            "unforward_all": self._unforward_all,
            "connect": self._connect,
        }
        driver.when_left.append(self._close_all)

    @property
    def busy(self) -> bool:
        """Whether there is a tunnel."""
        return bool(self._tunnels)

    async def _forward(self, params: Params) -> Params:
        """Open a tunnel, unless it is open; answer where it listens, if it does so here."""
        name = str(params["tunnel"])
        known = self._tunnels.get(name)
        if known is not None:
            return known.answer
        if "listen" not in params:
            self._tunnels[name] = _Tunnel(_endpoint(params["target"]))
            return {}
        tunnel = _Tunnel(None)
        endpoint = _endpoint(params["listen"])
        try:
            tunnel.listener = Listener(endpoint, lambda one: self._accepted(name, tunnel, one))
        except OSError as error:
            raise TunnelError(
                f"the host cannot listen on {endpoint}: {error.strerror or error}",
                phase="opening the tunnel",
            ) from error
        self._tunnels[name] = tunnel
        return tunnel.answer

    async def _unforward(self, params: Params) -> Params:
        """Close a tunnel, its address and its connections; one that is closed is no error."""
        self._close(str(params["tunnel"]))
        return {}

    async def _unforward_all(self, params: Params) -> Params:
        """Close everything: one of the two ends was replaced.

        ``streams`` are those that the hub has given up; answer which were still in use here.
        """
        used = [stream.stream for one in self._tunnels.values() for stream in one.streams]
        self._close_all()
        for stream in set(params["streams"]) - set(used):
            self._driver.abandon(stream)
        return {"streams": used}

    def _close(self, name: str) -> None:
        tunnel = self._tunnels.pop(name, None)
        if tunnel is not None:
            tunnel.close()

    def _close_all(self) -> None:
        for task in self._accepting:
            task.cancel()
        for name in list(self._tunnels):
            self._close(name)

    async def _connect(self, params: Params) -> Params:
        """Join a stream to a new connection to the tunnel's target."""
        stream = params["stream"]
        tunnel = self._tunnels.get(params["tunnel"])
        if tunnel is None or tunnel.target is None:
            self._driver.abandon(stream)
            raise TunnelError("there is no such tunnel", phase="connecting")
        try:
            connected = await tunnel.target.connect()
        except OSError as error:
            self._driver.abandon(stream)
            raise TunnelError(
                f"{tunnel.target}: {error.strerror or error}", phase="connecting"
            ) from error
        except BaseException:
            self._driver.abandon(stream)
            raise
        self._join(tunnel, stream, connected)
        return {}

    def _join(self, tunnel: _Tunnel, stream: int, connected: socket.socket) -> None:
        if tunnel.closed:
            connected.close()
            self._driver.abandon(stream)
            return
        ends = SocketEnds(connected)
        made = ByteStream(self._driver, stream, ends, self._allowance, tunnel.streams.discard)
        if not made.over:
            tunnel.streams.add(made)

    def _accepted(self, name: str, tunnel: _Tunnel, accepted: socket.socket) -> None:
        task = asyncio.ensure_future(self._accept(name, tunnel, accepted))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    async def _accept(self, name: str, tunnel: _Tunnel, accepted: socket.socket) -> None:
        try:
            answer = await self._call("accept", tunnel=name)
        except SshpykError as error:
            log.info("tunnel %s: %s", name, error.what)
            SocketEnds(accepted).close(reset=True)
        except BaseException:
            accepted.close()
            raise
        else:
            self._join(tunnel, answer["stream"], accepted)


def _endpoint(record: Any) -> Endpoint:
    """Read an address of the hub's. Raises TunnelError."""
    try:
        return Endpoint.from_record(record)
    except ValueError as error:
        raise TunnelError(str(error), phase="opening the tunnel") from error
