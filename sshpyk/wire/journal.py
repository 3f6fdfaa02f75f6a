"""What a hub notes so that another can take its place when it is killed.

A small memory-mapped file beside the hub's socket: writing to it is a copy in memory, and the kernel
keeps it when the process dies (it need not survive the machine). It holds the link's id and epoch, and
for each stream how many messages were handed over, so that the next hub asks the agent for exactly
the rest. A message is noted before it is handed over: what a dying hub may have swallowed is lost and
said, never delivered twice.

Layout: magic, version, link id, epoch, next stream, then slots of (used, stream, messages, bytes).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from dataclasses import dataclass

_HEAD = struct.Struct("<8s32sQQ")
_SLOT = struct.Struct("<IIQQ")
_MAGIC = b"sshpyk-1"
_SLOTS = 4096
_SIZE_BYTES = _HEAD.size + _SLOTS * _SLOT.size


@dataclass(frozen=True)
class Noted:
    """What a dead hub left: see :meth:`sshpyk.link.link.Link.restore`."""

    link_id: str
    epoch: int
    next_stream: int
    consumed: dict[int, tuple[int, int]]


def read_journal(path: str) -> Noted | None:
    """Return what the hub that used ``path`` had noted; None where there is nothing to take over."""
    try:
        with open(path, "rb") as file:
            data = file.read(_SIZE_BYTES)
        magic, link_id, epoch, next_stream = _HEAD.unpack_from(data)
    except (OSError, struct.error):
        return None
    if magic != _MAGIC or not epoch or len(data) < _SIZE_BYTES:
        return None
    slots = _SLOT.iter_unpack(data[_HEAD.size :])
    consumed = {stream: (seq, size) for used, stream, seq, size in slots if used}
    return Noted(link_id.decode(), epoch, next_stream, consumed)


class Journal:
    """The notes of a living hub. Removed when it leaves in order."""

    def __init__(self, path: str) -> None:
        self._path = path
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(fd, _SIZE_BYTES)
            self._map = mmap.mmap(fd, _SIZE_BYTES)
        finally:
            os.close(fd)
        self._slot_of: dict[int, int] = {}
        self._free = list(range(_SLOTS - 1, -1, -1))

    def begin(self, link_id: str, epoch: int, next_stream: int) -> None:
        """Note the link before anything is sent on a connection of this epoch."""
        _HEAD.pack_into(self._map, 0, _MAGIC, link_id.encode(), epoch, next_stream)

    def restore(self, noted: Noted) -> None:
        """Go on with the notes of the hub before us."""
        self.clear()
        for stream, (seq, size_bytes) in noted.consumed.items():
            self.note(stream, seq, size_bytes)

    def note(self, stream: int, seq: int, size_bytes: int) -> None:
        """Note that messages below ``seq``, of ``size_bytes`` in all, are handed over."""
        slot = self._slot_of.get(stream)
        if slot is None:
            if not self._free:
                return  # more streams than slots: the surplus is not taken over after a crash
            slot = self._slot_of[stream] = self._free.pop()
        _SLOT.pack_into(self._map, _HEAD.size + slot * _SLOT.size, 1, stream, seq, size_bytes)

    def forget(self, stream: int) -> None:
        """The stream has ended."""
        slot = self._slot_of.pop(stream, None)
        if slot is not None:
            self._free.append(slot)
            _SLOT.pack_into(self._map, _HEAD.size + slot * _SLOT.size, 0, 0, 0, 0)

    def clear(self) -> None:
        """Forget every stream: a new link begins."""
        self._map[:] = bytes(_SIZE_BYTES)
        self._slot_of.clear()
        self._free = list(range(_SLOTS - 1, -1, -1))

    def remove(self) -> None:
        """The hub leaves in order: there is nothing to take over."""
        self._map.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
