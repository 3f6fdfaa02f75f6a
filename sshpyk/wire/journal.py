"""What an end of a link notes so that another process can take its place when it is killed.

A small file in memory (``mapped``) beside the socket of the hub or the agent. It holds the link's id
and epoch, and for each stream how many messages were handed over, so that the next process asks the
other end for exactly the rest. A message is noted before it is handed over: what a dying process may
have swallowed is lost and said, never delivered twice.

Layout: a head (see :class:`Head`), then slots of (state, stream, messages, bytes).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from sshpyk.link.backlog import MakeBacklog
from sshpyk.link.link import Link
from sshpyk.link.stream import Message, Taken
from sshpyk.wire.mapped import map_file

_HEAD = struct.Struct("<8s32sQQdd64s")
_SLOT = struct.Struct("<IIQQ")
_MAGIC = b"sshpyk-2"
_SLOTS = 4096
_SIZE_BYTES = _HEAD.size + _SLOTS * _SLOT.size
_FREE, _LIVE, _ENDED = range(3)


class Head(NamedTuple):
    """What is noted of the link itself.

    ``boot_id`` is the host's. The times, by the host's clock (``wire.clock``), are the agent's: when it
    last had nothing that the hub had not acknowledged, and when it last heard of the hub.
    """

    link_id: str
    epoch: int
    next_stream: int = 0
    settled_s: float = 0.0
    heard_s: float = 0.0
    boot_id: str = ""

    def pack(self) -> bytes:
        """Return the bytes at the beginning of the file."""
        link_id, boot_id = self.link_id.encode(), self.boot_id.encode()
        return _HEAD.pack(_MAGIC, link_id, *self[1:5], boot_id)


@dataclass(frozen=True)
class Noted:
    """What a dead process left: see :meth:`sshpyk.link.link.Link.restore`."""

    head: Head
    taken: dict[int, Taken] = field(default_factory=dict)

    def restore(self, boot_id: str = "", make_backlog: MakeBacklog | None = None) -> Link:
        """Return the link as the dead process left it; ``boot_id`` is that of our machine."""
        head = self.head
        return Link.restore(head.link_id, head.epoch, self.taken, boot_id, make_backlog)

    def ended(self) -> list[int]:
        """Return the streams whose last message was handed over."""
        return [stream for stream, taken in self.taken.items() if taken.ended]


def read_journal(path: str) -> Noted | None:
    """Return what the process that used ``path`` had noted; None where nothing can be taken over."""
    try:
        with open(path, "rb") as file:
            data = file.read(_SIZE_BYTES)
        magic, link_id, epoch, next_stream, settled_s, heard_s, boot_id = _HEAD.unpack_from(data)
    except (OSError, struct.error):
        return None
    if magic != _MAGIC or not epoch or len(data) < _SIZE_BYTES:
        return None
    boot_id = boot_id.rstrip(b"\0").decode()
    head = Head(link_id.decode(), epoch, next_stream, settled_s, heard_s, boot_id)
    slots = _SLOT.iter_unpack(data[_HEAD.size :])
    return Noted(
        head,
        {stream: Taken(seq, size, state == _ENDED) for state, stream, seq, size in slots if state},
    )


class Journal:
    """The notes of a living process. Removed when it leaves in order."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._map = map_file(path, _SIZE_BYTES)
        self._lock_fd = -1
        self._slot_of: dict[int, int] = {}
        self._ended: set[int] = set()
        self._free = list(range(_SLOTS - 1, -1, -1))

    def lock(self) -> bool:
        """Return whether the file is ours: that of a process which still lives is not."""
        try:
            self._lock_fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # there was no room for a file, or there are no locks: nothing to compete for
        return True

    def begin(self, head: Head) -> None:
        """Note the link before anything is sent on a connection of this epoch."""
        self._map[: _HEAD.size] = head.pack()

    def resume(self) -> None:
        """Go on with the notes that are in the file."""
        for slot in range(_SLOTS):
            state, stream, _, _ = _SLOT.unpack_from(self._map, _place(slot))
            if state:
                self._slot_of[stream] = slot
                self._free.remove(slot)
            if state == _ENDED:
                self._ended.add(stream)

    def note(self, message: Message) -> None:
        """Note that a message is about to be handed over."""
        slot = self._slot_of.get(message.stream)
        if slot is None:
            if not self._free:
                return  # more streams than slots: the surplus is not taken over after a crash
            slot = self._slot_of[message.stream] = self._free.pop()
        if message.end:
            self._ended.add(message.stream)
        state = _ENDED if message.end else _LIVE
        taken_bytes = message.start + len(message.payload)
        self._write(slot, _SLOT.pack(state, message.stream, message.seq + 1, taken_bytes))

    def prune(self, link: Link) -> None:
        """Forget the streams that are over for both ends; called now and then."""
        for stream in [stream for stream in self._ended if not link.knows(stream)]:
            slot = self._slot_of.pop(stream)
            self._ended.discard(stream)
            self._free.append(slot)
            self._write(slot, bytes(_SLOT.size))

    def clear(self) -> None:
        """Forget every stream: a new link begins."""
        self._map[:] = bytes(_SIZE_BYTES)
        self._slot_of.clear()
        self._ended.clear()
        self._free = list(range(_SLOTS - 1, -1, -1))

    def close(self) -> None:
        """Let go of the file, which stays."""
        self._map.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def remove(self) -> None:
        """The process leaves in order: there is nothing to take over."""
        self.close()
        self.unlink()

    def unlink(self) -> None:
        """Leave nothing to take over, while the notes can still be written: they reach nobody."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _write(self, slot: int, data: bytes) -> None:
        self._map[_place(slot) : _place(slot) + _SLOT.size] = data


def _place(slot: int) -> int:
    return _HEAD.size + slot * _SLOT.size
