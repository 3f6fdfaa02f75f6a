"""A folder of the client's on this host: sshfs, fed by a stream of the link instead of an ssh of its own.

sshfs speaks SFTP on descriptors that it has made for an ssh, and that are handed to us
(``mount_line``); the other end of the stream is a server process beside the hub. An outage is a stall.
The stream's end ends sshfs, unless the hub is replaced: then it waits for a stream of the next one's.

With a ``source``, ``alias:/folder``, sshfs logs in to the client by itself, through a tunnel that the hub
has opened. The stream then carries nothing, and still the end of either end is the end of the mount.

Nothing here may look at the mount point itself from the event loop: such a look is answered by the
client through that very loop. What is mounted is read from the system's table instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import tempfile
import weakref
from typing import IO, Any, Callable

from sshpyk.agent.mount_line import Lines
from sshpyk.agent.mount_point import (
    PHASE,
    MountPoint,
    look_into,
    mount_points,
    prepare,
    run_unmount,
)
from sshpyk.agent.sshfs import advice_on, arguments, find_sshfs
from sshpyk.errors import MountError
from sshpyk.wire.bytestream import Allowance, ByteStream, Ends, SocketEnds
from sshpyk.wire.driver import LinkDriver
from sshpyk.wire.rpc import Operation, Params

_PREPARE_PATIENCE_S = 15.0  # a mount point on a network file system that hangs
_MOUNT_PATIENCE_S = 30.0
_END_PATIENCE_S = 5.0
_KEEP_S = 30.0  # a hub that was killed is replaced within a second or two
_LOOK_S = 0.03
_SAID_BYTES = 2000

log = logging.getLogger(__name__)


_served: set[str] = set()  # every mount point whose files come through this process


def mounted_by_us(path: str) -> bool:
    """Whether a look at ``path`` would be answered through our event loop, which must not wait for it."""
    whole = os.path.normpath(path)
    return any(whole == served or whole.startswith(served + os.sep) for served in _served)


_KEPT = "kept "  # in front of the name that the hub before gave it
_links: weakref.WeakSet[Mounts] = weakref.WeakSet()  # those of every client


class _Mount:
    """One mount point, its sshfs and its stream."""

    def __init__(self, point: MountPoint, wish: object = None) -> None:
        self.path = point.path
        self.names = point.names
        self.made = point.made
        self.wish = wish  # what was asked for
        self.process: subprocess.Popen[bytes] | None = (
            None  # None: an agent before us has started it
        )
        self.lines: Lines | None = None
        self.number: int | None = None  # of the stream that the next line gets
        self.line: Ends | None = None  # came before there was a stream for it
        self.stream: ByteStream | None = None
        self.said: IO[bytes] | None = None
        self.last_words = ""  # of sshfs, once that has been closed
        self.ending: asyncio.Future[None] | None = None


class Mounts:
    """The mounts of one link. See ``operations`` for what the hub may ask.

    ``sockets`` is a private folder. A mount whose hub was replaced is *kept* for a while: the next hub
    asks for the same.
    """

    def __init__(self, driver: LinkDriver, sockets: str) -> None:
        self._driver = driver
        self._sockets = sockets
        self._allowance = Allowance(driver)
        self._mounts: dict[str, _Mount] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self.operations: dict[str, Operation] = {
            "mount": self._mount,
            "unmount": self._unmount,
            "unmount_all": self._unmount_all,
        }
        _links.add(self)
        driver.when_left.append(self._on_left)

    @property
    def busy(self) -> bool:
        """Whether anything is mounted."""
        return bool(self._mounts)

    async def _mount(self, params: Params) -> Params:
        """Mount, and answer when the mounted folder does. Nothing stays behind when it fails."""
        name, stream = str(params["mount"]), params["stream"]
        mount = _Mount(MountPoint(""))
        try:
            sshfs = find_sshfs(str(params["sshfs"]))
            if params.get("takeover") is True:
                await self._take_from_others(str(params["remote"]))
            source = str(params.get("source", ""))
            kept = None if source else await self._kept_for(params)
            if kept is not None:
                mount = self._mounts[name] = kept
                self._use(name, mount, stream)
            else:
                point = await self._apart(lambda: prepare(params, _served), _PREPARE_PATIENCE_S)
                mount = _Mount(point, _wish(params))
                self._mounts[name] = mount
                _served.update(mount.names)
                argv = [sshfs, *arguments(params["options"], source, mount.path)]
                if source:
                    self._start_login(name, mount, argv, stream)
                else:
                    self._use(name, mount, stream)
                    self._start(mount, argv)
            await self._await_mounted(mount)
        except BaseException:
            if mount.number != stream and mount.stream is None:
                self._driver.abandon(stream)
            await self._end(name, mount)
            raise
        log.info("mounted %s", mount.path)
        return {"path": mount.path, "made": mount.made}

    async def _kept_for(self, params: Params) -> _Mount | None:
        """Return what an earlier hub had asked for alike; end what else it had at that place."""
        path = os.path.normpath(os.path.expanduser(str(params["remote"])))
        for name, mount in list(self._mounts.items()):
            if name.startswith(_KEPT) and path in mount.names:
                if mount.wish == _wish(params):
                    return self._mounts.pop(name)
                await self._end(name, mount)
        return None

    def _use(self, name: str, mount: _Mount, number: int) -> None:
        """Let a stream be the line of a mount: of the sshfs that asks for one, or has asked."""

        def join(line: Ends) -> None:
            if mount.number is None:
                if mount.line is not None:
                    mount.line.close(reset=True)
                mount.line = line
                return
            number, mount.number = mount.number, None
            self._carry(name, mount, number, line)

        mount.number = number
        if mount.lines is not None:
            mount.lines.close()
        mount.lines = Lines(self._sockets, mount.path, join)
        line, mount.line = mount.line, None
        if line is not None:
            join(line)

    def _carry(self, name: str, mount: _Mount, number: int, line: Ends) -> None:
        def over(ended: ByteStream) -> None:
            log.info("the stream of %s has ended", mount.path)
            if mount.stream is ended and self._mounts.get(name) is mount and mount.ending is None:
                self._spawn_end(name, mount, in_order=True)

        mount.stream = ByteStream(self._driver, number, line, self._allowance, over)

    def _start(self, mount: _Mount, argv: list[str], stdin: int = subprocess.DEVNULL) -> None:
        """Start sshfs, unless that of an agent before us is there."""
        if mount.path in mount_points():
            return
        try:
            mount.said = tempfile.TemporaryFile()  # noqa: SIM115  # closed in _clean
            mount.process = subprocess.Popen(
                argv,
                env=mount.lines.environment() if mount.lines is not None else None,
                stdin=stdin,
                stdout=mount.said,
                stderr=mount.said,
                start_new_session=True,
            )
        except OSError as error:
            raise MountError(f"cannot run {argv[0]}: {error.strerror}", phase=PHASE) from error

    def _start_login(self, name: str, mount: _Mount, argv: list[str], number: int) -> None:
        """Start an sshfs that logs in by itself; the stream only tells that it is there."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._start(mount, argv, theirs.fileno())
            except BaseException:
                ours.close()
                raise
        self._carry(name, mount, number, SocketEnds(ours))

    async def _await_mounted(self, mount: _Mount) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + _MOUNT_PATIENCE_S
        while mount.path not in mount_points():
            over = mount.stream is not None and mount.stream.over
            if over or (mount.process is not None and mount.process.poll() is not None):
                raise _failed(mount, f"sshfs could not mount {mount.path}")
            if loop.time() > deadline_s:
                raise _failed(mount, f"{mount.path} was not mounted in {_MOUNT_PATIENCE_S:g} s")
            await asyncio.sleep(_LOOK_S)
        error = await self._apart(lambda: look_into(mount.path), _MOUNT_PATIENCE_S)
        if error is not None:
            raise _failed(mount, f"{mount.path} cannot be read: {error.strerror}")

    async def _apart(self, look: Callable[[], Any], patience_s: float) -> Any:
        """Run what may hang beside the event loop; give up waiting for it after a while."""
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(loop.run_in_executor(None, look), patience_s)
        except asyncio.TimeoutError:
            raise MountError(
                f"the host's file system did not answer for {patience_s:g} s", phase=PHASE
            ) from None

    async def _take_from_others(self, remote: str) -> None:
        """End what a client that is away has mounted there: the kernel that it was for is ours now."""
        path = os.path.normpath(os.path.expanduser(remote))
        for other in list(_links):
            for name, mount in list(other._mounts.items()):
                if other is not self and other._driver.carrier is None and path in mount.names:
                    log.info("%s is taken from a client that is away", path)
                    await other._end(name, mount, in_order=False)

    async def _unmount(self, params: Params) -> Params:
        """Unmount; what is not mounted any more is no error."""
        name = str(params["mount"])
        mount = self._mounts.get(name)
        if mount is not None:
            await self._end(name, mount)
        return {}

    async def _unmount_all(self, params: Params) -> Params:
        """One of the two ends was replaced: keep what is mounted for who asks for the same again.

        ``streams`` are those that the hub has given up; answer those that were in use here.
        """
        streams = []
        for name, mount in list(self._mounts.items()):
            if name.startswith(_KEPT):
                continue
            if (
                mount.lines is None and mount.stream is not None
            ):  # its way back has gone with the hub
                streams.append(mount.stream.stream)
                await self._end(name, mount, in_order=False)
                continue
            del self._mounts[name]
            self._mounts[_KEPT + name] = mount
            stream, mount.stream = mount.stream, None
            if stream is not None:
                streams.append(stream.stream)
                stream.abort()
            elif mount.number is not None:
                streams.append(mount.number)
                self._driver.abandon(mount.number)
                mount.number = None
            loop = asyncio.get_running_loop()
            loop.call_later(_KEEP_S, self._give_up, _KEPT + name, mount)
        for number in set(params["streams"]) - set(streams):
            self._driver.abandon(number)
        return {"streams": streams}

    def _give_up(self, name: str, mount: _Mount) -> None:
        if self._mounts.get(name) is mount:
            self._spawn_end(name, mount)

    def _spawn_end(self, name: str, mount: _Mount, *, in_order: bool = False) -> None:
        task = asyncio.ensure_future(self._end(name, mount, in_order=in_order))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_left(self) -> None:
        for name, mount in list(self._mounts.items()):
            self._spawn_end(name, mount)

    async def close(self) -> None:
        """End everything: the agent leaves."""
        for name, mount in list(self._mounts.items()):
            await self._end(name, mount, in_order=False)
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _end(self, name: str, mount: _Mount, *, in_order: bool = True) -> None:
        """Unmount, end sshfs and remove the folders that were made; idempotent.

        ``in_order``: what is to be written still is.
        """
        self._mounts.pop(name, None)
        if mount.ending is None:
            mount.ending = asyncio.ensure_future(self._take_down(mount, in_order=in_order))
        elif not in_order:
            self._cut(mount)
        await asyncio.shield(mount.ending)

    async def _take_down(self, mount: _Mount, *, in_order: bool) -> None:
        loop = asyncio.get_running_loop()
        if not in_order:
            self._cut(mount)
        if mount.path:
            await loop.run_in_executor(None, _let_go, mount)
        self._cut(mount)
        await loop.run_in_executor(None, _clean, mount)
        _served.difference_update(mount.names)

    def _cut(self, mount: _Mount) -> None:
        """End the line: whatever sshfs waits for fails."""
        if mount.lines is not None:
            mount.lines.close()
        if mount.line is not None:
            mount.line.close(reset=True)
            mount.line = None
        if mount.stream is not None:
            mount.stream.abort()
        if mount.number is not None:
            self._driver.abandon(mount.number)
            mount.number = None


def _wish(params: Params) -> tuple[object, ...]:
    """Return what two requests for the same mount have in common."""
    return params["remote"], params["sshfs"], tuple(params["options"])


def _failed(mount: _Mount, what: str) -> MountError:
    said = _words(mount)
    return MountError(what, phase=PHASE, said=said, advice=advice_on(said))


def _words(mount: _Mount) -> str:
    """Return the end of what sshfs has said; it may be over, and all be cleaned up."""
    if mount.said is None:
        return mount.last_words
    said = os.pread(mount.said.fileno(), 65536, 0)
    return said.decode("utf-8", "replace")[-_SAID_BYTES:]


def _let_go(mount: _Mount) -> None:
    """Unmount in order while the stream is there, so that what is to be written is; else by force."""
    if mount.path in mount_points() and not run_unmount(mount.path, lazily=False):
        run_unmount(mount.path, lazily=True)
        return
    if mount.process is not None and mount.path not in mount_points():
        with contextlib.suppress(subprocess.TimeoutExpired):
            mount.process.wait(_END_PATIENCE_S)


def _clean(mount: _Mount) -> None:
    if mount.process is not None:
        try:
            mount.process.wait(_END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            mount.process.kill()
            mount.process.wait()
    if mount.path and mount.path in mount_points():
        run_unmount(mount.path, lazily=True)
    if mount.said is not None:
        mount.last_words = _words(mount)
        mount.said.close()
        mount.said = None
    for path in reversed(mount.made):
        with contextlib.suppress(OSError):  # somebody else has put something there
            os.rmdir(path)
    mount.made = []
