"""What travels on a connection: frames, and the reader that cuts them out of bytes.

Every frame is a type (u8), the length of its body (u32) and the body; integers are big-endian.

====  ========  ==================================================================================
type  name      body
====  ========  ==================================================================================
1     HELLO     JSON of :class:`Hello`; the first frame each way, never again on that connection
2     DATA      stream u32, seq u64, offset u64, seen u64, flags u8, then the chunk itself
3     ACK       stream u32, seq u64 (all messages below it were handed over), credit u64 (bytes)
4     PROGRESS  received u64: bytes of DATA chunks that arrived on this connection so far
5     PING      token u64
6     PONG      token u64 of the PING
7     BYE       UTF-8 reason: the sender gives the whole link up
====  ========  ==================================================================================

Every length is checked against the cap of its type before a byte of the body is kept, so a hostile
peer cannot make us allocate more than one frame.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, NamedTuple, Union

VERSIONS = (1,)
MAX_CHUNK_BYTES = 64 * 1024
MAX_HELLO_BYTES = 1024 * 1024  # of JSON, which takes twenty times as much once it is read
MAX_BYE_BYTES = 4096

FLAG_LAST_CHUNK = 1  # this chunk completes its message
FLAG_END = 2  # the (empty) message is the last of its stream
FLAG_REPLAYED = 4  # the message was queued before this connection, or behind one that was

HELLO, DATA, ACK, PROGRESS, PING, PONG, BYE = range(1, 8)

_MAX_DIGITS = 20  # of 2**64

_HEADER = struct.Struct(">BI")
_DATA = struct.Struct(">BIIQQQB")
_DATA_BODY = struct.Struct(">IQQQB")
_ACK = struct.Struct(">IQQ")
_U64 = struct.Struct(">Q")


class LinkProtocolError(Exception):
    """The peer sent what the protocol does not allow; the connection that brought it must close.

    The link and its streams are unharmed: they resume on the next connection.
    """


class Position(NamedTuple):
    """The next byte that a receiver expects: a message, the offset inside it, and where it starts.

    ``start`` counts the payload bytes of all messages before it: what credit is measured in.
    """

    seq: int = 0
    offset: int = 0
    start: int = 0


@dataclass(frozen=True)
class Hello:
    """Who speaks, and how far it has received.

    ``streams`` tells the :class:`Position` of each live stream, ``over`` that of streams which have
    ended at the speaker's side and perhaps not yet at the other. ``resumed`` is false when the speaker
    had never heard of the link before: for an epoch above 1 this means that the link's state was lost.
    ``restarted`` says that the speaker's process was replaced: what it had queued is gone, it knows
    how far it had received, and it goes on sending where the peer's position is.
    ``boot_id`` tells one start of the speaker's machine from the next; empty where nobody knows.
    """

    link_id: str
    epoch: int
    resumed: bool = False
    versions: tuple[int, ...] = VERSIONS
    streams: dict[int, Position] = field(default_factory=dict)
    over: dict[int, Position] = field(default_factory=dict)
    restarted: bool = False
    boot_id: str = ""

    @property
    def goes_on(self) -> bool:
        """Whether the speaker has received anything on the link, so that its peer must know it."""
        return any(at != Position() for at in (*self.streams.values(), *self.over.values()))


class Data(NamedTuple):
    """One chunk of one message. ``seen``: see :class:`sshpyk.link.stream.Message`."""

    stream: int
    seq: int
    offset: int
    seen: int
    flags: int
    chunk: bytes


class Ack(NamedTuple):
    """Messages below ``seq`` were handed over; bytes below position ``credit`` may be sent."""

    stream: int
    seq: int
    credit: int


class Progress(NamedTuple):
    """Bytes of DATA chunks received on this connection so far."""

    received_bytes: int


class Ping(NamedTuple):
    """A question that any living peer answers with a :class:`Pong` of the same token."""

    token: int


class Pong(NamedTuple):
    """The answer to a :class:`Ping`."""

    token: int


class Bye(NamedTuple):
    """The peer has given up the whole link, for ``reason``."""

    reason: str


Frame = Union[Hello, Data, Ack, Progress, Ping, Pong, Bye]


def _frame(kind: int, body: bytes) -> bytes:
    return _HEADER.pack(kind, len(body)) + body


def encode_hello(hello: Hello) -> bytes:
    """Return the frame that opens a connection."""
    return _frame(HELLO, json.dumps(asdict(hello), separators=(",", ":")).encode())


def encode_data_header(data: Data, size_bytes: int) -> bytes:
    """Return the header of a DATA frame whose chunk of ``size_bytes`` the caller appends itself."""
    return _DATA.pack(DATA, _DATA_BODY.size + size_bytes, *data[:5])


def encode_ack(ack: Ack) -> bytes:
    """Return an ACK frame."""
    return _frame(ACK, _ACK.pack(*ack))


def encode_progress(received_bytes: int) -> bytes:
    """Return a PROGRESS frame."""
    return _frame(PROGRESS, _U64.pack(received_bytes))


def encode_ping(token: int) -> bytes:
    """Return a PING frame."""
    return _frame(PING, _U64.pack(token))


def encode_pong(token: int) -> bytes:
    """Return a PONG frame."""
    return _frame(PONG, _U64.pack(token))


def encode_bye(reason: str) -> bytes:
    """Return a BYE frame; a long reason is cut to what the peer accepts."""
    return _frame(BYE, reason.encode()[:MAX_BYE_BYTES])


def _decode_hello(body: memoryview) -> Hello:
    record = json.loads(bytes(body).decode(), parse_int=_integer)
    link_id, epoch = record["link_id"], _natural(record["epoch"])
    resumed, restarted = record["resumed"], record["restarted"]
    if not (isinstance(resumed, bool) and isinstance(restarted, bool)):
        raise ValueError("malformed HELLO")
    if not (isinstance(link_id, str) and 0 < len(link_id) <= 64):
        raise ValueError("malformed HELLO")
    boot_id = record.get("boot_id", "")
    if not (isinstance(boot_id, str) and len(boot_id) <= 64):
        raise ValueError("malformed HELLO")
    versions = tuple(_natural(version) for version in record["versions"])
    streams, over = _positions(record["streams"]), _positions(record["over"])
    return Hello(link_id, epoch, resumed, versions, streams, over, restarted, boot_id)


def _positions(record: Any) -> dict[int, Position]:
    return {
        _natural(_integer(stream)): Position(_natural(seq), _natural(offset), _natural(start))
        for stream, (seq, offset, start) in record.items()
    }


def _integer(digits: str) -> int:
    """Read a number that may be one of ours; older Pythons take minutes for one of a million digits."""
    if len(digits) > _MAX_DIGITS:
        raise ValueError("a number of %d digits" % len(digits))
    return int(digits)


def _natural(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise ValueError("not a natural number")
    return value


def _decode_data(body: memoryview) -> Data:
    stream, seq, offset, seen, flags = _DATA_BODY.unpack_from(body)
    return Data(stream, seq, offset, seen, flags, bytes(body[_DATA_BODY.size :]))


# type -> (name, smallest body, largest body, decoder)
_KINDS: dict[int, tuple[str, int, int, Callable[[memoryview], Frame]]] = {
    HELLO: ("HELLO", 2, MAX_HELLO_BYTES, _decode_hello),
    DATA: ("DATA", _DATA_BODY.size, _DATA_BODY.size + MAX_CHUNK_BYTES, _decode_data),
    ACK: ("ACK", _ACK.size, _ACK.size, lambda body: Ack(*_ACK.unpack(body))),
    PROGRESS: ("PROGRESS", 8, 8, lambda body: Progress(*_U64.unpack(body))),
    PING: ("PING", 8, 8, lambda body: Ping(*_U64.unpack(body))),
    PONG: ("PONG", 8, 8, lambda body: Pong(*_U64.unpack(body))),
    BYE: ("BYE", 0, MAX_BYE_BYTES, lambda body: Bye(bytes(body).decode("utf-8", "replace"))),
}


class FrameReader:
    """Cut frames out of a connection's bytes, however they were split on the way.

    A chunk is copied once, out of what the caller has read; only a frame that was split twice.
    """

    def __init__(self) -> None:
        self._begun = bytearray()  # a frame of which more must come

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """Take the next bytes and return the frames that they complete, in order.

        Nothing of ``data`` is kept: it may be a buffer that is used again.
        Raises :class:`LinkProtocolError` for anything malformed; the reader is then of no more use.
        """
        frames: list[Frame] = []
        view = memoryview(data)
        position = self._go_on(view, frames) if self._begun else 0
        end = len(view)
        while end - position >= _HEADER.size:
            kind, size = _HEADER.unpack_from(view, position)
            start = position + _HEADER.size
            name, decode = self._check_header(kind, size)
            if end - start < size:
                break
            position = start + size
            frames.append(self._decode(name, decode, view[start:position]))
        self._begun += view[position:]
        return frames

    def _go_on(self, view: memoryview, frames: list[Frame]) -> int:
        """Complete the frame that has begun, if ``view`` can; return what was taken of it."""
        begun, position = self._begun, 0
        if len(begun) < _HEADER.size:
            position = _HEADER.size - len(begun)
            begun += view[:position]
            if len(begun) < _HEADER.size:
                return len(view)
        kind, size = _HEADER.unpack_from(begun)
        name, decode = self._check_header(kind, size)
        missing: int = _HEADER.size + size - len(begun)
        begun += view[position : position + missing]
        if len(view) - position < missing:
            return len(view)
        with memoryview(begun) as whole:
            frames.append(self._decode(name, decode, whole[_HEADER.size :]))
        begun.clear()
        return position + missing

    @staticmethod
    def _check_header(kind: int, size: int) -> tuple[str, Callable[[memoryview], Frame]]:
        try:
            name, smallest, largest, decode = _KINDS[kind]
        except KeyError:
            raise LinkProtocolError("unknown frame type %d" % kind) from None
        if not smallest <= size <= largest:
            raise LinkProtocolError("%s frame of %d bytes" % (name, size))
        return name, decode

    @staticmethod
    def _decode(name: str, decode: Callable[[memoryview], Frame], body: memoryview) -> Frame:
        try:
            return decode(body)
        except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError):
            raise LinkProtocolError(f"malformed {name} frame") from None
