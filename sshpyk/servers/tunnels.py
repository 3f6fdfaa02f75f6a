"""The tunnels of one hub: local listeners and targets, and the byte streams through the link.

A tunnel outlives outages (its connections stall), the agent's death and the host's reboot (its
connections are reset; it is opened again on the next link). It ends with :meth:`Tunnels.close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sshpyk.errors import SshpykError, TunnelError
from sshpyk.hub.host import HostLink
from sshpyk.servers.keeping import both, link_record, revive
from sshpyk.servers.ports import owner_of
from sshpyk.wire.bytestream import Allowance, ByteStream, SocketEnds
from sshpyk.wire.driver import LinkDriver
from sshpyk.wire.endpoint import Endpoint, Listener
from sshpyk.wire.rpc import Params

OPENING = "opening the tunnel"
MAX_CONNECTIONS = 800  # the link has 1024 streams, and a kernel needs two

_LISTEN_AGAIN_TRIES, _LISTEN_AGAIN_PAUSE_S = 25, 0.2

log = logging.getLogger(__name__)


class Target(Protocol):
    """Where connections go: an :class:`Endpoint`, or whatever else gives a socket for each."""

    async def connect(self) -> socket.socket:
        """Return a connected socket. Raises OSError."""

    def to_record(self) -> dict[str, Any]:
        """Return the members of the Endpoint that is shown to people."""


@dataclass(frozen=True)
class TunnelRequest:
    """What is asked for: connections to ``listen`` go to ``target``.

    ``reverse``: ``listen`` is on the host and ``target`` as seen from here; else the other way round.
    ``any_port``: another local port will do if that one is taken. ``python``: the interpreter that a
    new connection starts on the host. ``again``: the tunnel's id before the hub was replaced.
    """

    listen: Endpoint
    target: Target
    python: str
    reverse: bool = False
    any_port: bool = False
    again: str = ""

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> TunnelRequest:
        """Read a request that came over the hub's socket. Raises TypeError or ValueError."""
        listen, target = (Endpoint.from_record(record.pop(name)) for name in ("listen", "target"))
        if not isinstance(record.get("python"), str):
            raise TypeError("a request for a tunnel without an interpreter")
        return cls(listen, target, **record)


class Tunnel:
    """One tunnel, and what went through it. ``on_closed`` is called once, by :meth:`Tunnels.close`."""

    def __init__(self, request: TunnelRequest) -> None:
        self.tunnel_id = request.again or "t" + secrets.token_hex(2)
        self.request = request
        self.listens = request.listen
        self.listener: Listener | None = None
        self.streams: set[ByteStream] = set()
        self.connections = 0
        self.error = ""  # why the latest connection led nowhere, or the tunnel is not there
        self.registered = False  # the agent knows it
        self.closed = False
        self.on_closed: Callable[[SshpykError | None], None] = lambda error: None
        self._past = [0, 0]

    def note_over(self, stream: ByteStream) -> None:
        """Count what went through a connection that is over."""
        self.streams.discard(stream)
        self._past[0] += stream.sent_bytes
        self._past[1] += stream.received_bytes

    def summary(self) -> dict[str, Any]:
        """Describe it; bytes as seen from here."""
        return {
            "id": self.tunnel_id,
            "reverse": self.request.reverse,
            "listens": self.listens.to_record(),
            "target": self.request.target.to_record(),
            "open": len(self.streams),
            "connections": self.connections,
            "sent_bytes": self._past[0] + sum(one.sent_bytes for one in self.streams),
            "received_bytes": self._past[1] + sum(one.received_bytes for one in self.streams),
            "ready": self.registered,
            "error": self.error,
        }


class Tunnels:
    """See the module. Made once per hub; takes part in what happens to the host's link."""

    def __init__(self, host: HostLink) -> None:
        self._host = host
        self._tunnels: dict[str, Tunnel] = {}
        self._allowance: Allowance | None = None
        self._allowed: LinkDriver | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused = False
        host.operations["accept"] = self._accept
        host.on_lost_link = both(host.on_lost_link, lambda error: self._on_lost_link(error))
        host.on_agent_replaced = both(host.on_agent_replaced, self._on_agent_replaced)
        if host.took_over:
            self._spawn(self._drop_what_is_left())

    @property
    def busy(self) -> bool:
        """Whether there is a tunnel."""
        return bool(self._tunnels)

    def summaries(self) -> list[dict[str, Any]]:
        """Describe every tunnel."""
        return [tunnel.summary() for tunnel in self._tunnels.values()]

    # Opening and closing

    async def open_from(self, record: dict[str, Any]) -> Tunnel:
        """As :meth:`open`, for a request that came over the hub's socket."""
        return await self.open(TunnelRequest.from_record(record))

    async def open(self, request: TunnelRequest) -> Tunnel:
        """Open a tunnel, and the link if need be. Raises SshpykError; nothing stays behind then."""
        tunnel = Tunnel(request)
        try:
            if not request.reverse:
                await self._listen_in_time(tunnel)
            if request.again and self._host.took_over:
                self._host.keep_up(request.python)
            else:
                await self._host.bring_up(request.python)
            self._tunnels[tunnel.tunnel_id] = tunnel
            await self._register(tunnel)
        except BaseException as error:
            self.close(tunnel)
            if isinstance(error, SshpykError) and not error.host:
                error.host = self._host.target.host
            raise
        log.info("tunnel %s: %s -> %s", tunnel.tunnel_id, tunnel.listens, request.target)
        return tunnel

    async def _listen_in_time(self, tunnel: Tunnel) -> None:
        """Listen; where the hub before us was killed, its sockets may still be there for a moment."""
        tries = _LISTEN_AGAIN_TRIES if tunnel.request.again else 0
        for _ in range(tries):
            with contextlib.suppress(TunnelError):
                self._listen(tunnel)
                return
            await asyncio.sleep(_LISTEN_AGAIN_PAUSE_S)
        self._listen(tunnel)

    def _listen(self, tunnel: Tunnel) -> None:
        request = tunnel.request

        def accepted(connection: socket.socket) -> None:
            self._accepted(tunnel, connection)

        try:
            tunnel.listener = Listener(request.listen, accepted)
        except OSError as error:
            if not request.any_port:
                raise _cannot_listen(request.listen, error) from error
            tunnel.listener = Listener(request.listen._replace(port=0), accepted)
        tunnel.listens = tunnel.listener.endpoint

    @staticmethod
    def check(endpoint: Endpoint) -> None:
        """Raise TunnelError, with who has it, where one cannot listen at an address."""
        try:
            Listener(endpoint, socket.socket.close).close()
        except OSError as error:
            raise _cannot_listen(endpoint, error) from error

    async def _register(self, tunnel: Tunnel) -> None:
        """Make the tunnel known to the agent. Raises what it answers."""
        if tunnel.closed:
            return
        where, request = {"target": tunnel.request.target.to_record()}, tunnel.request
        if request.reverse:
            where = {"listen": tunnel.listens.to_record()}
        answer = await self._host.rpc.call("forward", tunnel=tunnel.tunnel_id, **where)
        if request.reverse:
            tunnel.listens = Endpoint.from_record(answer["listens"])
        tunnel.registered, tunnel.error = True, ""

    def find(self, tunnel_id: str) -> Tunnel | None:
        """Return a tunnel by its id."""
        return self._tunnels.get(tunnel_id)

    def close(self, tunnel: Tunnel) -> None:
        """Close a tunnel with its connections, here and on the host; idempotent."""
        if tunnel.closed:
            return
        tunnel.closed = True
        if tunnel.listener is not None:
            tunnel.listener.close()
        for stream in list(tunnel.streams):
            stream.abort()
        if self._tunnels.pop(tunnel.tunnel_id, None) is not None:
            self._host.rpc.notify("unforward", tunnel=tunnel.tunnel_id)
        tunnel.on_closed(None)

    def close_all(self) -> None:
        """Close every tunnel; called when the hub leaves."""
        for task in self._tasks:
            task.cancel()
        for tunnel in list(self._tunnels.values()):
            self.close(tunnel)

    # Connections from here

    def _accepted(self, tunnel: Tunnel, connection: socket.socket) -> None:
        stream = self._join(tunnel, self._host.new_streams(1)[0], connection)
        self._spawn(self._connect(tunnel, stream))

    async def _connect(self, tunnel: Tunnel, stream: ByteStream) -> None:
        try:
            if not tunnel.registered:
                await self._host.bring_up(tunnel.request.python)
                await self._register(tunnel)
            await self._host.rpc.call("connect", tunnel=tunnel.tunnel_id, stream=stream.stream)
        except SshpykError as error:
            log.info("tunnel %s: %s", tunnel.tunnel_id, error.what)
            tunnel.error = error.what
            stream.abort()
        else:
            tunnel.error = ""

    def _join(self, tunnel: Tunnel, number: int, connection: socket.socket) -> ByteStream:
        driver = self._host.driver
        if self._allowance is None or self._allowed is not driver:
            self._allowance, self._allowed = Allowance(driver), driver

        def over(stream: ByteStream) -> None:
            tunnel.note_over(stream)
            self._pause_or_go_on()

        stream = ByteStream(driver, number, SocketEnds(connection), self._allowance, over)
        tunnel.connections += 1
        if not stream.over:
            tunnel.streams.add(stream)
        self._pause_or_go_on()
        return stream

    @property
    def _is_full(self) -> bool:
        return sum(len(one.streams) for one in self._tunnels.values()) >= MAX_CONNECTIONS

    def _pause_or_go_on(self) -> None:
        """Let newcomers wait while there are too many."""
        if self._is_full is not self._paused:
            self._paused = not self._paused
            listeners = [one.listener for one in self._tunnels.values() if one.listener]
            for listener in listeners:
                if self._paused:
                    listener.pause()
                else:
                    listener.resume()

    # Connections from the host

    async def _accept(self, params: Params) -> Params:
        """Connect to our target for somebody on the host, and answer with the stream."""
        tunnel = self._tunnels.get(params["tunnel"])
        if tunnel is None or not tunnel.request.reverse:
            raise TunnelError("there is no such tunnel", phase="connecting")
        if self._is_full:
            raise TunnelError("too many connections", phase="connecting")
        try:
            connection = await tunnel.request.target.connect()
        except OSError as error:
            tunnel.error = f"{tunnel.request.target}: {error.strerror or error}"
            raise TunnelError(tunnel.error, phase="connecting") from error
        if tunnel.closed:
            connection.close()
            raise TunnelError("the tunnel was closed", phase="connecting")
        tunnel.error = ""
        return {"stream": self._join(tunnel, self._host.new_streams(1)[0], connection).stream}

    # What happens to the link

    async def _drop_what_is_left(self) -> None:
        """The hub before us was killed: its connections are gone, the agent's ends of them are not."""
        with contextlib.suppress(SshpykError):  # an agent of an older sshpyk
            driver = self._host.driver
            answer = await self._host.rpc.call("unforward_all", streams=[])
            for stream in answer["streams"]:
                driver.abandon(stream)

    def _on_agent_replaced(self) -> None:
        """The agent was killed: its ends of the connections are gone, and so are its listeners."""
        streams = [stream for one in self._tunnels.values() for stream in one.streams]
        for stream in streams:
            stream.abort()
        if not self._tunnels:
            return
        for tunnel in self._tunnels.values():
            tunnel.registered = False  # newcomers see to it themselves, as we do for those who wait
        # Before anything that they ask for.
        numbers = [stream.stream for stream in streams]
        self._host.rpc.notify("unforward_all", streams=numbers)
        self._spawn(self._register_all())

    async def _register_all(self) -> None:
        for tunnel in list(self._tunnels.values()):
            try:
                await self._register(tunnel)
            except SshpykError as error:
                log.warning("tunnel %s: %s", tunnel.tunnel_id, error)
                tunnel.registered, tunnel.error = False, error.what

    def _on_lost_link(self, error: SshpykError) -> None:
        """The host was rebooted, or the agent ended: say so, and open the tunnels again."""
        for tunnel in self._tunnels.values():
            tunnel.registered, tunnel.error = False, error.what
        if self._tunnels:
            self._spawn(self._revive())

    async def _revive(self) -> None:
        def python() -> str:
            return next((one.request.python for one in self._tunnels.values()), "")

        def note(what: str) -> None:
            for tunnel in self._tunnels.values():
                tunnel.error = what

        await revive(self._host, python, self._register_all, note)

    def state(self) -> dict[str, Any]:
        """Describe the link as a person at a tunnel wants to know it."""
        return link_record(self._host)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _cannot_listen(endpoint: Endpoint, error: OSError) -> TunnelError:
    owner = "" if endpoint.path else owner_of(endpoint.port)
    taken = f"{endpoint} is taken by {owner}" if owner else f"cannot listen on {endpoint}"
    return TunnelError(
        taken,
        phase=OPENING,
        said="" if owner else error.strerror or str(error),
        advice="end that first, name another local port, or 0 for a free one",
    )
