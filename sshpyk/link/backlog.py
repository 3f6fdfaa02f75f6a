"""What a sender asks of the place where messages wait that memory has no room for.

Such messages have no number yet: they get it when they come back, so whoever keeps them may leave
some out, and put a word about that in their place, without a hole in the sequence. No file is touched
here; ``sshpyk.agent.spool`` has the implementation.
"""

from __future__ import annotations

from typing import Callable, NamedTuple, Protocol, Sequence, Union


class Stored(Protocol):
    """A payload that is not in one piece, or not in memory."""

    def __len__(self) -> int: ...

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return a piece of it, of exactly that size."""


Payload = Union[bytes, Stored]


class Joined:
    """Buffers that are one payload, without a copy of what may be large."""

    def __init__(self, buffers: Sequence[bytes | memoryview]) -> None:
        self.buffers = list(buffers)
        self._size_bytes = sum(map(len, self.buffers))

    def __len__(self) -> int:
        return self._size_bytes

    def __bytes__(self) -> bytes:
        return b"".join(self.buffers)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return a piece of it."""
        pieces = []
        for buffer in self.buffers:
            if size_bytes <= 0:
                break
            if offset < len(buffer):
                piece = buffer[offset : offset + size_bytes]
                pieces.append(piece)
                size_bytes -= len(piece)
            offset = max(0, offset - len(buffer))
        return b"".join(pieces)


class Unnumbered(NamedTuple):
    """A message that waits for its number. ``place`` counts what was pushed before it."""

    place: int
    payload: Payload
    seen: int
    end: bool


class Backlog(Protocol):
    """The waiting messages of one stream, oldest first, and the account of all that it holds."""

    @property
    def count(self) -> int:
        """How many messages are stored."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the payloads of the stored messages."""

    def admits(self, size_bytes: int) -> bool:
        """Whether the sender may keep a message of that size in memory."""

    def keep(self, payload: Payload) -> None:
        """Note that the sender holds ``payload``."""

    def free(self, payload: Payload) -> None:
        """Note that the sender has let go of ``payload``."""

    def store(self, message: Unnumbered) -> None:
        """Take a message."""

    def fetch(self) -> list[Unnumbered]:
        """Give back the next few messages; none only when nothing is stored."""

    def close(self) -> None:
        """Forget everything: the link is given up."""


MakeBacklog = Callable[[int], Backlog]
