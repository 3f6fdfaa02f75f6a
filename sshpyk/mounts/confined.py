"""A folder, and what a client may do in it: the file operations of SFTP, each below one root.

Paths are bytes and count from the root. Every operation works on a name in a folder that
:mod:`.walk` has opened, never follows a link at that name, and raises OSError when refused. Links are
shown and may be made; what they name is opened only with ``follow_symlinks``, and only inside.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from . import openat2
from .sftp import (
    OPEN_APPEND,
    OPEN_CREATE,
    OPEN_EXCLUSIVE,
    OPEN_READ,
    OPEN_TRUNCATE,
    OPEN_WRITE,
    Attributes,
)
from .walk import Place, Walker, components, refusal

# O_NONBLOCK: to open a fifo or a device never waits. O_NOCTTY: a terminal does not become ours.
_CAREFULLY = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_RUN_AS_OWNER = stat.S_ISUID | stat.S_ISGID
_PERMISSIONS = 0o777
_NEW_FILE = 0o666
LARGEST_OFFSET = (1 << 63) - 1  # what the system's calls can hold
_O_PATH: int | None = getattr(os, "O_PATH", None)


@dataclass(frozen=True)
class Rights:
    """What the client of a folder may do."""

    read_only: bool = False
    follow_symlinks: bool = False


class Entry(NamedTuple):
    """One line of a folder's listing."""

    name: bytes
    status: os.stat_result


class OpenFile:
    """A regular file that a client has open; :meth:`close` it."""

    def __init__(self, fd: int, *, writable: bool, appends: bool) -> None:
        self.fd = fd
        self._writable = writable
        self._appends = appends

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return at most so many bytes; none at the end of the file."""
        return os.pread(self.fd, size_bytes, offset)

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of ``data``: at ``offset``, or at the end of a file opened to append."""
        while data:
            # Where pwrite ignores O_APPEND (POSIX), two appending clients would overwrite each other.
            at_end = self._appends
            written = os.write(self.fd, data) if at_end else os.pwrite(self.fd, data, offset)
            offset += written
            data = data[written:]

    def change(self, wanted: Attributes) -> None:
        """Change the attributes that ``wanted`` names."""
        if not self._writable:
            raise refusal(errno.EACCES)
        status = os.fstat(self.fd)
        _check(wanted, status)
        if wanted.size is not None:
            _set_size(self.fd, wanted.size)
        if wanted.permissions is not None:
            os.fchmod(self.fd, _mode(wanted.permissions, status))
        if wanted.times is not None:
            os.utime(self.fd, wanted.times)

    def sync(self) -> None:
        """Return once the file is on the disk."""
        os.fsync(self.fd)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.fd)


class OpenFolder:
    """A folder that a client is listing; :meth:`close` it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._entries = self._list()

    def _list(self) -> Iterator[Entry]:
        own = os.fstat(self.fd)
        yield Entry(b".", own)
        yield Entry(b"..", own)  # not to be looked at: it may be outside
        with os.scandir(self.fd) as names:
            for found in names:
                # It may be gone since it was listed; in a folder that may only be read, all are.
                with contextlib.suppress(OSError):
                    yield Entry(os.fsencode(found.name), found.stat(follow_symlinks=False))

    def next_entry(self) -> Entry | None:
        """Return the next entry, in no order; None after the last."""
        return next(self._entries, None)

    def close(self) -> None:
        """Let go of the folder."""
        self._entries.close()  # type: ignore[attr-defined]  # a generator
        os.close(self.fd)


class Folder:
    """The root and the operations below it; ``path`` is the user's own word for it."""

    def __init__(self, path: str, rights: Rights) -> None:
        self.rights = rights
        self.root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        names = {os.fsencode(os.path.abspath(path)), os.fsencode(os.path.realpath(path))}
        self._walker = Walker(self.root_fd, names, openat2=openat2.open_folder())

    def close(self) -> None:
        """Let go of the root."""
        os.close(self.root_fd)

    def real_path(self, path: bytes) -> bytes:
        """Return ``path`` from the root, without ``.`` and ``..``; links are left as they are."""
        return b"/" + b"/".join(components(path))

    def status(self, path: bytes, *, follow: bool) -> os.stat_result:
        """Return what is at ``path``."""
        with self._place(path, follow=follow) as place:
            return os.stat(place.name, dir_fd=place.folder_fd, follow_symlinks=False)

    def open_file(self, path: bytes, flags: int, wanted: Attributes) -> OpenFile:
        """Open a regular file with SFTP's flags; of the attributes only permissions count."""
        how = _open_flags(flags)
        writes = bool(flags & (OPEN_WRITE | OPEN_APPEND))
        if how != os.O_RDONLY:
            self._may_write(path)
        mode = _NEW_FILE if wanted.permissions is None else wanted.permissions & _PERMISSIONS
        with self._place(path, follow=not flags & OPEN_EXCLUSIVE) as place:
            # To open a device can do something to it: look first, unless it must be new.
            if not (flags & OPEN_CREATE and flags & OPEN_EXCLUSIVE):
                with contextlib.suppress(FileNotFoundError):
                    _require_regular(_status_at(place))
            fd = os.open(place.name, how | _CAREFULLY, mode, dir_fd=place.folder_fd)
        try:
            _require_regular(os.fstat(fd))
        except OSError:
            os.close(fd)
            raise
        return OpenFile(fd, writable=writes, appends=bool(flags & OPEN_APPEND))

    def open_folder(self, path: bytes) -> OpenFolder:
        """Open a folder in order to list it."""
        with self._place(path, follow=True) as place:
            flags = os.O_RDONLY | os.O_DIRECTORY | _CAREFULLY
            return OpenFolder(os.open(place.name, flags, dir_fd=place.folder_fd))

    def change(self, path: bytes, wanted: Attributes, *, follow: bool) -> None:
        """Change the attributes that ``wanted`` names."""
        self._may_write(path)
        with self._place(path, follow=follow) as place:
            if wanted.owner is not None or wanted.permissions is not None:
                _check(wanted, _status_at(place))
            if wanted.size is not None:
                _truncate(place, wanted.size)
            if wanted.permissions is not None:
                _change_mode(place, wanted.permissions)
            if wanted.times is not None:
                os.utime(place.name, wanted.times, dir_fd=place.folder_fd, follow_symlinks=False)

    def remove(self, path: bytes) -> None:
        """Remove what is no folder."""
        with self._named(path) as place:
            os.unlink(place.name, dir_fd=place.folder_fd)

    def make_folder(self, path: bytes, wanted: Attributes) -> None:
        """Make a folder; of the attributes only permissions count."""
        mode = _PERMISSIONS if wanted.permissions is None else wanted.permissions & _PERMISSIONS
        with self._named(path) as place:
            os.mkdir(place.name, mode, dir_fd=place.folder_fd)

    def remove_folder(self, path: bytes) -> None:
        """Remove an empty folder."""
        with self._named(path) as place:
            os.rmdir(place.name, dir_fd=place.folder_fd)

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        """Rename; what is at ``new`` is replaced only if asked for (else EEXIST)."""
        with self._named(old) as source, self._named(new) as target:
            ends = {"src_dir_fd": source.folder_fd, "dst_dir_fd": target.folder_fd}
            if replace:
                os.rename(source.name, target.name, **ends)
                return
            if stat.S_ISDIR(_status_at(source).st_mode):
                _require_missing(target)
                os.rename(source.name, target.name, **ends)
                return
            # Of two clients that take the same new name, one is told that it exists.
            os.link(source.name, target.name, follow_symlinks=False, **ends)
            os.unlink(source.name, dir_fd=source.folder_fd)

    def link(self, old: bytes, new: bytes) -> None:
        """Give a file a second name; to a link itself, not to what it names."""
        with self._named(old) as source, self._named(new) as target:
            os.link(
                source.name,
                target.name,
                src_dir_fd=source.folder_fd,
                dst_dir_fd=target.folder_fd,
                follow_symlinks=False,
            )

    def symlink(self, target: bytes, path: bytes) -> None:
        """Make a symbolic link. Its text may name anything: nobody here follows it out of the root."""
        if b"\0" in target:
            raise refusal(errno.EINVAL)
        with self._named(path) as place:
            os.symlink(target, place.name, dir_fd=place.folder_fd)

    def read_link(self, path: bytes) -> bytes:
        """Return the text of a symbolic link."""
        with self._place(path, follow=False) as place:
            return os.readlink(place.name, dir_fd=place.folder_fd)

    def space(self, path: bytes) -> os.statvfs_result:
        """Return what the file system at ``path`` holds and has left."""
        with self._place(path, follow=True) as place:
            # Of a file it is that of its folder, which is open already.
            status = _status_at(place)
            if not stat.S_ISDIR(status.st_mode):
                return os.fstatvfs(place.folder_fd)
            flags = os.O_RDONLY | os.O_DIRECTORY | _CAREFULLY
            fd = os.open(place.name, flags, dir_fd=place.folder_fd)
            try:
                return os.fstatvfs(fd)
            finally:
                os.close(fd)

    def _place(self, path: bytes, *, follow: bool) -> Place:
        if self.rights.follow_symlinks:
            return self._walker.place_following(path, last=follow)
        return self._walker.place(path)

    def _named(self, path: bytes) -> Place:
        """Return a place whose name may be made, moved or removed."""
        self._may_write(path)
        place = self._place(path, follow=False)
        if place.is_root:
            raise refusal(errno.EPERM)
        return place

    def _may_write(self, path: bytes) -> None:
        if self.rights.read_only:
            raise refusal(errno.EROFS)


def _open_flags(flags: int) -> int:
    how = os.O_RDONLY
    if flags & (OPEN_WRITE | OPEN_APPEND):
        how = os.O_RDWR if flags & OPEN_READ else os.O_WRONLY
    for flag, system in (
        (OPEN_APPEND, os.O_APPEND),
        (OPEN_CREATE, os.O_CREAT),
        (OPEN_TRUNCATE, os.O_TRUNC),
        (OPEN_EXCLUSIVE, os.O_EXCL),
    ):
        if flags & flag:
            how |= system
    return how


def _status_at(place: Place) -> os.stat_result:
    return os.stat(place.name, dir_fd=place.folder_fd, follow_symlinks=False)


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise refusal(errno.ELOOP)
    if stat.S_ISDIR(status.st_mode):
        raise refusal(errno.EISDIR)
    if not stat.S_ISREG(status.st_mode):
        raise refusal(errno.EACCES)


def _require_missing(place: Place) -> None:
    with contextlib.suppress(FileNotFoundError):
        _status_at(place)
        raise refusal(errno.EEXIST)


def _check(wanted: Attributes, status: os.stat_result) -> None:
    """Refuse, before anything is changed, what no client may have."""
    if wanted.owner is not None and wanted.owner != (status.st_uid, status.st_gid):
        raise refusal(errno.EPERM)
    if wanted.permissions is None or stat.S_ISDIR(status.st_mode):
        return
    # A program that others would run as this user, made by whoever is root on the host.
    if wanted.permissions & _RUN_AS_OWNER & ~status.st_mode:
        raise refusal(errno.EPERM)


def _mode(permissions: int, status: os.stat_result) -> int:
    """Return the mode to set: the nine bits, and of the three others what is there and stays."""
    others = 0o7000 if stat.S_ISDIR(status.st_mode) else status.st_mode & 0o7000
    return permissions & (_PERMISSIONS | others)


def _truncate(place: Place, size_bytes: int) -> None:
    _require_regular(_status_at(place))
    fd = os.open(place.name, os.O_WRONLY | _CAREFULLY, dir_fd=place.folder_fd)
    try:
        _require_regular(os.fstat(fd))
        _set_size(fd, size_bytes)
    finally:
        os.close(fd)


def _set_size(fd: int, size_bytes: int) -> None:
    if size_bytes > LARGEST_OFFSET:
        raise refusal(errno.EFBIG)
    os.ftruncate(fd, size_bytes)


def _change_mode(place: Place, permissions: int) -> None:
    """Set permissions of the very object that was checked, also one that may not be read.

    Linux has no fchmodat that does not follow: its way is a descriptor that may only be named.
    """
    if _O_PATH is None:
        mode = _mode(permissions, _status_at(place))
        os.chmod(place.name, mode, dir_fd=place.folder_fd, follow_symlinks=False)
        return
    fd = os.open(place.name, _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.folder_fd)
    try:
        status = os.fstat(fd)
        if stat.S_ISLNK(status.st_mode):
            raise refusal(errno.EOPNOTSUPP)
        os.chmod(f"/proc/self/fd/{fd}", _mode(permissions, status))
    finally:
        os.close(fd)
