"""What travels on a kernel's streams: ZeroMQ messages with the name of their channel.

A message is the channel (u8), the number of parts (u32), the length of each (u64), and the parts. The
parts are those that the ROUTER or PUB socket of a kernel would see: for shell, control and stdin the
first is the identity of the client. One more kind tells how the kernel process ended.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Sequence, Union

from sshpyk.link.backlog import Joined, Payload
from sshpyk.link.stream import MAX_MESSAGE_BYTES

JOIN_BELOW_BYTES = 1024 * 1024

SHELL, IOPUB, STDIN, CONTROL, EXITED = range(5)

_HEAD = struct.Struct(">BI")

Part = Union[bytes, memoryview]


class ChannelMessage(NamedTuple):
    """A multipart message on one of the channels above."""

    channel: int
    parts: list[memoryview]


def pack(channel: int, parts: Sequence[Part]) -> bytes:
    """Return the payload for a stream; ``parts`` are bytes, or views of bytes.

    Raises ValueError for a message larger than the link carries.
    """
    return b"".join(_buffers(channel, parts))


def pack_large(channel: int, parts: Sequence[Part]) -> Payload:
    """Return the same, raise the same; a large one as it is, not copied."""
    if sum(map(len, parts)) < JOIN_BELOW_BYTES:
        return pack(channel, parts)
    return Joined(_buffers(channel, parts))


def _buffers(channel: int, parts: Sequence[Part]) -> list[Part]:
    lengths = [len(part) for part in parts]
    if sum(lengths) + 8 * len(parts) + _HEAD.size > MAX_MESSAGE_BYTES:
        raise ValueError("a message of %d bytes is more than the link carries" % sum(lengths))
    sizes = struct.pack(">%dQ" % len(parts), *lengths)
    return [_HEAD.pack(channel, len(parts)), sizes, *parts]


def unpack(payload: bytes) -> ChannelMessage:
    """Return what :func:`pack` packed, without copying. Raises ValueError for anything else."""
    try:
        channel, count = _HEAD.unpack_from(payload)
        if 8 * count > len(payload):
            raise ValueError(
                "malformed kernel message: %d parts in %d bytes" % (count, len(payload))
            )
        sizes = struct.unpack_from(">%dQ" % count, payload, _HEAD.size)
    except struct.error as error:
        raise ValueError(f"truncated kernel message: {error}") from None
    position = _HEAD.size + 8 * count
    view = memoryview(payload)
    if position + sum(sizes) != len(view) or channel > EXITED:
        raise ValueError("malformed kernel message")
    parts = []
    for size in sizes:
        parts.append(view[position : position + size])
        position += size
    return ChannelMessage(channel, parts)


# How a kernel ended that had outlived the agent which was its parent: only a parent is told. It is
# outside of what a program would choose, and no success.
UNKNOWN_STATUS = 255


def pack_exit(status: int) -> bytes:
    """Return the payload that tells the kernel's exit status: a code, or minus a signal's number."""
    return pack(EXITED, [b"%d" % status])
