"""Pieces of a backlog, and what they are made of: messages, and gaps where some were dropped.

Here: one that keeps objects as they are. :mod:`.packed` has those that keep bytes.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol, Union

from sshpyk.link.backlog import Unnumbered

MESSAGE_COST_BYTES = 256  # of a message in memory, beside its payload
READ_BYTES = 256 * 1024


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
