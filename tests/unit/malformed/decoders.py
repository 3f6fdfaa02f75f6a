"""Everything that reads what another process says, each behind the same two questions.

A decoder takes a list of pieces, as a socket would give them. It returns whether it refused them, in
the one way that its module documents; whatever else it raises is a defect.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from sshpyk.agent.zmtp import ZmtpError, ZmtpPeer
from sshpyk.errors import KernelError, SshpykError, error_from_record
from sshpyk.hub.dial import _Attempt, _Upload
from sshpyk.hub.mounts import Mounts
from sshpyk.hub.outage import Outage
from sshpyk.hub.server import _LINE_LIMIT_BYTES, Server
from sshpyk.link.connection import Broken, Connection, HelloReceived, Incompatible
from sshpyk.link.frames import FrameReader, LinkProtocolError
from sshpyk.link.link import Link
from sshpyk.link.stream import Message
from sshpyk.ssh.command import SshTarget
from sshpyk.wire import kernel_messages, rpc
from sshpyk.wire.jupyter_messages import Signer

LINK_ID = "ab" * 16
MARKER = "0123456789abcdef"
KEY = "the key of a connection file"

Pieces = Sequence[bytes]


def frames(pieces: Pieces) -> bool:
    reader = FrameReader()
    try:
        for piece in pieces:
            reader.feed(piece)
    except LinkProtocolError:
        return True
    return False


def link_at_the_agent(pieces: Pieces) -> bool:
    return _carry(Connection.accept(), Link(LINK_ID), pieces)


def link_at_the_hub(pieces: Pieces) -> bool:
    link = Link(LINK_ID)
    link.open(0, urgent=True)
    link.open(1)
    for number in (0, 1):
        link.send(number, b"request" * 100)
    return _carry(Connection.initiate(link, 1), link, pieces)


def _carry(connection: Connection, link: Link, pieces: Pieces) -> bool:
    """Do what a carrier and an owner do: consume, tick, and take what there is to send."""
    now_s = 0.0
    connection.data_to_send(1 << 16, now_s)
    for piece in pieces:
        now_s += 0.5
        waiting = list(connection.receive_data(piece, now_s))
        while waiting:
            event = waiting.pop(0)
            if isinstance(event, HelloReceived):
                try:
                    waiting = connection.answer(link, event.hello) + waiting
                except LinkProtocolError:
                    return True
            elif isinstance(event, Message):
                link.consumed(event.stream)
            elif isinstance(event, (Broken, Incompatible)):
                return True
        connection.tick(now_s)
        connection.data_to_send(1 << 16, now_s)
    return False


def zmtp_dealer(pieces: Pieces) -> bool:
    return _zmtp(ZmtpPeer(b"DEALER", b"identity"), pieces)


def zmtp_sub(pieces: Pieces) -> bool:
    return _zmtp(ZmtpPeer(b"SUB"), pieces)


def _zmtp(peer: ZmtpPeer, pieces: Pieces) -> bool:
    try:
        for piece in (*pieces, b""):
            peer.receive_data(piece)
            peer.data_to_send()
    except ZmtpError:
        return True
    return False


def kernel_message(pieces: Pieces) -> bool:
    payload = b"".join(pieces)
    try:
        channel, parts = kernel_messages.unpack(payload)
    except ValueError:
        return True
    assert kernel_messages.pack(channel, parts) == payload
    return False


def rpc_record(pieces: Pieces) -> bool:
    try:
        record = rpc._read(b"".join(pieces))
    except ValueError:
        return True
    if "error" in record and "op" not in record:
        assert isinstance(str(error_from_record(record["error"])), str)
    return False


def jupyter_message(pieces: Pieces) -> bool:
    """The parts are those of a packed kernel message, or else what stands between newlines."""
    data = b"".join(pieces)
    try:
        parts = [bytes(part) for part in kernel_messages.unpack(data).parts]
    except ValueError:
        parts = data.split(b"\n")
    # Without a key every message is signed right: more of it is read.
    refused = Signer(KEY, "hmac-sha256").read(parts) is None
    Signer("", "hmac-sha256").read(parts)
    return refused


class _PrintingSsh:
    """An ssh whose stdout is given."""

    stderr_tail = ""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = [piece for piece in pieces if piece]

    async def read_some(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    async def write(self, data: bytes) -> None:
        """Nobody reads it."""

    async def wait(self) -> int:
        return 255


def preamble(pieces: Pieces) -> bool:
    ssh: Any = _PrintingSsh(pieces)
    attempt = _Attempt(ssh, SshTarget("gpu1"), "python3", 10.0)
    with contextlib.suppress(SshpykError):
        asyncio.run(_run(attempt))
        return False
    return True


async def _run(attempt: _Attempt) -> None:
    bundle = asyncio.get_running_loop().create_future()
    bundle.set_result(b"00000006bundle")
    upload = _Upload(b"program", bundle, behind=None)
    await attempt.run(MARKER, upload, lambda phase: None)


class _NoKernels:
    """Kernels of which none can be started."""

    busy = False
    count = 0

    def __init__(self, host: Any) -> None:
        self.mounts = Mounts(host)

    def summaries(self) -> list[Any]:
        return []

    async def launch(self, request: Any) -> Any:
        raise KernelError("none today")


class _Host:
    target = SshTarget("gpu1")

    class state:  # noqa: N801
        value = "up"

    phase = ""
    reason = None
    is_silent = False
    took_over = False
    outage = Outage("gpu1", lambda text: None)

    def __init__(self) -> None:
        self.operations: dict[str, Any] = {}
        self.on_lost_link = self.on_agent_replaced = lambda *_: None


class _Writer:
    def __init__(self) -> None:
        self.said: list[Any] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.said += [json.loads(line) for line in data.splitlines()]

    def close(self) -> None:
        self.closed = True


def hub_conversation(pieces: Pieces) -> bool:
    """Refused means: not one answer, or one that says failed. The conversation ends in any case."""

    async def converse() -> bool:
        host: Any = _Host()
        kernels: Any = _NoKernels(host)
        writer: Any = _Writer()
        reader = asyncio.StreamReader(limit=_LINE_LIMIT_BYTES)
        for piece in pieces:
            reader.feed_data(piece)
        reader.feed_eof()
        await Server(host, kernels)._accept(reader, writer)
        assert writer.closed
        return not writer.said or any(said.get("event") == "failed" for said in writer.said)

    return asyncio.run(converse())


DECODERS: dict[str, Callable[[Pieces], bool]] = {
    decoder.__name__: decoder
    for decoder in (
        frames,
        link_at_the_agent,
        link_at_the_hub,
        zmtp_dealer,
        zmtp_sub,
        kernel_message,
        rpc_record,
        jupyter_message,
        preamble,
        hub_conversation,
    )
}
