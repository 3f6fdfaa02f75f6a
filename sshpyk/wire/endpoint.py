"""Where a tunnel begins or leads to: a TCP address or a unix socket, connected to or listened on.

The same at both ends. No name of a host is resolved for ``localhost`` and for addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from typing import Any, Callable, NamedTuple, Tuple

LOOPBACK = ("127.0.0.1", "::1")
CONNECT_PATIENCE_S = 20.0
_BACKLOG = 128
_ACCEPTS_IN_A_ROW = 32
_PAUSE_S = 0.1  # when the process has no descriptor left, or a unix socket's queue is full
_FREE_PORT_TRIES = 20

_Address = Tuple[int, Any]  # a family, and what connect() and bind() take


class Endpoint(NamedTuple):
    """A host and a port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def from_record(cls, record: Any) -> Endpoint:
        """Read what :meth:`to_record` wrote. Raises ValueError: it came from the other end."""
        if isinstance(record, dict):
            host, port, path = (record.get(name) for name in ("host", "port", "path"))
            texts = isinstance(host, str) and isinstance(path, str)
            if texts and isinstance(port, int) and 0 <= port < 65536 and bool(host) != bool(path):
                return cls(str(host), port, str(path))
        raise ValueError("no address of a tunnel: %.100r" % (record,))

    def to_record(self) -> dict[str, Any]:
        """Return the JSON-ready form."""
        return self._asdict()

    def __str__(self) -> str:
        if self.path:
            return self.path
        return ("[%s]:%d" if ":" in self.host else "%s:%d") % (self.host, self.port)

    async def connect(self) -> socket.socket:
        """Return a connected socket. Raises OSError, also when it takes too long."""
        reason: OSError | None = None
        for address in await self._addresses():
            try:
                return await asyncio.wait_for(_connect(address), CONNECT_PATIENCE_S)
            except asyncio.TimeoutError:
                reason = TimeoutError(errno.ETIMEDOUT, "no answer")
            except OSError as error:  # asyncio has words of its own for what the system says
                reason = OSError(error.errno, os.strerror(error.errno)) if error.errno else error
        raise reason or OSError("no address")

    async def _addresses(self) -> list[_Address]:
        if self.path:
            return [(socket.AF_UNIX, os.path.expanduser(self.path))]
        if self.host == "localhost":
            return [(_family(host), (host, self.port)) for host in LOOPBACK]
        with contextlib.suppress(OSError):
            return [(_family(self.host), (self.host, self.port))]
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return [(info[0], info[4]) for info in infos]


def _family(address: str) -> int:
    """Return the family of an address. Raises OSError for what is none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    socket.inet_pton(family, address.partition("%")[0])
    return family


async def _connect(address: _Address) -> socket.socket:
    family, where = address
    connecting = socket.socket(family, socket.SOCK_STREAM)
    connecting.setblocking(False)
    try:
        if family == socket.AF_UNIX:
            await _connect_to_path(connecting, where)
        else:
            await asyncio.get_running_loop().sock_connect(connecting, where)
    except BaseException:
        connecting.close()
        raise
    return connecting


async def _connect_to_path(connecting: socket.socket, path: str) -> None:
    while True:
        try:
            connecting.connect(path)
        except BlockingIOError:  # its queue is full, and nothing tells when it is not
            await asyncio.sleep(_PAUSE_S)
        else:
            return


class Listener:
    """Sockets that wait for connections at an endpoint; each one goes to ``on_accept``.

    Raises OSError where it cannot listen. ``localhost`` means both loopback addresses, so that nobody
    else gets half of what is meant for us. Port 0 becomes a free one: see ``endpoint`` afterwards.
    """

    def __init__(self, endpoint: Endpoint, on_accept: Callable[[socket.socket], None]) -> None:
        self._on_accept = on_accept
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._inode = 0
        self.sockets = _listen(endpoint)
        self.endpoint = endpoint
        if endpoint.path:
            self._inode = os.lstat(os.path.expanduser(endpoint.path)).st_ino
        else:
            self.endpoint = endpoint._replace(port=self.sockets[0].getsockname()[1])
        self.resume()

    def resume(self) -> None:
        """Accept connections, also those that came meanwhile."""
        for listening in [] if self._closed else self.sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def pause(self) -> None:
        """Let those who come wait."""
        for listening in [] if self._closed else self.sockets:
            self._loop.remove_reader(listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_IN_A_ROW):
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self.pause()
                self._loop.call_later(_PAUSE_S, self.resume)
                return
            self._on_accept(accepted)

    def close(self) -> None:
        """Free the address; idempotent."""
        if self._closed:
            return
        self.pause()
        self._closed = True
        for listening in self.sockets:
            listening.close()
        path = os.path.expanduser(self.endpoint.path)
        with contextlib.suppress(OSError):
            if self._inode and os.lstat(path).st_ino == self._inode:
                os.unlink(path)


def _listen(endpoint: Endpoint) -> list[socket.socket]:
    if endpoint.path:
        return [_listen_at_path(os.path.expanduser(endpoint.path))]
    if endpoint.host != "localhost":
        family = _family(endpoint.host)
        return [_bound(family, (endpoint.host, endpoint.port))]
    for last in range(_FREE_PORT_TRIES - 1, -1, -1):
        try:
            return _listen_on_loopback(endpoint.port)
        except OSError as error:
            if endpoint.port or not last or error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("unreachable")


def _listen_on_loopback(port: int) -> list[socket.socket]:
    sockets = [_bound(socket.AF_INET, (LOOPBACK[0], port))]
    try:
        sockets.append(_bound(socket.AF_INET6, (LOOPBACK[1], sockets[0].getsockname()[1])))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            sockets[0].close()
            raise
    return sockets  # one, where there is no IPv6


def _bound(family: int, where: Any) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(where)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def _listen_at_path(path: str) -> socket.socket:
    """Listen on a unix socket that is ours alone; one whose owner has died is replaced."""
    _remove_if_dead(path)
    before = os.umask(0o177)
    try:
        return _bound(socket.AF_UNIX, path)
    finally:
        os.umask(before)


def _remove_if_dead(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.settimeout(1)
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            except OSError:
                return
