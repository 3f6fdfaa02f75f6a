"""The link to one host: dialed, carried, dialed again. ssh is a socket pair to an agent in here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sshpyk.errors import (
    AgentReplaced,
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyRejected,
    HubError,
    KernelDied,
    LinkLost,
    ProtocolMismatch,
    RemoteShellFailed,
    SshpykError,
    Unreachable,
)
from sshpyk.hub import dialing as dialing_module
from sshpyk.hub import host as host_module
from sshpyk.hub import redial as redial_module
from sshpyk.hub.dial import FirstFrames, Terminal
from sshpyk.hub.host import HostLink
from sshpyk.hub.linkstate import LinkState, state_after
from sshpyk.hub.ssh_process import SshProcess
from sshpyk.hub.ssh_start import SshStart
from sshpyk.link import connection as connection_module
from sshpyk.link.connection import Connection, Event, HelloReceived
from sshpyk.link.frames import Hello, encode_hello
from sshpyk.link.link import Link
from sshpyk.link.stream import Taken
from sshpyk.ssh.command import SshTarget
from sshpyk.wire import driver as driver_module
from sshpyk.wire.carrier import Carrier
from sshpyk.wire.driver import LinkDriver
from sshpyk.wire.journal import Journal, read_journal
from sshpyk.wire.rpc import Params, Rpc
from tests.unit.wire.harness import in_loop, until


class FakeSsh:
    """Stands for ssh: two descriptors, and what became of it."""

    pid = 4711

    def __init__(self, wire: socket.socket) -> None:
        self.unread = b""
        self.stdin_fd = os.dup(wire.fileno())
        self.stdout_fd = os.dup(wire.fileno())
        wire.close()
        self.ended = 0

    async def wait(self, patience_s: float = 0) -> int | None:
        return 0

    def end(self, *, close_pipes: bool) -> None:
        self.ended += 1
        if close_pipes:
            os.close(self.stdin_fd)
            os.close(self.stdout_fd)


class Seat:
    """A terminal with a person at it."""

    may_ask = True

    async def start(self, argv: list[str]) -> SshProcess:
        raise NotImplementedError


class FakeNetwork:
    """What ``dial`` meets: failures in turn, then an agent that keeps its links."""

    def __init__(self) -> None:
        self.failures: list[SshpykError] = []
        self.dials = 0
        self.pythons: list[str] = []
        self.terminals: list[Terminal | None] = []
        self.fresh: list[bool] = []
        self.sshs: list[FakeSsh] = []
        self.wires: list[socket.socket] = []
        self.drivers: dict[str, LinkDriver] = {}
        self.left: list[str] = []
        self.boot_id = "one"
        self.listening = True  # the agent answers
        self.asks_for_first_frames = True
        self.first_frames = b""
        self.echoed: list[str] = []
        self.may_dial = asyncio.Event()
        self.may_dial.set()

    async def dial(
        self,
        target: SshTarget,
        python: str,
        progress: Callable[[str], None],
        terminal: Terminal | None,
        *,
        behind: FirstFrames | None,
        start: SshStart | None,
    ) -> FakeSsh:
        self.dials += 1
        self.fresh.append(behind is not None)
        self.terminals.append(terminal)
        self.pythons.append(python)
        progress(f"connecting with ssh: {target.host}")
        await self.may_dial.wait()
        if self.failures:
            raise self.failures.pop(0)
        ours, theirs = socket.socketpair()
        self.wires.append(theirs)
        if self.listening:
            carrier = Carrier(Connection.accept(), os.dup(theirs.fileno()), os.dup(theirs.fileno()))
            carrier.on_event = self._on_first_event
            carrier.on_lost = lambda carrier, reason: None
            carrier.start()
        if behind is not None and self.asks_for_first_frames:
            self.first_frames = behind()
            ours.sendall(self.first_frames)
        self.sshs.append(FakeSsh(ours))
        return self.sshs[-1]

    def _on_first_event(self, carrier: Carrier, event: Event) -> None:
        assert isinstance(event, HelloReceived)
        driver = self.drivers.get(event.hello.link_id)
        if driver is None and event.hello.goes_on:
            carrier.connection.disown(event.hello, self.boot_id)
            carrier.wake()
            return
        if driver is None:
            driver = LinkDriver(Link(event.hello.link_id, self.boot_id))
            driver.on_peer_left = self.left.append
            Rpc(driver, {"echo": self._echo})
            self.drivers[event.hello.link_id] = driver
        events = carrier.connection.answer(driver.link, event.hello)
        driver.carry_by(carrier)
        for later in events:
            carrier.on_event(carrier, later)

    async def _echo(self, params: Params) -> Params:
        self.echoed.append(params["text"])
        return {"echo": params["text"]}

    def cut(self) -> None:
        for wire in self.wires:
            wire.shutdown(socket.SHUT_RDWR)
            wire.close()
        self.wires = []

    def freeze(self) -> None:
        """Stop the agent from reading: the line is silent, not closed."""
        loop = asyncio.get_running_loop()
        for driver in self.drivers.values():
            if driver.carrier is not None:
                loop.remove_reader(driver.carrier._read_fd)

    def restart_agent(self) -> None:
        """Forget every link, as an agent that was killed and started anew has."""
        self.cut()
        for driver in self.drivers.values():
            driver.leave("")
        self.drivers = {}

    def replace_agent(self) -> None:
        """Let an agent that noted everything be killed, and another take its links over."""
        self.cut()
        for link_id, driver in list(self.drivers.items()):
            streams = driver.link._streams.items()
            taken = {
                n: Taken(s.receiver.consumed_seq, s.receiver.consumed_bytes) for n, s in streams
            }
            driver.leave("")
            self.drivers[link_id] = LinkDriver(
                Link.restore(link_id, driver.link.epoch, taken, self.boot_id)
            )
            Rpc(self.drivers[link_id], {"echo": self._echo})

    def close(self) -> None:
        self.restart_agent()


@asynccontextmanager
async def network(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> AsyncIterator[tuple[FakeNetwork, HostLink]]:
    made = FakeNetwork()
    monkeypatch.setattr(redial_module, "dial", made.dial)
    monkeypatch.setattr(dialing_module, "pause_s", lambda *_: 0.05)
    journal = Journal(str(folder / "journal"))
    host = HostLink(SshTarget("gpu1"), journal)
    try:
        yield made, host
    finally:
        await host.leave("the test is over")
        journal.remove()
        made.close()


@in_loop
async def test_bring_up_dials_once_for_all_who_wait(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        assert host.state is LinkState.DOWN
        await asyncio.gather(*(host.bring_up("~/env/bin/python") for _ in range(5)))
        assert (net.dials, net.pythons) == (1, ["~/env/bin/python"])
        assert host.is_up
        await host.bring_up("other")  # is up already
        assert net.dials == 1
        assert await host.rpc.call("echo", text="x") == {"echo": "x"}


@pytest.mark.parametrize(
    "error",
    [AuthenticationFailed("denied"), HostKeyRejected("changed"), Unreachable("no route")],
    ids=repr,
)
@in_loop
async def test_the_first_dials_failure_is_raised_to_all_and_the_next_wish_dials_anew(
    monkeypatch, tmp_path, error: SshpykError
):
    async with network(monkeypatch, tmp_path) as (net, host):
        net.failures = [error]
        results = await asyncio.gather(
            *(host.bring_up("python3") for _ in range(3)), return_exceptions=True
        )
        assert results == [error] * 3
        assert (host.state, host.reason) == (state_after(error), error)
        assert net.dials == 1
        await host.bring_up("python3")
        assert net.dials == 2


@pytest.mark.parametrize("asked", [True, False])
@in_loop
async def test_a_request_rides_along_with_the_first_hello(monkeypatch, tmp_path, asked: bool):
    async with network(monkeypatch, tmp_path) as (net, host):
        net.asks_for_first_frames = asked
        net.may_dial.clear()
        up = asyncio.ensure_future(host.bring_up("python3"))
        await host.takes_requests.wait()
        assert not host.is_up
        early = asyncio.ensure_future(host.rpc.call("echo", text="early"))
        await asyncio.sleep(0)
        net.may_dial.set()
        assert await early == {"echo": "early"}
        assert (b"early" in net.first_frames) == asked
        await up
        assert not host.takes_requests.is_set()
        net.may_dial.clear()
        net.cut()
        await until(lambda: host.state is LinkState.DIALING)
        net.may_dial.set()
        await host.bring_up("python3")
        assert net.fresh == [True, False]


@in_loop
async def test_a_request_made_for_a_first_dial_that_failed_is_not_sent_by_the_next(
    monkeypatch, tmp_path
):
    async with network(monkeypatch, tmp_path) as (net, host):
        net.failures = [Unreachable("no route")]
        net.may_dial.clear()
        up = asyncio.ensure_future(host.bring_up("python3"))
        await host.takes_requests.wait()
        early = asyncio.ensure_future(host.rpc.call("echo", text="early"))
        await asyncio.sleep(0)
        net.may_dial.set()
        with pytest.raises(Unreachable, match="no route"):
            await early
        with pytest.raises(Unreachable, match="no route"):
            await up
        await host.bring_up("python3")
        assert net.fresh == [True, True]
        assert b"early" not in net.first_frames
        assert await host.rpc.call("echo", text="x") == {"echo": "x"}


@in_loop
async def test_a_request_of_who_gave_up_waiting_is_not_sent_by_the_next_dial(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        net.may_dial.clear()
        up = asyncio.ensure_future(host.bring_up("python3"))
        await host.takes_requests.wait()
        host.rpc.notify("echo", text="early")
        up.cancel()
        await asyncio.wait({up})
        assert host.state is LinkState.DOWN
        net.may_dial.set()
        await host.bring_up("python3")
        assert b"early" not in net.first_frames
        assert await host.rpc.call("echo", text="x") == {"echo": "x"}


@in_loop
async def test_a_request_that_rode_along_fails_as_its_connection_does(monkeypatch, tmp_path):
    monkeypatch.setattr("sshpyk.hub.opening.HELLO_DEADLINE_S", 0.05)
    async with network(monkeypatch, tmp_path) as (net, host):
        net.listening = False
        up = asyncio.ensure_future(host.bring_up("python3"))
        await host.takes_requests.wait()
        with pytest.raises(Unreachable, match="the agent did not answer"):
            await host.rpc.call("echo", text="early")
        with pytest.raises(Unreachable, match="the agent did not answer"):
            await up


@in_loop
async def test_a_request_that_went_out_may_be_undone_over_the_next_connection(
    monkeypatch, tmp_path
):
    monkeypatch.setattr("sshpyk.hub.opening.HELLO_DEADLINE_S", 0.05)
    async with network(monkeypatch, tmp_path) as (net, host):
        net.listening = False
        up = asyncio.ensure_future(host.bring_up("python3"))
        await host.takes_requests.wait()
        link_id = host.driver.link.link_id
        with pytest.raises(Unreachable, match="the agent did not answer"):
            await host.rpc.call("echo", text="early")
        with pytest.raises(Unreachable, match="the agent did not answer"):
            await up
        host.rpc.notify("echo", text="undo")
        net.failures = [Unreachable("no route")]
        net.listening = True
        await until(lambda: net.echoed == ["early", "undo"])
        assert list(net.drivers) == [link_id]
        assert net.failures == []


@in_loop
async def test_a_request_that_went_out_is_taken_back_also_when_nobody_waits_any_more(
    monkeypatch, tmp_path
):
    async with network(monkeypatch, tmp_path) as (net, host):
        up = asyncio.ensure_future(host.bring_up("python3"))
        await until(lambda: net.first_frames)  # the answer has not been read yet
        host.rpc.notify("echo", text="undo")
        up.cancel()
        await asyncio.wait({up})
        await until(lambda: net.echoed == ["undo"])


@in_loop
async def test_a_link_that_nobody_has_heard_of_is_not_noted_for_the_next_hub(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        net.may_dial.clear()
        up = asyncio.ensure_future(host.bring_up("python3"))
        await host.takes_requests.wait()
        await asyncio.sleep(0.05)
        assert read_journal(str(tmp_path / "journal")) is None
        net.may_dial.set()
        await up
        assert read_journal(str(tmp_path / "journal")) is not None


@in_loop
async def test_a_wish_at_any_moment_around_a_failure_is_answered(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        for turns in range(12):
            net.failures = [AuthenticationFailed("denied")] * 2
            first = asyncio.ensure_future(host.bring_up("python3"))
            for _ in range(turns):
                await asyncio.sleep(0)
            second = asyncio.ensure_future(host.bring_up("python3"))
            for wish in (first, second):
                with pytest.raises(AuthenticationFailed):
                    await asyncio.wait_for(wish, 5)
            await until(lambda: not host._dialing.goes_on)


@in_loop
async def test_a_lost_connection_is_dialed_again_and_nothing_is_lost(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        net.may_dial.clear()
        net.cut()
        await until(lambda: host.state is LinkState.DIALING)
        asyncio.get_running_loop().call_later(0.02, net.may_dial.set)
        assert await host.rpc.call("echo", text="across") == {"echo": "across"}
        assert host.is_up
        assert net.dials == 2
        assert net.sshs[0].ended == 1
        assert net.sshs[1].ended == 0


@in_loop
async def test_an_ssh_that_cannot_be_ended_does_not_keep_a_lost_connection_from_being_dialed_again(
    monkeypatch, tmp_path
):
    def refuse(*, close_pipes: bool) -> None:
        raise PermissionError

    failures: list[Any] = []
    loop = asyncio.get_running_loop()
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        monkeypatch.setattr(net.sshs[0], "end", refuse)
        with monkeypatch.context() as patch:
            patch.setattr(loop, "call_exception_handler", failures.append)
            net.cut()
            await until(lambda: failures)
        assert isinstance(failures[0]["exception"], PermissionError)
        assert await asyncio.wait_for(host.rpc.call("echo", text="across"), 5) == {"echo": "across"}
        assert net.dials == 2


@in_loop
async def test_outages_are_retried_until_the_host_is_back(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        net.failures = [Unreachable("no route")] * 6
        net.cut()
        assert await host.rpc.call("echo", text="x") == {"echo": "x"}
        assert net.dials == 8


@in_loop
async def test_a_dial_again_that_hangs_gets_others_beside_it_until_one_comes_through(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(redial_module, "EVERY_S", 0.02)
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        net.may_dial.clear()
        net.cut()
        await until(lambda: net.dials == 6)
        net.may_dial.set()
        await until(lambda: host.is_up)
        assert await host.rpc.call("echo", text="x") == {"echo": "x"}
        assert sum(not ssh.ended for ssh in net.sshs) == 1


@in_loop
async def test_dials_again_that_all_hang_are_told_of_after_a_while_and_go_on(monkeypatch, tmp_path):
    monkeypatch.setattr(redial_module, "DIAL_DEADLINE_S", 0.05)
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        net.may_dial.clear()
        net.cut()
        await until(lambda: not host.is_up)
        with pytest.raises(Unreachable, match="no answer within"):
            await host.bring_up("python3")
        net.may_dial.set()
        await until(lambda: host.is_up)


@in_loop
async def test_the_first_dial_is_alone_however_long_it_takes(monkeypatch, tmp_path):
    monkeypatch.setattr(redial_module, "EVERY_S", 0.02)
    async with network(monkeypatch, tmp_path) as (net, host):
        net.may_dial.clear()
        wish = asyncio.ensure_future(host.bring_up("python3"))
        await asyncio.sleep(0.2)
        assert net.dials == 1
        net.may_dial.set()
        await wish


@in_loop
async def test_a_refusal_stops_the_dialing_until_somebody_wants_the_host_again(
    monkeypatch, tmp_path
):
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        net.failures = [AuthenticationFailed("the key was removed")]
        net.cut()
        await until(lambda: host.state is LinkState.NEEDS_LOGIN)
        await asyncio.sleep(0.05)
        assert net.dials == 2
        waiting = asyncio.ensure_future(host.rpc.call("echo", text="kept"))
        await host.bring_up("python3")  # a person has logged in again
        assert await waiting == {"echo": "kept"}


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (AuthenticationFailed("denied"), LinkState.NEEDS_LOGIN),
        (HostKeyRejected("unknown"), LinkState.NEEDS_LOGIN),
        (HostKeyChanged("changed"), LinkState.HOST_KEY_CHANGED),
        (RemoteShellFailed("no python"), LinkState.DOWN),
    ],
    ids=lambda value: getattr(value, "name", repr(value)),
)
@in_loop
async def test_the_state_after_a_refusal_says_what_is_needed(
    monkeypatch, tmp_path, error: SshpykError, state: LinkState
):
    async with network(monkeypatch, tmp_path) as (net, host):
        told: list[tuple[LinkState, SshpykError | None]] = []
        host.on_state = lambda state, reason: told.append((state, reason))
        await host.bring_up("python3")
        net.failures = [error]
        net.cut()
        await until(lambda: host.state is state)
        assert [entry[0] for entry in told] == [
            LinkState.DIALING,
            LinkState.UP,
            LinkState.DIALING,
            state,
        ]
        assert "connection was lost" in str(told[2][1])
        assert told[3] == (state, error)
        assert host.driver.link.confirmed  # the kernels behind it are kept


@in_loop
async def test_a_launch_does_not_wait_for_the_pause_between_dials(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        monkeypatch.setattr(dialing_module, "pause_s", lambda *_: 600.0)
        net.failures = [Unreachable("no route")] * 2
        net.cut()
        await until(lambda: not net.failures[1:])
        with pytest.raises(Unreachable):
            await asyncio.wait_for(host.bring_up("python3"), 5)
        await asyncio.wait_for(host.bring_up("python3"), 5)
        assert net.dials == 4


@in_loop
async def test_a_login_brings_a_refused_link_back(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("~/env/bin/python")
        net.failures = [AuthenticationFailed("the key was removed")]
        net.cut()
        await until(lambda: host.state is LinkState.NEEDS_LOGIN)
        waiting = asyncio.ensure_future(host.rpc.call("echo", text="kept"))
        seat = Seat()
        assert await host.log_in("python3", seat)
        assert await waiting == {"echo": "kept"}
        assert (net.terminals, net.pythons) == ([None, None, seat], ["~/env/bin/python"] * 3)
        assert (host.state, host.reason, host.opened_by_person) == (LinkState.UP, None, True)
        assert not await host.log_in("python3", seat)
        assert net.dials == 3


@in_loop
async def test_a_login_before_the_first_launch_opens_the_link_for_it(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        assert await host.log_in("python3", Seat())
        await host.bring_up("~/env/bin/python")
        assert net.pythons == ["python3"]
        assert await host.rpc.call("echo", text="x") == {"echo": "x"}


@pytest.mark.parametrize(
    "error", [AuthenticationFailed("denied"), RemoteShellFailed("ssh was stopped")], ids=repr
)
@in_loop
async def test_a_login_that_fails_leaves_the_link_to_the_next(
    monkeypatch, tmp_path, error: SshpykError
):
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        net.failures = [AuthenticationFailed("the key was removed"), error]
        net.cut()
        await until(lambda: host.state is LinkState.NEEDS_LOGIN)
        with pytest.raises(type(error)):
            await host.log_in("python3", Seat())
        assert host.state is LinkState.NEEDS_LOGIN
        assert isinstance(host.reason, AuthenticationFailed)
        await asyncio.sleep(0.1)
        assert net.dials == 3
        assert await host.log_in("python3", Seat())


@in_loop
async def test_a_login_whose_person_goes_leaves_the_link_as_it_was(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        net.failures = [AuthenticationFailed("the key was removed")]
        net.cut()
        await until(lambda: host.state is LinkState.NEEDS_LOGIN)
        net.may_dial.clear()
        asking = asyncio.ensure_future(host.log_in("python3", Seat()))
        await until(lambda: net.dials == 3)
        assert host.state is LinkState.DIALING
        with pytest.raises(HubError, match="another sshpyk login"):
            await host.log_in("python3", Seat())
        asking.cancel()
        await asyncio.wait({asking})
        assert host.state is LinkState.NEEDS_LOGIN
        assert isinstance(host.reason, AuthenticationFailed)
        net.may_dial.set()
        await asyncio.sleep(0.1)
        assert net.dials == 3


@in_loop
async def test_an_outage_is_retried_after_a_login_that_was_given_up(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        net.may_dial.clear()
        net.cut()
        await until(lambda: net.dials == 2)
        asking = asyncio.ensure_future(host.log_in("python3", Seat()))
        await until(lambda: net.dials == 3)
        asking.cancel()
        net.may_dial.set()
        await until(lambda: host.is_up)
        assert net.terminals[-1] is None
        assert await host.rpc.call("echo", text="x") == {"echo": "x"}


@in_loop
async def test_a_silent_line_is_not_dialed_beside_again_where_a_person_is_needed(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(driver_module, "TICK_S", 0.01)
    monkeypatch.setattr(connection_module, "PING_IDLE_S", 0.02)
    monkeypatch.setattr(connection_module, "SUSPECT_AFTER_S", 0.05)
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        net.failures = [AuthenticationFailed("a code is wanted")]
        net.freeze()
        await until(lambda: host.reason is not None)
        await asyncio.sleep(0.2)
        assert (net.dials, host.state) == (2, LinkState.UP)
        waiting = asyncio.ensure_future(host.rpc.call("echo", text="x"))
        assert await host.log_in("python3", Seat())
        assert await waiting == {"echo": "x"}
        await until(lambda: net.sshs[0].ended == 1)


@in_loop
async def test_a_connection_that_dies_before_the_first_answer_is_tried_again(monkeypatch, tmp_path):
    """The agent that was found may have been about to leave."""
    async with network(monkeypatch, tmp_path) as (net, host):
        net.listening = False
        bringing = asyncio.ensure_future(host.bring_up("python3"))
        await until(lambda: net.wires)
        net.listening = True
        net.cut()
        await asyncio.wait_for(bringing, 10)
        assert await host.rpc.call("echo", text="x") == {"echo": "x"}
        assert net.sshs[0].ended == 1


@in_loop
async def test_an_agent_that_never_answers_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr("sshpyk.hub.opening.HELLO_DEADLINE_S", 0.05)
    monkeypatch.setattr(host_module, "_AGENT_LEFT_TRIES", 2)
    async with network(monkeypatch, tmp_path) as (net, host):
        net.listening = False
        with pytest.raises(Unreachable, match="agent did not answer"):
            await asyncio.wait_for(host.bring_up("python3"), 20)
        assert host.state is LinkState.DOWN
        assert all(ssh.ended == 1 for ssh in net.sshs)


@in_loop
async def test_a_silent_line_is_dialed_beside_and_the_new_one_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr(driver_module, "TICK_S", 0.01)
    monkeypatch.setattr(connection_module, "PING_WAITING_S", 0.02)
    monkeypatch.setattr(connection_module, "SUSPECT_AFTER_S", 0.05)
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        net.freeze()
        waiting = asyncio.ensure_future(host.rpc.call("echo", text="x"))
        await until(lambda: net.dials == 2)
        assert await waiting == {"echo": "x"}
        assert host.is_up
        assert net.sshs[0].ended == 1


@in_loop
async def test_f10_a_change_of_the_network_tests_the_line_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(host_module, "_PROMPT_ANSWER_S", 0.05)
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        host.network_changed()
        await asyncio.sleep(0.2)
        assert net.dials == 1  # it has answered
        net.freeze()
        host.network_changed()
        await until(lambda: net.sshs[0].ended == 1)
        assert host.is_up
        assert net.dials == 2


@in_loop
async def test_f10_a_change_of_the_network_ends_the_pause_between_dials(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        monkeypatch.setattr(dialing_module, "pause_s", lambda *_: 600.0)
        net.failures = [Unreachable("no route")]
        net.cut()
        await until(lambda: not net.failures)
        host.network_changed()
        await until(lambda: host.is_up)


@in_loop
async def test_a_silent_line_stays_in_charge_while_nothing_else_comes_through(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(driver_module, "TICK_S", 0.01)
    monkeypatch.setattr(connection_module, "PING_IDLE_S", 0.02)
    monkeypatch.setattr(connection_module, "SUSPECT_AFTER_S", 0.05)
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        net.failures = [Unreachable("no route")] * 5
        net.freeze()
        await until(lambda: net.dials >= 4)
        assert host.is_up
        assert net.sshs[0].ended == 0


@in_loop
async def test_a_link_that_the_agent_lost_fails_what_waited_and_a_new_one_works(
    monkeypatch, tmp_path
):
    async with network(monkeypatch, tmp_path) as (net, host):
        lost: list[SshpykError] = []
        host.on_lost_link = lost.append
        await host.bring_up("python3")
        link_id = host.driver.link.link_id
        net.may_dial.clear()
        net.restart_agent()
        await until(lambda: host.state is LinkState.DIALING)
        waiting = asyncio.ensure_future(host.rpc.call("echo", text="x"))
        await asyncio.sleep(0)
        net.may_dial.set()
        with pytest.raises(LinkLost):
            await waiting
        assert [type(error) for error in lost] == [LinkLost]
        assert host.state is LinkState.DOWN
        await host.bring_up("python3")
        assert host.driver.link.link_id != link_id
        assert await host.rpc.call("echo", text="x") == {"echo": "x"}


@pytest.mark.parametrize(
    ("boot_id", "said"),
    [
        ("one", "the agent on the host was ended"),
        ("", "the agent on the host was ended"),
        ("two", "the host was rebooted, and the kernels on it are gone"),
    ],
)
@in_loop
async def test_f21_lost_link_says_whether_the_host_was_rebooted_and_nobody_dials_on(
    boot_id: str, said: str, monkeypatch, tmp_path
):
    async with network(monkeypatch, tmp_path) as (net, host):
        lost: list[SshpykError] = []
        host.on_lost_link = lost.append
        await host.bring_up("python3")
        await host.rpc.call("echo", text="x")
        net.boot_id = boot_id
        net.restart_agent()
        await until(lambda: lost)
        assert said in str(lost[0])
        await until(lambda: not host._dialing.goes_on)
        assert host.state is LinkState.DOWN
        assert net.dials == 2


@in_loop
async def test_f16_agent_that_replaced_another_is_noticed_once_and_asked_again(
    monkeypatch, tmp_path
):
    async with network(monkeypatch, tmp_path) as (net, host):
        replaced: list[bool] = []
        host.on_agent_replaced = lambda: replaced.append(True)
        await host.bring_up("python3")
        assert await host.rpc.call("echo", text="x") == {"echo": "x"}
        net.freeze()
        calls = [asyncio.ensure_future(host.rpc.call(op, text="y")) for op in ("echo", "start")]
        await asyncio.sleep(0)
        net.replace_agent()
        assert await calls[0] == {"echo": "y"}
        with pytest.raises(AgentReplaced, match="killed"):
            await calls[1]
        assert replaced == [True]
        net.cut()
        assert await host.rpc.call("echo", text="z") == {"echo": "z"}
        assert replaced == [True]


@in_loop
async def test_a_launch_that_waits_for_a_link_which_turns_out_lost_is_answered(
    monkeypatch, tmp_path
):
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        net.may_dial.clear()
        net.restart_agent()
        await until(lambda: host.state is LinkState.DIALING)
        wish = asyncio.ensure_future(host.bring_up("python3"))
        await asyncio.sleep(0)
        net.may_dial.set()
        with contextlib.suppress(LinkLost):
            await asyncio.wait_for(wish, 5)  # a new link, or the reason: not silence


@in_loop
async def test_a_defect_in_dialing_is_told_and_the_next_wish_dials_anew(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        net.failures = [ZeroDivisionError("oops")]  # type: ignore[list-item]
        with pytest.raises(HubError, match="ZeroDivisionError"):
            await asyncio.wait_for(host.bring_up("python3"), 5)
        assert host.state is LinkState.DOWN
        await host.bring_up("python3")


@in_loop
async def test_leaving_tells_the_agent_and_ends_ssh(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        await host.leave("good night")
        await until(lambda: net.left == ["good night"])
        assert host.state is LinkState.DOWN
        assert net.sshs[0].ended == 1


@in_loop
async def test_leaving_while_dialing_stops_it(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        net.may_dial.clear()
        wish = asyncio.ensure_future(host.bring_up("python3"))
        await until(lambda: net.dials == 1)
        wish.cancel()
        await host.leave("no more")
        await until(lambda: not host._dialing.goes_on)
        assert host.state is LinkState.DOWN


@in_loop
async def test_leaving_while_an_answer_is_awaited_closes_everything(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        net.listening = False
        wish = asyncio.ensure_future(host.bring_up("python3"))
        await until(lambda: net.sshs)
        await until(lambda: host._opening is not None)
        wish.cancel()
        await host.leave("no more")
        await until(lambda: net.sshs[0].ended == 1)


@in_loop
async def test_new_streams_are_odd_and_never_used_twice(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (_, host):
        assert host.new_streams(2) == [1, 3]
        assert host.new_streams(3) == [5, 7, 9]


@in_loop
async def test_errors_of_the_agent_cross_an_outage_as_they_are(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):
        await host.bring_up("python3")
        driver = next(iter(net.drivers.values()))
        release = asyncio.Event()

        async def fails(params: Params) -> Params:
            await release.wait()
            raise KernelDied("no luck")

        driver._consumers[0].handler.__self__._operations["fails"] = fails  # type: ignore[attr-defined]
        waiting = asyncio.ensure_future(host.rpc.call("fails"))
        await until(lambda: driver.link.backlog_bytes(0) == 0)
        net.cut()
        release.set()
        with pytest.raises(KernelDied):
            await waiting


@in_loop
async def test_f51_an_agent_of_another_version_is_refused_with_instructions(monkeypatch, tmp_path):
    async with network(monkeypatch, tmp_path) as (net, host):

        def answer(carrier: Carrier, event: Event) -> None:
            assert isinstance(event, HelloReceived)
            hello = Hello(event.hello.link_id, event.hello.epoch, versions=(7, 8))
            os.write(carrier._write_fd, encode_hello(hello))

        net._on_first_event = answer  # type: ignore[method-assign]
        with pytest.raises(
            ProtocolMismatch, match=r"speaks version 7, 8 .* this sshpyk 1"
        ) as caught:
            await host.bring_up("python3")
        assert "go on with the sshpyk that started them" in caught.value.advice
        assert host.state is LinkState.DOWN
        assert net.dials == 1  # no use in trying again
        assert net.sshs[0].ended
