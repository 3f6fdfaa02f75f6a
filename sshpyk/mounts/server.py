"""The process that serves one folder: SFTP on its stdin and stdout, until they end.

``python -m sshpyk.mounts.server FOLDER [--ro] [--follow-symlinks]``, started by the hub for each
mount; ``sftp -D`` and ``sshfs -o passive`` can be put in front of it by hand. With ``--offers FILE`` it
is the forced command of a private sshd: whoever has logged in chooses one of the folders that the file
lists (:mod:`.offers`), if their key may (:mod:`.keys`). Exit codes: 0 the client has left, 1 the client
sent what is no SFTP, 2 nothing can be served.
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
from .keys import refused_because
from .offers import SUBSYSTEM, OfferedFolder, read_offers
from .session import Buffers, Session
from .sftp import SftpProtocolError

log = logging.getLogger(__name__)

_MOST_WAITING_BYTES = 512 * 1024  # of replies that the client has not read
_MOST_BUFFERS = 64  # one system call; the limit is 1024 on Linux and macOS
_MOST_HANDLES = 4096
_OWN_DESCRIPTORS = 64
_PIPE_BYTES = 1024 * 1024
_LAST_WORDS_S = 5.0


class Pipes:
    """The client's two ends, which may be one socket: read with waiting, written without."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        os.set_blocking(write_fd, False)
        # Of a socket, reading does not block now either; to ask first is cheaper than to be told.
        self._asks_first = not os.get_blocking(read_fd)
        self._input = _poll({read_fd: select.POLLIN})
        self._output = _poll({write_fd: select.POLLOUT})
        both = {read_fd: select.POLLIN}
        both[write_fd] = both.get(write_fd, 0) | select.POLLOUT
        self._both = _poll(both)

    def read(self, session: Session) -> bool:
        """Read what there is, waiting for the first byte; tell whether the client is still there."""
        if self._asks_first:
            self._input.poll()
        size_bytes = os.readv(self._read_fd, [session.space()])
        session.received(size_bytes)
        return size_bytes > 0

    def write(self, buffers: list[bytes | memoryview]) -> int:
        """Return how many bytes went out without waiting."""
        try:
            return os.writev(self._write_fd, buffers)
        except BlockingIOError:
            return 0

    def wait_to_write(self, timeout_s: float | None = None) -> bool:
        """Wait until something can be written, or the client is gone; False when it takes too long."""
        return bool(self._output.poll(None if timeout_s is None else timeout_s * 1000))

    def wait_for_either(self) -> bool:
        """Wait until something can be written or read; tell whether it is to read."""
        events = dict(self._both.poll())
        return bool(events.get(self._read_fd, 0) & (select.POLLIN | select.POLLHUP))


def _poll(wanted: dict[int, int]) -> select.poll:
    waiting = select.poll()
    for fd, events in wanted.items():
        waiting.register(fd, events)
    return waiting


class Outgoing:
    """Replies on their way to the client."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes
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
            written = self._pipes.write(self._buffers[:_MOST_BUFFERS])
            self._size_bytes -= written
            if not self._size_bytes:
                self._buffers.clear()
            elif not written:
                return
            else:
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


def serve(session: Session, pipes: Pipes) -> None:
    """Answer until the client ends; raise SftpProtocolError when it sends what is no SFTP.

    Reading waits while many replies wait: a client that does not read cannot fill the memory.
    """
    outgoing = Outgoing(pipes)
    living = True
    while living:
        hungry = _answer(session, outgoing)
        outgoing.flush()
        if outgoing.is_empty:
            living = not hungry or pipes.read(session)
        elif not hungry:
            pipes.wait_to_write()
        elif pipes.wait_for_either():
            living = pipes.read(session)
    while not outgoing.is_empty and pipes.wait_to_write(_LAST_WORDS_S):
        outgoing.flush()


def _answer(session: Session, outgoing: Outgoing) -> bool:
    """Handle requests while there is room for replies; tell whether more must be read."""
    while not outgoing.is_full:
        reply = session.next_reply()
        if reply is None:
            return True
        outgoing.add(reply)
    return False


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
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("folder", nargs="?", help="what the client sees as /")
    what.add_argument("--offers", metavar="FILE", help="folders to choose from, for a private sshd")
    parser.add_argument("--ro", action="store_true", help="refuse every change")
    parser.add_argument(
        "--follow-symlinks", action="store_true", help="follow symbolic links, inside only"
    )
    parser.add_argument(
        "--authorized", action="append", default=[], help="a file of keys that may log in"
    )
    parser.add_argument("--log", help="a file to say it in too: nobody may read stderr")
    parser.add_argument("--umask", type=_octal, help="of new files, in octal")
    parser.add_argument(
        "--no-landlock", action="store_true", help="without the kernel's help (for tests)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    return parser.parse_args(argv)


def _octal(text: str) -> int:
    return int(text, 8)


class NotServed(Exception):
    """Nothing is served to this client; the text says why."""


def _check_login(authorized: Sequence[str]) -> None:
    """Raise NotServed for whoever wants no SFTP, and for a key that was given away for less."""
    if os.environ.get("SSH_ORIGINAL_COMMAND") != SUBSYSTEM:
        raise NotServed("only SFTP is served here")
    login = os.environ.get("SSH_USER_AUTH", "")
    with contextlib.ExitStack() as stack:
        try:
            used = _text_of(login)
            stack.callback(_forget, login)  # sshd leaves it behind when it is killed
        except OSError as error:
            raise NotServed("sshd does not say which key has logged in") from error
        known = []
        for path in authorized:
            with contextlib.suppress(OSError):
                known.append(_text_of(path))
        if reason := refused_because(used, "\n".join(known)):
            raise NotServed(reason)


def _text_of(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _forget(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _open(options: argparse.Namespace) -> Folder:
    """Return what is served; the kernel keeps us inside as soon as that is one folder."""

    def keep_inside(folder: Folder) -> None:
        read_only = folder.rights.read_only
        if options.no_landlock or not landlock.confine(folder.root_fd, read_only=read_only):
            log.info("without Landlock: the walk alone confines")

    try:
        if options.offers:
            _check_login(options.authorized)
            return OfferedFolder(read_offers(options.offers), keep_inside)
        rights = Rights(read_only=options.ro, follow_symlinks=options.follow_symlinks)
        folder = Folder(options.folder, rights)
    except OSError as error:
        place = options.folder or error.filename
        raise NotServed(f"cannot serve {place}: {error.strerror}") from error
    except ValueError as error:
        raise NotServed(str(error)) from error
    keep_inside(folder)
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """Serve what the command line names."""
    options = _arguments(argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.WARNING,
        format="sshpyk.mounts.server: %(message)s",
    )
    if options.log:
        with contextlib.suppress(OSError):
            logging.getLogger().addHandler(logging.FileHandler(options.log))
    if options.umask is not None:
        os.umask(options.umask)
    time.localtime()  # reads the time zone's file, while files can be read
    for fd in (sys.stdin.fileno(), sys.stdout.fileno()):
        _widen(fd)
    most_handles = _more_descriptors()
    try:
        folder = _open(options)
    except NotServed as reason:
        log.error("%s", reason)
        return 2
    session = Session(folder, most_handles=most_handles)
    try:
        serve(session, Pipes(sys.stdin.fileno(), sys.stdout.fileno()))
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
