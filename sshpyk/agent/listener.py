"""The agent's unix socket, and what ssh's processes on the host bring to it: two descriptors each.

Whoever clears /tmp may remove the socket of a living agent. Without it the next connection would find no
agent and start another, which cannot have this one's kernels. So its path is looked at every second
and bound again; and files whose age cleaners go by are kept young.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import logging
import os
import socket
from typing import Callable, Iterator

from sshpyk.wire.clock import now_s
from sshpyk.wire.private import AGENT_FOLDER, AGENT_SOCKET, private_folder, remove_if_empty

ACCEPT_PAUSE_S = 0.5  # after an accept that failed
DESCRIPTORS_S = 60.0  # within which who connects must have sent them
_TOUCH_S = 3600.0

log = logging.getLogger(__name__)


class Listener:
    """See the module. Made by whoever holds the lock of ``folder``; served once a loop runs."""

    def __init__(self, folder: str) -> None:
        self.on_descriptors: Callable[[socket.socket, list[int]], None] = lambda session, fds: None
        self._folder = folder
        self._path = os.path.join(folder, AGENT_SOCKET)
        self._touched_s = now_s()
        self._told = ""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # of one that was killed
        self._socket, self._inode = _bind(self._path)

    def serve(self) -> None:
        """Begin to accept sessions."""
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def keep(self) -> None:
        """Bind again where the socket was removed; called every second."""
        if now_s() - self._touched_s > _TOUCH_S:
            self._touched_s = now_s()
            _touch(self._folder)
        if not self._is_bound():
            try:
                self._bind_again()
            except OSError as error:
                self._tell(f"the agent's socket was removed and cannot be bound again: {error}")

    def close(self) -> None:
        """Remove the socket if it is still ours, and the folder if it is empty."""
        if self._is_bound():
            os.unlink(self._path)
        remove_if_empty(self._folder)

    def _is_bound(self) -> bool:
        try:
            return os.lstat(self._path).st_ino == self._inode
        except OSError:
            return False

    def _bind_again(self) -> None:
        if private_folder(AGENT_FOLDER) != self._folder:
            raise FileExistsError(f"{self._folder} is not ours any more")
        with _lock_at_once(self._folder):  # or a session is about to start another agent
            if os.path.lexists(self._path):
                raise FileExistsError(f"another agent listens at {self._path}")
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            self._socket.close()
            self._socket, self._inode = _bind(self._path)
        self.serve()
        self._told = ""
        log.warning("%s was removed, and is bound again", self._path)

    def _tell(self, text: str) -> None:
        """Log a trouble once, however long it lasts."""
        if self._told != text:
            self._told = text
            log.error("%s", text)

    # Sessions

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            session, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except (
            OSError
        ) as error:  # no descriptor is free: who comes waits, and the loop must not spin
            self._tell(f"no session can be taken: {error.strerror}")
            loop.remove_reader(self._socket)
            loop.call_later(ACCEPT_PAUSE_S, self.serve)
            return
        self._told = ""
        session.setblocking(False)
        deadline = loop.call_later(DESCRIPTORS_S, self._turn_away, session)
        loop.add_reader(session, self._receive, session, deadline)

    def _turn_away(self, session: socket.socket) -> None:
        log.info("a session brought no descriptors within %g s", DESCRIPTORS_S)
        asyncio.get_running_loop().remove_reader(session)
        session.close()

    def _receive(self, session: socket.socket, deadline: asyncio.TimerHandle) -> None:
        deadline.cancel()
        asyncio.get_running_loop().remove_reader(session)
        fds = array.array("i")
        try:
            room = socket.CMSG_LEN(2 * fds.itemsize)
            _, ancillary, _, _ = session.recvmsg(1, room)
        except OSError:
            ancillary = []
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if len(fds) == 2:
            self.on_descriptors(session, list(fds))
        else:
            for fd in fds:
                os.close(fd)
            session.close()


def _bind(path: str) -> tuple[socket.socket, int]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    listener.setblocking(False)
    return listener, os.lstat(path).st_ino


@contextlib.contextmanager
def _lock_at_once(folder: str) -> Iterator[None]:
    """Hold the folder as ``wire.private.folder_lock`` does; raises OSError if another holds it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def _touch(folder: str) -> None:
    """Make all that is ours look used: some cleaners go by age."""
    for root, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            with contextlib.suppress(OSError):
                os.utime(os.path.join(root, name), follow_symlinks=False)
