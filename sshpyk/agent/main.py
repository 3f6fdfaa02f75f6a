"""The agent's life: listen for sessions, carry their links, leave when nothing is left to hold.

A session is an ssh connection's process on the host (``locate``); it connects to our unix socket and
sends its stdin and stdout as descriptors. The first frame on them says which link it brings.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.handlers
import os
import re
import signal
import socket
import sys
import tempfile

from sshpyk.agent.book import LEASE_S, Book, sweep
from sshpyk.agent.inherited import change_for_the_agent
from sshpyk.agent.kernel import KernelState
from sshpyk.agent.listener import Listener
from sshpyk.agent.logs import KernelLogs
from sshpyk.agent.mount_line import PREFIX as MOUNT_SOCKET
from sshpyk.agent.record import SHELF, KernelRecord, boot_id, records
from sshpyk.agent.service import Places, Service
from sshpyk.agent.spool import Spool
from sshpyk.link.connection import Connection, Event, HelloReceived, Incompatible
from sshpyk.link.frames import LinkProtocolError
from sshpyk.link.link import Link
from sshpyk.wire.carrier import Carrier
from sshpyk.wire.clock import now_s
from sshpyk.wire.driver import AGENT_ACK_DELAY_S, LinkDriver
from sshpyk.wire.journal import Head, Journal, read_journal
from sshpyk.wire.private import AGENT_FOLDER, private_folder

IDLE_S = 60.0  # with no kernel and no connection
TUNNEL_LEASE_S = 8 * 3600.0  # so long an agent waits for its hub that has tunnels and no kernel
HELLO_S = 60.0  # within which a session must have said which link it brings
LOG_BYTES = 1024 * 1024  # then the log begins anew, and one older is kept
_UPKEEP_S = 5.0
_NOTE_S = 1.0
_JOURNAL = ".link"
_LINK_ID = re.compile("[0-9a-f]{32}")

log = logging.getLogger(__name__)


def state_folder() -> str:
    """Return the folder for logs, created private; the first candidate that can be written to."""
    home = os.path.expanduser("~")
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
    for folder in (
        os.path.join(state, "sshpyk"),
        os.path.join(private_folder(AGENT_FOLDER), "state"),
    ):
        with contextlib.suppress(OSError):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            os.makedirs(os.path.join(folder, "kernels"), mode=0o700, exist_ok=True)
            _write_something(folder)
            return folder
    raise OSError("no folder to write to: neither under the home folder nor under /tmp")


def _write_something(folder: str) -> None:
    """Raise OSError for a folder that takes no file: read-only, or full, or over quota."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(4096))


class _HeldLink:
    """A link that the agent keeps, with or without a connection, and what is noted of it.

    ``heard_s`` is when something came from the hub, ``settled_s`` a moment until which the hub has
    taken everything that was there for it.
    """

    def __init__(self, link: Link, journal: Journal, book: Book, places: Places) -> None:
        self.driver = LinkDriver(link, AGENT_ACK_DELAY_S)
        self.driver.before_hand_over = journal.note
        self.driver.on_tick = lambda: journal.prune(link)
        self.service = Service(self.driver, book, places)
        self.journal = journal
        self.ended: list[int] = []  # streams that the hub had ended when the agent before us died
        self._book = book
        self.heard_s = self.settled_s = now_s()
        self._queued: dict[int, int] = {}
        self._queued_s = self.settled_s

    def end_what_the_hub_ended(self) -> None:
        """End our direction of the streams that the agent before us did not live to end."""
        kernels = self._book.of(self.driver)
        in_use = {stream for kernel in kernels for stream in kernel.streams}
        for stream in set(self.ended) - in_use:
            self.driver.abandon(stream)

    @property
    def wanted_for_tunnels(self) -> bool:
        """Whether the hub may come back to connections that wait for it."""
        busy = self.service.forwards.busy or self.service.mounts.busy
        return busy and now_s() - self.heard_s < TUNNEL_LEASE_S

    def note_head(self) -> None:
        """Note the epoch before anything of a connection is handed over, and the times every second."""
        carrier, link = self.driver.carrier, self.driver.link
        if carrier is not None:
            self.heard_s = max(self.heard_s, carrier.connection.last_received_s or 0.0)
            self.service.heard_s = self.heard_s
            if link.acknowledged(self._queued):
                self.settled_s = self._queued_s
                self._queued, self._queued_s = link.queued(), now_s()
        times = self.settled_s, self.heard_s
        self.journal.begin(Head(link.link_id, link.epoch, 0, *times, link.boot_id))


class Agent:
    """See the module."""

    def __init__(self, listener: Listener, places: Places) -> None:
        self._listener = listener
        listener.on_descriptors = self._carry
        self._places = places
        self._boot_id = boot_id()
        self._spool = Spool(places.logs)
        self._book = Book(self._spool.backlog)
        self._logs = KernelLogs(places.logs, self._book.activities)
        self._links: dict[str, _HeldLink] = {}
        self._loop = asyncio.get_running_loop()
        self._leave = asyncio.Event()
        self._newcomers = 0  # sessions whose first frame has not come yet
        self._idle_since_s: float | None = now_s()

    async def live(self) -> None:
        """Serve until there has been nothing to do for a while."""
        self._loop.add_signal_handler(signal.SIGCHLD, self._book.check_all)
        self._loop.add_signal_handler(signal.SIGTERM, self._leave.set)
        self._take_over()
        self._listener.serve()
        self._loop.call_later(_UPKEEP_S, self._upkeep)
        self._loop.call_later(_NOTE_S, self._note)
        await self._leave.wait()
        log.info("leaving")
        for kernel in list(self._book.kernels.values()):
            await kernel.stop(0)
        await self._book.servers.leave()
        for kernel in self._book.unheard:
            kernel.process.remove_files()
        for held in self._links.values():
            await held.service.mounts.close()
            held.journal.remove()
        self._book.close()

    # An agent before us

    def _take_over(self) -> None:
        """Take up what an agent that was killed has left: its links, then its kernels."""
        folder = self._places.sockets
        others = False  # an agent lives that we cannot reach: its socket was removed
        for path in [os.path.join(folder, name) for name in os.listdir(folder)]:
            if os.path.basename(path).startswith(MOUNT_SOCKET):
                os.unlink(path)  # whoever waits for it goes on waiting for ours
            elif path.endswith(_JOURNAL):
                others = not self._take_link_over(path) or others
        for kernel_folder, record in records(folder):
            if not self._adopt(kernel_folder, record) and not others:
                sweep(kernel_folder, record, self._boot_id)
        links = set(self._links)
        self._book.servers.take_over(folder, self._boot_id, links, alone=not others)
        self._book.check_all()
        for held in self._links.values():
            held.end_what_the_hub_ended()

    def _adopt(self, folder: str, record: KernelRecord | None) -> bool:
        if record is None or record.boot_id != self._boot_id:
            return False
        held = self._links.get(record.link_id)
        if held is not None:
            kernel = held.service.adopt(record, folder, held.settled_s)
        elif record.link_id == SHELF:
            kernel = self._book.adopt_left(record, folder)
        else:
            return False
        kernel.process.watch(self._book.check_all)
        log.warning("adopted kernel %s, process %d", record.kernel_id, record.pid)
        return True

    def _take_link_over(self, path: str) -> bool:
        """Go on with a link; return False if an agent that lives holds it."""
        noted = read_journal(path)
        journal = Journal(path)
        if not journal.lock():
            journal.close()
            return False
        if noted is None or noted.head.boot_id != self._boot_id:
            journal.remove()
            return True
        head = noted.head
        journal.resume()
        held = self._hold(noted.restore(self._boot_id, self._spool.backlog), journal)
        held.heard_s, held.settled_s = head.heard_s, head.settled_s
        held.service.heard_s = held.heard_s
        held.ended = noted.ended()
        log.warning("took over link %s at epoch %d", head.link_id[:8], head.epoch)
        return True

    def _hold(self, link: Link, journal: Journal) -> _HeldLink:
        held = _HeldLink(link, journal, self._book, self._places)
        self._links[link.link_id] = held
        held.driver.on_peer_left = lambda reason: self._forget(link.link_id, reason)
        return held

    def _link(self, link_id: str) -> Link:
        return Link(link_id, self._boot_id, self._spool.backlog)

    def _new_link(self, link: Link) -> _HeldLink:
        journal = Journal(os.path.join(self._places.sockets, link.link_id + _JOURNAL))
        journal.lock()
        return self._hold(link, journal)

    # Sessions

    def _carry(self, session: socket.socket, fds: list[int]) -> None:
        carrier = _SessionCarrier(session, fds)
        carrier.on_event = self._on_first_event
        carrier.on_lost = self._on_newcomer_lost
        self._newcomers += 1
        self._idle_since_s = None
        try:
            carrier.start()
        except OSError as error:  # no loop can wait for a plain file
            carrier.close()
            self._on_newcomer_lost(carrier, str(error))

    def _on_newcomer_lost(self, carrier: Carrier, reason: str) -> None:
        log.info("a session ended before it began: %s", reason)
        self._newcomers -= 1

    def _on_first_event(self, carrier: Carrier, event: Event) -> None:
        assert isinstance(carrier, _SessionCarrier)
        if isinstance(event, Incompatible):
            self._newcomers -= 1
            log.warning("refused a session that speaks the versions %s", event.versions[:8])
            carrier.close(b"".join(carrier.connection.data_to_send(0, now_s())))
        if not isinstance(event, HelloReceived):
            return
        self._newcomers -= 1
        link_id = event.hello.link_id
        if not _LINK_ID.fullmatch(link_id):
            log.warning("refused a session: %r is no link's id", link_id)
            carrier.close()
            return
        if event.hello.goes_on and link_id not in self._links:
            log.warning("link %s was not ours, or is lost", link_id[:8])
            carrier.on_lost = lambda carrier, reason: None
            carrier.connection.disown(event.hello, self._boot_id)
            carrier.wake()
            return
        held = self._links.get(link_id)
        link = held.driver.link if held is not None else self._link(link_id)
        try:
            events = carrier.connection.answer(link, event.hello)
        except LinkProtocolError as error:
            log.warning("refused a session: %s", error)
            carrier.close()  # which tells nobody: on_lost is for what the other end does
            return
        if held is None:
            held = self._new_link(link)
        log.info("link %s epoch %d", link_id[:8], event.hello.epoch)
        held.journal.prune(held.driver.link)
        carrier.has_begun()
        held.driver.carry_by(carrier)
        held.note_head()
        carrier.deliver(events)

    def _forget(self, link_id: str, reason: str) -> None:
        held = self._links.pop(link_id, None)
        if held is not None:
            log.info("link %s left: %s", link_id[:8], reason)
            self._give_up_kernels(held)
            held.driver.leave("")
            del self._book.services[held.driver]
            held.journal.remove()
        self._upkeep_idle()

    def _give_up_kernels(self, held: _HeldLink) -> None:
        """Keep the persistent ones of a link that is given up, and end the others."""
        in_lease = now_s() - held.heard_s <= LEASE_S
        for kernel in list(self._book.unheard):
            if kernel.driver is not held.driver:
                continue
            if in_lease and kernel.record.persistent and kernel.state is not KernelState.STARTING:
                self._book.leave(kernel)
            else:
                kernel.process.signal(signal.SIGKILL)  # nobody can reach it any more
        self._book.servers.give_up(held.driver.link.link_id)

    # Time

    def _upkeep(self) -> None:
        self._loop.call_later(_UPKEEP_S, self._upkeep)
        self._book.check_all()
        for link_id, held in list(self._links.items()):
            if now_s() - held.heard_s > LEASE_S:
                self._forget(link_id, "its lease ran out")
        self._book.end_expired()
        self._upkeep_idle()

    def _note(self) -> None:
        self._loop.call_later(_NOTE_S, self._note)
        self._listener.keep()
        for held in self._links.values():
            held.note_head()
        for kernel in self._book.kernels.values():
            kernel.forget_heard()
            self._logs.rotate(kernel.kernel_id)
        for server_id in self._book.servers.alive:
            self._logs.rotate(server_id)

    def _upkeep_idle(self) -> None:
        carried = any(held.driver.carrier for held in self._links.values())
        tunnels = any(held.wanted_for_tunnels for held in self._links.values())
        kept = self._book.unheard or self._book.servers.busy
        if carried or tunnels or self._newcomers or kept:
            self._idle_since_s = None
        elif not self._links:
            self._leave.set()
        elif self._idle_since_s is None:
            self._idle_since_s = now_s()
        elif now_s() - self._idle_since_s > IDLE_S:
            self._leave.set()


class _SessionCarrier(Carrier):
    """A carrier whose end also lets the process on the host go that brought its descriptors."""

    def __init__(self, session: socket.socket, fds: list[int]) -> None:
        super().__init__(Connection.accept(), *fds)
        self._session = session
        reason = f"it said nothing that makes sense within {HELLO_S:g} s"
        self._deadline = asyncio.get_running_loop().call_later(HELLO_S, self._lose, reason)

    def has_begun(self) -> None:
        """The session has brought its link: it may be silent now."""
        self._deadline.cancel()

    def close(self, last_words: bytes = b"") -> None:
        self._deadline.cancel()
        super().close(last_words)
        self._session.close()


def run() -> None:
    """Be this user's agent on this host. Called in a detached child, by the one that holds the lock."""
    change_for_the_agent()
    # Kernels inherit what is ignored, and an sshd that was started in the background ignores SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    folder = private_folder(AGENT_FOLDER)
    state = state_folder()
    _log_to(os.path.join(state, "agent.log"))
    log.info("process %d on Python %s", os.getpid(), sys.version.split()[0])
    listener = Listener(folder)
    try:
        asyncio.run(_live(listener, Places(folder, os.path.join(state, "kernels"))))
    except Exception:
        log.exception("the agent failed")
        raise
    finally:
        listener.close()


def _log_to(path: str) -> None:
    """Log behind what is there: an agent of another version may write to the same file."""
    logging.basicConfig(
        handlers=[logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1)],
        level=logging.INFO,
        format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s",
    )


async def _live(listener: Listener, places: Places) -> None:
    await Agent(listener, places).live()
