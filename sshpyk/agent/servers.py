"""The Jupyter servers of this user on this host, whoever started them; one registry for the agent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import Callable

from sshpyk.agent.jupyter import JupyterServer, server_records
from sshpyk.agent.kernelspecs import RemoteKernelspec
from sshpyk.agent.process import KernelProcess
from sshpyk.agent.record import KernelRecord
from sshpyk.errors import SshpykError
from sshpyk.wire.clock import now_s

LEASE_S = 7 * 24 * 3600.0  # as a kernel's
_GRACE_S = 30.0  # for kernels and extensions that are shut down; nobody waits for it
_KEPT_FAILURES = 20

log = logging.getLogger(__name__)

Tell = Callable[..., None]


class Servers:
    """All servers that agents of ours have started and that live; one for the whole agent."""

    def __init__(self) -> None:
        self.alive: dict[str, JupyterServer] = {}
        self.tell: dict[str, Tell] = {}  # by link: what tells its hub something
        self.on_ended: Callable[[str, int | None], None] = lambda server_id, status: None
        self.failures: dict[str, SshpykError] = {}  # of those that ended before they listened
        self._stopping: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether there is something to watch."""
        return bool(self.alive)

    def add(self, server: JupyterServer) -> None:
        """Take a server into care."""
        self.alive[server.server_id] = server
        server.on_ended = self._ended

    def _ended(self, server: JupyterServer) -> None:
        self.alive.pop(server.server_id, None)
        if server.failure is not None:
            self.failures[server.server_id] = server.failure
            for server_id in list(self.failures)[:-_KEPT_FAILURES]:
                del self.failures[server_id]
        self.on_ended(server.server_id, server.status)
        for tell in self.tell.values():
            tell("server_ended", server_id=server.server_id, status=server.status)

    def check_all(self) -> None:
        """Notice every death; called on SIGCHLD, and every few seconds for adopted ones."""
        for server in list(self.alive.values()):
            server.poll()

    def stop(self, server: JupyterServer) -> None:
        """End a server, without waiting for it."""
        task = asyncio.ensure_future(server.stop(_GRACE_S))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    def give_up(self, link_id: str) -> None:
        """A link is given up: end what it started, unless it is to be kept."""
        for server in list(self.alive.values()):
            if server.record.link_id == link_id:
                if server.record.persistent:
                    server.note(link_id="", heard_s=now_s())
                else:
                    self.stop(server)

    def end_expired(self, heard_s: Callable[[str], float | None]) -> None:
        """End those whose owner was not heard of for too long; ``heard_s`` tells when, by link."""
        for server in list(self.alive.values()):
            if self.lease_s(server, heard_s) < 0:
                log.warning("server %s: its lease ran out", server.server_id)
                self.stop(server)

    def lease_s(self, server: JupyterServer, heard_s: Callable[[str], float | None]) -> float:
        """Return for how long a server is still kept."""
        since_s = heard_s(server.record.link_id)
        return (server.record.heard_s if since_s is None else since_s) + LEASE_S - now_s()

    def take_over(self, sockets: str, boot_id: str, links: set[str], *, alone: bool) -> None:
        """Adopt what an agent that was killed has left, and sweep what nobody can want any more.

        ``links`` are those that go on. Unless we are ``alone``, what is not kept may be another agent's.
        """
        for folder, record in server_records(sockets):
            here = record is not None and record.boot_id == boot_id
            if record is None or not here:
                if alone:
                    _sweep(folder, record, alive=False)
                continue
            process = KernelProcess.adopt(record, folder)
            if process.poll() is None and (record.persistent or record.link_id in links):
                server = JupyterServer(record, process)
                self.add(server)
                process.watch(self.check_all)
                log.warning("adopted server %s, process %d", server.server_id, record.pid)
            elif alone:
                _sweep(folder, record, alive=process.poll() is None)

    async def leave(self) -> None:
        """The agent leaves: what is kept lives on for the next one."""
        ending = [one for one in self.alive.values() if not one.record.persistent]
        await asyncio.gather(*(server.stop(0) for server in ending))


def _sweep(folder: str, record: KernelRecord | None, *, alive: bool) -> None:
    """Remove what is left of a server, and end it."""
    log.warning("swept %s", folder)
    if record is None:
        record = KernelRecord("", "", (0, 0), {}, RemoteKernelspec([], ""), "", "")
    process = KernelProcess.adopt(record, folder)
    if alive:
        process.signal(signal.SIGTERM)  # it ends its kernels itself
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, "agent.json"))
        return
    JupyterServer(record, process).remove_files()
