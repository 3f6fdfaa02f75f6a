"""The local sockets of a kernel, used by real ZeroMQ clients."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from sshpyk.errors import HubError
from sshpyk.hub.endpoints import Endpoints
from sshpyk.wire import kernel_messages
from sshpyk.wire.kernel_messages import CONTROL, IOPUB, SHELL, STDIN, ChannelMessage
from tests.unit.hub.fakes import Client, curve_info, ipc_info, tcp_info
from tests.unit.wire.harness import Joined, in_loop, until

MAIN, CTRL = 1, 3


class Bench:
    """Endpoints joined to a link whose other end keeps what comes and says what a test says."""

    def __init__(self, joined: Joined, context: zmq.Context[Any], info: dict[str, Any]) -> None:
        self.joined = joined
        self.context = context
        self.info = info
        self.away = False
        self.endpoints = Endpoints(context, info, lambda: self.away)
        self.statuses: list[int] = []
        self.got: dict[int, list[ChannelMessage]] = {MAIN: [], CTRL: []}
        self._next = (MAIN, CTRL)

    def attach(self, kernel_info: str = "") -> None:
        for stream in self._next:
            self.got[stream] = []
            self.joined.agent.claim(stream, self._keep)
        hub, streams = self.joined.hub, self._next
        self.endpoints.attach(hub, streams, self.statuses.append, kernel_info=kernel_info)
        self.main, self.control = self._next
        self._next = (self._next[0] + 4, self._next[1] + 4)

    def _keep(self, message: Any) -> bool:
        if not message.end:
            self.got[message.stream].append(kernel_messages.unpack(message.payload))
        return True

    def say(self, channel: int, parts: list[bytes]) -> None:
        stream = self.control if channel == CONTROL else self.main
        self.joined.agent.send(stream, kernel_messages.pack(channel, parts))

    async def subscribed(self, client: Client) -> None:
        """Wait until the client's subscription has arrived, as its welcome shows."""
        self.endpoints.greet_subscribers()
        client.open("iopub")
        assert b"iopub_welcome" in b"".join(await client.receive("iopub"))


@asynccontextmanager
async def bench(info: dict[str, Any]) -> AsyncIterator[Bench]:
    context: zmq.Context[Any] = zmq.Context()
    async with Joined() as joined:
        made = Bench(joined, context, info)
        try:
            yield made
        finally:
            made.endpoints.close()
            context.destroy(linger=0)


@asynccontextmanager
async def client_of(made: Bench, identity: bytes = b"client") -> AsyncIterator[Client]:
    client = Client(made.info, identity)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(params=["tcp", "ipc", "curve"])
def info(request: pytest.FixtureRequest, short_folder: Path) -> dict[str, Any]:
    if request.param == "ipc":
        return ipc_info(short_folder)
    return tcp_info() if request.param == "tcp" else curve_info()


@in_loop
async def test_every_channel_passes_both_ways(info: dict[str, Any]):
    async with bench(info) as made, client_of(made) as client:
        made.attach()
        for name, channel in (("shell", SHELL), ("stdin", STDIN), ("control", CONTROL)):
            client.open(name).send_multipart([b"request", name.encode()])
            got = made.got[made.control if channel == CONTROL else made.main]
            await until(lambda got=got: got, name)
            assert got.pop() == (channel, [b"client", b"request", name.encode()])
            made.say(channel, [b"client", b"reply", b""])
            assert await client.receive(name) == [b"reply", b""]
        await made.subscribed(client)
        made.say(IOPUB, [b"topic", b"x" * 200_000])
        assert await client.receive("iopub") == [b"topic", b"x" * 200_000]


@in_loop
async def test_a_curve_server_admits_nobody_without_its_key():
    info = curve_info()
    async with bench(info) as made:
        made.attach()
        plain = Client({key: value for key, value in info.items() if "curve" not in key})
        good = Client(info, b"good")
        plain.open("shell").send(b"let me in")
        good.open("shell").send(b"hello")
        await until(lambda: made.got[MAIN])
        await asyncio.sleep(0.05)
        assert made.got[MAIN] == [(SHELL, [b"good", b"hello"])]
        plain.close()
        good.close()


@in_loop
async def test_heartbeats_are_answered_while_a_kernel_starts_or_lives(short_folder: Path):
    async with bench(ipc_info(short_folder)) as made, client_of(made) as client:
        beat = client.open("hb")
        beat.send(b"starting")
        assert await client.receive("hb") == [b"starting"]
        made.attach()
        beat.send(b"alive")
        assert await client.receive("hb") == [b"alive"]


@in_loop
async def test_heartbeats_wait_between_two_kernels(short_folder: Path):
    async with bench(ipc_info(short_folder)) as made, client_of(made) as client:
        beat = client.open("hb")
        made.attach()
        beat.send(b"alive")
        assert await client.receive("hb") == [b"alive"]
        made.endpoints.detach()
        beat.send(b"dead?")
        await until(lambda: made.endpoints._heartbeat.getsockopt(zmq.EVENTS) & zmq.POLLIN)
        assert not beat.poll(20)
        made.attach()
        assert await client.receive("hb") == [b"dead?"]


@in_loop
async def test_every_new_subscriber_is_greeted_with_a_signed_welcome(short_folder: Path):
    async with bench(ipc_info(short_folder)) as made:
        made.attach()
        early = Client(made.info)
        early.open("iopub")
        made.endpoints.greet_subscribers()
        for client in (early, Client(made.info)):
            if client is not early:
                client.open("iopub")
            parts = await client.receive("iopub")
            _, frames = client.session.feed_identities(parts)
            message = client.session.deserialize(frames)  # raises if it is not signed
            assert message["msg_type"] == "iopub_welcome"
            assert message["content"] == {"subscription": ""}
            client.close()


@in_loop
async def test_nobody_is_greeted_in_the_name_of_a_kernel_that_greets_nobody(short_folder: Path):
    async with bench(ipc_info(short_folder)) as made, client_of(made) as client:
        made.attach()
        client.open("iopub")
        await until(lambda: made.say(IOPUB, [b"t"]) or client.sockets["iopub"].poll(1))
        assert await client.receive("iopub") == [b"t"]


@in_loop
async def test_a_burst_from_several_clients_arrives_whole_and_in_order(short_folder: Path):
    async with bench(ipc_info(short_folder)) as made:
        made.attach()
        clients = [Client(made.info, name) for name in (b"a", b"b", b"c")]
        for client in clients:
            client.open("shell")
        for index in range(300):
            for client in clients:
                client.sockets["shell"].send(b"%d" % index)
            if index % 50 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(made.got[MAIN]) == 900)
        for name in (b"a", b"b", b"c"):
            numbers = [int(bytes(parts[1])) for _, parts in made.got[MAIN] if parts[0] == name]
            assert numbers == list(range(300))
        for client in clients:
            client.close()


@in_loop
async def test_requests_and_replies_at_once_leave_nothing_behind(short_folder: Path):
    """Sending on a ROUTER may swallow the edge that announces what came meanwhile."""
    async with bench(ipc_info(short_folder)) as made, client_of(made) as client:
        made.attach()
        shell = client.open("shell")
        for index in range(500):
            shell.send(b"%d" % index)
            made.say(SHELL, [b"client", b"reply"])
            if index % 3 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(made.got[MAIN]) == 500)
        assert not made.endpoints._sockets[SHELL].getsockopt(zmq.EVENTS) & zmq.POLLIN


@in_loop
async def test_the_next_kernel_gets_what_clients_asked_meanwhile_but_no_control(
    short_folder: Path,
):
    async with bench(ipc_info(short_folder)) as made, client_of(made) as client:
        made.attach()
        shell, control = client.open("shell"), client.open("control")
        shell.send(b"first")
        await until(lambda: made.got[MAIN])
        made.endpoints.detach()
        shell.send(b"second")
        control.send(b"shutdown_request")
        await until(lambda: _pending(made, SHELL) and _pending(made, CONTROL))
        made.attach()
        await until(lambda: made.got[made.main])
        assert made.got[made.main] == [(SHELL, [b"client", b"second"])]
        control.send(b"for the new one")
        await until(lambda: made.got[made.control])
        assert made.got[made.control] == [(CONTROL, [b"client", b"for the new one"])]
        made.say(SHELL, [b"client", b"reply"])
        assert await client.receive("shell") == [b"reply"]


def _pending(made: Bench, channel: int) -> bool:
    return bool(made.endpoints._sockets[channel].getsockopt(zmq.EVENTS) & zmq.POLLIN)


@in_loop
async def test_a_subscriber_stays_subscribed_across_a_restart(short_folder: Path):
    async with bench(ipc_info(short_folder)) as made, client_of(made) as client:
        made.attach()
        await made.subscribed(client)
        made.endpoints.detach()
        made.attach()
        made.say(IOPUB, [b"of the second kernel"])
        assert await client.receive("iopub") == [b"of the second kernel"]


@in_loop
async def test_a_reply_for_a_client_that_has_gone_is_dropped_alone(short_folder: Path):
    async with bench(ipc_info(short_folder)) as made, client_of(made) as client:
        made.attach()
        gone = Client(made.info, b"gone")
        gone.open("shell").send(b"request")
        await until(lambda: made.got[MAIN])
        gone.close()
        client.open("shell").send(b"request")
        await until(lambda: len(made.got[MAIN]) == 2)
        made.say(SHELL, [b"gone", b"reply"])
        made.say(SHELL, [b"never was", b"reply"])
        made.say(STDIN, [b"never was", b"x" * 100_000])
        made.say(SHELL, [b"client", b"reply"])
        assert await client.receive("shell") == [b"reply"]
        await until(lambda: made.joined.agent.link.backlog_bytes(MAIN) == 0)


@in_loop
async def test_a_client_that_comes_back_under_its_name_gets_its_replies(short_folder: Path):
    async with bench(ipc_info(short_folder)) as made, client_of(made) as client:
        made.attach()
        old = client.open("shell")
        old.send(b"one")
        await until(lambda: len(made.got[MAIN]) == 1)
        client.open("shell").send(b"two")  # the old connection is still there
        await until(lambda: len(made.got[MAIN]) == 2)
        made.say(SHELL, [b"client", b"reply"])
        assert await client.receive("shell") == [b"reply"]
        assert not old.poll(0)


@in_loop
async def test_the_exit_status_follows_the_last_output(short_folder: Path):
    async with bench(ipc_info(short_folder)) as made, client_of(made) as client:
        made.attach()
        await made.subscribed(client)
        for index in range(100):
            made.say(IOPUB, [b"%d" % index])
        made.joined.agent.send(MAIN, kernel_messages.pack_exit(-9))
        await until(lambda: made.statuses)
        assert made.statuses == [-9]
        made.endpoints.close()
        assert [await client.receive("iopub") for _ in range(100)] == [
            [b"%d" % index] for index in range(100)
        ]


@in_loop
async def test_nonsense_from_the_agent_is_dropped(short_folder: Path):
    async with bench(ipc_info(short_folder)) as made, client_of(made) as client:
        made.attach()
        await made.subscribed(client)
        for nonsense in (b"", b"\xff" * 40, kernel_messages.pack(SHELL, []), b"\4\0\0"):
            made.joined.agent.send(MAIN, nonsense)
        made.say(IOPUB, [b"fine"])
        assert await client.receive("iopub") == [b"fine"]
        assert made.statuses == []


@in_loop
async def test_an_address_in_use_is_an_error_and_frees_what_was_bound(short_folder: Path):
    context: zmq.Context[Any] = zmq.Context()
    info = tcp_info()
    taken = context.socket(zmq.REP)
    taken.bind(f"tcp://127.0.0.1:{info['hb_port']}")
    with pytest.raises(HubError, match="Address already in use"):
        Endpoints(context, info)
    taken.unbind(f"tcp://127.0.0.1:{info['hb_port']}")
    await until(lambda: _binds(context, info))
    taken.close()
    context.destroy(linger=0)


def _binds(context: zmq.Context[Any], info: dict[str, Any]) -> bool:
    try:
        Endpoints(context, info).close()
    except HubError:
        return False
    return True


@pytest.mark.parametrize("missing", ["transport", "ip", "shell_port", "hb_port"])
@in_loop
async def test_an_incomplete_connection_file_is_an_error(missing: str, short_folder: Path):
    context: zmq.Context[Any] = zmq.Context()
    info = ipc_info(short_folder)
    del info[missing]
    with pytest.raises(HubError, match=missing):
        Endpoints(context, info)
    context.destroy(linger=0)


@in_loop
async def test_endpoints_whose_files_were_removed_are_not_reachable(short_folder: Path):
    async with bench(ipc_info(short_folder)) as made:
        assert made.endpoints.reachable
        os.unlink(made.endpoints.url("control")[6:])
        assert not made.endpoints.reachable


@in_loop
async def test_close_is_idempotent_and_frees_the_address():
    async with bench(tcp_info()) as made:
        made.attach()
        made.endpoints.close()
        made.endpoints.close()
        await until(lambda: _binds(made.context, made.info))
