"""``sshpyk login``: ssh runs on the terminal of a person, its pipes are the hub's.

The hub makes the pipes and passes ssh's ends to the command line, which starts ssh as its child in the
foreground of its terminal. ssh asks there by itself (``/dev/tty``), so that no secret passes through us.
From the first byte on the connection is the hub's like any other; the command line may go. ::

    -> {"op": "login", "python": "python3", "tty": true}
    <- {"event": "start", "argv": […]}         with three descriptors: ssh's stdin, stdout, stderr
    -> {"op": "started", "pid": 4711}          it leads a process group
    <- {"event": "said", "text": "…"}          what came on its stderr
    -> {"op": "ended", "status": 255}          if it ends
    <- {"event": "up", "was_up": false, "kernels": 2, "kept_s": 28800}
                                               or  {"event": "failed", "error": {…}}

If the conversation ends before the last line, ssh is ended.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pty
import socket
import tty
from collections.abc import Callable
from typing import Any

from sshpyk.errors import SshpykError
from sshpyk.hub.host import HostLink
from sshpyk.hub.ssh_process import SshProcess
from sshpyk.hub.ssh_start import Pipes

LOGIN_IDLE_S = 8 * 3600.0  # how long a connection that a person opened is kept without a kernel

log = logging.getLogger(__name__)


class ForeignSsh:
    """An ssh that is not our child: the command line's, later init's. See ``GroupLeader``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None

    def poll(self) -> int | None:
        """Return the status that was told, -1 when nobody told it, None while ssh runs.

        Asked only around the end of its pipes, which comes within a moment of its death: the number
        is not yet another's.
        """
        if self.status is None:
            try:
                os.killpg(self.pid, 0)
            except (ProcessLookupError, PermissionError):  # macOS refuses where all are zombies
                self.status = -1
        return self.status


class PersonsTerminal:
    """The command line at the other end of a conversation, as the place where ssh is started."""

    def __init__(
        self, *, may_ask: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.may_ask = may_ask
        self._reader = reader
        self._writer = writer
        self._started: asyncio.Future[ForeignSsh] = asyncio.get_running_loop().create_future()

    async def listen(self) -> None:
        """Take what the command line says until it goes."""
        while line := await self._reader.readline():
            record = json.loads(line)
            if record["op"] == "started":
                self._started.set_result(ForeignSsh(int(record["pid"])))
            elif record["op"] == "ended" and self._started.done():
                self._started.result().status = int(record["status"])

    def say(self, **record: Any) -> None:
        """Tell the command line."""
        self._writer.write(json.dumps(record).encode() + b"\n")

    async def start(self, argv: list[str]) -> SshProcess:
        """Have ssh started there (called by ``dial``)."""
        ours, theirs = _make_pipes()
        try:
            self._pass(theirs, event="start", argv=argv)
            ssh = SshProcess(await self._started, ours)
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        ssh.on_said = lambda data: self.say(event="said", text=data.decode("utf-8", "replace"))
        return ssh

    def _pass(self, fds: Pipes, **record: Any) -> None:
        # asyncio passes no descriptors. It has written all that was said: nothing is said before this.
        transport: socket.socket = self._writer.get_extra_info("socket")
        with socket.socket(fileno=os.dup(transport.fileno())) as beside:
            socket.send_fds(beside, [json.dumps(record).encode() + b"\n"], fds)


def _make_pipes() -> tuple[Pipes, Pipes]:
    """Return our ends and ssh's. stderr is a terminal of its own.

    ssh tells a person to touch a security key only where stderr is one.
    """
    stdin, our_stdin = os.pipe()
    our_stdout, stdout = os.pipe()
    our_stderr, stderr = pty.openpty()
    tty.setraw(stderr)
    return Pipes(our_stdin, our_stdout, our_stderr), Pipes(stdin, stdout, stderr)


async def serve_login(
    host: HostLink,
    count_kernels: Callable[[], int],
    record: dict[str, Any],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Open the link on the terminal of whoever asks; give up when they go."""
    terminal = PersonsTerminal(may_ask=bool(record["tty"]), reader=reader, writer=writer)
    opening = asyncio.ensure_future(host.log_in(str(record["python"]), terminal))
    listening = asyncio.ensure_future(terminal.listen())
    try:
        await asyncio.wait({opening, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            log.info("whoever logged in has gone")
            return
        was_up = not opening.result()
        kept_s = LOGIN_IDLE_S if host.opened_by_person else 0
        terminal.say(event="up", was_up=was_up, kernels=count_kernels(), kept_s=kept_s)
        await writer.drain()
    except SshpykError as error:
        terminal.say(event="failed", error=error.to_record())
    finally:
        for task in (opening, listening):
            task.cancel()
        await asyncio.wait({opening, listening})
        _retrieve(listening)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Take note of how it ended, which asyncio would otherwise complain about."""
    if not task.cancelled() and task.exception() is not None:
        log.warning("the conversation of a login ended: %r", task.exception())
