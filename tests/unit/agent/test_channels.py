"""A kernel's sockets joined to the two streams of a link, against libzmq."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zmq

from sshpyk.agent import channels as channels_module
from sshpyk.agent.channels import KernelChannels, Streams
from sshpyk.agent.spool import Limits, Spool
from sshpyk.link.link import Link
from sshpyk.wire import kernel_messages
from sshpyk.wire.jupyter_messages import Signer
from sshpyk.wire.kernel_messages import CONTROL, EXITED, IOPUB, SHELL, STDIN
from tests.unit.agent.fakes import KernelInbox, KernelSockets, ipc_info
from tests.unit.wire.harness import Joined, in_loop, until

MAIN, CTRL = 1, 3


class Bench:
    def __init__(self, joined: Joined, folder: Path, receive_hwm: int, spool: Spool) -> None:
        self.joined = joined
        self.spool = spool
        self.kernel = KernelSockets(ipc_info(folder), receive_hwm=receive_hwm)
        self.channels = KernelChannels(self.kernel.info, joined.agent, Streams(MAIN, CTRL))
        self.main, self.control = KernelInbox(), KernelInbox()
        joined.hub.claim(MAIN, self.main)
        joined.hub.claim(CTRL, self.control, urgent=True)

    async def listen(self) -> None:
        self.kernel.bind()
        assert self.channels.try_connect()
        await self.channels.wait_listening()
        await self.kernel.subscribed()

    @property
    def notices(self) -> int:
        return sum(b"[sshpyk: output was not read" in parts[-1] for parts in self.main.of(IOPUB))

    def ask(self, channel: int, *parts: bytes) -> None:
        stream = CTRL if channel == CONTROL else MAIN
        self.joined.hub.send(stream, kernel_messages.pack(channel, parts))


@asynccontextmanager
async def bench(
    folder: Path, *, receive_hwm: int = 0, listening: bool = True, limits: Limits | None = None
) -> AsyncIterator[Bench]:
    spool = Spool(str(folder), limits)
    async with Joined(Link("ab" * 16, make_backlog=spool.backlog)) as joined:
        made = Bench(joined, folder, receive_hwm, spool)
        try:
            if listening:
                await made.listen()
            yield made
        finally:
            made.channels.close()
            made.kernel.close()


@in_loop
async def test_a_kernel_listens_when_its_shell_does(short_folder: Path):
    async with bench(short_folder, listening=False) as made:
        assert not made.channels.try_connect()
        made.kernel.bind("iopub")
        assert not made.channels.try_connect()  # bound before shell
        made.kernel.bind("shell", "stdin", "control")
        assert made.channels.try_connect()
        assert made.channels.try_connect()  # asked again, the answer is the same


@in_loop
async def test_requests_wait_until_what_the_kernel_publishes_reaches_us(short_folder: Path):
    async with bench(short_folder, listening=False) as made:
        made.ask(SHELL, b"client", b"early")
        made.kernel.bind()
        assert made.channels.try_connect()
        await made.channels.wait_listening()
        assert made.kernel.sockets["iopub"].poll(0)  # the subscription came first
        assert await made.kernel.receive("shell") == [b"client", b"early"]


@pytest.mark.parametrize("topic", [[], [b"topic"]], ids=["no topic", "a topic"])
@in_loop
async def test_a_welcome_is_noted_and_kept_from_the_clients(topic: list[bytes], short_folder: Path):
    async with bench(short_folder, listening=False) as made:
        made.kernel.bind()
        assert made.channels.try_connect()
        await made.kernel.subscribed()
        welcome = Signer("k", "hmac-sha256").message("iopub_welcome", {}, identities=topic)
        made.kernel.send("iopub", *welcome)
        await made.channels.wait_listening()
        assert made.channels.welcomes
        made.kernel.send("iopub", b"next")
        await until(lambda: made.main.unpacked)
        assert made.main.unpacked == [(IOPUB, [b"next"])]


@in_loop
async def test_a_kernel_without_welcome_is_taken_after_a_moment(short_folder: Path):
    async with bench(short_folder) as made:
        assert not made.channels.welcomes


@in_loop
async def test_every_channel_passes_both_ways_under_the_clients_name(short_folder: Path):
    async with bench(short_folder) as made:
        for name, channel in (("shell", SHELL), ("stdin", STDIN), ("control", CONTROL)):
            made.ask(channel, b"client", b"request", b"")
            assert await made.kernel.receive(name) == [b"client", b"request", b""]
            made.kernel.send(name, b"client", b"reply", b"x" * 300_000)
            inbox = made.control if channel == CONTROL else made.main
            await until(lambda inbox=inbox: inbox.unpacked)
            assert inbox.unpacked == [(channel, [b"client", b"reply", b"x" * 300_000])]
            inbox.messages.clear()


@in_loop
async def test_the_kernel_can_ask_each_client_for_input(short_folder: Path):
    """The name on stdin is the name on shell."""
    async with bench(short_folder) as made:
        for client in (b"a", b"b"):
            made.ask(SHELL, client, b"execute_request")
            name = (await made.kernel.receive("shell"))[0]
            made.kernel.sockets["stdin"].setsockopt(zmq.ROUTER_MANDATORY, 1)
            await until(lambda: len(made.channels._clients) > 0)
            await _sends(made.kernel, "stdin", name, b"input_request")
        await until(lambda: len(made.main.unpacked) == 2)
        assert made.main.of(STDIN) == [[b"a", b"input_request"], [b"b", b"input_request"]]


async def _sends(kernel: KernelSockets, name: str, *parts: bytes) -> None:
    def sent() -> bool:
        try:
            kernel.send(name, *parts)
        except zmq.ZMQError:  # not connected yet
            return False
        return True

    await until(sent)


@in_loop
async def test_a_client_without_a_name_gets_one_and_its_own_replies(short_folder: Path):
    async with bench(short_folder) as made:
        identities = (b"\0\x80\0\0\x01", b"\0\x80\0\0\x02")  # as a ROUTER invents them
        for identity in identities:
            made.ask(SHELL, identity, b"request")
            name, _ = await made.kernel.receive("shell")
            assert not name.startswith(b"\0")
            made.kernel.send("shell", name, b"to " + identity)
        await until(lambda: len(made.main.unpacked) == 2)
        assert made.main.of(SHELL) == [[identity, b"to " + identity] for identity in identities]


@in_loop
async def test_output_that_is_there_goes_before_the_reply(short_folder: Path):
    async with bench(short_folder) as made:
        made.ask(SHELL, b"client", b"request")
        await made.kernel.receive("shell")
        for index in range(60):
            made.kernel.send("iopub", b"%d" % index, b"x" * 100)
        made.kernel.send("shell", b"client", b"reply")
        time.sleep(0.1)  # all of it is in the sockets; the loop has read nothing of it
        made.channels._clients[b"client"][SHELL].read()  # shell first, as an unlucky loop would
        await until(lambda: len(made.main.unpacked) == 61)
        assert made.main.unpacked[-1] == (SHELL, [b"client", b"reply"])


@in_loop
async def test_a_large_output_goes_before_the_reply(short_folder: Path):
    """Larger than what one read takes, and than the socket holds."""
    async with bench(short_folder) as made:
        made.ask(SHELL, b"client", b"request")
        await made.kernel.receive("shell")
        for index in range(20):
            made.kernel.send("iopub", b"%d" % index, bytes(300_000))
        made.kernel.send("shell", b"client", b"reply")
        time.sleep(0.1)
        made.channels._clients[b"client"][SHELL].read()
        await until(lambda: len(made.main.unpacked) == 21)
        assert made.main.unpacked[-1] == (SHELL, [b"client", b"reply"])


@in_loop
async def test_what_a_dead_kernel_left_is_passed_on_then_its_status_then_the_end(
    short_folder: Path,
):
    async with bench(short_folder) as made:
        made.ask(SHELL, b"client", b"request")
        await made.kernel.receive("shell")
        for index in range(60):  # as many as the socket itself holds
            made.kernel.send("iopub", b"%d" % index, b"x" * 100)
        made.kernel.send("shell", b"client", b"reply")
        made.kernel.context.destroy(linger=2000)
        made.channels.finish(-9)
        await until(lambda: made.main.ended and made.control.ended)
        assert [parts[0] for parts in made.main.of(IOPUB)] == [b"%d" % i for i in range(60)]
        assert made.main.of(SHELL) == [[b"client", b"reply"]]
        assert made.main.unpacked[-1] == (EXITED, [b"-9"])
        made.joined.hub.finish(MAIN)
        made.joined.hub.finish(CTRL)
        await until(lambda: made.joined.hub.link.is_over(MAIN))
        await until(lambda: made.joined.agent.link.is_over(CTRL))


@in_loop
async def test_a_kernel_that_does_not_read_holds_its_clients_back_and_no_interrupt(
    short_folder: Path,
):
    async with bench(short_folder, receive_hwm=1) as made:
        total = 60 * 1_000_000
        for _ in range(60):
            made.ask(SHELL, b"client", bytes(1_000_000))
        made.ask(CONTROL, b"client", b"interrupt_request")
        assert await made.kernel.receive("control") == [b"client", b"interrupt_request"]
        backlog = made.joined.hub.link.backlog_bytes
        for _ in range(50):
            await asyncio.sleep(0.005)
        assert backlog(MAIN) > total // 2  # not in the agent's memory
        got = 0
        while got < 60:
            assert len((await made.kernel.receive("shell"))[1]) == 1_000_000
            got += 1
        await until(lambda: backlog(MAIN) == 0)


@in_loop
async def test_the_longest_unused_of_too_many_clients_is_let_go(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(channels_module, "MAX_CLIENTS", 3)
    async with bench(short_folder) as made:
        for name in (b"a", b"b", b"c", b"a", b"d"):
            made.ask(SHELL, name, b"request")
            assert (await made.kernel.receive("shell"))[0] == name
        assert list(made.channels._clients) == [b"c", b"a", b"d"]
        made.ask(SHELL, b"b", b"is back")
        assert await made.kernel.receive("shell") == [b"b", b"is back"]


@in_loop
async def test_a_client_let_go_with_something_unsent_blocks_nobody(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(channels_module, "MAX_CLIENTS", 1)
    async with bench(short_folder, receive_hwm=1) as made:
        for _ in range(6):
            made.ask(SHELL, b"a", bytes(1_000_000))
        await until(lambda: b"a" in made.channels._clients)
        await until(lambda: made.joined.hub.link.backlog_bytes(MAIN) > 0)
        made.ask(SHELL, b"b", b"request")
        await until(lambda: b"b" in made.channels._clients)
        await until(lambda: made.joined.hub.link.backlog_bytes(MAIN) == 0)


@in_loop
async def test_what_is_no_request_is_dropped(short_folder: Path):
    async with bench(short_folder) as made:
        made.joined.hub.send(MAIN, b"nonsense")
        made.ask(IOPUB, b"client", b"clients publish nothing")
        made.ask(EXITED, b"0")
        made.ask(SHELL)
        made.ask(SHELL, b"client", b"fine")
        assert await made.kernel.receive("shell") == [b"client", b"fine"]
        await until(lambda: made.joined.hub.link.backlog_bytes(MAIN) == 0)


@in_loop
async def test_requests_for_a_kernel_that_takes_no_connection_are_dropped(short_folder: Path):
    async with bench(short_folder) as made:
        made.kernel.close()
        made.ask(SHELL, b"client", b"request")
        await until(lambda: made.joined.hub.link.backlog_bytes(MAIN) == 0)


@in_loop
async def test_the_reply_to_a_message_of_our_own_goes_nowhere(short_folder: Path):
    async with bench(short_folder) as made:
        made.channels.inject([b"shutdown"])
        name, _ = await made.kernel.receive("control")
        made.kernel.send("control", name, b"reply")
        made.ask(CONTROL, b"client", b"request")
        await made.kernel.receive("control")
        made.kernel.send("control", b"client", b"reply")
        await until(lambda: made.control.unpacked)
        assert made.control.unpacked == [(CONTROL, [b"client", b"reply"])]


@in_loop
async def test_an_intercepted_control_request_does_not_reach_the_kernel(short_folder: Path):
    async with bench(short_folder) as made:
        made.channels.intercept = lambda channel, seen, parts: parts[1] == b"mine"
        made.ask(CONTROL, b"client", b"mine")
        made.ask(CONTROL, b"client", b"yours")
        assert await made.kernel.receive("control") == [b"client", b"yours"]


@in_loop
async def test_an_outage_loses_and_repeats_nothing(short_folder: Path):
    async with bench(short_folder) as made:
        made.ask(SHELL, b"client", b"request")
        await made.kernel.receive("shell")
        for index in range(300):
            made.kernel.send("iopub", b"%d" % index)
            if index == 100:
                await until(lambda: made.main.unpacked)
                await made.joined.cut_and_noticed()
        made.kernel.send("shell", b"client", b"reply")
        await asyncio.sleep(0.05)
        made.joined.connect()
        await until(lambda: len(made.main.unpacked) == 301)
        assert [parts[0] for parts in made.main.of(IOPUB)] == [b"%d" % i for i in range(300)]


@pytest.mark.parametrize("channel", [SHELL, CONTROL])
@in_loop
async def test_client_that_finds_no_socket_of_the_kernel_any_more_is_told(
    short_folder: Path, channel: int
):
    async with bench(short_folder) as made:
        signer = Signer(made.kernel.info["key"], "hmac-sha256")
        made.ask(channel, b"old", b"request")
        name = "control" if channel == CONTROL else "shell"
        await made.kernel.receive(name)
        for path in short_folder.glob("*"):
            if path.is_socket():
                path.unlink()
        made.ask(channel, b"old", b"another")
        assert await made.kernel.receive(name) == [b"old", b"another"]
        made.ask(channel, *signer.message("kernel_info_request", {}, identities=[b"new"]))
        inbox = made.control if channel == CONTROL else made.main
        await until(lambda: inbox.of(channel))
        (reply,) = inbox.of(channel)
        assert reply[0] == b"new"
        assert json.loads(reply[-1])["ename"] == "KernelUnreachable"
        await until(lambda: len(made.main.of(IOPUB)) == 2)
        states = [json.loads(parts[-1])["execution_state"] for parts in made.main.of(IOPUB)]
        assert states == ["busy", "idle"]


# When the backlog is full

TINY = Limits(
    memory_bytes=20_000,
    file_bytes=40_000,
    hard_memory_bytes=60_000,
    file_segment_bytes=10_000,
    memory_segment_bytes=5_000,
)


def printed(signer: Signer, kind: str, text: str) -> list[bytes]:
    content = {"name": "stdout", "text": text}
    return signer.message(kind, content, identities=[b"t"], parent_header=b'{"msg_id": "cell"}')


@in_loop
async def test_text_that_no_backlog_could_hold_is_declared_where_it_was(
    short_folder: Path,
):
    async with bench(short_folder, limits=TINY) as made:
        signer = Signer("k", "hmac-sha256")
        await made.joined.cut_and_noticed()
        for index in range(400):
            made.kernel.send("iopub", *printed(signer, "stream", f"{index:03}\n" * 250))
        made.kernel.send("iopub", *printed(signer, "error", "kept"))
        spool = made.spool
        await until(lambda: spool.dropped_bytes > 200_000)
        await asyncio.sleep(0.05)
        assert spool.memory_bytes <= TINY.hard_memory_bytes + 64 * 1024  # a stream's own share
        made.joined.connect()
        await until(lambda: made.main.unpacked and b"kept" in made.main.unpacked[-1][1][-1])
        contents = [json.loads(parts[-1]) for parts in made.main.of(IOPUB)[:-1]]
        lines = [line for one in contents for line in one["text"].splitlines()]
        notices = [at for at, line in enumerate(lines) if line.startswith("[sshpyk: ")]
        assert len(notices) == 1
        dropped = int(lines[notices[0]].split()[1].replace(",", ""))
        assert len(lines) - 1 + dropped == 400 * 250
        expected = [f"{index:03}" for index in range(400) for _ in range(250)]
        assert lines[: notices[0]] == expected[: notices[0]]
        assert lines[notices[0] + 1 :] == expected[notices[0] + dropped :]


@in_loop
async def test_output_that_must_not_be_dropped_is_left_unread_and_that_is_said(
    short_folder: Path,
):
    async with bench(short_folder, limits=TINY) as made:
        signer = Signer("k", "hmac-sha256")
        await made.joined.cut_and_noticed()
        for _ in range(400):
            made.kernel.send("iopub", *printed(signer, "display_data", "x" * 10_000))
        await until(lambda: made.channels._unread_since_s is not None)
        await asyncio.sleep(0.05)
        backlog = made.joined.agent.link.backlog_bytes(MAIN)
        await asyncio.sleep(0.05)
        assert made.joined.agent.link.backlog_bytes(MAIN) == backlog < 2_000_000
        made.joined.connect()
        await until(lambda: len(made.main.unpacked) == 400 + made.notices)
        assert made.notices >= 1
