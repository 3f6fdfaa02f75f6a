"""One connection to a socket of a kernel, in the agent's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import deque
from typing import Any, Callable, Sequence, Union

from sshpyk.agent.zmtp import ZmtpError, ZmtpPeer
from sshpyk.wire.clock import now_s

READ_BYTES = 256 * 1024
LARGE_READ_BYTES = 16 * 1024  # no socket is full of less
WRITER_PAUSE_S = (
    0.02  # after which a writer that waited for room has gone on, also on a busy machine
)
_MAX_BUFFERS = 64
_ARRIVED = memoryview(bytearray(READ_BYTES))  # of one socket at a time: one loop reads them all
_DRAIN_READS = 4096

log = logging.getLogger(__name__)

Address = Union[str, "tuple[str, int]"]


def channel_address(info: dict[str, Any], channel: str) -> Address:
    """Return where a channel of the kernel listens, from its connection file."""
    port = info[f"{channel}_port"]
    if info["transport"] == "ipc":
        return f"{info['ip']}-{port}"
    return info["ip"], port


def open_socket(address: Address) -> socket.socket:
    """Connect at once or raise OSError: the kernel is on this machine and listens, or not yet."""
    if isinstance(address, str):
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        connected = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        connected.connect(address)
    except OSError:
        connected.close()
        raise
    connected.setblocking(False)
    return connected


class KernelSocket:
    """Messages to and from one ZeroMQ socket of a kernel.

    ``on_messages`` gets what arrived; ``on_ready`` is called once when the kernel has answered our
    greeting. What is sent before that, or faster than the kernel reads, waits here in order.
    """

    def __init__(
        self,
        address: Address,
        peer: ZmtpPeer,
        on_messages: Callable[[list[list[bytes]]], None],
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.broken = ""
        self._socket = open_socket(address)
        self._peer = peer
        self._on_messages = on_messages
        self._on_ready = on_ready
        self._loop = asyncio.get_running_loop()
        self._unframed: deque[Sequence[bytes]] = deque()
        self._out: deque[memoryview] = deque()
        self._writable_awaited = False
        self._closed = False
        self._large_read_s = -WRITER_PAUSE_S
        self._loop.add_reader(self._socket, self.read)
        self._write_protocol_bytes()

    def send(self, parts: Sequence[bytes]) -> bool:
        """Send a message; return whether the kernel's side has taken all of it already."""
        if self._closed:
            return True
        if self._peer.ready:
            self._out.extend(memoryview(buffer) for buffer in self._peer.encode(parts))
        else:
            self._unframed.append(parts)
        self._write()
        return self.drained

    @property
    def drained(self) -> bool:
        """Whether nothing waits any more: the kernel's side has all of it, or never will."""
        return self._closed or not (self._out or self._unframed)

    @property
    def more_is_coming(self) -> bool:
        """Whether the kernel is likely to be writing still.

        A message has arrived in part; or there was so much a moment ago that the socket may have
        been full, and the kernel has not come to go on.
        """
        if self._closed:
            return False
        return self._peer.mid_message or now_s() - self._large_read_s < WRITER_PAUSE_S

    def read(self) -> bool:
        """Hand over what has arrived, at most READ_BYTES; return whether there was anything.

        Called by the loop, and before another socket's messages are passed on.
        """
        return not self._closed and self._read_once()

    def pause(self) -> None:
        """Do not read by ourselves any more, until :meth:`resume`."""
        if not self._closed:
            self._loop.remove_reader(self._socket)

    def resume(self) -> None:
        """Read again what arrives."""
        if not self._closed:
            self._loop.add_reader(self._socket, self.read)

    def drain(self) -> None:
        """Hand over all that a dead kernel left in the socket."""
        for _ in range(_DRAIN_READS):
            if self._closed or not self._read_once():
                return

    def close(self) -> None:
        """Let go of the socket; idempotent."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()

    def _read_once(self) -> bool:
        try:
            # Not recv: see wire.carrier.
            data = bytes(_ARRIVED[: self._socket.recv_into(_ARRIVED)])
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            return self._break(str(error))
        if len(data) > LARGE_READ_BYTES:
            self._large_read_s = now_s()
        was_ready = self._peer.ready
        try:
            messages = self._peer.receive_data(data) if data else []
        except ZmtpError as error:
            log.warning("gave up a connection to a kernel: %s", error)
            return self._break(str(error))
        self._write_protocol_bytes()
        if self._peer.ready and not was_ready:
            self._became_ready()
        if messages:
            self._on_messages(messages)
        return True if data else self._break("closed by the kernel")

    def _became_ready(self) -> None:
        while self._unframed:
            parts = self._unframed.popleft()
            self._out.extend(memoryview(buffer) for buffer in self._peer.encode(parts))
        self._write()
        self._on_ready()

    def _break(self, reason: str) -> bool:
        self.broken = reason
        self.close()
        return False

    def _write_protocol_bytes(self) -> None:
        data = self._peer.data_to_send()
        if data:
            self._out.append(memoryview(data))
            self._write()

    def _write(self) -> None:
        while self._out:
            offered = [self._out[place] for place in range(min(len(self._out), _MAX_BUFFERS))]
            try:
                written = os.writev(self._socket.fileno(), offered)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._break(str(error))
                return
            self._drop_written(offered, written)
        self._await_writable(bool(self._out))

    def _drop_written(self, offered: list[memoryview], written: int) -> None:
        for buffer in offered:
            if written < len(buffer):
                self._out[0] = buffer[written:]
                return
            written -= len(buffer)
            self._out.popleft()

    def _await_writable(self, wanted: bool) -> None:  # noqa: FBT001
        if wanted == self._writable_awaited or self._closed:
            return
        self._writable_awaited = wanted
        if wanted:
            self._loop.add_writer(self._socket, self._write)
        else:
            with contextlib.suppress(OSError):
                self._loop.remove_writer(self._socket)
