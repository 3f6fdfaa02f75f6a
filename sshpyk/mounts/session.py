"""The SFTP protocol of a server, without I/O of its own: bytes in, replies out.

Rules. The owner fills :meth:`Session.space` with what it read, tells how much (:meth:`received`), and
takes :meth:`next_reply` until it returns None, which means that more must be read. Taking replies one
by one bounds what a client can have waiting: stop while they cannot be written. A reply is a list of
buffers that belong on the wire one after the other. A :class:`SftpProtocolError` ends the session: the
client is broken or worse. What a *file operation* refuses is a STATUS, and the session goes on.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
from collections.abc import Callable
from typing import TypeVar

from .confined import LARGEST_OFFSET, Folder, OpenFile, OpenFolder
from .sftp import (
    LARGEST_DATA_BYTES,
    LARGEST_PACKET_BYTES,
    U32,
    U64,
    VERSION,
    Fields,
    Reply,
    Request,
    SftpProtocolError,
    Status,
    encode_attributes,
    encode_attributes_packet,
    encode_status,
    encode_string,
    long_name,
)
from .walk import refusal

log = logging.getLogger(__name__)

Buffers = list[bytes]

# Several packets, so that a burst of writes is read at once.
_BUFFER_BYTES = 4 * (LARGEST_PACKET_BYTES + 4)
# sshfs takes no reply above 128 KiB; and a listing should begin to arrive early.
_LISTING_BYTES = 64 * 1024
_MOST_ENTRIES = 500
_MASK_64 = (1 << 64) - 1

_OK = struct.Struct(">IBIIII")  # a whole STATUS packet with two empty texts

_STATUS_OF = {
    errno.ENOENT: Status.NO_SUCH_FILE,
    errno.ENOTDIR: Status.NO_SUCH_FILE,
    errno.EPERM: Status.PERMISSION_DENIED,
    errno.EACCES: Status.PERMISSION_DENIED,
    errno.EROFS: Status.PERMISSION_DENIED,
    errno.ELOOP: Status.PERMISSION_DENIED,
    errno.EOPNOTSUPP: Status.OP_UNSUPPORTED,
    errno.ENOSYS: Status.OP_UNSUPPORTED,
}

_EXTENSIONS: tuple[tuple[bytes, bytes], ...] = (
    (b"posix-rename@openssh.com", b"1"),
    (b"statvfs@openssh.com", b"2"),
    (b"fstatvfs@openssh.com", b"2"),
    (b"hardlink@openssh.com", b"1"),
    (b"fsync@openssh.com", b"1"),
    (b"lsetstat@openssh.com", b"1"),
    (b"limits@openssh.com", b"1"),
)

_Opened = TypeVar("_Opened", OpenFile, OpenFolder)


class Session:
    """One client's conversation about one folder."""

    def __init__(self, folder: Folder, *, most_handles: int) -> None:
        self._folder = folder
        self._most_handles = most_handles
        self._open: dict[bytes, OpenFile | OpenFolder] = {}
        self._last_handle = 0
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._begun = False
        self._answers: dict[int, Callable[[int, Fields], Buffers]] = {
            Request.OPEN: self._open_file,
            Request.CLOSE: self._close,
            Request.READ: self._read,
            Request.WRITE: self._write,
            Request.LSTAT: self._lstat,
            Request.FSTAT: self._fstat,
            Request.SETSTAT: self._setstat,
            Request.FSETSTAT: self._fsetstat,
            Request.OPENDIR: self._opendir,
            Request.READDIR: self._readdir,
            Request.REMOVE: self._remove,
            Request.MKDIR: self._mkdir,
            Request.RMDIR: self._rmdir,
            Request.REALPATH: self._realpath,
            Request.STAT: self._stat,
            Request.RENAME: self._rename,
            Request.READLINK: self._readlink,
            Request.SYMLINK: self._symlink,
            Request.EXTENDED: self._extended,
        }
        self._extensions: dict[bytes, Callable[[int, Fields], Buffers]] = {
            b"posix-rename@openssh.com": self._posix_rename,
            b"statvfs@openssh.com": self._statvfs,
            b"fstatvfs@openssh.com": self._fstatvfs,
            b"hardlink@openssh.com": self._hardlink,
            b"fsync@openssh.com": self._fsync,
            b"lsetstat@openssh.com": self._lsetstat,
            b"limits@openssh.com": self._limits,
        }

    def space(self) -> memoryview:
        """Return where to put what is read next; never empty once next_reply has returned None."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start and len(self._buffer) - self._start < LARGEST_PACKET_BYTES + 4:
            size_bytes = self._end - self._start
            self._view[:size_bytes] = self._view[self._start : self._end]
            self._start, self._end = 0, size_bytes
        return self._view[self._end :]

    def received(self, size_bytes: int) -> None:
        """Say how much of :meth:`space` was filled."""
        self._end += size_bytes

    def next_reply(self) -> Buffers | None:
        """Handle the next request and return its reply; None when it is not all there."""
        packet = self._next_packet()
        if packet is None:
            return None
        fields = Fields(packet)
        kind = fields.byte()
        if not self._begun:
            return self._begin(kind, fields)
        request_id = fields.u32()
        answer = self._answers.get(kind)
        if answer is None:
            return [encode_status(request_id, Status.OP_UNSUPPORTED, b"unknown request")]
        try:
            return answer(request_id, fields)
        except OSError as error:
            return [_refused(request_id, error)]

    def close(self) -> None:
        """Close what the client has left open."""
        for opened in self._open.values():
            opened.close()
        self._open.clear()

    def _next_packet(self) -> memoryview | None:
        available = self._end - self._start
        if available < 4:
            return None
        (size_bytes,) = U32.unpack_from(self._buffer, self._start)
        if not 0 < size_bytes <= LARGEST_PACKET_BYTES:
            raise SftpProtocolError(f"a packet of {size_bytes} bytes")
        if available < 4 + size_bytes:
            return None
        start = self._start + 4
        self._start = start + size_bytes
        return self._view[start : start + size_bytes]

    def _begin(self, kind: int, fields: Fields) -> Buffers:
        if kind != Request.INIT:
            raise SftpProtocolError(f"a request of type {kind} before INIT")
        version = fields.u32()
        if version < VERSION:
            raise SftpProtocolError(f"the client knows only version {version}")
        self._begun = True
        texts = [encode_string(text) for extension in _EXTENSIONS for text in extension]
        return _packet(bytes([Reply.VERSION]) + U32.pack(VERSION) + b"".join(texts))

    # Handles. A number is never used twice, so an old one names nothing.

    def _room(self) -> None:
        if len(self._open) >= self._most_handles:
            raise refusal(errno.EMFILE)

    def _keep(self, request_id: int, opened: OpenFile | OpenFolder) -> Buffers:
        self._last_handle += 1
        handle = U64.pack(self._last_handle)
        self._open[handle] = opened
        return _packet(_head(Reply.HANDLE, request_id) + encode_string(handle))

    def _handle(self, fields: Fields, kind: type[_Opened]) -> _Opened:
        opened = self._open.get(fields.string())
        if not isinstance(opened, kind):
            raise refusal(errno.EBADF)
        return opened

    def _open_file(self, request_id: int, fields: Fields) -> Buffers:
        path, flags, wanted = fields.string(), fields.u32(), fields.attributes()
        self._room()
        return self._keep(request_id, self._folder.open_file(path, flags, wanted))

    def _opendir(self, request_id: int, fields: Fields) -> Buffers:
        path = fields.string()
        self._room()
        return self._keep(request_id, self._folder.open_folder(path))

    def _close(self, request_id: int, fields: Fields) -> Buffers:
        opened = self._open.pop(fields.string(), None)
        if opened is None:
            raise refusal(errno.EBADF)
        opened.close()
        return _ok(request_id)

    # Contents.

    def _read(self, request_id: int, fields: Fields) -> Buffers:
        file = self._handle(fields, OpenFile)
        offset, size_bytes = fields.u64(), fields.u32()
        data = file.read(_offset(offset), min(size_bytes, LARGEST_DATA_BYTES))
        if not data and size_bytes:
            return [encode_status(request_id, Status.EOF, b"end of file")]
        head = _head(Reply.DATA, request_id) + U32.pack(len(data))
        return [U32.pack(len(head) + len(data)) + head, data]

    def _write(self, request_id: int, fields: Fields) -> Buffers:
        file = self._handle(fields, OpenFile)
        offset, data = fields.u64(), fields.view()
        file.write(_offset(offset), data)
        return _ok(request_id)

    def _fsync(self, request_id: int, fields: Fields) -> Buffers:
        self._handle(fields, OpenFile).sync()
        return _ok(request_id)

    def _readdir(self, request_id: int, fields: Fields) -> Buffers:
        folder = self._handle(fields, OpenFolder)
        lines: list[bytes] = []
        size_bytes = 0
        while size_bytes < _LISTING_BYTES and len(lines) < _MOST_ENTRIES:
            entry = folder.next_entry()
            if entry is None:
                break
            texts = encode_string(entry.name) + encode_string(long_name(*entry))
            lines.append(texts + encode_attributes(entry.status))
            size_bytes += len(lines[-1])
        if not lines:
            return [encode_status(request_id, Status.EOF, b"end of folder")]
        return _names(request_id, lines)

    # Attributes.

    def _stat(self, request_id: int, fields: Fields) -> Buffers:
        return _attributes(request_id, self._folder.status(fields.string(), follow=True))

    def _lstat(self, request_id: int, fields: Fields) -> Buffers:
        return _attributes(request_id, self._folder.status(fields.string(), follow=False))

    def _fstat(self, request_id: int, fields: Fields) -> Buffers:
        opened = self._open.get(fields.string())
        if opened is None:
            raise refusal(errno.EBADF)
        return _attributes(request_id, os.fstat(opened.fd))

    def _setstat(self, request_id: int, fields: Fields) -> Buffers:
        self._folder.change(fields.string(), fields.attributes(), follow=True)
        return _ok(request_id)

    def _lsetstat(self, request_id: int, fields: Fields) -> Buffers:
        self._folder.change(fields.string(), fields.attributes(), follow=False)
        return _ok(request_id)

    def _fsetstat(self, request_id: int, fields: Fields) -> Buffers:
        self._handle(fields, OpenFile).change(fields.attributes())
        return _ok(request_id)

    def _statvfs(self, request_id: int, fields: Fields) -> Buffers:
        return self._space(request_id, self._folder.space(fields.string()))

    def _fstatvfs(self, request_id: int, fields: Fields) -> Buffers:
        return self._space(request_id, os.fstatvfs(self._handle(fields, OpenFile).fd))

    def _space(self, request_id: int, space: os.statvfs_result) -> Buffers:
        read_only = os.ST_RDONLY if self._folder.rights.read_only else 0
        numbers = (
            *(space.f_bsize, space.f_frsize, space.f_blocks, space.f_bfree, space.f_bavail),
            *(space.f_files, space.f_ffree, space.f_favail, 0),
            *(space.f_flag & (os.ST_RDONLY | os.ST_NOSUID) | read_only, space.f_namemax),
        )
        texts = [U64.pack(number & _MASK_64) for number in numbers]
        return _packet(_head(Reply.EXTENDED_REPLY, request_id) + b"".join(texts))

    # Names.

    def _remove(self, request_id: int, fields: Fields) -> Buffers:
        self._folder.remove(fields.string())
        return _ok(request_id)

    def _mkdir(self, request_id: int, fields: Fields) -> Buffers:
        self._folder.make_folder(fields.string(), fields.attributes())
        return _ok(request_id)

    def _rmdir(self, request_id: int, fields: Fields) -> Buffers:
        self._folder.remove_folder(fields.string())
        return _ok(request_id)

    def _rename(self, request_id: int, fields: Fields) -> Buffers:
        self._folder.rename(fields.string(), fields.string(), replace=False)
        return _ok(request_id)

    def _posix_rename(self, request_id: int, fields: Fields) -> Buffers:
        self._folder.rename(fields.string(), fields.string(), replace=True)
        return _ok(request_id)

    def _hardlink(self, request_id: int, fields: Fields) -> Buffers:
        self._folder.link(fields.string(), fields.string())
        return _ok(request_id)

    def _symlink(self, request_id: int, fields: Fields) -> Buffers:
        # The draft says the link's name first. OpenSSH sends its text first, and so does sshfs.
        self._folder.symlink(fields.string(), fields.string())
        return _ok(request_id)

    def _readlink(self, request_id: int, fields: Fields) -> Buffers:
        return _name(request_id, self._folder.read_link(fields.string()))

    def _realpath(self, request_id: int, fields: Fields) -> Buffers:
        return _name(request_id, self._folder.real_path(fields.string()))

    # Extensions.

    def _extended(self, request_id: int, fields: Fields) -> Buffers:
        answer = self._extensions.get(fields.string())
        if answer is None:
            return [encode_status(request_id, Status.OP_UNSUPPORTED, b"unknown extension")]
        return answer(request_id, fields)

    def _limits(self, request_id: int, _: Fields) -> Buffers:
        numbers = (
            LARGEST_PACKET_BYTES,
            LARGEST_DATA_BYTES,
            LARGEST_DATA_BYTES,
            self._most_handles,
        )
        texts = [U64.pack(number) for number in numbers]
        return _packet(_head(Reply.EXTENDED_REPLY, request_id) + b"".join(texts))


def _offset(offset: int) -> int:
    """Return an offset that the system calls can hold; above it no file ends."""
    if offset > LARGEST_OFFSET:
        raise refusal(errno.EINVAL)
    return offset


def _head(kind: Reply, request_id: int) -> bytes:
    return bytes([kind]) + U32.pack(request_id)


def _packet(body: bytes) -> Buffers:
    return [encode_string(body)]


def _ok(request_id: int) -> Buffers:
    return [_OK.pack(_OK.size - 4, Reply.STATUS.value, request_id, 0, 0, 0)]


def _attributes(request_id: int, status: os.stat_result) -> Buffers:
    return [encode_attributes_packet(request_id, status)]


def _names(request_id: int, lines: list[bytes]) -> Buffers:
    return _packet(_head(Reply.NAME, request_id) + U32.pack(len(lines)) + b"".join(lines))


def _name(request_id: int, name: bytes) -> Buffers:
    """Return a path alone: its second text and its attributes mean nothing."""
    return _names(request_id, [encode_string(name) * 2 + U32.pack(0)])


def _refused(request_id: int, error: OSError) -> bytes:
    status = _STATUS_OF.get(error.errno or 0, Status.FAILURE)
    if status is not Status.NO_SUCH_FILE:  # which half of all questions are
        log.debug("request %d refused: %s", request_id, error.strerror)
    # The system's words alone: with a path they would be longer and say nothing new.
    return encode_status(request_id, status, (error.strerror or "failed").encode())
