"""The outgoing half of a stream (``stream``): what is queued, what was sent, what the peer has taken."""

from __future__ import annotations

from collections import deque

from sshpyk.link.backlog import Backlog, Payload, Unnumbered
from sshpyk.link.farewell import Progress
from sshpyk.link.frames import (
    FLAG_END,
    FLAG_LAST_CHUNK,
    FLAG_REPLAYED,
    Ack,
    Data,
    LinkProtocolError,
    Position,
)
from sshpyk.link.stream import CREDIT_WINDOW_BYTES, Chunk


class _Outgoing:
    """A message in the sender's hands; ``start`` is its cumulative position in the stream."""

    __slots__ = ("end", "payload", "place", "seen", "seq", "start")

    def __init__(self, seq: int, start: int, message: Unnumbered) -> None:
        self.seq = seq
        self.start = start
        self.place, self.payload, self.seen, self.end = message


class Sender:
    """See the module; ``backlog`` is for what memory has no room for."""

    def __init__(self, stream: int, backlog: Backlog | None = None) -> None:
        self.stream = stream
        self.finished = False
        self.backlog = backlog
        self._held_bytes = 0  # numbered and not acknowledged, sent or not
        self._pushed = 0
        self._replay_below = 0  # what was pushed before this place has waited for a connection
        self._next_seq = 0
        self._shifts = [(0, 0)]  # from this number on, places are higher by so much
        self._base = 0  # what the process before us had sent
        self._next_start = 0
        self._offset = 0  # of the first waiting message: what was sent of it
        self._waiting: deque[_Outgoing] = deque()
        self._sent: deque[_Outgoing] = deque()
        self._sent_below = 0  # over any connection
        self._credit = CREDIT_WINDOW_BYTES
        self.acked_seq = 0

    def push(self, payload: Payload, seen: int, *, end: bool = False) -> int:
        """Queue a message and return its place; ``end`` makes it the last one.

        The place counts what was pushed before; a number counts what the peer gets.
        """
        if self.finished:
            raise ValueError("stream %d is finished" % self.stream)
        message = Unnumbered(self._pushed, payload, seen, end)
        self._pushed += 1
        self.finished = end
        if self._replay_below:
            # What is queued behind a replay is part of it.
            self._replay_below = self._pushed if self._replaying else 0
        backlog = self.backlog
        if backlog is None or (not backlog.count and backlog.admits(len(payload))):
            self._number(message)
        else:
            backlog.store(message)
        return message.place

    def keep_in_memory(self) -> None:
        """Do without a backlog from now on, if nothing was pushed yet: the owner sees to the bounds."""
        if self.backlog is not None and not self._pushed:
            self.backlog.close()
            self.backlog = None

    def _number(self, message: Unnumbered) -> None:
        shift = message.place - self._next_seq
        if shift != self._shifts[-1][1]:
            self._shifts.append((self._next_seq, shift))
        self._waiting.append(_Outgoing(self._next_seq, self._next_start, message))
        size = len(message.payload)
        self._next_seq += 1
        self._next_start += size
        self._held_bytes += size
        if self.backlog is not None:
            self.backlog.keep(message.payload)

    @property
    def _replaying(self) -> bool:
        waits_from = self._waiting[0].place if self._waiting else self._pushed
        stored = self.backlog is not None and self.backlog.count > 0
        return waits_from < self._replay_below or stored

    @property
    def backlog_bytes(self) -> int:
        """What is not acknowledged, sent or not."""
        return self._held_bytes + (self.backlog.size_bytes if self.backlog else 0)

    @property
    def queued_seq(self) -> int:
        """How many messages have been sent or queued, with those of the process before us."""
        return self._base + self._pushed

    @property
    def taken_seq(self) -> int:
        """How many of :attr:`queued_seq` the peer has taken, or were dropped before those."""
        return self._base + self.place_of(self.acked_seq)

    def place_of(self, seq: int) -> int:
        """Return the place of what follows the messages below number ``seq``."""
        latest_first = (shift for since, shift in reversed(self._shifts) if since < seq)
        return seq + next(latest_first, self._shifts[0][1])

    @property
    def ready(self) -> bool:
        """Whether :meth:`next_chunk` has something that credit allows to send."""
        if not self._waiting and not self._fetch():
            return False
        message = self._waiting[0]
        return message.start + self._offset < self._credit or len(message.payload) == self._offset

    def _fetch(self) -> bool:
        if self.backlog is None or not self.backlog.count:
            return False
        for message in self.backlog.fetch():
            self._number(message)
        return bool(self._waiting)

    @property
    def backlog_messages(self) -> int:
        """How many messages the peer has not acknowledged."""
        stored = self.backlog.count if self.backlog else 0
        return len(self._waiting) + len(self._sent) + stored

    @property
    def drained(self) -> bool:
        """Whether the peer has acknowledged everything."""
        stored = self.backlog is not None and self.backlog.count > 0
        return not (self._waiting or self._sent or stored)

    def next_chunk(self, limit_bytes: int) -> tuple[Data, Chunk]:
        """Return the next chunk's frame fields and its bytes. Call only while :attr:`ready`."""
        message = self._waiting[0]
        payload, offset = message.payload, self._offset
        allowed = max(0, self._credit - message.start - offset)
        size = min(limit_bytes, allowed, len(payload) - offset)
        chunk: Chunk
        if isinstance(payload, bytes):
            whole = size == len(payload)
            chunk = payload if whole else memoryview(payload)[offset : offset + size]
        else:
            chunk = payload.read(offset, size)
        flags = FLAG_REPLAYED if message.place < self._replay_below else 0
        self._offset += size
        if self._offset == len(payload):
            flags |= FLAG_LAST_CHUNK | (FLAG_END if message.end else 0)
            self._sent.append(self._waiting.popleft())
            self._sent_below = max(self._sent_below, message.seq + 1)
            self._offset = 0
        return Data(self.stream, message.seq, offset, message.seen, flags, b""), chunk

    def acknowledge(self, ack: Ack) -> None:
        """Free what the peer's consumer has taken. Raises LinkProtocolError for what was not sent.

        It may be more than was sent since the last rewind: until a new connection has resumed, the
        peer goes on to take what the old one still brings.
        """
        sent_below = self._waiting[0].seq if self._waiting else self._next_seq
        if ack.seq > max(sent_below, self._sent_below):
            raise LinkProtocolError("ACK of message %d, sent %d" % (ack.seq, sent_below))
        while self._waiting and self._waiting[0].seq < ack.seq:
            self._sent.append(self._waiting.popleft())
            self._offset = 0
        self.acked_seq = max(self.acked_seq, ack.seq)
        while self._sent and self._sent[0].seq < ack.seq:
            payload = self._sent.popleft().payload
            self._held_bytes -= len(payload)
            if self.backlog is not None:
                self.backlog.free(payload)
        self._credit = max(self._credit, ack.credit)

    def close(self) -> None:
        """Forget what is queued: the link is given up."""
        queued = [*self._sent, *self._waiting]
        self._sent.clear()
        self._waiting.clear()
        self._held_bytes = 0
        if self.backlog is not None:
            for message in queued:
                self.backlog.free(message.payload)
            self.backlog.close()

    def continue_from(self, position: Position) -> None:
        """Number what is queued from the peer's position on: our process has replaced another.

        The peer has dropped what it had of an unfinished message.
        """
        for message in self._waiting:
            message.seq += position.seq
            message.start += position.start
        self._next_seq += position.seq
        self._shifts = [(position.seq, -position.seq)]
        self._base = position.seq
        self._next_start += position.start
        self.acked_seq = position.seq
        self._credit = position.start + CREDIT_WINDOW_BYTES

    @property
    def progress(self) -> Progress:
        """How far we have come."""
        seq = self._waiting[0].seq if self._waiting else self._next_seq
        ended = bool(self._sent and self._sent[-1].end)
        return Progress(self.acked_seq, seq, self._offset, ended)

    def move_to(self, stream: int) -> None:
        """Be the beginning of another stream, with what the peer of this one has not taken.

        Numbers begin anew; places go on, so whoever counts in places goes on as well.
        """
        shift = self.place_of(self.acked_seq)
        self._waiting = deque([*self._sent, *self._waiting])
        self._sent.clear()
        self.stream, self._shifts = stream, [(0, shift)]
        start = 0
        for seq, message in enumerate(self._waiting):
            if message.place - seq != shift:
                shift = message.place - seq
                self._shifts.append((seq, shift))
            message.seq, message.start = seq, start
            start += len(message.payload)
        self._next_seq, self._next_start = len(self._waiting), start
        self.acked_seq = self._offset = 0
        self._credit = CREDIT_WINDOW_BYTES
        self.mark_replay()

    def check_position(self, position: Position) -> None:
        """Raise LinkProtocolError if the peer expects what was never queued.

        To be asked for every stream before the first is rewound: a HELLO that is refused changes
        nothing for the connection that carries the link meanwhile.
        """
        seq, offset, _ = position
        if seq > self.queued_seq:
            raise LinkProtocolError(
                "stream %d: the peer expects message %d of %d" % (self.stream, seq, self.queued_seq)
            )
        size = 0
        if self.acked_seq <= seq < self._next_seq:
            oldest = self._sent[0].seq if self._sent else self._waiting[0].seq
            place = seq - oldest
            sent = len(self._sent)
            held = self._sent[place] if place < sent else self._waiting[place - sent]
            size = len(held.payload)
        if seq >= self.acked_seq and offset > size:
            raise LinkProtocolError("the peer expects byte %d of %d" % (offset, size))

    def rewind(self, position: Position) -> None:
        """Continue from the byte that the peer expects, on a new connection.

        A position below what the peer has acknowledged is merely old: the peer said it before the
        last acknowledgements arrived over the previous connection. Raises as check_position does.
        """
        self.check_position(position)
        seq, offset, _ = position
        if seq < self.acked_seq:
            seq, offset = self.acked_seq, 0
        while self._sent and self._sent[-1].seq >= seq:
            self._waiting.appendleft(self._sent.pop())
        while self._waiting and self._waiting[0].seq < seq:
            self._sent.append(self._waiting.popleft())
        self._offset = offset
        self.mark_replay()

    def mark_replay(self) -> None:
        """Mark what is queued: it has waited for the line."""
        self._replay_below = self._pushed
