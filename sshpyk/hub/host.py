"""The link to one host, kept up: dial, carry, and dial again whenever the connection is lost.

The state of the link says nothing about the kernels behind it: silence never means death.

    DOWN --wanted--> DIALING --resumed--> UP --connection lost--> DIALING
                        |--authentication, unknown host key--> NEEDS_LOGIN
                        |--host key changed--> HOST_KEY_CHANGED
                        \\--refused (no Python, bad config)--> DOWN

Nobody dials in the last three until a launch or ``sshpyk login`` wants the host: one that refuses a login
again and again may lock the account.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import math
import random
import secrets
from collections.abc import Callable
from typing import NamedTuple

from sshpyk.errors import (
    AgentReplaced,
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyRejected,
    HubError,
    LinkLost,
    ProtocolMismatch,
    SshpykError,
    Unreachable,
)
from sshpyk.hub.dial import DIAL_DEADLINE_S, Phase, Terminal, dial
from sshpyk.hub.outage import Outage
from sshpyk.hub.redial import dial_again
from sshpyk.hub.ssh_process import SshProcess
from sshpyk.link.connection import SUSPECT_AFTER_S, Connection, Resumed
from sshpyk.link.frames import VERSIONS
from sshpyk.link.link import Link
from sshpyk.ssh.command import SshTarget
from sshpyk.wire.carrier import Carrier
from sshpyk.wire.clock import now_s
from sshpyk.wire.driver import LinkDriver
from sshpyk.wire.journal import Head, Journal, Noted
from sshpyk.wire.rpc import Params, Rpc

BACKOFF_S = (0.2, 30.0)
RESUMING = "resuming the link"
_AGENT_LEFT_PATIENCE_S = 1.0
HELLO_DEADLINE_S = 20.0

log = logging.getLogger(__name__)


class LinkState(enum.Enum):
    """Whether a connection carries the link now, and if not, what must happen first."""

    DOWN = "down"
    DIALING = "dialing"
    UP = "up"
    NEEDS_LOGIN = "needs login"
    HOST_KEY_CHANGED = "host key changed"


def state_after(error: SshpykError) -> LinkState:
    """Return the state of a link that is not up, after a dial that is not repeated by itself."""
    if isinstance(error, HostKeyChanged):
        return LinkState.HOST_KEY_CHANGED
    if isinstance(error, (AuthenticationFailed, HostKeyRejected)):
        return LinkState.NEEDS_LOGIN
    return LinkState.DOWN


class HostLink:
    """See the module. ``on_state`` is told each change of state, with the reason where it is not UP;
    ``on_lost_link`` when the agent lost what it held for us, ``on_agent_replaced`` when it was killed
    and another has taken its place, ``on_kernel_welcomes`` when a kernel greets its subscribers
    (JEP 65) later than it was ready.

    ``reason`` is why the latest dial failed; None when the latest went well.
    """

    def __init__(self, target: SshTarget, journal: Journal, noted: Noted | None = None) -> None:
        self.target = target
        self.took_over = noted is not None
        self._journal = journal
        self.state = LinkState.DOWN
        self.reason: SshpykError | None = None
        self.opened_by_person = (
            False  # what is lost with this connection, only a person brings back
        )
        self.on_state: Callable[[LinkState, SshpykError | None], None] = lambda state, reason: None
        self.on_lost_link: Callable[[SshpykError], None] = lambda error: None
        self.on_agent_replaced: Callable[[], None] = lambda: None
        self.on_kernel_welcomes: Callable[[str], None] = lambda kernel_id: None
        self.on_notice: Callable[[str], None] = lambda text: None  # for people
        self.outage = Outage(target.host, lambda text: self.on_notice(text))
        self.phase = ""  # what is being done now, in words
        self._python = ""
        self._usual_dial_s = 0.0  # the shortest so far; 0 until one came through
        self._next_stream = 1
        self._boot_id = ""  # which start of the host we last heard of
        self._dialing: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()  # somebody waits: no pause before the next dial
        self._logging_in = False
        self._waiting = 0  # how many launches wait for the link, and logins
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
        self._journal.resume()
        self._next_stream = noted.head.next_stream
        self._boot_id = noted.head.boot_id
        self._use_link(noted.restore())
        for stream in noted.ended():
            self.driver.abandon(stream)

    def _use_link(self, link: Link) -> None:
        self.driver = LinkDriver(link)
        self.driver.before_hand_over = self._journal.note
        self.driver.on_resumed = self._on_resumed
        self.driver.on_lost = self._on_connection_lost
        self.driver.on_suspect = self._on_suspect
        self.driver.on_incompatible = self._on_incompatible
        self.rpc = Rpc(self.driver, {"welcomes": self._kernel_welcomes})
        self._epoch = link.epoch

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
        self._hurry.set()
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

    async def log_in(self, python: str, terminal: Terminal) -> bool:
        """Open a connection where a person can be asked; return False when none was needed.

        Called for ``sshpyk login``. ``python`` counts where no kernel has named another. Raises what
        the dial met; the link is then as it was, with a new reason.
        """
        if self._logging_in:
            raise HubError("another sshpyk login is asking already", host=self.target.host)
        if self.is_up and self._dialing is None and self.reason is None:
            return False
        self._python = self._python or python
        before, reason = self.state, self.reason
        self._logging_in = True
        self._waiting += 1
        try:
            await self._end_dialing()
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
        if self._dialing is not None:
            self._dialing.cancel()
            self._dialing = None
        wanted = self.driver.link.confirmed or self._waiting > 1
        if before in (LinkState.UP, LinkState.DIALING) and wanted:
            self._start_dialing()  # an outage may end without a person
        else:
            self.reason = reason
            self._be(LinkState.DOWN if before is LinkState.DIALING else before)

    async def _end_dialing(self) -> None:
        dialing, self._dialing = self._dialing, None
        if dialing is not None:
            dialing.cancel()
            await asyncio.wait({dialing})

    def _be(self, state: LinkState) -> None:
        if state is not self.state:
            self.state = state
            self.on_state(state, self.reason)

    async def leave(self, reason: str) -> None:
        """Leave the link for good; ssh gets a moment to carry our last words to the agent."""
        if self._dialing is not None:
            self._dialing.cancel()
        self.driver.leave(reason)
        self.outage.end()
        self._be(LinkState.DOWN)
        if self._ssh is not None:
            await self._ssh.wait()
        self._end_ssh()

    # Dialing

    def _start_dialing(self, terminal: Terminal | None = None) -> None:
        if self._dialing is None or self._dialing.done():
            if not self.is_up:
                self._be(LinkState.DIALING)
            self._dialing = asyncio.ensure_future(self._dial_until_up(terminal))
            self._dialing.add_done_callback(self._dialing_done)

    def _stop_needless_dialing(self) -> None:
        """Leave no ssh behind for a link that never was, once every launch has given up."""
        needed = self._waiting or self.driver.link.confirmed
        if self._dialing is not None and not (needed or self._dialing.done()):
            self._dialing.cancel()
            self._dialing = None
            self._be(LinkState.DOWN)

    def _dialing_done(self, task: asyncio.Task[None]) -> None:
        if self._dialing is task:
            self._dialing = None
        defect = None if task.cancelled() else task.exception()
        if defect is not None:
            log.error("dialing failed", exc_info=defect)
            self._failure = HubError(f"dialing failed: {defect!r}", host=self.target.host)
            self._be(LinkState.UP if self.driver.carrier else LinkState.DOWN)
            self._resumed.set()

    async def _dial_until_up(self, terminal: Terminal | None) -> None:
        """Try until a connection carries the link, or until only a person can help.

        A person at ``terminal`` is asked in the first try only.
        """
        pause_s, longest_s = BACKOFF_S
        ever_up = self.driver.link.confirmed
        while True:
            began_s = now_s()
            self._hurry.clear()
            try:
                await self._dial_once(terminal)
            except SshpykError as error:
                log.warning("%s", error)
                self.outage.go_on(error)
                self.reason = error
                # An agent may leave, idle, in the moment in which we find it: that is no refusal.
                agent_left = (
                    error.retryable and error.phase == RESUMING and pause_s < _AGENT_LEFT_PATIENCE_S
                )
                if not agent_left:
                    self._failure = error
                    self._resumed.set()
                if not error.retryable or not (ever_up or agent_left):
                    if not self.is_up:
                        self._be(state_after(error))
                    return
            else:
                return
            # Between the beginnings of two dials: one that came to nothing after long has waited enough.
            rest_s = pause_s * random.uniform(0.75, 1.25) - (now_s() - began_s)  # noqa: S311
            terminal = None
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), max(0.0, rest_s))
            pause_s = min(longest_s, pause_s * 2)

    async def _dial_once(self, terminal: Terminal | None) -> None:
        """Make one connection and wait until the agent has taken the link up on it."""
        began_s = now_s()
        ssh = await self._dial_quickest(terminal)
        self._epoch += 1
        link = self.driver.link
        self._note_head()
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
        self.opened_by_person = terminal is not None and terminal.may_ask
        self.reason = None
        self._be(LinkState.UP)
        self._resumed.set()
        duration_s = self.outage.end()
        if duration_s is not None:
            self._telling = asyncio.ensure_future(self._tell_back(duration_s))

    async def _dial_quickest(self, terminal: Terminal | None) -> SshProcess:
        """Dial; when the host has been there before, more than once if that takes long.

        A person at a terminal takes the time that it takes.
        """
        if terminal is not None or not self.driver.link.confirmed:
            return await self._dial_timed(terminal)
        try:
            again = dial_again(self._dial_timed, self._usual_dial_s)
            return await asyncio.wait_for(again, DIAL_DEADLINE_S)
        except asyncio.TimeoutError:
            raise Unreachable(
                f"no answer within {DIAL_DEADLINE_S:.0f} s",
                host=self.target.host,
                phase=Phase.CONNECT.value,
            ) from None

    async def _dial_timed(self, terminal: Terminal | None = None) -> SshProcess:
        began_s = now_s()
        ssh = await dial(self.target, self._python, self._note_phase, terminal)
        self._usual_dial_s = min(self._usual_dial_s or math.inf, now_s() - began_s)
        return ssh

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

    def _on_resumed(self, carrier: Carrier, event: Resumed) -> None:
        if not event.known:
            self._lose_link(event.boot_id)
            return
        if self._opening is not None and carrier is self._opening.carrier:
            _settle(self._opening.answer, None)
        self._journal.prune(self.driver.link)
        if event.boot_id != self._boot_id:
            self._boot_id = event.boot_id
            self._note_head()
        if event.restarted:
            self._take_up_with_new_agent()

    def _take_up_with_new_agent(self) -> None:
        log.warning("the agent on %s was killed; another has taken its place", self.target.host)
        error = AgentReplaced(
            "the agent on the host was killed, and what it was doing was given up",
            host=self.target.host,
            phase=self.phase,
            advice="try again",
        )
        self.rpc.ask_again(error, never=("start",))
        self.on_agent_replaced()

    def _on_connection_lost(self, carrier: Carrier, reason: str) -> None:
        if self._opening is not None and carrier is self._opening.carrier:
            _settle(self._opening.answer, self._unreachable(reason))
        elif self.state is LinkState.UP and self.driver.carrier is None:
            log.warning("the connection to %s was lost: %s", self.target.host, reason)
            self.reason = Unreachable(f"the connection was lost: {reason}", host=self.target.host)
            self.outage.begin(reason)
            self._be(LinkState.DIALING)
            self._end_ssh()
            self._start_dialing()

    def _on_incompatible(self, carrier: Carrier, versions: tuple[int, ...]) -> None:
        error = ProtocolMismatch(
            f"the agent there speaks version {_list(versions)} of the link protocol,"
            f" this sshpyk {_list(VERSIONS)}",
            host=self.target.host,
            phase=RESUMING,
            advice="it keeps its kernels: go on with the sshpyk that started them, or end them with that"
            " one (the agent leaves a minute later) and try again",
        )
        if self._opening is not None and carrier is self._opening.carrier:
            _settle(self._opening.answer, error)

    def _on_suspect(self) -> None:
        """Dial a second connection beside the silent one; whichever speaks first goes on.

        Not where the last one was refused for want of a person: the silent one is all that there is.
        """
        refused = self.reason is not None and state_after(self.reason) is not LinkState.DOWN
        if self._dialing is None and not refused:
            log.warning("%s is silent; dialing again beside the old connection", self.target.host)
            self.outage.begin("no answer from it", SUSPECT_AFTER_S)
            self._start_dialing()

    def _lose_link(self, boot_id: str) -> None:
        """The agent knows nothing of our link: what it held is gone; say so and begin anew."""
        rebooted = "" not in (boot_id, self._boot_id) and boot_id != self._boot_id
        what = (
            "the host was rebooted, and the kernels on it are gone"
            if rebooted
            else "the agent on the host was ended, and the kernels that it held with it"
        )
        error = LinkLost(what, host=self.target.host, phase=RESUMING)
        log.error("%s", error)
        self.outage.end()
        self._boot_id = boot_id
        opening, rpc = self._opening, self.rpc
        self.driver.leave("")
        self._journal.clear()
        self._use_link(Link(secrets.token_hex(16)))
        self.reason = error
        self._be(LinkState.DOWN)
        if opening is not None:
            _settle(opening.answer, error)
        rpc.fail_all(error)
        self.on_lost_link(error)


def _list(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions[:8])) or "none"


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
