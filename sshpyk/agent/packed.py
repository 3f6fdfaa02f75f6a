"""Pieces of a backlog that keep their messages as bytes: in memory, or in a file without a name.

Each message is a head (size, place, seen, kind) and its payload; a gap is a message of its own kind.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import struct
import tempfile
from typing import Iterator, Union

from sshpyk.agent.segments import (
    MESSAGE_COST_BYTES,
    READ_BYTES,
    DropPolicy,
    Entry,
    Gap,
    MemorySegment,
    Size,
)
from sshpyk.link.backlog import Joined, Payload, Unnumbered

LARGEST_PACKED_BYTES = 64 * 1024  # of a message that is copied to where others are in memory
LARGEST_DROPPED_BYTES = 16 * 1024 * 1024  # to judge a message takes reading it
_FREE_SHARE = 0.05
_FREE_BYTES = 256 * 1024 * 1024
_SPACE_CHECK_BYTES = 1024 * 1024
_MAX_BUFFERS = 64  # well below any system's IOV_MAX

_HEAD = struct.Struct(">QQQB")  # size, place, seen, kind
_PLAIN, _END, _GAP = range(3)
_COUNTS = struct.Struct(">QQ")

Part = Union[bytes, memoryview]

log = logging.getLogger(__name__)


class PackedSegment:
    """Messages in one row of bytes, which subclasses keep somewhere. All of them raise OSError."""

    def __init__(self) -> None:
        self.thinned = False
        self._count = 0
        self._payload_bytes = 0
        self._end = 0
        self._read_at = 0
        self._lent = 0  # payloads that are read from here piece by piece
        self._closed = False

    # Where the bytes are

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return bytes of the row. Raises OSError, also when they are not there."""
        raise NotImplementedError

    def _write(self, buffers: list[Part], offset: int) -> None:
        """Write all of it, or raise OSError and leave the messages that are there."""
        raise NotImplementedError

    def _cut(self, end: int) -> None:
        """Give back what is behind ``end``."""
        raise NotImplementedError

    def _let_go(self) -> None:
        """Give back everything."""
        raise NotImplementedError

    @property
    def size(self) -> Size:
        """What it holds and takes."""
        raise NotImplementedError

    # What they say

    def append(self, message: Unnumbered) -> None:
        """Write a message, all of it or nothing. Raises OSError."""
        buffers = _encode(message)
        self._write(buffers, self._end)
        self._end += sum(map(len, buffers))
        self._payload_bytes += len(message.payload)
        self._count += 1

    def fetch(self) -> list[Entry]:
        """Read messages of about READ_BYTES, one at least unless it is empty. Raises OSError."""
        data = self.read(self._read_at, min(READ_BYTES, self._end - self._read_at))
        fetched: list[Entry] = []
        at = 0
        while at + _HEAD.size <= len(data):
            size, place, seen, kind = _HEAD.unpack_from(data, at)
            begin = at + _HEAD.size
            payload: Payload
            if begin + size <= len(data):
                payload = data[begin : begin + size]
            elif not fetched:
                payload = InFile(self, self._read_at + begin, size)
                self._lent += 1
            else:
                break
            fetched.append(_decode(place, seen, kind, payload))
            self._payload_bytes -= 0 if kind == _GAP else size
            at = begin + size
        self._count -= len(fetched)
        self._read_at += at
        return fetched

    def thin(self, policy: DropPolicy) -> Gap | None:
        """Drop what may be dropped, in place; return what it was in all. Raises OSError."""
        self.thinned = True
        write_at = self._read_at
        total: Gap | None = None
        for at, head in self._heads():
            size, place, seen, kind = head
            gap = None
            if kind == _PLAIN and size <= LARGEST_DROPPED_BYTES:
                payload = self.read(at + _HEAD.size, size)
                gap = policy.gap_for(Unnumbered(place, payload, seen, False))
            if gap is None:
                self._move(at, write_at, _HEAD.size + size)
                write_at += _HEAD.size + size
                continue
            total = total.joined(gap) if total else gap
            # Always shorter than the message: both name the request.
            buffers = _encode(gap)
            self._write(buffers, write_at)
            write_at += sum(map(len, buffers))
            self._payload_bytes -= size
        self._cut(write_at)
        self._end = write_at
        return total

    def _heads(self) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
        at = self._read_at
        while at < self._end:
            head = _HEAD.unpack(self.read(at, _HEAD.size))
            yield at, head
            at += _HEAD.size + head[0]

    def _move(self, source: int, target: int, size_bytes: int) -> None:
        done = 0
        while source != target and done < size_bytes:
            piece = self.read(source + done, min(READ_BYTES, size_bytes - done))
            self._write([piece], target + done)
            done += len(piece)

    def take_back(self) -> None:
        """Note that a payload that was lent is not needed any more."""
        self._lent -= 1
        self._let_go_if_unused()

    def close(self) -> None:
        """Forget everything but what is lent; then the room that it took is free."""
        self._count = self._payload_bytes = 0
        self._closed = True
        self._let_go_if_unused()

    def _let_go_if_unused(self) -> None:
        if self._closed and not self._lent:
            self._let_go()


class MemoryBlock(PackedSegment):
    """Small messages in memory of the system's own, not the interpreter's heap.

    Tens of thousands of messages that come and go between others leave holes in a heap (a quarter of it
    was measured), and it never shrinks; this is given back when it was read.
    """

    def __init__(self, full_bytes: int) -> None:
        super().__init__()
        self._full_bytes = full_bytes
        # Memory that was not written to yet takes none.
        room = full_bytes + LARGEST_PACKED_BYTES + _HEAD.size
        self._map = mmap.mmap(-1, room, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def admits(self, message: Unnumbered) -> bool:
        """Whether it has room for the message, which is not larger than LARGEST_PACKED_BYTES."""
        return not self.thinned and self._end < self._full_bytes

    @property
    def size(self) -> Size:
        """What it holds, and what was written."""
        return Size(self._count, self._payload_bytes, 0 if self._closed else self._end, 0)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return bytes of the row."""
        return self._map[offset : offset + size_bytes]

    def _write(self, buffers: list[Part], offset: int) -> None:
        for buffer in buffers:
            self._map[offset : offset + len(buffer)] = buffer
            offset += len(buffer)

    def _cut(self, end: int) -> None:
        first = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE
        if first < len(self._map):
            self._map.madvise(mmap.MADV_DONTNEED, first, len(self._map) - first)

    def _let_go(self) -> None:
        self._map.close()


class FileSegment(PackedSegment):
    """Messages in a file that has no name: 0600, and gone with the last descriptor.

    Raises OSError where the disk is full, and before it is: some of it is left to others.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        # Not buffered: what is written is on the disk's account, or an error that we see.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0, prefix="spool-")  # noqa: SIM115
        self._checked_at = -_SPACE_CHECK_BYTES

    @property
    def size(self) -> Size:
        """What it holds, and the length of the file."""
        return Size(self._count, self._payload_bytes, 0, 0 if self._closed else self._end)

    def check_space(self, size_bytes: int) -> None:
        """Raise OSError when so much more would take what is left to others; to be asked first."""
        if self._end + size_bytes - self._checked_at < _SPACE_CHECK_BYTES:
            return
        self._checked_at = self._end
        disk = os.fstatvfs(self._file.fileno())
        left = disk.f_bavail * disk.f_frsize - size_bytes
        if left < min(_FREE_BYTES, disk.f_blocks * disk.f_frsize * _FREE_SHARE):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return bytes of the file. Raises OSError, also when they are not there."""
        data = os.pread(self._file.fileno(), size_bytes, offset)
        while len(data) < size_bytes:
            more = os.pread(self._file.fileno(), size_bytes - len(data), offset + len(data))
            if not more:
                raise OSError(errno.EIO, "the spool file has been cut")
            data += more
        return data

    def _write(self, buffers: list[Part], offset: int) -> None:
        fd = self._file.fileno()
        os.lseek(fd, offset, os.SEEK_SET)
        try:
            written = os.writev(fd, buffers)
        except OSError:
            written = 0
        if written != sum(map(len, buffers)):
            os.ftruncate(fd, max(offset, self._end))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _cut(self, end: int) -> None:
        os.ftruncate(self._file.fileno(), end)

    def _let_go(self) -> None:
        self._file.close()


class InFile:
    """A payload that stays in its file: too large to be read at once."""

    def __init__(self, segment: PackedSegment, offset: int, size_bytes: int) -> None:
        self._segment = segment
        self._offset = offset
        self._size_bytes = size_bytes

    def __len__(self) -> int:
        return self._size_bytes

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return a piece; zeros where the disk fails, so that the message's signature is wrong."""
        try:
            return self._segment.read(self._offset + offset, size_bytes)
        except OSError as error:
            log.error("a message is lost, the spool cannot be read: %s", error)
            return bytes(size_bytes)

    def free(self) -> None:
        """Let the file go."""
        self._segment.take_back()


Segment = Union[MemorySegment, MemoryBlock, FileSegment]


def cost_of(payload: Payload) -> int:
    """Return what a message takes in memory."""
    return MESSAGE_COST_BYTES + (0 if isinstance(payload, InFile) else len(payload))


def _encode(entry: Entry) -> list[Part]:
    if isinstance(entry, Gap):
        counts = _COUNTS.pack(entry.lines, entry.size_bytes)
        return _with_head(entry, _GAP, [counts, entry.parent_header])
    payload = entry.payload
    if isinstance(payload, Joined) and len(payload.buffers) < _MAX_BUFFERS:
        buffers = payload.buffers
    else:
        assert isinstance(payload, (bytes, Joined))  # what is in a file is not written again
        buffers = [bytes(payload)]
    return _with_head(entry, _END if entry.end else _PLAIN, buffers)


def _with_head(entry: Entry, kind: int, buffers: list[Part]) -> list[Part]:
    return [_HEAD.pack(sum(map(len, buffers)), entry.place, entry.seen, kind), *buffers]


def _decode(place: int, seen: int, kind: int, payload: Payload) -> Entry:
    if kind == _GAP and isinstance(payload, bytes):
        lines, size_bytes = _COUNTS.unpack_from(payload)
        return Gap(place, seen, payload[_COUNTS.size :], lines, size_bytes)
    return Unnumbered(place, payload, seen, kind == _END)
