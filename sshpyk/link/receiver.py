"""The incoming half of a stream (``stream``): each byte once, in order, within its credit."""

from __future__ import annotations

from collections import deque
from io import BytesIO

from sshpyk.link.frames import (
    FLAG_END,
    FLAG_LAST_CHUNK,
    FLAG_REPLAYED,
    Ack,
    Data,
    LinkProtocolError,
    Position,
)
from sshpyk.link.stream import CREDIT_WINDOW_BYTES, MAX_MESSAGE_BYTES, Message, Taken


class Receiver:
    """See the module."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.ended = False  # the last message has arrived
        self.ack_due = False
        self.consumed_seq = 0
        self._next_seq = 0
        # One chunk as it came; more grow in place: joining them would take their memory twice.
        self._chunk = b""
        self._chunks: BytesIO | None = None
        self._offset = 0
        self._start = 0  # bytes of all whole messages, consumed or not
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
        self._chunk, self._chunks = b"", None
        self._offset = 0
        self._deaf = self.ended

    @property
    def all_consumed(self) -> bool:
        """Whether the last message was handed over."""
        return self.ended and not self._unconsumed_sizes

    def take(self, data: Data) -> Message | None:
        """Accept a chunk; return the message that it completes, if it does.

        Raises LinkProtocolError for a chunk that leaves a hole, or goes beyond the last message or
        the credit that was given: no peer makes us keep more than that.
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
        if self._start + self._offset > self._promised_credit:
            raise LinkProtocolError("stream %d: more than its credit" % self.stream)
        self._append(chunk)
        if data.flags & FLAG_LAST_CHUNK:
            message = self._complete(data)
            if not self._deaf:
                return message
            self.consume()
        self._note_credit()
        return None

    def _append(self, chunk: bytes) -> None:
        if not self._chunk:
            self._chunk = chunk
        elif chunk:
            if self._chunks is None:
                self._chunks = BytesIO()
                self._chunks.write(self._chunk)
            self._chunks.write(chunk)

    def _complete(self, data: Data) -> Message:
        payload = self._chunk if self._chunks is None else self._chunks.getvalue()
        start = self._start
        self._chunk, self._chunks = b"", None
        self._offset = 0
        self._start += len(payload)
        self._next_seq += 1
        self._unconsumed_sizes.append(len(payload))
        self.ended = self.ended or bool(data.flags & FLAG_END)
        replayed = bool(data.flags & FLAG_REPLAYED)
        return Message(self.stream, data.seq, payload, data.seen, self.ended, start, replayed)

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
