"""The agent's backlog: what the hub has not fetched, in memory, then in files, then by a policy.

In this order, for all links and streams of the agent together:

1. Up to ``memory_bytes`` messages wait in memory.
2. What comes then is written to files in the state folder: without a name, so nobody else can open
   them and nothing stays behind; up to ``file_bytes``, and never the last of the disk's free space.
3. Where that fails, messages wait in memory again, up to ``hard_memory_bytes`` (what the process itself
   takes, and holes in its heap, come on top).
4. Then the oldest text (``stream`` messages) that has not been sent is dropped, a segment at a time,
   and a message in its place says how much. Replies, errors, results, displays, statuses and comms stay.
5. When nothing is left to drop, the stream is *crowded*: its kernel's output is not read for a while.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

from sshpyk.agent.packed import (
    LARGEST_PACKED_BYTES,
    FileSegment,
    InFile,
    MemoryBlock,
    Segment,
    cost_of,
)
from sshpyk.agent.segments import (
    MESSAGE_COST_BYTES,
    DropPolicy,
    Entry,
    Gap,
    MemorySegment,
    Size,
    join_to,
)
from sshpyk.link.backlog import Payload, Unnumbered
from sshpyk.wire.clock import now_s

MB = 1024 * 1024
_MAX_FILES = 256  # descriptors are needed for kernels too
_LOG_PAUSE_S = 10.0
_DISK_PAUSE_S = 1.0  # between two tries to write to a disk that was full
# What each stream may keep in memory whatever the others hold: no file for a few small messages.
_STREAM_SHARE_BYTES = 64 * 1024
_SMALL_REST_BYTES = 64 * 1024  # is not worth a file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How much may wait where; see the module."""

    memory_bytes: int = 32 * MB
    file_bytes: int = 2048 * MB
    hard_memory_bytes: int = 128 * MB
    file_segment_bytes: int = 16 * MB
    memory_segment_bytes: int = 1 * MB


class Spool:
    """The account of all backlogs of one agent. ``folder`` is for the files."""

    def __init__(self, folder: str, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.memory_bytes = 0
        self.file_bytes = 0
        self.files = 0
        self.dropped_lines = 0
        self.dropped_bytes = 0
        self._log_again_s = 0.0
        self._folder = folder
        self._disk_again_s = 0.0  # when a disk that was full is tried again
        self._disk_bytes = 0  # what we had on it then
        self._disk_is_taken = False  # others filled what we had given back
        self._backlogs: list[StreamBacklog] = []

    def backlog(self, stream: int) -> StreamBacklog:
        """Return the backlog of a new stream."""
        made = StreamBacklog(self)
        self._backlogs.append(made)
        return made

    def forget(self, backlog: StreamBacklog) -> None:
        """A stream is over."""
        if backlog in self._backlogs:
            self._backlogs.remove(backlog)

    @property
    def disk_is_full(self) -> bool:
        """Whether the disk took no more a moment ago. What we gave back since is ours to use again."""
        return now_s() < self._disk_again_s

    def admits_file(self, size_bytes: int) -> bool:
        """Whether so much more may be written, as far as we know."""
        limit = self._disk_bytes if self.disk_is_full else self.limits.file_bytes
        return self.file_bytes + size_bytes <= limit

    def new_file(self) -> FileSegment | None:
        """Return a file, if one may be had."""
        if self.files >= _MAX_FILES:
            return None
        try:
            return FileSegment(self._folder)
        except OSError as error:
            self.disk_failed(error)
            return None

    def disk_failed(self, error: OSError) -> None:
        """Leave the disk alone for a moment."""
        if not self._disk_again_s:
            log.warning("the spool in %s takes no more: %s", self._folder, error.strerror)
        self._disk_is_taken = self._disk_is_taken or self.disk_is_full
        self._disk_again_s = now_s() + _DISK_PAUSE_S
        self._disk_bytes = self.file_bytes

    def disk_works(self) -> None:
        """Note that something was written."""
        self._disk_is_taken = False
        if not self.disk_is_full:
            self._disk_again_s = 0.0

    def drop_some(self) -> bool:
        """Drop the oldest text of the stream that has most of it; return whether there was any.

        Not what is in files, where that makes no room that we could use.
        """
        for backlog in sorted(self._backlogs, key=lambda one: -one.droppable_bytes):
            if backlog.drop_oldest(in_memory=self._disk_is_taken):
                return True
        return False

    def note_dropped(self, gap: Gap) -> None:
        """Count what was dropped; the log hears of it now and then."""
        self.dropped_lines += gap.lines
        self.dropped_bytes += gap.size_bytes
        if now_s() >= self._log_again_s:
            self._log_again_s = now_s() + _LOG_PAUSE_S
            lines, size = self.dropped_lines, self.dropped_bytes
            log.warning("the backlog is full; dropped so far: %d lines, %d bytes", lines, size)

    def note(self, before: Size, after: Size) -> None:
        """Account for what a segment's change takes or frees."""
        self.memory_bytes += after.memory_bytes - before.memory_bytes
        self.file_bytes += after.file_bytes - before.file_bytes
        self.files += bool(after.file_bytes) - bool(before.file_bytes)


_NOTHING = Size(0, 0, 0, 0)


class StreamBacklog:
    """One stream's part; see :class:`sshpyk.link.backlog.Backlog`.

    ``policy`` says what may be dropped; without one nothing is.
    """

    def __init__(self, spool: Spool) -> None:
        self.policy: DropPolicy | None = None
        self.crowded = False
        self.count = 0
        self.size_bytes = 0
        self._spool = spool
        self._kept_bytes = 0  # in the sender's hands
        self._segments: deque[Segment] = deque()

    def _note(self, before: Size, after: Size) -> None:
        self.count += after.messages - before.messages
        self.size_bytes += after.payload_bytes - before.payload_bytes
        self._spool.note(before, after)

    @property
    def droppable_bytes(self) -> int:
        """Bytes of what :meth:`drop_oldest` would look at, this time and the next."""
        if self.policy is None:
            return 0
        return sum(one.size.payload_bytes for one in self._segments if not one.thinned)

    # What the sender holds

    def admits(self, size_bytes: int) -> bool:
        """Whether the sender may keep a message of that size in memory."""
        cost = MESSAGE_COST_BYTES + size_bytes
        within_share = self._kept_bytes + cost <= _STREAM_SHARE_BYTES
        return within_share or self._spool.memory_bytes + cost <= self._spool.limits.memory_bytes

    def keep(self, payload: Payload) -> None:
        """Note that the sender holds ``payload``."""
        cost = cost_of(payload)
        self._kept_bytes += cost
        self._spool.memory_bytes += cost

    def free(self, payload: Payload) -> None:
        """Note that the sender has let go of ``payload``."""
        cost = cost_of(payload)
        self._kept_bytes -= cost
        self._spool.memory_bytes -= cost
        if isinstance(payload, InFile):
            payload.free()

    # What is stored

    def store(self, message: Unnumbered) -> None:
        """Take a message: in a file, in memory, or in the place of older text; never refused."""
        spool, cost = self._spool, cost_of(message.payload)
        while not self._to_file(message):
            fits = spool.memory_bytes + cost <= spool.limits.hard_memory_bytes
            if fits or not spool.drop_some():
                self._note_crowded(not fits)
                self._to_memory(message)
                return

    def _note_crowded(self, crowded: bool) -> None:  # noqa: FBT001
        if crowded and not self.crowded:
            log.warning("the backlog is full, and nothing in it may be dropped")
        self.crowded = crowded

    @property
    def has_room(self) -> bool:
        """Whether a stream that was crowded may go on."""
        spool = self._spool
        if spool.memory_bytes <= spool.limits.hard_memory_bytes // 2:
            self.crowded = False
        return not self.crowded

    def _to_file(self, message: Unnumbered) -> bool:
        spool = self._spool
        if not spool.admits_file(len(message.payload)):
            return False
        last = self._segments[-1] if self._segments else None
        if isinstance(last, FileSegment) and (
            last.size.file_bytes < spool.limits.file_segment_bytes and not last.thinned
        ):
            return self._append_to(last, message)
        made = spool.new_file()
        if made is None:
            return False
        if self._append_to(made, message):
            self._segments.append(made)
            return True
        made.close()
        return False

    def _append_to(self, segment: FileSegment, message: Unnumbered) -> bool:
        before = segment.size
        try:
            if not self._spool.disk_is_full:  # else what we gave back is taken to the last byte
                segment.check_space(len(message.payload))
            segment.append(message)
        except OSError as error:
            self._spool.disk_failed(error)
            return False
        self._note(before, segment.size)
        self._spool.disk_works()
        return True

    def _to_memory(self, message: Unnumbered) -> None:
        last = self._last_in_memory(message)
        before = last.size
        last.append(message)
        self._note(before, last.size)

    def _last_in_memory(self, message: Unnumbered) -> MemorySegment | MemoryBlock:
        last = self._segments[-1] if self._segments else None
        full = self._spool.limits.memory_segment_bytes
        made: MemorySegment | MemoryBlock
        if len(message.payload) > LARGEST_PACKED_BYTES:
            if (
                isinstance(last, MemorySegment)
                and not last.thinned
                and last.size.memory_bytes < full
            ):
                return last
            made = MemorySegment()
        else:
            if isinstance(last, MemoryBlock) and last.admits(message):
                return last
            made = MemoryBlock(full)
        self._segments.append(made)
        return made

    def fetch(self) -> list[Unnumbered]:
        """Give back the next few messages; none only when nothing is stored."""
        entries: list[Entry] = []
        # A gap may go on in the next segment.
        while self._segments and not (entries and isinstance(entries[-1], Unnumbered)):
            segment = self._segments[0]
            before = segment.size
            entries += self._read(segment)
            self._note(before, segment.size)
            if not segment.size.messages:
                self._remove(segment)
        return [self._spoken(entry) for entry in _joined(entries)]

    def _read(self, segment: Segment) -> list[Entry]:
        try:
            return segment.fetch()
        except OSError as error:
            before = segment.size
            log.error("%d messages are lost, the spool cannot be read: %s", before.messages, error)
            segment.close()
            lost = before.payload_bytes
            return [Gap(0, 0, b"{}", 0, lost)] if self.policy is not None else []

    def _spoken(self, entry: Entry) -> Unnumbered:
        if isinstance(entry, Unnumbered):
            return entry
        assert self.policy is not None
        return Unnumbered(entry.place, self.policy.notice(entry), entry.seen, False)

    def _remove(self, segment: Segment) -> None:
        before = segment.size
        segment.close()
        self._note(before, _NOTHING)
        self._segments.remove(segment)

    # What is dropped

    def drop_oldest(self, *, in_memory: bool = False) -> bool:
        """Drop the oldest text, or the oldest in memory; return whether there was any.

        What must stay stays in its order.
        """
        if self.policy is None:
            return False
        for segment in list(self._segments):
            if not (segment.thinned or (in_memory and isinstance(segment, FileSegment))):
                before = segment.size
                gap = self._thin(segment, self.policy)
                self._note(before, segment.size)
                if gap is not None:
                    self._spool.note_dropped(gap)
                    self._gather(segment)
                    return True
        return False

    def _thin(self, segment: Segment, policy: DropPolicy) -> Gap | None:
        try:
            return segment.thin(policy)
        except OSError as error:
            log.error("the spool cannot be read: %s", error)
            return None

    def _gather(self, segment: Segment) -> None:
        """Keep the little that a segment has left in memory, behind what is left of those before."""
        if segment.size.payload_bytes > _SMALL_REST_BYTES:
            return
        at = self._segments.index(segment)
        rest = self._all_of(segment)
        previous = self._segments[at - 1] if at else None
        if not isinstance(previous, MemorySegment):
            previous = MemorySegment()
            previous.thinned = True
            self._segments.insert(at, previous)
        before = previous.size
        for entry in rest:
            previous.append(entry)
        self._note(before, previous.size)

    def _all_of(self, segment: Segment) -> list[Entry]:
        before = segment.size
        entries: list[Entry] = []
        while segment.size.messages:
            entries += self._read(segment)
        self._note(before, segment.size)
        self._remove(segment)
        return entries

    def close(self) -> None:
        """Forget everything: the stream is over, or its link is given up."""
        while self._segments:
            self._remove(self._segments[0])
        self._spool.forget(self)


def _joined(entries: list[Entry]) -> list[Entry]:
    result: list[Entry] = []
    for entry in entries:
        both = join_to(result[-1] if result else None, entry)
        if both is None:
            result.append(entry)
        else:
            result[-1] = both
    return result
