"""Short folders for sockets that nobody else on the machine can enter, pre-create or redirect.

Unix socket paths are limited to about 104 bytes, so the folders are under /tmp; not in
XDG_RUNTIME_DIR, which a logout removes while a kernel still runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from typing import Iterator

AGENT_FOLDER = "sshpyk"  # on a host
AGENT_SOCKET = "agent-1.sock"  # one per version of the link protocol
HUB_FOLDER = "sshpyk-hub"  # on a client; both may be the same machine and user
_ROOT = "/tmp"  # noqa: S108  # every step below assumes a hostile /tmp
_TRIES = 8


class NoPrivateFolder(OSError):
    """Every candidate exists and is not ours, or none can be created."""


def candidates(name: str) -> Iterator[str]:
    """Return the paths where this user's private folder ``name`` may be, best first."""
    base = "%s/%s-%d" % (_ROOT, name, os.getuid())
    yield base
    for number in range(1, _TRIES):
        yield "%s-%d" % (base, number)


def is_private(path: str) -> bool:
    """Whether ``path`` is a real folder of ours that nobody else may enter."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    mine = status.st_uid == os.getuid()
    return stat.S_ISDIR(status.st_mode) and mine and not status.st_mode & 0o077


def private_folder(name: str) -> str:
    """Return this user's folder ``name``, created where it is missing.

    Raises :class:`NoPrivateFolder` with every path tried and why.
    """
    reasons = []
    for path in candidates(name):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            reasons.append(f"{path}: {error.strerror}")
            continue
        if is_private(path):
            return path
        reasons.append("%s: exists and is not a private folder of uid %d" % (path, os.getuid()))
    raise NoPrivateFolder("no private folder for sockets: " + "; ".join(reasons))


@contextlib.contextmanager
def folder_lock(folder: str) -> Iterator[None]:
    """Hold the folder for ourselves: of several processes that want to start a daemon, one does."""
    fd = _open_locked(folder)
    try:
        yield
    finally:
        os.close(fd)


def _open_locked(folder: str) -> int:
    """Lock the folder that has this name now: a daemon that leaves may remove it while we wait."""
    while True:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.lstat(folder)):
                    if not is_private(folder):
                        raise NoPrivateFolder(f"{folder} is not ours any more")
                    stack.pop_all()
                    return fd


def remove_if_empty(folder: str) -> None:
    """Remove a private folder that nobody uses or is about to use."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rmdir(folder)
        finally:
            os.close(fd)
