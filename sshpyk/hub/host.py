"""The link to one host, kept up: dial, carry, and dial again whenever the connection is lost.

The state of the link says nothing about the kernels behind it: silence never means death.

    DOWN --wanted--> DIALING --resumed--> UP --connection lost--> DIALING
                        \\--refused (login, host key, no Python)--> DOWN, until wanted again
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import random
import secrets
from collections.abc import Callable
from typing import NamedTuple

from sshpyk.errors import HubError, LinkLost, SshpykError, Unreachable
from sshpyk.hub.dial import Phase, SshProcess, dial
from sshpyk.hub.outage import Outage
from sshpyk.link.connection import SUSPECT_AFTER_S, Connection
from sshpyk.link.link import Link
from sshpyk.link.stream import Message
from sshpyk.ssh.command import SshTarget
from sshpyk.wire.carrier import Carrier
from sshpyk.wire.clock import now_s
from sshpyk.wire.driver import LinkDriver
from sshpyk.wire.journal import Journal, Noted
from sshpyk.wire.rpc import Params, Rpc

BACKOFF_S = (0.2, 30.0)
RESUMING = "resuming the link"
_AGENT_LEFT_PATIENCE_S = 1.0
HELLO_DEADLINE_S = 20.0

log = logging.getLogger(__name__)


class LinkState(enum.Enum):
    """Whether a connection carries the link now."""

    DOWN = "down"
    DIALING = "dialing"
    UP = "up"


class HostLink:
    """See the module. ``on_lost_link`` is told when the agent lost what it held for us,
    ``on_kernel_welcomes`` when a kernel greets its subscribers (JEP 65) later than it was ready.
    """

    def __init__(self, target: SshTarget, journal: Journal, noted: Noted | None = None) -> None:
        self.target = target
        self.took_over = noted is not None
        self._journal = journal
        self.state = LinkState.DOWN
        self.on_lost_link: Callable[[SshpykError], None] = lambda error: None
        self.on_kernel_welcomes: Callable[[str], None] = lambda kernel_id: None
        self.on_notice: Callable[[str], None] = lambda text: None  # for people
        self.outage = Outage(target.host, lambda text: self.on_notice(text))
        self.phase = ""  # what is being done now, in words
        self._python = "python3"
        self._next_stream = 1
        self._dialing: asyncio.Task[None] | None = None
        self._waiting = 0  # how many launches wait for the link
        self._ssh: SshProcess | None = None
        self._opening: _Opening | None = None
        self._resumed = asyncio.Event()
        self._failure: SshpykError | None = None
        self._telling: asyncio.Future[None] | None = None  # kept: the loop holds tasks weakly
        if noted is None:
            self._use_link(Link(secrets.token_hex(16)))
        else:
            self._take_over(noted)

    def _take_over(self, noted: Noted) -> None:
        """Go on with the link of a hub that was killed."""
        self._journal.restore(noted)
        self._next_stream = noted.next_stream
        self._use_link(Link.restore(noted.link_id, noted.epoch, noted.consumed))

    def _use_link(self, link: Link) -> None:
        self.driver = LinkDriver(link)
        self.driver.before_hand_over = self._note
        self.driver.on_resumed = self._on_resumed
        self.driver.on_lost = self._on_connection_lost
        self.driver.on_suspect = self._on_suspect
        self.rpc = Rpc(self.driver, {"welcomes": self._kernel_welcomes})
        self._epoch = link.epoch

    def _note(self, message: Message) -> None:
        if message.end:
            self._journal.forget(message.stream)
        else:
            self._journal.note(
                message.stream, message.seq + 1, message.start + len(message.payload)
            )

    async def _kernel_welcomes(self, params: Params) -> Params:
        self.on_kernel_welcomes(params["kernel_id"])
        return {}

    @property
    def is_up(self) -> bool:
        """Whether a connection carries the link now."""
        return self.state is LinkState.UP

    @property
    def is_connecting(self) -> bool:
        """Whether ssh is at work and nothing of ours runs on the host yet."""
        return not self.is_up and self.phase.startswith(Phase.CONNECT.value)

    def new_streams(self, count: int) -> list[int]:
        """Return fresh stream numbers; odd ones are the client's."""
        numbers = [self._next_stream + 2 * place for place in range(count)]
        self._next_stream += 2 * count
        self._journal.begin(self.driver.link.link_id, self._epoch, self._next_stream)
        return numbers

    async def bring_up(self, python: str) -> None:
        """Return when the link is up; dial if nobody does. Raises what the first dial met.

        ``python`` is the interpreter that a new connection starts on the host.
        """
        if self.is_up:
            return
        self._python = python
        self._failure = None
        self._start_dialing()
        self._waiting += 1
        try:
            while not self.is_up:
                await self._resumed.wait()
                self._resumed.clear()
                if self._failure is not None:
                    raise self._failure
        finally:
            self._waiting -= 1
            self._stop_needless_dialing()

    def keep_up(self, python: str) -> None:
        """Dial in the background, as after a lost connection."""
        self._python = python
        if not self.is_up:
            self._start_dialing()

    async def leave(self, reason: str) -> None:
        """Leave the link for good; ssh gets a moment to carry our last words to the agent."""
        if self._dialing is not None:
            self._dialing.cancel()
        self.driver.leave(reason)
        self.outage.end()
        self.state = LinkState.DOWN
        if self._ssh is not None:
            await self._ssh.wait()
        self._end_ssh()

    # Dialing

    def _start_dialing(self) -> None:
        if self._dialing is None or self._dialing.done():
            if self.state is LinkState.DOWN:
                self.state = LinkState.DIALING
            self._dialing = asyncio.ensure_future(self._dial_until_up())
            self._dialing.add_done_callback(self._dialing_done)

    def _stop_needless_dialing(self) -> None:
        """Leave no ssh behind for a link that never was, once every launch has given up."""
        if self._dialing is not None and not (self._waiting or self.driver.link.confirmed):
            self._dialing.cancel()
            self._dialing = None
            self.state = LinkState.DOWN

    def _dialing_done(self, task: asyncio.Task[None]) -> None:
        if self._dialing is task:
            self._dialing = None
        defect = None if task.cancelled() else task.exception()
        if defect is not None:
            log.error("dialing failed", exc_info=defect)
            self._failure = HubError(f"dialing failed: {defect!r}", host=self.target.host)
            self.state = LinkState.UP if self.driver.carrier else LinkState.DOWN
            self._resumed.set()

    async def _dial_until_up(self) -> None:
        """Try until a connection carries the link, or until only a person can help."""
        pause_s, longest_s = BACKOFF_S
        ever_up = self.driver.link.confirmed
        while True:
            try:
                await self._dial_once()
            except SshpykError as error:
                log.warning("%s", error)
                self.outage.go_on(error)
                # An agent may leave, idle, in the moment in which we find it: that is no refusal.
                agent_left = (
                    error.retryable and error.phase == RESUMING and pause_s < _AGENT_LEFT_PATIENCE_S
                )
                if not agent_left:
                    self._failure = error
                    self._resumed.set()
                if not error.retryable or not (ever_up or agent_left):
                    if not self.is_up:
                        self.state = LinkState.DOWN
                    return
            else:
                return
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))  # noqa: S311
            pause_s = min(longest_s, pause_s * 2)

    async def _dial_once(self) -> None:
        """Make one connection and wait until the agent has taken the link up on it."""
        began_s = now_s()
        ssh = await dial(self.target, self._python, self._note_phase)
        self._epoch += 1
        link = self.driver.link
        self._journal.begin(link.link_id, self._epoch, self._next_stream)
        never_carried = link.epoch == 0
        connection = Connection.initiate(link, self._epoch)
        carrier = Carrier(connection, ssh.stdout_fd, ssh.stdin_fd)
        self._opening = _Opening(carrier, asyncio.get_running_loop().create_future())
        self.driver.adopt(carrier)
        if never_carried:
            self.driver.carry_by(carrier)  # its first requests ride along with the HELLO
        carrier.start()
        try:
            await asyncio.wait_for(self._opening.answer, HELLO_DEADLINE_S)
        except BaseException as error:
            carrier.close()
            if self.driver.carrier is carrier:
                self.driver.carrier = None
            ssh.end(close_pipes=False)
            if isinstance(error, asyncio.TimeoutError):
                raise self._unreachable("the agent did not answer") from None
            raise
        finally:
            self._opening = None
        self._end_ssh()
        self._ssh = ssh
        log.info("up: epoch %d, ssh %d, %.2f s", self._epoch, ssh.pid, now_s() - began_s)
        self.state = LinkState.UP
        self._resumed.set()
        duration_s = self.outage.end()
        if duration_s is not None:
            self._telling = asyncio.ensure_future(self._tell_back(duration_s))

    async def _tell_back(self, duration_s: float) -> None:
        with contextlib.suppress(SshpykError):  # lost for good meanwhile, which is told otherwise
            waiting = await self.rpc.call("backlog")
            self.outage.tell_end(duration_s, waiting["messages"], waiting["bytes"])

    def _note_phase(self, text: str) -> None:
        self.phase = text

    def _unreachable(self, what: str) -> Unreachable:
        return Unreachable(what, host=self.target.host, phase=RESUMING)

    def _end_ssh(self) -> None:
        if self._ssh is not None:
            self._ssh.end(close_pipes=False)
            self._ssh = None

    # What the driver tells

    def _on_resumed(self, carrier: Carrier, known: bool) -> None:  # noqa: FBT001
        if not known:
            self._lose_link()
        elif self._opening is not None and carrier is self._opening.carrier:
            _settle(self._opening.answer, None)

    def _on_connection_lost(self, carrier: Carrier, reason: str) -> None:
        if self._opening is not None and carrier is self._opening.carrier:
            _settle(self._opening.answer, self._unreachable(reason))
        elif self.state is LinkState.UP and self.driver.carrier is None:
            log.warning("the connection to %s was lost: %s", self.target.host, reason)
            self.state = LinkState.DIALING
            self.outage.begin(reason)
            self._end_ssh()
            self._start_dialing()

    def _on_suspect(self) -> None:
        """Dial a second connection beside the silent one; whichever speaks first goes on."""
        if self._dialing is None:
            log.warning("%s is silent; dialing again beside the old connection", self.target.host)
            self.outage.begin("no answer from it", SUSPECT_AFTER_S)
            self._start_dialing()

    def _lose_link(self) -> None:
        """The agent knows nothing of our link: what it held is gone; say so and begin anew."""
        error = LinkLost(
            "the agent on the host was ended, and the kernels that it held with it",
            host=self.target.host,
            phase=RESUMING,
        )
        log.error("%s", error)
        self.outage.end()
        opening, rpc = self._opening, self.rpc
        self.driver.leave("")
        self._journal.clear()
        self._use_link(Link(secrets.token_hex(16)))
        self.state = LinkState.DOWN
        if opening is not None:
            _settle(opening.answer, error)
        rpc.fail_all(error)
        self.on_lost_link(error)


class _Opening(NamedTuple):
    """A connection whose HELLO has not been answered yet."""

    carrier: Carrier
    answer: asyncio.Future[None]


def _settle(answer: asyncio.Future[None], error: SshpykError | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(None)
    else:
        answer.set_exception(error)
