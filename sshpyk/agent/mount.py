"""A folder of the client's on this host: sshfs, fed by a stream of the link instead of an ssh of its own.

``sshfs -o passive`` speaks SFTP on its stdin and stdout, which are one socket of ours; the other end of
the stream is a server process beside the hub. An outage is a stall. The stream's end ends sshfs.

With a ``source``, ``alias:/folder``, sshfs logs in to the client by itself, through a tunnel that the hub
has opened. The stream then carries nothing, and still the end of either end is the end of the mount.

Nothing here may look at the mount point itself from the event loop: such a look is answered by the
client through that very loop. What is mounted is read from the system's table instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import weakref
from typing import IO, Any, Callable

from sshpyk.errors import MountError
from sshpyk.wire.bytestream import Allowance, ByteStream, SocketEnds
from sshpyk.wire.driver import LinkDriver
from sshpyk.wire.rpc import Operation, Params

_PHASE = "mounting"
_PREPARE_PATIENCE_S = 15.0  # a mount point on a network file system that hangs
_MOUNT_PATIENCE_S = 30.0
_END_PATIENCE_S = 5.0
_LOOK_S = 0.03
_SAID_BYTES = 2000
_TABLE = "/proc/self/mountinfo"
_FUSE = "/dev/fuse"
_MORE_FOLDERS = ("/usr/bin", "/usr/local/bin", "/bin", "/opt/homebrew/bin", "/opt/local/bin")
_NO_SSHFS = (
    "install sshfs on the host (Debian, Ubuntu: apt install sshfs; Fedora: dnf install fuse-sshfs), "
    "or name it: sshpyk edit --kernel-name … --remote-sshfs PATH"
)
# What sshfs or fusermount say, and what to do.
_ADVICE = (
    ("user_allow_other", "leave out the option allow_other, or let /etc/fuse.conf allow it"),
    ("fusermount", "the host lacks fusermount: install its fuse package (fuse3)"),
    (
        "Operation not permitted",
        "the account may not mount with fuse: ask the host's administrator",
    ),
    ("Permission denied", "the account may not mount with fuse: ask the host's administrator"),
    ("unknown option", "the host's sshfs does not know that option: leave it out"),
)

log = logging.getLogger(__name__)


_served: set[str] = set()  # every mount point whose files come through this process


def mounted_by_us(path: str) -> bool:
    """Whether a look at ``path`` would be answered through our event loop, which must not wait for it."""
    whole = os.path.normpath(path)
    return any(whole == served or whole.startswith(served + os.sep) for served in _served)


_links: weakref.WeakSet[Mounts] = weakref.WeakSet()  # those of every client


class _Mount:
    """One mount point, its sshfs and its stream."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.names = {path}  # also as it was asked for, where that goes through a link
        self.made: list[str] = []  # folders that were made for it, the outermost first
        self.process: subprocess.Popen[bytes] | None = None
        self.stream: ByteStream | None = None
        self.said: IO[bytes] | None = None
        self.last_words = ""  # of sshfs, once that has been closed
        self.ending: asyncio.Future[None] | None = None


class Mounts:
    """The mounts of one link. See ``operations`` for what the hub may ask."""

    def __init__(self, driver: LinkDriver) -> None:
        self._driver = driver
        self._allowance = Allowance(driver)
        self._mounts: dict[str, _Mount] = {}
        self.operations: dict[str, Operation] = {
            "mount": self._mount,
            "unmount": self._unmount,
            "unmount_all": self._unmount_all,
        }
        _links.add(self)

    @property
    def busy(self) -> bool:
        """Whether anything is mounted."""
        return bool(self._mounts)

    async def _mount(self, params: Params) -> Params:
        """Mount, and answer when the mounted folder does. Nothing stays behind when it fails."""
        name, stream = str(params["mount"]), params["stream"]
        mount = _Mount("")
        try:
            sshfs = _find_sshfs(str(params["sshfs"]))
            if params.get("takeover") is True:
                await self._take_from_others(str(params["remote"]))
            mount = await self._apart(lambda: _prepare(str(params["remote"])), _PREPARE_PATIENCE_S)
            self._mounts[name] = mount
            _served.update(mount.names)
            source = str(params.get("source", ""))
            words = _arguments(params["options"], source, mount.path)
            self._start(name, mount, [sshfs, *words], stream)
            await self._await_mounted(mount, passive=not source)
        except BaseException:
            if mount.stream is None:
                self._driver.abandon(stream)
            await self._end(name, mount)
            raise
        log.info("mounted %s", mount.path)
        return {"path": mount.path}

    def _start(self, name: str, mount: _Mount, argv: list[str], stream: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                mount.said = tempfile.TemporaryFile()  # noqa: SIM115  # closed in _end
                mount.process = subprocess.Popen(
                    argv,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=mount.said,
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise MountError(f"cannot run {argv[0]}: {error.strerror}", phase=_PHASE) from error

        def over(ended: ByteStream) -> None:
            log.info("the stream of %s has ended", mount.path)
            if name in self._mounts and mount.ending is None:
                mount.ending = asyncio.ensure_future(self._end(name, mount))

        mount.stream = ByteStream(self._driver, stream, SocketEnds(ours), self._allowance, over)

    async def _await_mounted(self, mount: _Mount, *, passive: bool) -> None:
        assert mount.process is not None
        assert mount.stream is not None
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + _MOUNT_PATIENCE_S
        while mount.path not in mount_points() or (passive and not mount.stream.received_bytes):
            if mount.process.poll() is not None or mount.stream.over:
                raise _failed(mount, f"sshfs could not mount {mount.path}")
            if loop.time() > deadline_s:
                raise _failed(mount, f"{mount.path} was not mounted in {_MOUNT_PATIENCE_S:g} s")
            await asyncio.sleep(_LOOK_S)
        try:
            await self._apart(lambda: os.listdir(mount.path), _MOUNT_PATIENCE_S)
        except OSError as error:
            raise _failed(mount, f"{mount.path} cannot be read: {error.strerror}") from error

    async def _apart(self, look: Callable[[], Any], patience_s: float) -> Any:
        """Run what may hang beside the event loop; give up waiting for it after a while."""
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(loop.run_in_executor(None, look), patience_s)
        except asyncio.TimeoutError:
            raise MountError(
                f"the host's file system did not answer for {patience_s:g} s", phase=_PHASE
            ) from None

    async def _take_from_others(self, remote: str) -> None:
        """End what a client that is away has mounted there: the kernel that it was for is ours now."""
        path = os.path.normpath(os.path.expanduser(remote))
        for other in list(_links):
            for name, mount in list(other._mounts.items()):
                away = other is not self and other._driver.carrier is None
                if away and path in mount.names and mount.stream is not None:
                    log.info("%s is taken from a client that is away", path)
                    mount.stream.abort()  # sshfs ends: nothing that it is asked is answered
                    await other._end(name, mount)

    async def _unmount(self, params: Params) -> Params:
        """Unmount; what is not mounted any more is no error."""
        name = str(params["mount"])
        mount = self._mounts.get(name)
        if mount is not None:
            await self._end(name, mount)
        return {}

    async def _unmount_all(self, params: Params) -> Params:
        """One of the two ends was replaced: end what would wait for the other for ever.

        ``streams`` are those that the hub has given up; answer those that were in use here.
        """
        mounts = list(self._mounts.items())
        streams = [mount.stream.stream for _, mount in mounts if mount.stream is not None]
        for _, mount in mounts:
            if mount.stream is not None:
                mount.stream.abort()  # sshfs ends: nothing that it is asked can be answered
        for stream in set(params["streams"]) - set(streams):
            self._driver.abandon(stream)
        for name, mount in mounts:
            await self._end(name, mount)
        return {"streams": streams}

    async def _end(self, name: str, mount: _Mount) -> None:
        """Unmount, end sshfs and remove the folders that were made; idempotent."""
        self._mounts.pop(name, None)
        if mount.process is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, _let_go, mount)
        if mount.stream is not None:
            mount.stream.abort()
        await asyncio.get_running_loop().run_in_executor(None, _clean, mount)
        _served.difference_update(mount.names)


def mount_points() -> set[str]:
    """Return every path that something is mounted at, without looking at any of them."""
    if os.path.exists(_TABLE):
        with open(_TABLE, encoding="utf-8", errors="surrogateescape") as table:
            return {_unescaped(line.split(" ")[4]) for line in table}
    listed = subprocess.run(["/sbin/mount"], stdout=subprocess.PIPE, check=False).stdout
    found = re.findall(r" on (/.*) \([^()]*\)$", os.fsdecode(listed), re.MULTILINE)
    return set(found)


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), path)


def _prepare(remote: str) -> _Mount:
    """Return an empty folder to mount at, made if missing. Raises MountError."""
    path = os.path.expanduser(remote)
    if not os.path.isabs(path) or "\0" in path:
        raise MountError(f"{remote} is no absolute path", phase=_PHASE)
    folder, name = os.path.split(os.path.normpath(path))
    mount = _Mount(os.path.join(os.path.realpath(folder), name))
    mount.names.add(os.path.join(folder, name))
    if mount.path in mount_points():
        _clear_stale(mount.path)
    try:
        _make_folders(mount)
        if os.listdir(mount.path):
            raise MountError(
                f"{mount.path} is not empty",
                phase=_PHASE,
                advice="mount at another folder of the host, or empty this one",
                code="MOUNT-POINT",
            )
    except OSError as error:
        raise MountError(
            f"cannot mount at {mount.path}: {error.strerror}",
            phase=_PHASE,
            advice="name a folder that the account may make on the host",
            code="MOUNT-POINT",
        ) from error
    return mount


def _clear_stale(path: str) -> None:
    """Unmount what a dead sshfs has left. Raises MountError when it is alive, or stays."""
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.EIO, errno.ENXIO):
            log.warning("%s was mounted by a process that is gone", path)
            _run_unmount(path, lazily=True)
    if path in mount_points():
        raise MountError(
            f"something is mounted at {path} already",
            phase=_PHASE,
            advice="mount at another folder of the host, or unmount that: fusermount3 -u " + path,
        )


def _make_folders(mount: _Mount) -> None:
    missing = []
    path = mount.path
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    for path in reversed(missing):
        os.mkdir(path, 0o755)
        mount.made.append(path)


def _find_sshfs(named: str) -> str:
    """Return the program's path. Raises MountError where there is none, or no fuse."""
    places = os.pathsep.join([*os.get_exec_path(), *_MORE_FOLDERS])
    found = shutil.which(os.path.expanduser(named or "sshfs"), path=places)
    if found is None:
        raise MountError(
            f"the host has no {named or 'sshfs'}",
            phase=_PHASE,
            advice=_NO_SSHFS,
            code="MOUNT-NO-SSHFS",
        )
    if sys.platform == "linux" and not os.access(_FUSE, os.R_OK | os.W_OK):
        reason = "the account may not use" if os.path.exists(_FUSE) else "the host has no"
        raise MountError(
            f"{reason} {_FUSE}",
            phase=_PHASE,
            advice="ask the host's administrator; a container needs the device and CAP_SYS_ADMIN",
            code="MOUNT-NO-FUSE",
        )
    return found


def _arguments(options: Any, source: str, path: str) -> list[str]:
    """Return sshfs's arguments; options were looked through by the hub and are words here."""
    if (
        not isinstance(options, list)
        or not all(
            isinstance(option, str) and re.fullmatch(r"[A-Za-z_]+(=[^,\\]*)?", option)
            for option in options
        )
        or not re.fullmatch(r"(\w[\w.@+-]*:/[^\0]*)?", source)
    ):
        raise MountError("malformed options of a mount", phase=_PHASE)
    passive = [] if source else ["passive", "fsname=sshpyk"]
    return ["-f", "-o", ",".join([*passive, *options]), source or ":/", path]


def _failed(mount: _Mount, what: str) -> MountError:
    said = _words(mount)
    advice = next((advice for words, advice in _ADVICE if words in said), "")
    return MountError(what, phase=_PHASE, said=said, advice=advice)


def _words(mount: _Mount) -> str:
    """Return the end of what sshfs has said; it may be over, and all be cleaned up."""
    if mount.said is None:
        return mount.last_words
    said = os.pread(mount.said.fileno(), 65536, 0)
    return said.decode("utf-8", "replace")[-_SAID_BYTES:]


def _run_unmount(path: str, *, lazily: bool) -> bool:
    """Unmount as this user; ``lazily`` also what is in use. Tell whether that was done."""
    if sys.platform == "darwin":
        commands = [["/sbin/umount", *(["-f"] if lazily else []), path]]
    else:
        how = "-uz" if lazily else "-u"
        commands = [["fusermount3", how, path], ["fusermount", how, path]]
    for command in commands:
        with contextlib.suppress(FileNotFoundError):
            ran = subprocess.run(
                command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
            )
            return ran.returncode == 0
    return False


def _let_go(mount: _Mount) -> None:
    """Unmount in order while the stream is there, so that what is to be written is; else by force."""
    if mount.path in mount_points() and not _run_unmount(mount.path, lazily=False):
        _run_unmount(mount.path, lazily=True)
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
        _run_unmount(mount.path, lazily=True)
    if mount.said is not None:
        mount.last_words = _words(mount)
        mount.said.close()
        mount.said = None
    for path in reversed(mount.made):
        with contextlib.suppress(OSError):  # somebody else has put something there
            os.rmdir(path)
    mount.made = []
