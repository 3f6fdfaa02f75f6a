"""The ways to a server: an object here, its process over a link, a private sshd that is logged in to.

A :class:`Stage` keeps the two last: a link whose ends are in one thread, with all that hub and agent
have for mounts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sshpyk.agent.forward import Forwards
from sshpyk.hub.mount_request import Mounted, MountRequest
from sshpyk.hub.mounts import Mounts
from sshpyk.hub.private_sshd import PrivateSshd
from sshpyk.mounts.confined import Rights
from sshpyk.mounts.offers import Offer
from sshpyk.mounts.sftp import SftpProtocolError
from sshpyk.servers.tunnels import TunnelRequest, Tunnels
from sshpyk.wire.bytestream import Allowance, ByteStream, SocketEnds
from sshpyk.wire.endpoint import Endpoint
from sshpyk.wire.rpc import Rpc
from tests.unit.hub.fakes import FakeHost
from tests.unit.mounts.client import INIT, Client
from tests.unit.mounts.sshd import HAS_SSHD, let_in, new_account
from tests.unit.wire.harness import Joined

OBJECT, LINK, LOGIN = "object", "link", "login"
_LOGIN = pytest.param(LOGIN, marks=pytest.mark.skipif(not HAS_SSHD, reason="no sshd here"))
EVERY_SERVER = pytest.mark.parametrize("serve", [OBJECT, LINK, _LOGIN], indirect=True)
EVERY_FAR_SERVER = pytest.mark.parametrize("way", [LINK, _LOGIN])
_T = TypeVar("_T")


class FarClient(Client):
    """A client of a server in another process, at the other end of a socket."""

    def __init__(self, end: socket.socket, close: Callable[[], None] = lambda: None) -> None:
        self._socket = end
        self._close = close
        end.settimeout(30)
        self.exchange(INIT)

    def exchange(self, data: bytes) -> list[bytes]:
        try:
            self._socket.sendall(data)
        except ConnectionError as error:
            raise SftpProtocolError("the server has gone") from error
        replies, at = [], 0
        while at < len(data):
            at += 4 + int.from_bytes(data[at : at + 4], "big")
            length = self._exactly(4)
            replies.append(length + self._exactly(int.from_bytes(length, "big")))
        return replies

    def _exactly(self, size_bytes: int) -> bytes:
        found = b""
        while len(found) < size_bytes:
            piece = self._socket.recv(size_bytes - len(found))
            if not piece:
                raise SftpProtocolError("the server has ended the conversation")
            found += piece
        return found

    def close(self) -> None:
        self._socket.close()
        self._close()


class Stage:
    """See the module; :meth:`client` makes clients."""

    def __init__(self, folder: Path) -> None:
        self._account = new_account(folder / "account")
        self._numbers = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        with pytest.MonkeyPatch.context() as monkeypatch:
            let_in(self._account, monkeypatch)
            self._run(self._begin())

    async def _begin(self) -> None:
        self._joined = Joined()
        self._joined.connect()
        await self._joined.up()
        self._host: Any = FakeHost(self._joined)
        self._mounts = Mounts(self._host)
        self._mounted: list[Mounted] = []
        self._tunnels = Tunnels(self._host)

        def call(op: str, **params: Any) -> Awaitable[Any]:
            return self._rpc.call(op, **params)

        self._forwards = Forwards(self._joined.agent, call)
        self._rpc = Rpc(self._joined.agent, self._forwards.operations)
        if HAS_SSHD:
            self._sshd = PrivateSshd("", "test", 0o022)
            await self._sshd.prepare()
            request = TunnelRequest(Endpoint("127.0.0.1"), self._sshd, "python3", reverse=True)
            self._tunnel = await self._tunnels.open(request)

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def client(self, way: str, root: Path, rights: Rights) -> FarClient:
        """Return a client of a server for ``root``."""
        if way == LINK:
            return FarClient(self._run(self._by_link(root, rights)))
        return self._by_login(root, rights)

    async def _by_link(self, root: Path, rights: Rights) -> socket.socket:
        """Do what hub and agent do, with our socket in sshfs's place."""
        words = [*(["--ro"] if rights.read_only else [])]
        words += ["--follow-symlinks"] if rights.follow_symlinks else []
        mounted = Mounted(MountRequest(str(root), "/nowhere"))
        mounted.ending = True
        self._mounted.append(mounted)
        number = self._mounts._serve(mounted, [str(root), *words])
        ours, theirs = socket.socketpair()
        driver = self._joined.agent
        ByteStream(driver, number, SocketEnds(theirs), Allowance(driver), lambda _: None)
        return ours

    def _by_login(self, root: Path, rights: Rights) -> FarClient:
        """Log in as sshfs does. The folder is the root, so that paths are those of the other ways."""
        name = str(next(self._numbers))
        self._sshd.offer(name, Offer("/", str(root), rights.read_only, rights.follow_symlinks))
        argv = [shutil.which("ssh") or "ssh", "-F", str(self._account.folder / "config")]
        argv += ["-o", "BatchMode=yes", "-o", "HostKeyAlias=laptop"]
        argv += ["-p", str(self._tunnel.listens.port), "laptop", "-s", "sftp"]
        ours, theirs = socket.socketpair()
        with theirs:
            ssh = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL)

        def close() -> None:
            with ssh:
                ssh.wait(30)

        try:
            return FarClient(ours, close)
        finally:  # the server has read what is offered
            self._sshd.withdraw(name)

    def close(self) -> None:
        """End all of it."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        for mounted in self._mounted:
            await self._mounts._end(mounted)
        if HAS_SSHD:
            self._tunnels.close(self._tunnel)
            await self._sshd.close()
        self._joined.close()
        await self._loop.shutdown_default_executor()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.sleep(0)
