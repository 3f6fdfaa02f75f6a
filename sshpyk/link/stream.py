"""One stream: a reliable, ordered sequence of messages each way, independent of any connection.

Messages are numbered from 0 in each direction and travel in chunks. The sender (``sender``) keeps a
message until the peer has acknowledged it, which means *handed to its consumer*; a new connection
rewinds it to the byte that the peer expects next, inside a message if it was cut there. The
receiver (``receiver``) accepts each byte once: what comes again after a resume is dropped.

Credit: the receiver allows bytes up to a cumulative position: what its consumer has taken, plus what
has arrived of an unfinished message, plus a window. A large message therefore always makes progress,
while finished messages that nobody takes hold the sender back.

A sender may have a :class:`~sshpyk.link.backlog.Backlog` for what memory has no room for. Messages get
their number when they enter the sender's own queue, after they came back from there.
"""

from __future__ import annotations

from typing import NamedTuple, Union

CREDIT_WINDOW_BYTES = 8 * 1024 * 1024
MAX_MESSAGE_BYTES = 4 * 1024 * 1024 * 1024


class Message(NamedTuple):
    """One message as it is handed to its consumer.

    ``seen`` is the number of messages of the opposite direction that the *sender* had passed on when it
    sent this one (a kernel's control stream counts its main one): what its user could have seen.
    ``end`` marks the (empty) last message.
    ``start`` counts the bytes of the messages before it. ``replayed``: it waited for a connection.
    """

    stream: int
    seq: int
    payload: bytes
    seen: int
    end: bool
    start: int = 0
    replayed: bool = False


Chunk = Union[bytes, memoryview]


class Taken(NamedTuple):
    """What a process that died had handed over of a stream: messages, their bytes, and the last one."""

    seq: int
    size_bytes: int
    ended: bool = False
