"""One stream: a reliable, ordered sequence of messages each way, independent of any connection.

Messages are numbered from 0 in each direction and travel in chunks. The :class:`Sender` keeps a
message until the peer has acknowledged it, which means *handed to its consumer*; a new connection
rewinds it to the byte that the peer expects next, inside a message if it was cut there. The
:class:`Receiver` accepts each byte once: what comes again after a resume is dropped.

Credit: the receiver allows bytes up to a cumulative position: what its consumer has taken, plus what
has arrived of an unfinished message, plus a window. A large message therefore always makes progress,
while finished messages that nobody takes hold the sender back.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from sshpyk.link.frames import FLAG_END, FLAG_LAST_CHUNK, Ack, Data, LinkProtocolError, Position

CREDIT_WINDOW_BYTES = 8 * 1024 * 1024
MAX_MESSAGE_BYTES = 4 * 1024 * 1024 * 1024


class Message(NamedTuple):
    """One message as it is handed to its consumer.

    ``seen`` is the number of messages of the opposite direction that the *sender* had been handed
    when it sent this one: what its user could have seen. ``end`` marks the (empty) last message.
    ``start`` counts the bytes of the messages before it.
    """

    stream: int
    seq: int
    payload: bytes
    seen: int
    end: bool
    start: int = 0


class Taken(NamedTuple):
    """What a process that died had handed over of a stream: messages, their bytes, and the last one."""

    seq: int
    size_bytes: int
    ended: bool = False


class _Outgoing:
    """A message in the sender's hands; ``start`` is its cumulative position in the stream."""

    __slots__ = ("end", "payload", "seen", "seq", "start")

    def __init__(self, seq: int, payload: bytes, seen: int, start: int, *, end: bool) -> None:
        self.seq = seq
        self.payload = payload
        self.seen = seen
        self.start = start
        self.end = end


class Sender:
    """The outgoing half of a stream."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.finished = False
        self.backlog_bytes = 0  # not acknowledged, sent or not
        self.queued_seq = 0
        self._next_start = 0
        self._offset = 0  # of the first waiting message: what was sent of it
        self._waiting: deque[_Outgoing] = deque()
        self._sent: deque[_Outgoing] = deque()
        self._credit = CREDIT_WINDOW_BYTES
        self.acked_seq = 0

    def push(self, payload: bytes, seen: int, *, end: bool = False) -> None:
        """Queue a message; ``end`` makes it the last one."""
        if self.finished:
            raise ValueError("stream %d is finished" % self.stream)
        message = _Outgoing(self.queued_seq, payload, seen, self._next_start, end=end)
        self._waiting.append(message)
        self.queued_seq += 1
        self._next_start += len(payload)
        self.backlog_bytes += len(payload)
        self.finished = end

    @property
    def ready(self) -> bool:
        """Whether :meth:`next_chunk` has something that credit allows to send."""
        if not self._waiting:
            return False
        message = self._waiting[0]
        return message.start + self._offset < self._credit or len(message.payload) == self._offset

    @property
    def drained(self) -> bool:
        """Whether the peer has acknowledged everything."""
        return not self._waiting and not self._sent

    def next_chunk(self, limit_bytes: int) -> tuple[Data, memoryview]:
        """Return the next chunk's frame fields and its bytes. Call only while :attr:`ready`."""
        message = self._waiting[0]
        allowed = max(0, self._credit - message.start - self._offset)
        chunk = memoryview(message.payload)[self._offset :][: min(limit_bytes, allowed)]
        fields = Data(self.stream, message.seq, self._offset, message.seen, 0, b"")
        self._offset += len(chunk)
        if self._offset == len(message.payload):
            flags = FLAG_LAST_CHUNK | (FLAG_END if message.end else 0)
            fields = fields._replace(flags=flags)
            self._sent.append(self._waiting.popleft())
            self._offset = 0
        return fields, chunk

    def acknowledge(self, ack: Ack) -> None:
        """Free what the peer's consumer has taken. Raises LinkProtocolError for what was not sent."""
        sent_below = self._waiting[0].seq if self._waiting else self.queued_seq
        if ack.seq > sent_below:
            raise LinkProtocolError("ACK of message %d, sent %d" % (ack.seq, sent_below))
        self.acked_seq = max(self.acked_seq, ack.seq)
        while self._sent and self._sent[0].seq < ack.seq:
            self.backlog_bytes -= len(self._sent.popleft().payload)
        self._credit = max(self._credit, ack.credit)

    def continue_from(self, position: Position) -> None:
        """Number what is queued from the peer's position on: our process has replaced another.

        The peer has dropped what it had of an unfinished message.
        """
        for message in self._waiting:
            message.seq += position.seq
            message.start += position.start
        self.queued_seq += position.seq
        self._next_start += position.start
        self.acked_seq = position.seq
        self._credit = position.start + CREDIT_WINDOW_BYTES

    def rewind(self, position: Position) -> None:
        """Continue from the byte that the peer expects, on a new connection.

        A position below what the peer has acknowledged is merely old: the peer said it before the
        last acknowledgements arrived over the previous connection.
        """
        seq, offset, _ = position
        if seq > self.queued_seq:
            raise LinkProtocolError(
                "stream %d: the peer expects message %d of %d" % (self.stream, seq, self.queued_seq)
            )
        if seq < self.acked_seq:
            seq, offset = self.acked_seq, 0
        while self._sent and self._sent[-1].seq >= seq:
            self._waiting.appendleft(self._sent.pop())
        while self._waiting and self._waiting[0].seq < seq:
            self._sent.append(self._waiting.popleft())
        size = len(self._waiting[0].payload) if self._waiting else 0
        if offset > size:
            raise LinkProtocolError("the peer expects byte %d of %d" % (offset, size))
        self._offset = offset


class Receiver:
    """The incoming half of a stream."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.ended = False  # the last message has arrived
        self.ack_due = False
        self.consumed_seq = 0
        self._next_seq = 0
        self._chunks: list[bytes] = []
        self._offset = 0
        self._start = 0  # bytes of all complete messages
        self.consumed_bytes = 0
        self._unconsumed_sizes: deque[int] = deque()
        self._promised_credit = CREDIT_WINDOW_BYTES
        self._deaf = False  # takes what comes after the last message, and drops it

    @property
    def position(self) -> Position:
        """The next byte expected."""
        return Position(self._next_seq, self._offset, self._start)

    def restore(self, taken: Taken) -> None:
        """Expect what follows the messages that the process before us had handed over."""
        self.consumed_seq = self._next_seq = taken.seq
        self.consumed_bytes = self._start = taken.size_bytes
        self._promised_credit = taken.size_bytes + CREDIT_WINDOW_BYTES
        self.ended = taken.ended

    def peer_restarted(self) -> None:
        """Forget an unfinished message: the process that was sending it is gone.

        The one after it may not know that the stream had ended, and end it once more.
        """
        self._chunks = []
        self._offset = 0
        self._deaf = self.ended

    @property
    def all_consumed(self) -> bool:
        """Whether the last message was handed over."""
        return self.ended and not self._unconsumed_sizes

    def take(self, data: Data) -> Message | None:
        """Accept a chunk; return the message that it completes, if it does.

        Raises LinkProtocolError for a chunk that leaves a hole or goes beyond the last message.
        """
        if data.seq < self._next_seq:
            return None
        chunk = data.chunk
        overlap = self._offset - data.offset
        if data.seq > self._next_seq or overlap < 0 or (self.ended and not self._deaf):
            raise LinkProtocolError(
                "stream %d: got message %d at %d, expected %d at %d"
                % (self.stream, data.seq, data.offset, self._next_seq, self._offset)
            )
        if overlap:
            chunk = chunk[overlap:]
        self._offset += len(chunk)
        if self._offset > MAX_MESSAGE_BYTES:
            raise LinkProtocolError("stream %d: message too large" % self.stream)
        if chunk:
            self._chunks.append(chunk)
        if data.flags & FLAG_LAST_CHUNK:
            message = self._complete(data)
            if not self._deaf:
                return message
            self.consume()
        self._note_credit()
        return None

    def _complete(self, data: Data) -> Message:
        payload = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        start = self._start
        self._chunks = []
        self._offset = 0
        self._start += len(payload)
        self._next_seq += 1
        self._unconsumed_sizes.append(len(payload))
        self.ended = self.ended or bool(data.flags & FLAG_END)
        return Message(self.stream, data.seq, payload, data.seen, self.ended, start)

    def consume(self) -> None:
        """Note that the oldest message that was handed out has been taken by its consumer."""
        self.consumed_bytes += self._unconsumed_sizes.popleft()
        self.consumed_seq += 1
        self.ack_due = True

    def _credit(self) -> int:
        return self.consumed_bytes + self._offset + CREDIT_WINDOW_BYTES

    def _note_credit(self) -> None:
        if self._credit() - self._promised_credit >= CREDIT_WINDOW_BYTES // 4:
            self.ack_due = True

    def make_ack(self) -> Ack:
        """Return the acknowledgement that is due and note it as sent."""
        self.ack_due = False
        self._promised_credit = max(self._promised_credit, self._credit())
        return Ack(self.stream, self.consumed_seq, self._promised_credit)
