"""Pieces of a backlog: messages in memory, or in a file without a name that vanishes when closed."""

from __future__ import annotations

import errno
import logging
import os
import struct
import tempfile
from collections import deque
from typing import Iterator, NamedTuple, Protocol, Union

from sshpyk.link.backlog import Joined, Payload, Unnumbered

MESSAGE_COST_BYTES = 256  # of a message in memory, beside its payload
READ_BYTES = 256 * 1024
LARGEST_DROPPED_BYTES = 16 * 1024 * 1024  # to judge a message takes reading it
_FREE_SHARE = 0.05
_FREE_BYTES = 256 * 1024 * 1024
_SPACE_CHECK_BYTES = 1024 * 1024
_MAX_BUFFERS = 64  # well below any system's IOV_MAX

_HEAD = struct.Struct(">QQQB")  # size, place, seen, kind
_PLAIN, _END, _GAP = range(3)
_COUNTS = struct.Struct(">QQ")

log = logging.getLogger(__name__)


class Gap(NamedTuple):
    """Output that was dropped: ``parent_header`` is that of the request that it belonged to."""

    place: int
    seen: int
    parent_header: bytes
    lines: int
    size_bytes: int

    def joined(self, later: Gap) -> Gap:
        """Return both as one."""
        return self._replace(
            lines=self.lines + later.lines, size_bytes=self.size_bytes + later.size_bytes
        )


Entry = Union[Unnumbered, Gap]
Part = Union[bytes, memoryview]


class DropPolicy(Protocol):
    """What may be dropped of a stream, and the words that take its place.

    A gap must name a shorter ``parent_header`` than its message is: it is written over it.
    """

    def gap_for(self, message: Unnumbered) -> Gap | None:
        """Return what is lost when ``message`` is dropped; None where it must not be."""

    def notice(self, gap: Gap) -> bytes:
        """Return the payload of the message that tells the user."""


class Size(NamedTuple):
    """What a segment holds and takes."""

    messages: int
    payload_bytes: int
    memory_bytes: int
    file_bytes: int


def cost_of(payload: Payload) -> int:
    """Return what a message takes in memory."""
    return MESSAGE_COST_BYTES + (0 if isinstance(payload, InFile) else len(payload))


def join_to(last: Entry | None, entry: Entry) -> Gap | None:
    """Return both as one, if they are gaps of one request."""
    if not (isinstance(last, Gap) and isinstance(entry, Gap)):
        return None
    return last.joined(entry) if last.parent_header == entry.parent_header else None


class MemorySegment:
    """Messages in memory, and gaps."""

    def __init__(self, entries: list[Entry] | None = None) -> None:
        self.thinned = False  # nothing in it may be dropped any more
        self._entries: deque[Entry] = deque()
        self._payload_bytes = 0
        for entry in entries or []:
            self.append(entry)

    @property
    def size(self) -> Size:
        """What it holds."""
        count = len(self._entries)
        memory = self._payload_bytes + MESSAGE_COST_BYTES * count
        return Size(count, self._payload_bytes, memory, 0)

    def append(self, entry: Entry) -> None:
        """Take a message, or a gap, which joins one before it."""
        both = join_to(self._entries[-1] if self._entries else None, entry)
        if both is not None:
            self._entries[-1] = both
            return
        self._entries.append(entry)
        if isinstance(entry, Unnumbered):
            self._payload_bytes += len(entry.payload)

    def fetch(self) -> list[Entry]:
        """Give back messages of about READ_BYTES, one at least unless it is empty."""
        fetched: list[Entry] = []
        size = 0
        while self._entries and size < READ_BYTES:
            entry = self._entries.popleft()
            fetched.append(entry)
            if isinstance(entry, Unnumbered):
                size += len(entry.payload)
        self._payload_bytes -= size
        return fetched

    def thin(self, policy: DropPolicy) -> Gap | None:
        """Drop what may be dropped; return what it was in all."""
        entries = list(self._entries)
        kept, total = _thin(entries, policy)
        if total is not None:
            self.close()
            for entry in kept:
                self.append(entry)
        self.thinned = True
        return total

    def close(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._payload_bytes = 0


def _thin(entries: list[Entry], policy: DropPolicy) -> tuple[list[Entry], Gap | None]:
    kept: list[Entry] = []
    total: Gap | None = None
    for entry in entries:
        gap = policy.gap_for(entry) if isinstance(entry, Unnumbered) else None
        kept.append(gap or entry)
        if gap is not None:
            total = total.joined(gap) if total else gap
    return kept, total


class FileSegment:
    """Messages in a file that has no name: 0600, and gone with the last descriptor.

    Raises OSError where the disk is full, and before it is: some of it is left to others.
    """

    def __init__(self, folder: str) -> None:
        self.thinned = False
        # Not buffered: what is written is on the disk's account, or an error that we see.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0, prefix="spool-")  # noqa: SIM115
        self._count = 0
        self._payload_bytes = 0
        self._end = 0
        self._read_at = 0
        self._checked_at = -_SPACE_CHECK_BYTES
        self._lent = 0  # payloads that are read from here piece by piece
        self._closed = False

    @property
    def size(self) -> Size:
        """What it holds, and the length of the file."""
        return Size(self._count, self._payload_bytes, 0, 0 if self._closed else self._end)

    def append(self, message: Unnumbered, *, to_the_last_byte: bool = False) -> None:
        """Write a message, all of it or nothing. Raises OSError.

        ``to_the_last_byte``: leave nothing of the disk to others.
        """
        if not to_the_last_byte:
            self._check_space(len(message.payload))
        buffers = _encode(message)
        whole = sum(map(len, buffers))
        fd = self._file.fileno()
        os.lseek(fd, self._end, os.SEEK_SET)
        try:
            written = os.writev(fd, buffers)
        except OSError:
            written = 0
        if written != whole:
            os.ftruncate(fd, self._end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._end += whole
        self._payload_bytes += len(message.payload)
        self._count += 1

    def _check_space(self, size_bytes: int) -> None:
        if self._end + size_bytes - self._checked_at < _SPACE_CHECK_BYTES:
            return
        self._checked_at = self._end
        disk = os.fstatvfs(self._file.fileno())
        left = disk.f_bavail * disk.f_frsize - size_bytes
        if left < min(_FREE_BYTES, disk.f_blocks * disk.f_frsize * _FREE_SHARE):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

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
            write_at += os.pwrite(self._file.fileno(), b"".join(_encode(gap)), write_at)
            self._payload_bytes -= size
        os.ftruncate(self._file.fileno(), write_at)
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
            os.pwrite(self._file.fileno(), piece, target + done)
            done += len(piece)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return bytes of the file. Raises OSError, also when they are not there."""
        data = os.pread(self._file.fileno(), size_bytes, offset)
        while len(data) < size_bytes:
            more = os.pread(self._file.fileno(), size_bytes - len(data), offset + len(data))
            if not more:
                raise OSError(errno.EIO, "the spool file has been cut")
            data += more
        return data

    def take_back(self) -> None:
        """Note that a payload that was lent is not needed any more."""
        self._lent -= 1
        self._close_if_unused()

    def close(self) -> None:
        """Forget everything but what is lent; then the file and its room on the disk are gone."""
        self._count = self._payload_bytes = 0
        self._closed = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._closed and not self._lent:
            self._file.close()


class InFile:
    """A payload that stays in its file: too large to be read at once."""

    def __init__(self, segment: FileSegment, offset: int, size_bytes: int) -> None:
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


Segment = Union[MemorySegment, FileSegment]


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
