"""Bytes between descriptors at the two ends of a link: a TCP connection, a unix socket, a pair of pipes.

Each end makes a :class:`ByteStream` for the same stream of the link. What travels:

    some bytes      what was read from the descriptor
    no bytes        nothing more will be read (a half-close); the other way goes on
    the stream's end    nothing more is sent, nor taken

An end that comes before both ways were closed is a reset: whoever has the descriptor at the other end
gets one too, where it is a socket. An outage of the link stalls the bytes, and nothing else.

Back-pressure: bytes are read from a descriptor only while what the *consumer at the other end* has not
taken stays below an allowance, so that neither end holds more than that; see :class:`Allowance`. Streams
of one link take turns, and together they let others (kernels) go first each second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections import deque
from typing import Callable

from sshpyk.link.stream import Message
from sshpyk.wire.driver import LinkDriver

KB = 1024
_MIN_READ_BYTES = 4 * KB
_MAX_READ_BYTES = 64 * KB  # a chunk: no message is put together from parts
_READS_IN_A_ROW = 4
_MIN_ALLOWANCE_BYTES = 64 * KB
_MAX_ALLOWANCE_BYTES = 4 * KB * KB  # of the 8 MB that the link lets a stream have
_TOTAL_BYTES = 64 * KB * KB  # for all streams of a link; beyond it each has the least
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST

log = logging.getLogger(__name__)


class Ends:
    """Two descriptors that belong together; the byte stream owns and closes them."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd
        self._write_open = True
        for fd in (read_fd, write_fd):
            os.set_blocking(fd, False)

    def close_writing(self) -> None:
        """Let the reader of what we write see its end."""
        if self._write_open:
            self._write_open = False
            os.close(self.write_fd)

    def close(self, *, reset: bool) -> None:
        """Let go of both. ``reset``: not in order."""
        self.close_writing()
        os.close(self.read_fd)


class SocketEnds(Ends):
    """A connected stream socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        super().__init__(connected.fileno(), connected.fileno())
        if connected.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):  # the other end has gone already
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close_writing(self) -> None:
        """Send FIN."""
        with contextlib.suppress(OSError):  # the other end has gone already
            self._socket.shutdown(socket.SHUT_WR)

    def close(self, *, reset: bool) -> None:
        """Close the socket; ``reset``: its other end gets an error instead of an end."""
        if reset:
            with contextlib.suppress(OSError):  # a unix socket, on some systems
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()


class Allowance:
    """How much each byte stream of a link may have under way, and how much all have together.

    Enough to fill the line as it was measured, twice: on a slow one, more would be minutes of queue.
    """

    def __init__(self, driver: LinkDriver) -> None:
        self._driver = driver
        self.used_bytes = 0

    @property
    def size_bytes(self) -> int:
        """What one stream may have that its consumer has not taken."""
        pacing = self._driver.link.pacing
        if pacing is None or self.used_bytes >= _TOTAL_BYTES:
            return _MIN_ALLOWANCE_BYTES
        return min(max(2 * pacing.window_bytes, _MIN_ALLOWANCE_BYTES), _MAX_ALLOWANCE_BYTES)

    @property
    def read_bytes(self) -> int:
        """How much to read at once: what comes through the line as one chunk, and is there soon."""
        pacing = self._driver.link.pacing
        chunk_bytes = pacing.chunk_bytes if pacing else 0
        return min(max(chunk_bytes, _MIN_READ_BYTES), _MAX_READ_BYTES)


class ByteStream:
    """See the module. ``on_over`` is called once, when the descriptors are closed.

    Made by whoever has opened the descriptors; ``stream`` is a fresh number of the link, and the other
    end is told it by a request. ``reset`` says afterwards whether it ended before its time.
    """

    def __init__(
        self,
        driver: LinkDriver,
        stream: int,
        ends: Ends,
        allowance: Allowance,
        on_over: Callable[[ByteStream], None] = lambda over: None,
    ) -> None:
        self.stream = stream
        self.sent_bytes = 0  # towards the other end
        self.received_bytes = 0
        self.reset = False
        self.over = False
        self._driver = driver
        self._ends = ends
        self._allowance = allowance
        self._on_over = on_over
        self._loop = asyncio.get_running_loop()
        self._held_bytes = 0  # of ours that the other end's consumer has not taken
        self._reading = False
        self._writing = False
        self._eof_sent = False
        self._eof_received = False
        self._ended = False  # the other end sends nothing more, and takes nothing
        self._unwritten: deque[memoryview] = deque()
        driver.link.open(stream, bulk=True)
        driver.watch(stream, self._on_taken)
        driver.when_left.append(self._on_left)
        self._read_on()
        driver.claim(stream, self._on_message)

    def abort(self) -> None:
        """Reset both ends now; idempotent."""
        self._finish(reset=True)

    # From the descriptor to the link

    def _read_on(self) -> None:
        closed = self.over or self._eof_sent or self._ended
        wanted = not closed and self._room_bytes > 0
        if wanted and not self._reading:
            self._loop.add_reader(self._ends.read_fd, self._readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._ends.read_fd)
        self._reading = wanted

    @property
    def _room_bytes(self) -> int:
        return self._allowance.size_bytes - self._held_bytes

    def _readable(self) -> None:
        size_bytes, room_bytes = self._allowance.read_bytes, self._room_bytes
        for _ in range(_READS_IN_A_ROW):
            try:
                data = os.read(self._ends.read_fd, size_bytes)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # reset by whoever has the other end
                self.abort()
                return
            self._driver.link.send(self.stream, data)
            if not data:
                self._eof_sent = True
                self._finish_if_done()
                break
            read_bytes = len(data)
            self.sent_bytes += read_bytes
            self._hold(read_bytes)
            room_bytes -= read_bytes
            if read_bytes < size_bytes or room_bytes <= 0:
                break
        self._read_on()
        self._driver.flush()

    def _hold(self, size_bytes: int) -> None:
        self._held_bytes += size_bytes
        self._allowance.used_bytes += size_bytes

    def _on_taken(self) -> None:
        self._hold(self._driver.link.backlog_bytes(self.stream) - self._held_bytes)
        self._read_on()

    # From the link to the descriptor

    def _on_message(self, message: Message) -> bool:
        if self.over:
            return True
        if message.end:
            self._ended = True
            if not self._eof_received:
                self.abort()
            self._read_on()
            self._finish_if_done()
            return True
        if not message.payload:
            self._eof_received = True
            if not self._unwritten:
                self._close_writing()
            return True
        self.received_bytes += len(message.payload)
        self._unwritten.append(memoryview(message.payload))
        if len(self._unwritten) > 1:
            return False
        # What is written at once is acknowledged by our answer.
        return self._write_first()

    def _write_first(self) -> bool:
        """Write what the descriptor takes of the oldest message; return whether that was all."""
        try:
            written = os.write(self._ends.write_fd, self._unwritten[0])
        except (BlockingIOError, InterruptedError):
            written = 0
        except OSError:  # nobody reads any more
            self.abort()  # which counts the message as taken
            return False
        rest = self._unwritten[0][written:]
        if rest:
            self._unwritten[0] = rest
            self._await_writable(wanted=True)
            return False
        self._unwritten.popleft()
        return True

    def _writable(self) -> None:
        while self._unwritten and self._write_first():
            self._driver.consumed(self.stream)
        if not (self._unwritten or self.over):
            self._await_writable(wanted=False)
            if self._eof_received:
                self._close_writing()

    def _await_writable(self, *, wanted: bool) -> None:
        if wanted and not self._writing:
            self._loop.add_writer(self._ends.write_fd, self._writable)
        elif self._writing and not wanted:
            self._loop.remove_writer(self._ends.write_fd)
        self._writing = wanted

    def _close_writing(self) -> None:
        self._ends.close_writing()
        self._finish_if_done()

    # Ends

    def _finish_if_done(self) -> None:
        if self._eof_received and not self._unwritten and (self._eof_sent or self._ended):
            self._finish(reset=not self._eof_sent)

    def _finish(self, *, reset: bool) -> None:
        if self.over:
            return
        unwritten = len(self._unwritten)
        self._let_go(reset=reset)
        for _ in range(unwritten):
            self._driver.consumed(self.stream)
        self._driver.finish(self.stream)
        self._on_over(self)

    def _on_left(self) -> None:
        if not self.over:
            self._let_go(reset=True)
            self._on_over(self)

    def _let_go(self, *, reset: bool) -> None:
        self.over, self.reset = True, reset
        self._read_on()
        self._await_writable(wanted=False)
        self._unwritten.clear()
        self._allowance.used_bytes -= self._held_bytes
        self._held_bytes = 0
        self._driver.unwatch(self.stream)
        self._driver.when_left.remove(self._on_left)
        self._ends.close(reset=reset)


def hold_until_eof(end: socket.socket) -> None:
    """Keep one end of a stream, on which nothing is said, until the other end is closed."""
    loop = asyncio.get_running_loop()
    end.setblocking(False)

    def look() -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                if end.recv(65536):
                    return
            except ConnectionError:
                pass
            loop.remove_reader(end)
            end.close()

    loop.add_reader(end, look)
