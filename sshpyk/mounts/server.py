"""The process that serves one folder: SFTP on its stdin and stdout, until they end.

``python -m sshpyk.mounts.server FOLDER [--ro] [--follow-symlinks]``, started by the hub for each
mount; ``sftp -D`` and ``sshfs -o passive`` can be put in front of it by hand. Exit codes: 0 the client
has left, 1 the client sent what is no SFTP, 2 the folder cannot be served.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import os
import resource
import select
import stat
import sys
import time
from collections.abc import Sequence

from . import landlock
from .confined import Folder, Rights
from .session import Buffers, Session
from .sftp import SftpProtocolError

log = logging.getLogger(__name__)

_MOST_WAITING_BYTES = 512 * 1024  # of replies that the client has not read
_MOST_BUFFERS = 64  # one system call; the limit is 1024 on Linux and macOS
_MOST_HANDLES = 4096
_OWN_DESCRIPTORS = 64
_PIPE_BYTES = 1024 * 1024
_LAST_WORDS_S = 5.0


class Outgoing:
    """Replies on their way to the client, over a descriptor that does not block."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffers: list[bytes | memoryview] = []
        self._size_bytes = 0

    def add(self, buffers: Buffers) -> None:
        """Queue a reply."""
        self._buffers += buffers
        for buffer in buffers:
            self._size_bytes += len(buffer)

    @property
    def is_empty(self) -> bool:
        """Whether all has been written."""
        return not self._buffers

    @property
    def is_full(self) -> bool:
        """Whether it is time to write rather than to add."""
        return self._size_bytes >= _MOST_WAITING_BYTES

    def flush(self) -> None:
        """Write what goes without waiting."""
        while self._buffers:
            try:
                written = os.writev(self._fd, self._buffers[:_MOST_BUFFERS])
            except BlockingIOError:
                return
            self._size_bytes -= written
            self._drop(written)

    def _drop(self, written: int) -> None:
        done = 0
        for buffer in self._buffers:
            if written < len(buffer):
                break
            written -= len(buffer)
            done += 1
        del self._buffers[:done]
        if written:
            self._buffers[0] = memoryview(self._buffers[0])[written:]


def serve(session: Session, read_fd: int, write_fd: int) -> None:
    """Answer until the client ends; raise SftpProtocolError when it sends what is no SFTP.

    Reading waits while many replies wait: a client that does not read cannot fill the memory.
    """
    os.set_blocking(write_fd, False)
    outgoing = Outgoing(write_fd)
    living = True
    while living:
        hungry = _answer(session, outgoing)
        outgoing.flush()
        if outgoing.is_empty:
            living = not hungry or _read(session, read_fd)
        elif read_fd in _ready(read_fd if hungry else None, write_fd):
            living = _read(session, read_fd)
    while not outgoing.is_empty and _ready(None, write_fd, timeout_s=_LAST_WORDS_S):
        outgoing.flush()


def _answer(session: Session, outgoing: Outgoing) -> bool:
    """Handle requests while there is room for replies; tell whether more must be read."""
    while not outgoing.is_full:
        reply = session.next_reply()
        if reply is None:
            return True
        outgoing.add(reply)
    return False


def _read(session: Session, fd: int) -> bool:
    """Read what there is, waiting for the first byte; tell whether the client is still there."""
    try:
        size_bytes = os.readv(fd, [session.space()])
    except BlockingIOError:
        _ready(fd, None)
        return True
    session.received(size_bytes)
    return size_bytes > 0


def _ready(
    read_fd: int | None, write_fd: int | None, *, timeout_s: float | None = None
) -> list[int]:
    """Wait until one of the two is ready, also to say that its other end is gone."""
    waiting = select.poll()
    if read_fd is not None:
        waiting.register(read_fd, select.POLLIN)
    if write_fd is not None:
        waiting.register(write_fd, select.POLLOUT)
    if read_fd == write_fd and read_fd is not None:
        waiting.register(read_fd, select.POLLIN | select.POLLOUT)
    timeout_ms = None if timeout_s is None else timeout_s * 1000
    return [
        fd
        for fd, events in waiting.poll(timeout_ms)
        if fd != read_fd or fd != write_fd or events & ~select.POLLOUT
    ]


def _more_descriptors() -> int:
    """Raise this process's limit as far as it may, and return how many files a client may open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_HANDLES + _OWN_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_MOST_HANDLES, max(soft - _OWN_DESCRIPTORS, 1))


def _widen(fd: int) -> None:
    """Give a pipe room for a whole packet and more (Linux); other descriptors stay as they are."""
    if sys.platform == "linux" and stat.S_ISFIFO(os.fstat(fd).st_mode):
        # An unprivileged user's pipes have a common limit: then it stays narrow.
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sshpyk.mounts.server",
        description="Serve one folder, and nothing outside it, as SFTP on stdin and stdout.",
    )
    parser.add_argument("folder", help="what the client sees as /")
    parser.add_argument("--ro", action="store_true", help="refuse every change")
    parser.add_argument(
        "--follow-symlinks", action="store_true", help="follow symbolic links, inside only"
    )
    parser.add_argument(
        "--no-landlock", action="store_true", help="without the kernel's help (for tests)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the folder that the command line names."""
    options = _arguments(argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.WARNING,
        format="sshpyk.mounts.server: %(message)s",
    )
    rights = Rights(read_only=options.ro, follow_symlinks=options.follow_symlinks)
    try:
        folder = Folder(options.folder, rights)
    except OSError as error:
        log.error("cannot serve %s: %s", options.folder, error.strerror)
        return 2
    time.localtime()  # reads the time zone's file, while files can be read
    session = Session(folder, most_handles=_more_descriptors())
    for fd in (sys.stdin.fileno(), sys.stdout.fileno()):
        _widen(fd)
    if options.no_landlock or not landlock.confine(folder.root_fd, read_only=options.ro):
        log.info("without Landlock: the walk alone confines")
    try:
        serve(session, sys.stdin.fileno(), sys.stdout.fileno())
    except SftpProtocolError as error:
        log.error("the client speaks no SFTP: %s", error)
        return 1
    except (BrokenPipeError, ConnectionResetError):
        log.info("the client is gone")
    finally:
        session.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
