"""A running ssh whose stdin, stdout and stderr are the hub's, whoever started it.

The hub starts its own (``ssh_start``), without a terminal: it never asks. For ``sshpyk login`` the
command line starts it on the user's terminal, with pipes of the hub's (``login``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from typing import Protocol

from sshpyk.hub.ssh_start import Pipes

_TAIL_BYTES = 8192
_END_PATIENCE_S = 2.0

log = logging.getLogger(__name__)


class GroupLeader(Protocol):
    """A process that leads a process group of its own: it and its ProxyJump children."""

    @property
    def pid(self) -> int:
        """Its process id, which is the group's too."""

    def poll(self) -> int | None:
        """Return its exit status; None while it runs."""


class SshProcess:
    """See the module. Owns the process; stdin and stdout may be taken over by a carrier.

    ``on_said`` is told what comes on stderr. ``unread`` is what a dial has read beyond its own words.
    """

    def __init__(self, process: GroupLeader, pipes: Pipes) -> None:
        self._process = process
        self.stdin_fd, self.stdout_fd, self._stderr_fd = pipes
        self.on_said: Callable[[bytes], None] = lambda data: None
        self.unread = b""
        self._tail = b""
        for fd in pipes:
            os.set_blocking(fd, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._stderr_fd, self._read_stderr)

    @property
    def pid(self) -> int:
        """The process id of ssh."""
        return self._process.pid

    @property
    def stderr_tail(self) -> str:
        """What ssh and the remote side wrote to stderr last."""
        return self._tail.decode("utf-8", "replace")

    def _read_stderr(self) -> None:
        try:
            data = os.read(self._stderr_fd, 65536)
        except BlockingIOError:
            return
        except OSError:  # Linux's word for the end of a pseudo-terminal
            data = b""
        for line in data.decode("utf-8", "replace").splitlines():
            log.info("ssh: %s", line)
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        if data:
            self.on_said(data)
        else:
            self._loop.remove_reader(self._stderr_fd)

    async def read_some(self) -> bytes:
        """Return the next bytes of stdout, b"" at its end."""
        readable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self.stdout_fd, _settle, readable)
        try:
            await readable
            return os.read(self.stdout_fd, 65536)
        except BlockingIOError:
            return b"" if self._process.poll() is not None else await self.read_some()
        finally:
            self._loop.remove_reader(self.stdout_fd)

    async def write(self, data: bytes) -> None:
        """Write all of ``data`` to stdin; OSError when ssh has gone."""
        # Not in a thread: nothing ends one that waits for ssh to read, and the number of a pipe that is
        # closed meanwhile is the next one's.
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self.stdin_fd, rest) :]
            except BlockingIOError:
                await self._writable()

    async def _writable(self) -> None:
        writable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self.stdin_fd, _settle, writable)
        try:
            await writable
        finally:
            self._loop.remove_writer(self.stdin_fd)

    async def wait(self, patience_s: float = _END_PATIENCE_S) -> int | None:
        """Return the exit status if ssh ends within ``patience_s``."""
        deadline_s = self._loop.time() + patience_s
        while self._process.poll() is None and self._loop.time() < deadline_s:
            await asyncio.sleep(0.01)
        if self._process.poll() is not None and self._stderr_fd >= 0:
            self._read_stderr()
        return self._process.poll()

    def end(self, *, close_pipes: bool) -> None:
        """End ssh now and reap it; its pipes are closed unless somebody took them over."""
        if close_pipes:
            for fd in (self.stdin_fd, self.stdout_fd):
                with contextlib.suppress(OSError):
                    os.close(fd)
        if self._stderr_fd >= 0:
            self._loop.remove_reader(self._stderr_fd)
            os.close(self._stderr_fd)
            self._stderr_fd = -1
        if self._process.poll() is None:
            # SIGCONT first: a stopped ssh must be able to die. Its ProxyJump child is in the group.
            for number in (signal.SIGCONT, signal.SIGTERM):
                self._kill(number)
            self._loop.call_later(_END_PATIENCE_S, self._reap)
        self._reap_soon()

    def _reap_soon(self) -> None:
        if self._process.poll() is None:
            self._loop.call_later(0.05, self._reap_soon)

    def _reap(self) -> None:
        if self._process.poll() is None:
            self._kill(signal.SIGKILL)

    def _kill(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
