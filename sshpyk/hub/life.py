"""The hub's life: one per host and ssh configuration, until nobody needs it any more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import TYPE_CHECKING

from sshpyk.hub.address import hub_log_of, journal_of
from sshpyk.hub.host import HostLink
from sshpyk.hub.kernels import Kernels
from sshpyk.hub.login import LOGIN_IDLE_S
from sshpyk.hub.mounts import Mounts
from sshpyk.hub.network import network_watched
from sshpyk.hub.server import Server
from sshpyk.hub.ssh_start import SshStart
from sshpyk.ssh.command import SshTarget
from sshpyk.wire.clock import now_s
from sshpyk.wire.descriptors import raise_limit
from sshpyk.wire.journal import Journal, read_journal
from sshpyk.wire.private import remove_if_empty

if TYPE_CHECKING:
    from sshpyk.hub.ways_back import WaysBack

ADOPTION_S = 10.0  # how long kernels of a killed hub may wait for their stand-ins
IDLE_S = 300.0  # how long a connection without a kernel is kept, for the next launch to be quick
_UPKEEP_S = 2.0
_LOG_LIMIT_BYTES = 1_000_000
_STOP_PATIENCE_S = 5.0

log = logging.getLogger(__name__)


def be_hub(target: SshTarget, path: str, *, umask: int, start: SshStart | None) -> None:
    """Log, serve, and return when it is time to go; ``start``: an ssh that connects already."""
    _start_log(target)
    raise_limit()
    try:
        asyncio.run(live(target, path, umask=umask, start=start))
    except Exception:
        log.exception("the hub failed")
        raise


async def live(
    target: SshTarget, path: str, *, umask: int = 0o022, start: SshStart | None = None
) -> None:
    """Serve until told to leave, or until there has been nothing to do for a while."""
    journal_path = journal_of(path)
    noted = read_journal(journal_path)
    journal = Journal(journal_path)
    host = HostLink(target, journal, noted, start)
    mounts = Mounts(host, umask)
    kernels = Kernels(host, mounts)
    server = Server(host, kernels)

    def make_ways_back() -> WaysBack:
        # Few mounts need it, and every first launch waits for what is imported above.
        from sshpyk.hub.ways_back import WaysBack

        return WaysBack(host, server.tunnels, umask)

    mounts.make_ways_back = make_ways_back
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.quit.set)
    listener = await server.listen(path)
    if noted is not None:
        log.warning("taking over from a hub that was killed")
        loop.call_later(ADOPTION_S, lambda: asyncio.ensure_future(kernels.end_orphans()))
        loop.call_later(ADOPTION_S, server.servers.release_orphans)
    with network_watched(host.network_changed):
        await _until_idle(server, host)
    log.info("leaving")
    journal.unlink()  # first of all: the next hub may be there before we have gone
    listener.close()
    with contextlib.suppress(FileNotFoundError):  # asyncio removes it itself from 3.13 on
        os.unlink(path)
    server.mounts.close_all()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(kernels.stop_all(), _STOP_PATIENCE_S)
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(mounts.close(), _STOP_PATIENCE_S)
    server.tunnels.close_all()  # last: a mount that logs in from the host comes through one
    await host.leave("the hub leaves")
    kernels.close()
    journal.close()
    remove_if_empty(os.path.dirname(path))


async def _until_idle(server: Server, host: HostLink) -> None:
    busy_s = now_s()
    while now_s() - busy_s < (LOGIN_IDLE_S if host.is_up and host.opened_by_person else IDLE_S):
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(server.quit.wait(), _UPKEEP_S)
            return
        if server.busy:
            busy_s = now_s()


def _start_log(target: SshTarget) -> None:
    logging.basicConfig(
        handlers=[_BoundedLog(hub_log_of(target), errors="backslashreplace")],
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s",
    )


class _BoundedLog(logging.FileHandler):
    """A log that begins anew when it is full, as the host may write to it; one older is kept.

    ``logging.handlers`` has one as well, whose import would cost every first launch 4 ms.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            full = self.stream
            if full is not None and os.fstat(full.fileno()).st_size > _LOG_LIMIT_BYTES:
                if _is_at(full.fileno(), self.baseFilename):  # else the next hub has begun it anew
                    os.replace(self.baseFilename, self.baseFilename + ".1")
                self.stream = self._open()
                full.close()
            super().emit(record)
        except OSError:
            self.handleError(record)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:  # somebody removed it
        return False
