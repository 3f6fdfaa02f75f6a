"""How sshfs gets the line to the client: what it takes for ssh hands us its descriptors, and ends.

``sshfs -o reconnect`` starts its ssh again when a line has ended. So what is mounted outlives the hub
that served it, and this process: paths and working folders in there stay good, and what is asked
meanwhile waits. Files that were open say EIO: nobody knows them any more.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import hashlib
import os
import shlex
import socket
import stat
import sys
from typing import Callable

from sshpyk.wire.bytestream import Ends, SocketEnds

PREFIX = "mount-"  # of our sockets' names
_PATIENCE_S = 60
_FDS_BYTES = socket.CMSG_SPACE(2 * array.array("i").itemsize)

# It waits for the next agent when there is none. Without one what is mounted would hang for ever.
_HAND_OVER = (
    """
import array, os, socket, time
end_s = time.time() + %d
while True:
    agent = socket.socket(socket.AF_UNIX)
    try:
        agent.connect(os.environ["SSHPYK_MOUNT_SOCKET"])
        fds = array.array("i", [0, 1])
        agent.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        break
    except OSError:
        agent.close()
    if time.time() > end_s:
        os.execlp("fusermount3", "fusermount3", "-uz", os.environ["SSHPYK_MOUNT_POINT"])
    time.sleep(0.2)
"""
    % _PATIENCE_S
)
# One word for sshfs, which cuts at spaces: the shell makes two of it.
SSH_COMMAND = 'ssh_command=/bin/sh -c eval$IFS"$SSHPYK_MOUNT_RUN"'


class Lines:
    """Waits for the lines of one mount point's sshfs; ``on_line`` gets each."""

    def __init__(self, folder: str, mount_point: str, on_line: Callable[[Ends], None]) -> None:
        name = hashlib.sha256(os.fsencode(mount_point)).hexdigest()[:12]
        self._path = os.path.join(folder, PREFIX + name)
        self._mount_point = mount_point
        self._on_line = on_line
        self._loop = asyncio.get_running_loop()
        self._listener = socket.socket(socket.AF_UNIX)
        self._coming: list[socket.socket] = []
        with contextlib.suppress(FileNotFoundError):  # of an agent that was killed
            os.unlink(self._path)
        try:
            self._listener.bind(self._path)
        except OSError:
            self._listener.close()
            raise
        self._listener.listen(8)
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    def environment(self) -> dict[str, str]:
        """Return sshfs's environment."""
        run = 'exec %s -I -S -c "$SSHPYK_MOUNT_CODE"' % shlex.quote(sys.executable)
        return {
            **os.environ,
            "SSHPYK_MOUNT_CODE": _HAND_OVER,
            "SSHPYK_MOUNT_POINT": self._mount_point,
            "SSHPYK_MOUNT_RUN": run,
            "SSHPYK_MOUNT_SOCKET": self._path,
        }

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            connected, _ = self._listener.accept()
            connected.setblocking(False)
            self._coming.append(connected)
            self._loop.add_reader(connected, self._receive, connected)

    def _receive(self, connected: socket.socket) -> None:
        try:
            _, control, _, _ = connected.recvmsg(1, _FDS_BYTES)
        except BlockingIOError:
            return
        except OSError:
            control = []
        self._loop.remove_reader(connected)
        self._coming.remove(connected)
        connected.close()
        fds = array.array("i")
        for level, kind, data in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if len(fds) == 2:
            self._on_line(_ends(*fds))
        else:
            for fd in fds:
                os.close(fd)

    def close(self) -> None:
        """Wait no more; idempotent."""
        if self._listener.fileno() < 0:
            return
        for waiting in (self._listener, *self._coming):
            self._loop.remove_reader(waiting)
            waiting.close()
        self._coming.clear()
        with contextlib.suppress(OSError):
            os.unlink(self._path)


def _ends(read_fd: int, write_fd: int) -> Ends:
    """Return what sshfs's ssh had as stdin and stdout: one socket mostly, or two pipes."""
    if stat.S_ISSOCK(os.fstat(read_fd).st_mode):
        os.close(write_fd)
        return SocketEnds(socket.socket(fileno=read_fd))
    return Ends(read_fd, write_fd)
