"""The bytes of one connection: between two descriptors and the protocol core, in an event loop.

No decision of the protocol is made here: feed what was read, pass the events on, write what the core
wants written. The core is asked in small portions and only when the descriptor takes more, so that an
urgent message never waits behind a queue of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
from collections import deque
from typing import Callable, Sequence

from sshpyk.link.connection import REPORT_WITHIN_S, Broken, Connection, Event
from sshpyk.wire.clock import now_s

READ_BYTES = 256 * 1024
# Of one descriptor at a time. A buffer made that large for each read costs 30 us and leaves holes in the
# heap between messages that stay.
_ARRIVED = memoryview(bytearray(READ_BYTES))
_F_SETPIPE_SZ, _F_GETPIPE_SZ = 1031, 1032  # Linux; named in fcntl since Python 3.10
_USUAL_PIPE_BYTES = 64 * 1024
_PIPE_BYTES = 256 * 1024  # several chunks go in at once; how much is under way is paced anyway
_MAX_BUFFERS = 64  # well below any system's IOV_MAX


class Carrier:
    """See the module. ``on_event`` gets every event in order, ``on_lost`` the reason, once.

    The carrier owns both descriptors and closes them.
    """

    on_event: Callable[[Carrier, Event], None]
    on_lost: Callable[[Carrier, str], None]

    def __init__(self, connection: Connection, read_fd: int, write_fd: int) -> None:
        self.connection = connection
        self._loop = asyncio.get_running_loop()
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._out: deque[memoryview] = deque()
        self._flush_planned = False
        self._report_planned = False
        self._writable_awaited = False
        self._closed = False

    def start(self, first_data: bytes = b"") -> None:
        """Begin to move bytes; ``first_data`` was read from the descriptor already."""
        for fd in (self._read_fd, self._write_fd):
            os.set_blocking(fd, False)
            _widen(fd)
        self._loop.add_reader(self._read_fd, self._readable)
        if first_data:
            self._dispatch(first_data)
        self.wake()

    def wake(self) -> None:
        """Write soon what the core has to send. Cheap to call often: messages of one turn of the
        loop go out together.
        """
        if not (self._flush_planned or self._writable_awaited or self._closed):
            self._flush_planned = True
            self._loop.call_soon(self._flush)

    def flush(self) -> None:
        """Write now what the core has to send, unless it goes soon anyway. May end in ``on_lost``."""
        if not (self._flush_planned or self._writable_awaited):
            self._flush()

    def close(self, last_words: bytes = b"") -> None:
        """Let go of both descriptors; ``last_words`` are written if there is room, no longer."""
        if self._closed:
            return
        if last_words and not self._out:
            with contextlib.suppress(OSError):  # they are a courtesy
                os.write(self._write_fd, last_words)
        self._closed = True
        self._loop.remove_reader(self._read_fd)
        self._loop.remove_writer(self._write_fd)
        for fd in {self._read_fd, self._write_fd}:
            os.close(fd)

    def _readable(self) -> None:
        try:
            data = _ARRIVED[: os.readv(self._read_fd, [_ARRIVED])]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(f"reading failed: {error.strerror}")
            return
        if data:
            self._dispatch(data)
        else:
            self._lose("the other end closed the connection")

    def _read_rest(self) -> None:
        """Take what the other end said before it went: its last word may be that it left for good."""
        with contextlib.suppress(OSError):
            while not self._closed and (data := os.read(self._read_fd, READ_BYTES)):
                self._dispatch(data)

    def _dispatch(self, data: bytes | memoryview) -> None:
        self.deliver(self.connection.receive_data(data, now_s()))

    def deliver(self, events: Sequence[Event]) -> None:
        """Pass events on; also those that ``Connection.answer`` returned to whoever called it."""
        for event in events:
            self.on_event(self, event)
            if isinstance(event, Broken):
                self._lose(f"the other end broke the protocol: {event.reason}")
        if self.connection.has_to_send:
            self.wake()
        elif self.connection.report_due and not self._report_planned:
            self._report_planned = True
            self._loop.call_later(REPORT_WITHIN_S, self._report)

    def _report(self) -> None:
        self._report_planned = False
        if self.connection.report_due:
            self.flush()

    def _flush(self) -> None:
        self._flush_planned = False
        if self._closed:
            return
        more = True
        while more or self._out:
            if not self._out:
                more = self._take_portion()
            if self._out and not self._write_some():
                return
        self._await_writable(wanted=False)

    def _take_portion(self) -> bool:
        """Ask the core what to write now; return whether there may be more when that is written."""
        limit_bytes, size_bytes = self.connection.portion_bytes, 0
        for buffer in self.connection.data_to_send(limit_bytes, now_s()):
            size_bytes += len(buffer)
            self._out.append(memoryview(buffer))
        return size_bytes >= limit_bytes

    def _write_some(self) -> bool:
        """Write what the descriptor takes; return whether it took everything that was offered."""
        offered = [self._out[place] for place in range(min(len(self._out), _MAX_BUFFERS))]
        try:
            written = os.writev(self._write_fd, offered)
        except (BlockingIOError, InterruptedError):
            written = 0
        except OSError as error:
            self._read_rest()
            self._lose(f"writing failed: {error.strerror}")
            return False
        for buffer in offered:
            if written < len(buffer):
                self._out[0] = buffer[written:]
                self._await_writable(wanted=True)
                return False
            written -= len(buffer)
            self._out.popleft()
        return True

    def _await_writable(self, *, wanted: bool) -> None:
        if wanted and not self._writable_awaited:
            self._loop.add_writer(self._write_fd, self._flush)
        elif self._writable_awaited and not wanted:
            self._loop.remove_writer(self._write_fd)
        self._writable_awaited = wanted

    def _lose(self, reason: str) -> None:
        if not self._closed:
            self.close()
            self.on_lost(self, reason)


def _widen(fd: int) -> None:
    """Let a pipe hold more than one chunk, where that may be asked for."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # it is none, or the user has too many
            if fcntl.fcntl(fd, _F_GETPIPE_SZ) == _USUAL_PIPE_BYTES:
                fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_BYTES)
