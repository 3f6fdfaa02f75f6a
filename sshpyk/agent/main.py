"""The agent's life: listen for sessions, carry their links, leave when nothing is left to hold.

A session is an ssh connection's process on the host (``locate``); it connects to our unix socket and
sends its stdin and stdout as descriptors. The first frame on them says which link it brings.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import os
import signal
import socket
import tempfile

from sshpyk.agent.service import Book, Places, Service
from sshpyk.link.connection import Connection, Event, HelloReceived
from sshpyk.link.frames import LinkProtocolError
from sshpyk.link.link import Link
from sshpyk.wire.carrier import Carrier
from sshpyk.wire.clock import now_s
from sshpyk.wire.driver import AGENT_ACK_DELAY_S, LinkDriver
from sshpyk.wire.private import AGENT_FOLDER, AGENT_SOCKET, private_folder, remove_if_empty

IDLE_S = 60.0  # with no kernel and no connection
LEASE_S = 7 * 24 * 3600.0  # a kernel whose link was not heard of for so long is ended
_UPKEEP_S = 5.0

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
    """A link that the agent keeps, with or without a connection."""

    def __init__(self, link_id: str, book: Book, places: Places) -> None:
        self.driver = LinkDriver(Link(link_id), AGENT_ACK_DELAY_S)
        self.service = Service(self.driver, book, places)
        self.heard_s = now_s()


class Agent:
    """See the module."""

    def __init__(self, listener: socket.socket, places: Places) -> None:
        self._listener = listener
        self._places = places
        self._book = Book()
        self._links: dict[str, _HeldLink] = {}
        self._loop = asyncio.get_running_loop()
        self._leave = asyncio.Event()
        self._newcomers = 0  # sessions whose first frame has not come yet
        self._idle_since_s: float | None = now_s()

    async def live(self) -> None:
        """Serve until there has been nothing to do for a while."""
        self._loop.add_signal_handler(signal.SIGCHLD, self._book.check_all)
        self._loop.add_signal_handler(signal.SIGTERM, self._leave.set)
        self._loop.add_reader(self._listener, self._accept)
        self._loop.call_later(_UPKEEP_S, self._upkeep)
        await self._leave.wait()
        log.info("leaving")
        for kernel in list(self._book.kernels.values()):
            await kernel.stop(0)

    # Sessions

    def _accept(self) -> None:
        session, _ = self._listener.accept()
        session.setblocking(False)
        self._loop.add_reader(session, self._receive_descriptors, session)

    def _receive_descriptors(self, session: socket.socket) -> None:
        self._loop.remove_reader(session)
        fds = array.array("i")
        try:
            room = socket.CMSG_LEN(2 * fds.itemsize)
            _, ancillary, _, _ = session.recvmsg(1, room)
        except OSError:
            ancillary = []
        for _, _, data in ancillary:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if len(fds) == 2:
            self._carry(session, list(fds))
        else:
            session.close()

    def _carry(self, session: socket.socket, fds: list[int]) -> None:
        carrier = _SessionCarrier(session, fds)
        carrier.on_event = self._on_first_event
        carrier.on_lost = self._on_newcomer_lost
        self._newcomers += 1
        self._idle_since_s = None
        carrier.start()

    def _on_newcomer_lost(self, carrier: Carrier, reason: str) -> None:
        log.info("a session ended before it began: %s", reason)
        self._newcomers -= 1

    def _on_first_event(self, carrier: Carrier, event: Event) -> None:
        if not isinstance(event, HelloReceived):
            return
        self._newcomers -= 1
        held = self._links.get(event.hello.link_id)
        if held is None:
            held = _HeldLink(event.hello.link_id, self._book, self._places)
            self._links[event.hello.link_id] = held
            held.driver.on_peer_left = lambda reason: self._forget(event.hello.link_id, reason)
        try:
            events = carrier.connection.answer(held.driver.link, event.hello)
        except LinkProtocolError as error:
            log.warning("refused a session: %s", error)
            carrier.close()  # which tells nobody: on_lost is for what the other end does
            return
        log.info("link %s epoch %d", event.hello.link_id[:8], event.hello.epoch)
        held.driver.carry_by(carrier)
        carrier.deliver(events)

    def _forget(self, link_id: str, reason: str) -> None:
        held = self._links.pop(link_id, None)
        if held is not None:
            log.info("link %s left: %s", link_id[:8], reason)
            for kernel in self._book.of(held.driver):
                kernel.process.signal(signal.SIGKILL)  # nobody can reach it any more
            held.driver.leave("")
        self._upkeep_idle()

    # Time

    def _upkeep(self) -> None:
        self._loop.call_later(_UPKEEP_S, self._upkeep)
        self._book.check_all()
        for link_id, held in list(self._links.items()):
            if held.driver.carrier is not None:
                held.heard_s = now_s()
            elif now_s() - held.heard_s > LEASE_S:
                self._forget(link_id, "its lease ran out")
        self._upkeep_idle()

    def _upkeep_idle(self) -> None:
        carried = any(held.driver.carrier for held in self._links.values())
        if carried or self._newcomers or self._book.kernels:
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

    def close(self, last_words: bytes = b"") -> None:
        super().close(last_words)
        self._session.close()


def run() -> None:
    """Be this user's agent on this host. Called in a detached child, by the one that holds the lock."""
    os.umask(0o077)
    # Kernels inherit what is ignored, and an sshd that was started in the background ignores SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    folder = private_folder(AGENT_FOLDER)
    state = state_folder()
    logging.basicConfig(
        filename=os.path.join(state, "agent.log"),
        filemode="w",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    path = os.path.join(folder, AGENT_SOCKET)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    listener.setblocking(False)
    try:
        asyncio.run(_live(listener, Places(folder, os.path.join(state, "kernels"))))
    except Exception:
        log.exception("the agent failed")
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        remove_if_empty(folder)


async def _live(listener: socket.socket, places: Places) -> None:
    await Agent(listener, places).live()
