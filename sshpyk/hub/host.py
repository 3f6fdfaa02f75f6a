"""The link to one host, kept up: dial, carry, and dial again whenever the connection is lost.

The states of the link, and what moves them, are in :mod:`.linkstate`; when to dial is :mod:`.dialing`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable

from sshpyk.errors import (
    HubError,
    SshpykError,
    Unreachable,
)
from sshpyk.hub.dial import Phase, Terminal
from sshpyk.hub.dialing import Dialing
from sshpyk.hub.linkstate import (
    LinkState,
    agent_replaced,
    link_lost,
    no_common_version,
    state_after,
)
from sshpyk.hub.opening import RESUMING, Opening
from sshpyk.hub.outage import Outage
from sshpyk.hub.redial import Redial
from sshpyk.hub.ssh_process import SshProcess
from sshpyk.hub.ssh_start import SshStart
from sshpyk.link.connection import SUSPECT_AFTER_S, Connection, Resumed
from sshpyk.link.link import Link
from sshpyk.ssh.command import SshTarget
from sshpyk.wire.carrier import Carrier
from sshpyk.wire.clock import now_s
from sshpyk.wire.driver import LinkDriver
from sshpyk.wire.journal import Head, Journal, Noted
from sshpyk.wire.rpc import Operation, Params, Rpc

_AGENT_LEFT_TRIES = 3
_PROMPT_ANSWER_S = 1.5  # over a line that has not changed with the network

log = logging.getLogger(__name__)


class HostLink:
    """See the module. ``on_state`` is told each change of state, with the reason where it is not UP;
    ``on_lost_link`` when the agent lost what it held for us, ``on_agent_replaced`` when it was killed
    and another has taken its place, ``on_kernel_welcomes`` when a kernel greets its subscribers
    (JEP 65) later than it was ready.

    ``reason`` is why the latest dial failed; None when the latest went well. ``start``: see ``Redial``.
    """

    def __init__(
        self,
        target: SshTarget,
        journal: Journal,
        noted: Noted | None = None,
        start: SshStart | None = None,
    ) -> None:
        self.target = target
        self.took_over = noted is not None
        self._journal = journal
        self.state = LinkState.DOWN
        self.reason: SshpykError | None = None
        # What is lost with this connection, only a person brings back.
        self.opened_by_person = False
        self.on_state: Callable[[LinkState, SshpykError | None], None] = lambda state, reason: None
        self.on_lost_link: Callable[[SshpykError], None] = lambda error: None
        self.on_agent_replaced: Callable[[], None] = lambda: None
        self.on_kernel_welcomes: Callable[[str], None] = lambda kernel_id: None
        self.on_kernel_taken: Callable[[str, list[int], str], None] = lambda *_: (
            None
        )  # id, streams, by
        # What the agent may ask of us.
        self.operations: dict[str, Operation] = {
            "welcomes": self._kernel_welcomes,
            "taken": self._kernel_taken,
        }
        self.on_notice: Callable[[str], None] = lambda text: None  # for people
        self.outage = Outage(target.host, lambda text: self.on_notice(text))
        self.phase = ""  # what is being done now, in words
        self._python = ""
        self._redial = Redial(target, self._note_phase, self._away_s, start)
        self._next_stream = 1
        self._boot_id = ""  # which start of the host we last heard of
        self._dialing = Dialing(self._try_to_connect, self._away_s, self._dialing_defect)
        self._logging_in = False
        self._waiting = 0  # how many launches wait for the link, and logins
        self._ssh: SshProcess | None = None
        self._opening: Opening | None = None  # of this link, the latest
        self._resumed = asyncio.Event()
        # A new link's first connection is being made: what is asked now is sent with its HELLO.
        self.takes_requests = asyncio.Event()
        self._failure: SshpykError | None = None
        self._telling: asyncio.Future[None] | None = None  # kept: the loop holds tasks weakly
        if noted is None:
            self._use_link(Link(secrets.token_hex(16)))
        else:
            self._take_over(noted)

    def _take_over(self, noted: Noted) -> None:
        """Go on with the link of a hub that was killed."""
        self._journal.resume()
        self._next_stream = noted.head.next_stream
        self._boot_id = noted.head.boot_id
        self._use_link(noted.restore())
        for stream in noted.ended():
            self.driver.abandon(stream)

    def _use_link(self, link: Link) -> None:
        self.driver = LinkDriver(link)
        self.driver.before_hand_over = self._journal.note
        self.driver.on_tick = lambda: self._journal.prune(link)
        self.driver.on_resumed = self._on_resumed
        self.driver.on_lost = self._on_connection_lost
        self.driver.on_suspect = self._on_suspect
        self.driver.on_incompatible = self._on_incompatible
        self.rpc = Rpc(self.driver, self.operations)
        self._epoch = link.epoch
        self._opening = None

    async def _kernel_welcomes(self, params: Params) -> Params:
        self.on_kernel_welcomes(params["kernel_id"])
        return {}

    async def _kernel_taken(self, params: Params) -> Params:
        self.on_kernel_taken(params["kernel_id"], params["streams"], str(params["by"]))
        return {}

    @property
    def is_up(self) -> bool:
        """Whether a connection carries the link now."""
        return self.state is LinkState.UP

    @property
    def is_connecting(self) -> bool:
        """Whether ssh is at work and nothing of ours runs on the host yet."""
        return not self.is_up and self.phase.startswith(Phase.CONNECT.value)

    @property
    def is_silent(self) -> bool:
        """Whether the connection is there but has not answered lately."""
        return self.is_up and self.outage.duration_s is not None

    def new_streams(self, count: int) -> list[int]:
        """Return fresh stream numbers; odd ones are the client's."""
        numbers = [self._next_stream + 2 * place for place in range(count)]
        self._next_stream += 2 * count
        self._note_head()
        return numbers

    def _note_head(self) -> None:
        link_id = self.driver.link.link_id
        self._journal.begin(Head(link_id, self._epoch, self._next_stream, boot_id=self._boot_id))

    async def bring_up(self, python: str) -> None:
        """Return when the link is up; dial now if nobody does. Raises what the first dial met.

        ``python`` is the interpreter that a new connection starts on the host.
        """
        if self.is_up:
            return
        self._python = python
        self._failure = None
        self._start_dialing()
        self._dialing.hurry()
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

    def network_changed(self) -> None:
        """Dial now if a dial is due, and see whether the connection has survived (called by the hub)."""
        self._dialing.hurry()
        carrier = self.driver.carrier
        if carrier is not None and self.is_up:
            carrier.connection.ask(now_s())
            carrier.wake()
            loop = asyncio.get_running_loop()
            loop.call_later(_PROMPT_ANSWER_S, self._check_answer, carrier, now_s())

    def _check_answer(self, carrier: Carrier, asked_s: float) -> None:
        heard_s = carrier.connection.last_received_s
        if carrier is self.driver.carrier and heard_s is not None and heard_s < asked_s:
            self._suspect(_PROMPT_ANSWER_S)

    def keep_up(self, python: str) -> None:
        """Dial in the background, as after a lost connection."""
        self._python = python
        if not self.is_up:
            self._start_dialing()

    async def log_in(self, python: str, terminal: Terminal) -> bool:
        """Open a connection where a person can be asked; return False when none was needed.

        Called for ``sshpyk login``. ``python`` counts where no kernel has named another. Raises what
        the dial met; the link is then as it was, with a new reason.
        """
        if self._logging_in:
            raise HubError("another sshpyk login is asking already", host=self.target.host)
        if self.is_up and not self._dialing.goes_on and self.reason is None:
            return False
        self._python = self._python or python
        before, reason = self.state, self.reason
        self._logging_in = True
        self._waiting += 1
        try:
            await self._dialing.end()
            self._failure = None
            self._resumed.clear()
            self._start_dialing(terminal)
            await self._resumed.wait()
            if self._failure is not None:
                raise self._failure
        except BaseException:
            self._go_on_without_login(before, reason)
            raise
        finally:
            self._logging_in = False
            self._waiting -= 1
        return True

    def _go_on_without_login(self, before: LinkState, reason: SshpykError | None) -> None:
        """Be as before the login that came to nothing, unless it told that a person is needed."""
        if self.is_up or self.state in (LinkState.NEEDS_LOGIN, LinkState.HOST_KEY_CHANGED):
            return
        self._dialing.stop()
        wanted = self.driver.link.confirmed or self._waiting > 1
        if before in (LinkState.UP, LinkState.DIALING) and wanted:
            self._start_dialing()  # an outage may end without a person
        else:
            self.reason = reason
            self._be(LinkState.DOWN if before is LinkState.DIALING else before)

    def _be(self, state: LinkState) -> None:
        if state is not self.state:
            self.state = state
            self.on_state(state, self.reason)

    async def leave(self, reason: str) -> None:
        """Leave the link for good; ssh gets a moment to carry our last words to the agent."""
        self._dialing.stop()
        self.driver.leave(reason)
        self._redial.drop_start()
        self.outage.end()
        self._be(LinkState.DOWN)
        if self._ssh is not None:
            await self._ssh.wait()
        self._end_ssh()

    # Dialing

    def _start_dialing(self, terminal: Terminal | None = None) -> None:
        if not (self._dialing.goes_on or self.is_up):
            self._be(LinkState.DIALING)
        self._dialing.start(terminal)

    def _stop_needless_dialing(self) -> None:
        """Leave no ssh behind for a link that never was, once every launch has given up.

        Where something was asked already, the dial goes on, to take it back.
        """
        if self._dialing.goes_on and not self._waiting and self.driver.link.epoch == 0:
            self._dialing.stop()
            self._renew_link(HubError("nobody waits for it any more", host=self.target.host))
            self._be(LinkState.DOWN)

    def _dialing_defect(self, defect: BaseException) -> None:
        self._be(LinkState.UP if self.driver.carrier else LinkState.DOWN)
        error = HubError(f"dialing failed: {defect!r}", host=self.target.host)
        self._fail(error, ever_up=self.driver.link.confirmed)

    def _away_s(self) -> float:
        return self.outage.duration_s or 0.0

    async def _try_to_connect(self, terminal: Terminal | None) -> bool:
        """Make one connection; return whether to try again, after one that a person need not mend."""
        ever_up = self.driver.link.confirmed
        try:
            await self._dial_once(terminal)
        except SshpykError as error:
            error.host = error.host or self.target.host
            log.warning("%s", error)
            self.outage.go_on(error)
            self.reason = error
            # An agent may leave, idle, in the moment in which we find it: that is no refusal.
            agent_left = (
                error.retryable
                and error.phase == RESUMING
                and self._dialing.failures < _AGENT_LEFT_TRIES
            )
            if not agent_left:
                self._fail(error, ever_up=ever_up)
            to_take_back = self.driver.link.epoch > 0 and self.driver.link.unacknowledged
            if error.retryable and (ever_up or agent_left or to_take_back):
                return True
            if not self.is_up:
                self._be(state_after(error))
        return False

    def _fail(self, error: SshpykError, *, ever_up: bool) -> None:
        """Tell who waits for the link; a link that was up keeps what was asked over it."""
        self._failure = error
        self._resumed.set()
        if ever_up:
            return
        if self.driver.link.epoch == 0:  # what has gone out stays: it may have to be taken back
            self._renew_link(error)
        else:
            self.rpc.fail_all(error)

    def _renew_link(self, error: SshpykError) -> None:
        """Begin anew, with a link of which nobody has heard; tell who has asked something over this."""
        rpc = self.rpc
        self.took_over = False
        self.driver.leave("")
        self._journal.clear()
        self._use_link(Link(secrets.token_hex(16)))
        rpc.fail_all(error)

    async def _dial_once(self, terminal: Terminal | None) -> None:
        """Make one connection and wait until the agent has taken the link up on it."""
        began_s = now_s()
        opening = self._opening = Opening(self.driver, self._redial, self._next_connection)
        if self.driver.link.epoch == 0:
            self.takes_requests.set()
        try:
            ssh = await opening.connect(self._python, terminal)
        finally:
            self.takes_requests.clear()
        self._end_ssh()
        self._ssh = ssh
        log.info("up: epoch %d, ssh %d, %.2f s", self._epoch, ssh.pid, now_s() - began_s)
        self.opened_by_person = terminal is not None and terminal.may_ask
        self.reason = None
        self._be(LinkState.UP)
        self._resumed.set()
        duration_s = self.outage.end()
        if duration_s is not None:
            self._telling = asyncio.ensure_future(self._tell_back(duration_s))

    def _next_connection(self) -> Connection:
        self._epoch += 1
        self._note_head()
        return Connection.initiate(self.driver.link, self._epoch)

    async def _tell_back(self, duration_s: float) -> None:
        with contextlib.suppress(SshpykError):  # lost for good meanwhile, which is told otherwise
            waiting = await self.rpc.call("backlog")
            self.outage.tell_end(duration_s, waiting["messages"], waiting["bytes"])

    def _note_phase(self, text: str) -> None:
        self.phase = text

    def _end_ssh(self) -> None:
        ssh, self._ssh = self._ssh, None
        if ssh is not None:
            ssh.end(close_pipes=False)

    # What the driver tells

    def _on_resumed(self, carrier: Carrier, event: Resumed) -> None:
        if not event.known:
            self._lose_link(event.boot_id)
            return
        if self._opening is not None and self._opening.awaits(carrier):
            self._opening.settle()
        self._journal.prune(self.driver.link)
        if event.boot_id != self._boot_id:
            self._boot_id = event.boot_id
            self._note_head()
        if event.restarted:
            self._take_up_with_new_agent()

    def _take_up_with_new_agent(self) -> None:
        log.warning("the agent on %s was killed; another has taken its place", self.target.host)
        error = agent_replaced(self.target.host, self.phase)
        self.rpc.ask_again(error, never=("start", "connect", "mount", "serve"))
        self.on_agent_replaced()

    def _on_connection_lost(self, carrier: Carrier, reason: str) -> None:
        if self._opening is not None and self._opening.awaits(carrier):
            self._opening.settle(Unreachable(reason, host=self.target.host, phase=RESUMING))
        elif self.state is LinkState.UP and self.driver.carrier is None:
            log.warning("the connection to %s was lost: %s", self.target.host, reason)
            self.reason = Unreachable(f"the connection was lost: {reason}", host=self.target.host)
            self.outage.begin(reason)
            self._be(LinkState.DIALING)
            self._start_dialing()  # first: whatever becomes of the old ssh, the link is to come back
            self._end_ssh()

    def _on_incompatible(self, carrier: Carrier, versions: tuple[int, ...]) -> None:
        error = no_common_version(self.target.host, RESUMING, versions)
        if self._opening is not None and self._opening.awaits(carrier):
            self._opening.settle(error)

    def _on_suspect(self) -> None:
        self._suspect(SUSPECT_AFTER_S)

    def _suspect(self, silent_s: float) -> None:
        """Dial a second connection beside the silent one; whichever speaks first goes on.

        Not where the last one was refused for want of a person: the silent one is all that there is.
        """
        refused = self.reason is not None and state_after(self.reason) is not LinkState.DOWN
        if not (self._dialing.goes_on or refused):
            log.warning("%s is silent; dialing again beside the old connection", self.target.host)
            self.outage.begin("no answer from it", silent_s)
            self._start_dialing()

    def _lose_link(self, boot_id: str) -> None:
        """The agent knows nothing of our link: what it held is gone; say so and begin anew."""
        rebooted = "" not in (boot_id, self._boot_id) and boot_id != self._boot_id
        error = link_lost(self.target.host, RESUMING, rebooted=rebooted)
        log.error("%s", error)
        self.outage.end()
        self._boot_id = boot_id
        self.reason = error
        self._be(LinkState.DOWN)
        if self._opening is not None:
            self._opening.settle(error)
        self._renew_link(error)
        self.on_lost_link(error)
