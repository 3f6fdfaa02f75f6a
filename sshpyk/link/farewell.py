"""What stays on a link of a stream whose messages go on over another link: its end.

The peer expects the numbers that it was promised, and it may be in the middle of a message: that one is
completed short, which its consumer drops (the kernel has left it, and it was told so before), and the
last message follows. Wherever the peer says that it is, the end is said from there.
"""

from __future__ import annotations

from typing import NamedTuple

from sshpyk.link.frames import FLAG_END, FLAG_LAST_CHUNK, Ack, Data, LinkProtocolError, Position


class Progress(NamedTuple):
    """How far a sender had come: what was acknowledged, what comes next, and whether it had ended."""

    acked_seq: int
    seq: int
    offset: int
    ended: bool


class Farewell:
    """Takes the place of a :class:`~sshpyk.link.sender.Sender`; see there for what is not told here."""

    finished = True
    backlog = None
    backlog_bytes = 0
    backlog_messages = 0

    def __init__(self, stream: int, progress: Progress) -> None:
        self.stream = stream
        self.acked_seq, self._seq, self._offset, ended = progress
        self._farthest = progress.seq + 1  # no peer expects more
        # Of the last message, once it was sent.
        self._end_seq: int | None = progress.seq - 1 if ended else None

    def push(self, payload: object, seen: int, *, end: bool = False) -> int:
        """Refuse: nobody sends here any more. Raises ValueError."""
        raise ValueError("stream %d was moved to another link" % self.stream)

    def place_of(self, seq: int) -> int:
        """Return the number: nothing was dropped here."""
        return seq

    @property
    def queued_seq(self) -> int:
        """How many messages have been sent."""
        return self._seq

    @property
    def taken_seq(self) -> int:
        """How many messages the peer has taken."""
        return self.acked_seq

    @property
    def ready(self) -> bool:
        """Whether the end is still to be said."""
        return self._end_seq is None

    @property
    def drained(self) -> bool:
        """Whether the peer has taken the end."""
        return self._end_seq is not None and self.acked_seq > self._end_seq

    def next_chunk(self, limit_bytes: int) -> tuple[Data, bytes]:
        """Complete what is in the middle, then say the end."""
        flags = FLAG_LAST_CHUNK
        if not self._offset:
            flags |= FLAG_END
            self._end_seq = self._seq
        data = Data(self.stream, self._seq, self._offset, 0, flags, b"")
        self._seq, self._offset = self._seq + 1, 0
        self._farthest = max(self._farthest, self._seq)
        return data, b""

    def acknowledge(self, ack: Ack) -> None:
        """Note what the peer has taken. Raises LinkProtocolError for what was not sent."""
        if ack.seq > self._farthest:
            raise LinkProtocolError("ACK of message %d of %d" % (ack.seq, self._farthest))
        self.acked_seq = max(self.acked_seq, ack.seq)

    def check_position(self, position: Position) -> None:
        """Raise LinkProtocolError if the peer expects what was never sent."""
        if position.seq > self._farthest:
            raise LinkProtocolError(
                "stream %d: the peer expects message %d" % (self.stream, position.seq)
            )

    def rewind(self, position: Position) -> None:
        """Go on from where the peer is. Raises as check_position does."""
        self.check_position(position)
        seq, offset, _ = position
        self._seq, self._offset = (seq, offset) if seq >= self.acked_seq else (self.acked_seq, 0)
        if self._end_seq is not None and self._seq <= self._end_seq:
            self._end_seq = None  # it has not arrived

    def continue_from(self, position: Position) -> None:
        """Our process has replaced another: the peer's position is all that is known."""
        self.acked_seq = self._seq = position.seq
        self._farthest, self._offset = position.seq + 1, 0

    def mark_replay(self) -> None:
        """Nothing to mark."""

    def close(self) -> None:
        """Nothing to forget."""
