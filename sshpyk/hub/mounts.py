"""Local folders at a host, over its link: a server process here, an sshfs there, a stream between them.

Kernels that name the same pair of folders share one mount. It comes up for the first and is taken
down a moment after the last (a restart finds it still there).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sshpyk.errors import MountError, SshpykError
from sshpyk.hub.host import HostLink
from sshpyk.hub.mount_request import Mounted, MountRequest
from sshpyk.mounts.options import sort_options
from sshpyk.wire.bytestream import Allowance, ByteStream, SocketEnds, hold_until_eof

if TYPE_CHECKING:
    from sshpyk.hub.ways_back import WaysBack

LINGER_S = 2.0
_TRIES_AGAIN = 10  # what a dead sshfs leaves may still be going
_PAUSE_S = 0.5
_SERVER_PATIENCE_S = 5.0
_PHASE = "mounting"

log = logging.getLogger(__name__)


class Mounts:
    """The mounts of one hub. ``umask`` is the user's: the files that appear here are theirs.

    ``on_ended`` is told who has lost a mount for good, and why, while the link goes on.
    """

    def __init__(self, host: HostLink, umask: int = 0o022) -> None:
        self._host = host
        self._umask = umask
        self._mounted: dict[MountRequest, Mounted] = {}
        self._turn = asyncio.Lock()  # one after the other: the next may want the same folder
        self._tasks: set[asyncio.Future[Any]] = set()
        self._made: dict[MountRequest, list[str]] = {}  # folders on the host, which go with it
        self._coming_back: set[str] = set()  # users for whom we mount again
        self._to_tidy = host.took_over  # the agent has mounts of a hub that is dead, or had ours
        self._leaving: list[Mounted] = []
        self._given_up: list[int] = []
        self.make_ways_back: Callable[[], WaysBack]  # set by whoever has the tunnels
        self.ways_back: WaysBack | None = None  # made for the first mount that logs in
        self.on_ended: Callable[[str, SshpykError], None] = lambda user, error: None

    @property
    def busy(self) -> bool:
        """Whether anything is mounted, or is being taken down."""
        return bool(self._mounted or self._tasks)

    def summaries(self) -> list[dict[str, Any]]:
        """Describe every mount, those that nobody uses any more too."""
        return [mounted.summary() for mounted in (*self._mounted.values(), *self._leaving)]

    async def hold(self, user: str, requests: Iterable[MountRequest]) -> None:
        """Return when all are mounted for ``user``, until :meth:`release`. Raises what went wrong."""
        try:
            for request in requests:
                await self._hold(user, request)
        except BaseException:
            self.release(user)
            raise

    async def hold_possible(
        self, user: str, requests: Iterable[MountRequest]
    ) -> dict[MountRequest, MountError]:
        """Mount what can be mounted; return why the others cannot. Raises what is not a mount's fault."""
        failed: dict[MountRequest, MountError] = {}
        try:
            for request in requests:
                try:
                    await self._hold(user, request)
                except MountError as error:
                    failed[request] = error
        except BaseException:
            self.release(user)
            raise
        return failed

    async def _hold(self, user: str, request: MountRequest, *, takeover: bool = False) -> None:
        mounted = self._mounted.get(request)
        if mounted is None or mounted.gone:
            self._make_room(request)
            mounted = self._mounted[request] = Mounted(request, takeover=takeover)
            mounted.coming_up = asyncio.ensure_future(self._bring_up(mounted))
        mounted.users.add(user)
        assert mounted.coming_up is not None
        await asyncio.shield(mounted.coming_up)

    def _make_room(self, request: MountRequest) -> None:
        """Take down what nobody uses any more at the same place. Raises MountError where it is used."""
        for other in list(self._mounted.values()):
            if other.request.remote == request.remote and other.request != request:
                if other.users and not other.gone:
                    same = other.request.local == request.local
                    what = "it" if same else str(other.request)
                    how = " with other options" if same else ""
                    raise MountError(
                        f"mount {request}: {what} is mounted there{how}",
                        host=self._host.target.host,
                        phase=_PHASE,
                        advice="mount at another folder of the host; sshpyk mounts says who uses that",
                        code="MOUNT-POINT",
                    )
                other.users.clear()
                self._take_down_if_unused(other)

    def release(self, user: str, linger_s: float | None = None) -> None:
        """Say that ``user`` needs no mount any more."""
        loop = asyncio.get_running_loop()
        self._coming_back.discard(user)
        for mounted in self._mounted.values():
            if user in mounted.users:
                mounted.users.discard(user)
                wait_s = LINGER_S if linger_s is None else linger_s
                loop.call_later(wait_s, self._take_down_if_unused, mounted)

    def _take_down_if_unused(self, mounted: Mounted) -> None:
        if not mounted.users and self._mounted.get(mounted.request) is mounted:
            del self._mounted[mounted.request]
            self._spawn(self._take_down(mounted))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Take everything down; called when the hub leaves."""
        for mounted in list(self._mounted.values()):
            mounted.users.clear()
            self._take_down_if_unused(mounted)
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        if self.ways_back is not None:
            await self.ways_back.wait_closed()

    def hold_again(
        self, user: str, requests: Sequence[MountRequest], *, takeover: bool = False
    ) -> asyncio.Future[dict[MountRequest, MountError]]:
        """Mount for a kernel that runs already; return what will be the failures, which end nothing.

        What was mounted there before gets time to go; with ``takeover`` also what another machine had
        mounted that is away now.
        """
        self._coming_back.add(user)
        coming = asyncio.ensure_future(self._hold_again(user, requests, takeover=takeover))
        self._tasks.add(coming)
        coming.add_done_callback(self._tasks.discard)
        return coming

    async def _hold_again(
        self, user: str, requests: Sequence[MountRequest], *, takeover: bool
    ) -> dict[MountRequest, MountError]:
        failed = {}
        for request in requests:
            try:
                await self.hold_patiently(user, request, takeover=takeover)
            except MountError as error:
                failed[request] = error
            except SshpykError as error:
                failed[request] = MountError(f"mount {request}: {error.what}", host=error.host)
        if user not in self._coming_back:  # it has ended meanwhile
            self.release(user)
        self._coming_back.discard(user)
        return failed

    async def hold_patiently(
        self, user: str, request: MountRequest, *, takeover: bool = False
    ) -> None:
        """As :meth:`hold`, with time for what was there before to go."""
        for left in reversed(range(_TRIES_AGAIN)):
            try:
                await self._hold(user, request, takeover=takeover)
                return
            except SshpykError as error:
                log.warning("%s", error)
                if not left:
                    raise
            await asyncio.sleep(_PAUSE_S)

    def remount(self, user: str, requests: Sequence[MountRequest]) -> None:
        """As :meth:`hold_again`; a failure is told to those whom it concerns."""
        self.hold_again(user, requests).add_done_callback(
            lambda done: self._tell_failed(user, done)
        )

    def _tell_failed(self, user: str, done: asyncio.Future[dict[MountRequest, MountError]]) -> None:
        if not done.cancelled():
            for error in done.result().values():
                self._tell_ended([user], error)

    def _tell_ended(self, users: Iterable[str], error: SshpykError) -> None:
        self._host.on_notice(f"{error.what}; files there cannot be reached")
        for user in users:
            self.on_ended(user, error)

    def agent_replaced(self) -> None:
        """The agent was killed, and every sshfs with it: mount again for the kernels that live on."""
        for mounted in list(self._mounted.values()):
            mounted.gone = True
            if mounted.stream is not None:
                self._given_up.append(mounted.stream.stream)
            self._spawn(self._end(mounted))
            self._to_tidy = True
            for user in mounted.users:
                self.remount(user, [mounted.request])

    async def _drop_what_is_left(self) -> None:
        """End the mounts of the hub before us, which was killed and took their servers along."""
        if self._to_tidy:
            driver, given_up = self._host.driver, self._given_up
            answer = await self._host.rpc.call("unmount_all", streams=given_up)
            self._to_tidy, self._given_up = False, []
            for stream in answer["streams"]:
                driver.abandon(stream)

    async def _bring_up(self, mounted: Mounted) -> None:
        async with self._turn:
            try:
                await self._drop_what_is_left()
                await self._mount(mounted)
            except SshpykError as error:
                error.what = f"mount {mounted.request}: {error.what}"
                error.host = error.host or self._host.target.host
                await self._fail(mounted)
                raise
            except BaseException:
                await self._fail(mounted)
                raise

    async def _fail(self, mounted: Mounted) -> None:
        if self._mounted.get(mounted.request) is mounted:
            del self._mounted[mounted.request]
        await self._end(mounted)

    async def _mount(self, mounted: Mounted) -> None:
        request = mounted.request
        local = os.path.expanduser(request.local)
        if not os.path.isdir(local):
            raise MountError(
                f"there is no folder {local} here",
                phase=_PHASE,
                advice="create it, or name another",
                code="MOUNT-LOCAL-FOLDER",
            )
        try:
            options = sort_options(request.options)
        except ValueError as error:
            raise MountError(str(error), phase=_PHASE) from error
        self._host.phase = f"mounting {request}"
        told: dict[str, Any] = {"options": options.for_sshfs}
        if request.alias:
            self.ways_back = self.ways_back or self.make_ways_back()
            place = os.path.abspath(local), options
            told = await self.ways_back.open(mounted.mount_id, request.way_back, place)
        words = [*(["--ro"] if options.read_only else [])]
        words += ["--follow-symlinks"] if options.follow_symlinks else []
        told["stream"] = self._serve(mounted, [local, *words])
        try:
            answer = await self._host.rpc.call(
                "mount",
                mount=mounted.mount_id,
                remote=request.remote,
                sshfs=request.sshfs,
                takeover=mounted.takeover,
                made=self._made.get(request),
                **told,
            )
        except MountError as error:
            if self.ways_back is not None and request.alias:
                self.ways_back.explain(request.way_back, error)
            raise
        self._made[request] = answer.get("made", [])
        log.info("mounted %s", request)

    def _serve(self, mounted: Mounted, words: Sequence[str]) -> int:
        """Start the server and join it to a stream; return the stream's number.

        Where sshfs logs in by itself the stream only tells each end that the other is there.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                if mounted.request.alias:
                    hold_until_eof(theirs.dup())
                else:
                    mounted.server = subprocess.Popen(
                        [sys.executable, "-m", "sshpyk.mounts.server", *words],
                        cwd="/",
                        stdin=theirs.fileno(),
                        stdout=theirs.fileno(),
                        umask=self._umask,
                        start_new_session=True,
                    )
            except OSError as error:
                ours.close()
                raise MountError(
                    f"cannot start the server: {error.strerror}", phase=_PHASE
                ) from error
        driver = self._host.driver
        (number,) = self._host.new_streams(1)

        def over(_: ByteStream) -> None:
            mounted.gone = True
            log.info("the stream of mount %s has ended", mounted.request)
            if not mounted.ending and mounted.coming_up is not None and mounted.coming_up.done():
                self._ended_by_itself(mounted, lost=driver.left)

        mounted.stream = ByteStream(driver, number, SocketEnds(ours), Allowance(driver), over)
        return number

    def _ended_by_itself(self, mounted: Mounted, *, lost: bool) -> None:
        """Tell its users, unless it was ``lost`` with the link, of which others tell."""
        self._spawn(self._end(mounted))
        if lost or self._mounted.get(mounted.request) is not mounted:
            return
        error = MountError(
            f"mount {mounted.request} has ended: unmounted on the host, or a process of it was killed",
            host=self._host.target.host,
            advice="mount it again with sshpyk mount",
        )
        users = sorted(mounted.users)
        self._made.pop(mounted.request, None)
        mounted.users.clear()
        del self._mounted[mounted.request]
        self._tell_ended(users, error)

    async def _take_down(self, mounted: Mounted) -> None:
        mounted.leaving = True
        self._made.pop(mounted.request, None)
        self._leaving.append(mounted)
        try:
            async with self._turn:
                if not mounted.gone and mounted.coming_up is not None:
                    with contextlib.suppress(SshpykError, asyncio.CancelledError):
                        await self._host.rpc.call("unmount", mount=mounted.mount_id)
                await self._end(mounted)
                log.info("unmounted %s", mounted.request)
        finally:
            self._leaving.remove(mounted)

    async def _end(self, mounted: Mounted) -> None:
        if self.ways_back is not None:
            self.ways_back.close(mounted.mount_id)
        mounted.ending = True
        if mounted.stream is not None:
            mounted.stream.abort()
        if mounted.server is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, _reap, mounted.server)


def _reap(server: subprocess.Popen[bytes]) -> None:
    """Wait for the server, which ends with its stream."""
    try:
        server.wait(_SERVER_PATIENCE_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
