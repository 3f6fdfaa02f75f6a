"""The client side of ZMTP 3.0 with the NULL mechanism: bytes in, messages out, no I/O.

The agent talks to a kernel's five sockets with this, so that a host needs no pyzmq of its own.
The rules (RFC 23, https://rfc.zeromq.org/spec/23/), for both directions unless said otherwise::

    connection = greeting, READY, traffic               each side sends its own at once
    greeting   = FF 8*any 7F, major minor, mechanism(20), as-server(1), filler(31)     64 octets
    frame      = flags, size (1 octet, or 8 with LONG, most significant first), body
    flags      = 1 MORE (parts follow), 2 LONG, 4 COMMAND (never with MORE); the others are 0
    command    = name-size(1), name, data
    READY      = *( name-size(1), name, value-size(4), value )       Socket-Type, Identity
    ERROR      = reason-size(1), reason                 instead of READY, then the peer closes
    message    = *(frame with MORE), one frame without
    subscribe  = a message of 01 and the prefix         SUB to PUB only

- We announce 3.0: a peer of 3.1 then sends no 3.1 command and takes subscriptions as messages.
- Traffic starts when the peer's READY has arrived. libzmq closes a connection on which a message
  came before it had sent its own READY, so nothing may ride along with our READY.
- PING = ttl(2), context(0..16) is answered by PONG = context, even though 3.0 has neither.
- A peer of ZMTP 1 shows no 7F at octet 9, one of ZMTP 2 has a major below 3: both are refused.

How to drive a :class:`ZmtpPeer`: send :meth:`~ZmtpPeer.data_to_send` after connecting and after
each :meth:`~ZmtpPeer.receive_data`; :meth:`~ZmtpPeer.encode` messages once it is ``ready``. After
a :class:`ZmtpError` the connection can only be closed; a new connection needs a new object.
Do not reconnect to a ROUTER under an identity that still has requests waiting there: libzmq drops
them, or gives them a name of its own, so that their replies go nowhere (seen with 4.3.5).
"""

from __future__ import annotations

import enum
import struct
from io import BytesIO
from typing import Callable, Sequence, Union

BytesLike = Union[bytes, bytearray, memoryview]

MAX_MESSAGE_BYTES = 4 << 30
PART_COST_BYTES = 64  # what a part takes beside its content: a peer may send no end of empty ones
MAX_COMMAND_BYTES = 16 << 10
JOIN_BELOW_BYTES = 16 << 10  # copying a smaller part costs less than a longer list for sendmsg

_MORE, _LONG, _COMMAND = 1, 2, 4
_NO_MESSAGE = 0xFF & ~(_MORE | _LONG)
_LONG_HEADER = struct.Struct("!BQ")
_SHORT_HEADERS = [[bytes((flags, size)) for size in range(256)] for flags in (0, _MORE)]

_MECHANISM = b"NULL".ljust(20, b"\0")
_GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + _MECHANISM + bytes(32)
_SUBSCRIBE_TO_ALL = [b"\x01"]

_PEER_TYPES = {
    b"DEALER": (b"ROUTER", b"DEALER", b"REP"),
    b"SUB": (b"PUB", b"XPUB"),
}

# Octets of the peer's greeting (from, to), what they must satisfy, and what it means if they don't.
# Each is checked as soon as it is there: an older peer sends no more until we speak its dialect.
_GREETING_RULES: tuple[tuple[int, int, Callable[[bytes], bool], str], ...] = (
    (0, 1, b"\xff".__eq__, "the peer speaks ZMTP 1, or no ZMTP at all"),
    (9, 10, b"\x7f".__eq__, "the peer speaks ZMTP 1, or no ZMTP at all"),
    (10, 11, b"\x03".__le__, "the peer speaks ZMTP 2"),
    (12, 32, _MECHANISM.__eq__, "the peer asks for a security mechanism other than NULL"),
)


class ZmtpError(Exception):
    """The peer broke the protocol, went over a cap, or refused us with an ERROR command."""


class _State(enum.Enum):
    GREETING = enum.auto()  # nothing, or less than 64 octets, has come
    HANDSHAKE = enum.auto()  # the peer's READY is next
    TRAFFIC = enum.auto()
    BROKEN = enum.auto()  # a ZmtpError was raised, or is about to be


class ZmtpPeer:
    """Our end of one connection to a socket of a kernel.

    ``socket_type`` is ``b"DEALER"`` (shell, stdin, control) or ``b"SUB"`` (iopub; subscribes to
    everything). ``identity`` is what a ROUTER at the other end calls us: up to 255 octets that do
    not begin with 00, or none. ``max_message_bytes`` bounds what a message received may take: its
    parts, and PART_COST_BYTES for each of them.
    """

    def __init__(
        self, socket_type: bytes, identity: bytes = b"", max_message_bytes: int = MAX_MESSAGE_BYTES
    ) -> None:
        if socket_type not in _PEER_TYPES:
            raise ValueError(f"socket type {socket_type!r} is not one of {list(_PEER_TYPES)}")
        if len(identity) > 255 or identity.startswith(b"\0"):
            raise ValueError(f"not a ZMTP identity: {identity!r}")
        self._socket_type = socket_type
        self._max_message_bytes = max_message_bytes
        self._state = _State.GREETING
        self._failure: ZmtpError | None = None
        self._outgoing = [_GREETING, _ready_command(socket_type, identity)]
        self._tail = b""  # of what was received: less than a greeting or than a frame header
        self._parts: list[bytes] = []  # of the message that is arriving
        self._room = -1  # what it may still take; nothing before READY
        # The frame whose body has begun to arrive. A BytesIO grows with what has come, never by
        # what was announced, and gives its buffer away without a copy.
        self._body: BytesIO | None = None
        self._body_flags = 0
        self._body_missing = 0

    @property
    def ready(self) -> bool:
        """Whether the peer's READY has arrived and nothing has gone wrong since."""
        return self._state is _State.TRAFFIC

    @property
    def mid_message(self) -> bool:
        """Whether an end of file now would cut a message (or a command) in two."""
        return self.ready and bool(self._parts or self._tail or self._body is not None)

    def data_to_send(self) -> bytes:
        """Hand over what the protocol itself has to say now; empty when there is nothing."""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        return data

    def encode(self, parts: Sequence[BytesLike]) -> list[BytesLike]:
        """Frame one message of at least one part, as buffers to be sent in this order.

        Small parts are joined; a part of JOIN_BELOW_BYTES or more is the caller's own object, which
        must not change before it has been sent. RuntimeError if the peer is not ready.
        """
        if self._state is not _State.TRAFFIC:
            raise RuntimeError(f"cannot send a message while the connection is {self._state.name}")
        return _encode(parts)

    def receive_data(self, data: BytesLike) -> list[list[bytes]]:
        """Take what the socket gave, cut anywhere; return the messages that it completes.

        Raises ZmtpError for the peer's faults. Messages completed before the fault are returned
        first: then the *next* call raises, whatever it is given (``b""`` at end of file will do).
        """
        if self._failure is not None:
            raise self._failure
        messages: list[list[bytes]] = []
        received = self._tail + data  # no copy if there is no tail, which is the rule
        try:
            self._tail = self._read(received, messages)
        except ZmtpError as error:
            self._break(error)
            if not messages:
                raise
        return messages

    def _break(self, error: ZmtpError) -> None:
        self._failure = error
        self._state = _State.BROKEN
        self._outgoing.clear()
        self._parts = []
        self._body = None

    def _read(self, data: bytes, messages: list[list[bytes]]) -> bytes:
        """Take greeting and frames; return what cannot be read before more has come."""
        if self._state is not _State.GREETING:
            return self._read_frames(data, messages)
        for first, end, holds, fault in _GREETING_RULES:
            if len(data) >= end and not holds(data[first:end]):
                raise ZmtpError(fault)
        if len(data) < len(_GREETING):
            return data
        self._state = _State.HANDSHAKE
        return self._read_frames(data[len(_GREETING) :], messages)

    def _read_frames(self, data: bytes, messages: list[list[bytes]]) -> bytes:
        """Go through ``data`` once, by offsets; return what is left, less than a frame header."""
        at = 0
        end = len(data)
        if self._body is not None:
            at = self._continue_body(self._body, data, messages)
        while end - at >= 2:
            flags = data[at]
            if flags & _LONG:
                start = at + _LONG_HEADER.size
                if start > end:
                    break
                size = _LONG_HEADER.unpack_from(data, at)[1]
            else:
                start = at + 2
                size = data[at + 1]
            if flags & _NO_MESSAGE:
                _admit_command(flags, size)
            else:
                self._room -= size + PART_COST_BYTES
                if self._room < 0:
                    raise self._refusal()
            at = start + size
            if at > end:
                self._body = BytesIO()
                self._body.write(data[start:])
                self._body_flags = flags
                self._body_missing = at - end
                return b""
            self._take(flags, data[start:at], messages)
        return data[at:]

    def _continue_body(self, body: BytesIO, data: bytes, messages: list[list[bytes]]) -> int:
        """Add to the body that is arriving; return how much of ``data`` belonged to it."""
        used = body.write(data[: self._body_missing])
        self._body_missing -= used
        if not self._body_missing:
            self._body = None
            self._take(self._body_flags, body.getvalue(), messages)
        return used

    def _refusal(self) -> ZmtpError:
        if self._state is not _State.TRAFFIC:
            return ZmtpError("a message came before READY")
        return ZmtpError(f"a message takes more than {self._max_message_bytes} bytes")

    def _take(self, flags: int, body: bytes, messages: list[list[bytes]]) -> None:
        """Deal with a complete frame."""
        if flags & _NO_MESSAGE:
            self._obey(body)
            return
        self._parts.append(body)
        if not flags & _MORE:
            messages.append(self._parts)
            self._parts = []
            self._room = self._max_message_bytes

    def _obey(self, command: bytes) -> None:
        name, data = _split_short(command, "command")
        action = _COMMANDS.get((self._state, name))
        if action is not None:
            action(self, data)
        elif self._state is not _State.TRAFFIC:
            raise ZmtpError(f"the command {name!r} came instead of READY")
        # else: RFC 23 knows no command in traffic; an unknown one is skipped, as libzmq does.

    def _on_ready(self, data: bytes) -> None:
        peer_type = _properties(data).get(b"socket-type", b"")
        if peer_type not in _PEER_TYPES[self._socket_type]:
            raise ZmtpError(f"the peer's socket type is {peer_type!r}, ours {self._socket_type!r}")
        self._state = _State.TRAFFIC
        self._room = self._max_message_bytes
        if self._socket_type == b"SUB":
            self._outgoing += [bytes(buffer) for buffer in _encode(_SUBSCRIBE_TO_ALL)]

    def _on_error(self, data: bytes) -> None:
        reason = _split_short(data, "ERROR")[0].decode("ascii", "backslashreplace")
        raise ZmtpError(f"the peer refused the connection: {reason}")

    def _on_ping(self, data: bytes) -> None:
        if not 2 <= len(data) <= 18:
            raise ZmtpError(f"a PING of {len(data)} bytes")
        self._outgoing.append(_command(b"PONG", data[2:]))


_COMMANDS: dict[tuple[_State, bytes], Callable[[ZmtpPeer, bytes], None]] = {
    (_State.HANDSHAKE, b"READY"): ZmtpPeer._on_ready,
    (_State.HANDSHAKE, b"ERROR"): ZmtpPeer._on_error,
    (_State.TRAFFIC, b"ERROR"): ZmtpPeer._on_error,
    (_State.TRAFFIC, b"PING"): ZmtpPeer._on_ping,
}


def _encode(parts: Sequence[BytesLike]) -> list[BytesLike]:
    if not parts:
        raise ValueError("a message has at least one part")
    buffers: list[BytesLike] = []
    joined: list[BytesLike] = []
    more_to_come = len(parts)
    for part in parts:
        more_to_come -= 1
        more = _MORE if more_to_come else 0
        size = part.nbytes if isinstance(part, memoryview) else len(part)
        if size < 256:
            joined.append(_SHORT_HEADERS[more][size])
        else:
            joined.append(_LONG_HEADER.pack(more | _LONG, size))
        if size < JOIN_BELOW_BYTES:
            joined.append(part)
        else:
            buffers += (b"".join(joined), part)
            joined = []
    if joined:
        buffers.append(b"".join(joined))
    return buffers


def _admit_command(flags: int, size: int) -> None:
    """Judge a frame that is no message by its header, before anything is stored for it."""
    if flags & ~_LONG != _COMMAND:
        raise ZmtpError(f"a frame has the flags {flags:#04x}")
    if size > MAX_COMMAND_BYTES:
        raise ZmtpError(f"a command is larger than {MAX_COMMAND_BYTES} bytes")


def _command(name: bytes, data: bytes) -> bytes:
    body = bytes((len(name),)) + name + data
    if len(body) < 256:
        return bytes((_COMMAND, len(body))) + body
    return _LONG_HEADER.pack(_COMMAND | _LONG, len(body)) + body


def _ready_command(socket_type: bytes, identity: bytes) -> bytes:
    properties = [(b"Socket-Type", socket_type), (b"Identity", identity)]
    data = b"".join(
        bytes((len(name),)) + name + struct.pack("!I", len(value)) + value
        for name, value in properties
        if value
    )
    return _command(b"READY", data)


def _properties(data: bytes) -> dict[bytes, bytes]:
    """Read the metadata of a READY; the names, which know no case, in lower case."""
    properties = {}
    while data:
        name, rest = _split_short(data, "READY")
        size = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 + size:
            raise ZmtpError("a READY that ends too early")
        properties[name.lower()] = rest[4 : 4 + size]
        data = rest[4 + size :]
    return properties


def _split_short(data: bytes, where: str) -> tuple[bytes, bytes]:
    """Split off a string that one octet of its own size precedes."""
    if not data or len(data) <= data[0]:
        raise ZmtpError(f"a {where} that ends too early")
    return data[1 : 1 + data[0]], data[1 + data[0] :]
