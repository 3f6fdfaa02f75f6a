"""A link in an event loop: its consumers, and its carriers that come and go."""

from __future__ import annotations

import asyncio
import os
import random
import socket

import pytest

from sshpyk.link import connection as connection_module
from sshpyk.link.connection import Connection
from sshpyk.link.stream import Message
from sshpyk.wire import driver as driver_module
from sshpyk.wire.carrier import Carrier
from tests.unit.wire.harness import CutWire, Inbox, Joined, in_loop, until


@in_loop
async def test_messages_that_waited_reach_the_handler_in_order():
    async with Joined() as joined:
        joined.hub.link.open(1)
        for index in range(5):
            joined.hub.send(1, b"%d" % index)
        marker = Inbox()
        joined.agent.claim(3, marker)
        joined.hub.link.open(3)
        joined.hub.send(3, b"these have arrived")
        await until(lambda: marker.messages)
        await until(lambda: joined.hub.link.backlog_bytes(3) == 0)
        assert joined.hub.link.backlog_bytes(1) == 5  # nobody has taken them
        inbox = Inbox()
        joined.agent.claim(1, inbox)
        assert inbox.payloads == [b"0", b"1", b"2", b"3", b"4"]
        joined.hub.send(1, b"5")
        await until(lambda: len(inbox.messages) == 6)
        await until(lambda: joined.hub.link.backlog_bytes(1) == 0)


@in_loop
async def test_what_a_handler_does_not_take_is_acknowledged_only_when_consumed():
    async with Joined() as joined:
        slow = Inbox(takes=False)
        joined.agent.claim(1, slow)
        joined.hub.link.open(1)
        joined.hub.send(1, b"abc")
        joined.hub.send(1, b"defgh")
        await until(lambda: len(slow.messages) == 2)
        assert joined.hub.link.backlog_bytes(1) == 8
        joined.agent.consumed(1)
        await until(lambda: joined.hub.link.backlog_bytes(1) == 5)
        joined.agent.consumed(1)
        await until(lambda: joined.hub.link.backlog_bytes(1) == 0)


@in_loop
async def test_abandoned_stream_drops_what_comes_and_ends_at_both_sides():
    async with Joined() as joined:
        inbox = Inbox()
        joined.agent.claim(1, inbox)
        joined.hub.abandon(1)
        joined.agent.send(1, b"nobody wants this")
        await until(lambda: inbox.ended)
        joined.agent.finish(1)
        await until(lambda: joined.hub.link.is_over(1) and joined.agent.link.is_over(1))
        joined.hub.abandon(1)  # a second time is no error
        joined.agent.abandon(1)


@in_loop
async def test_abandoning_takes_what_had_waited_unclaimed():
    async with Joined() as joined:
        joined.agent.link.open(1)
        joined.agent.send(1, b"early")
        joined.agent.abandon(1)
        await until(lambda: joined.agent.link.backlog_bytes(1) == 5)
        joined.hub.abandon(1)
        await until(lambda: joined.hub.link.is_over(1) and joined.agent.link.is_over(1))


@in_loop
async def test_a_handler_that_fails_costs_its_message_and_no_other(caplog):
    async with Joined() as joined:
        got: list[bytes] = []

        def handler(message: Message) -> bool:
            if message.payload == b"bad":
                raise ValueError("bad message")
            got.append(message.payload)
            return True

        joined.agent.claim(1, handler)
        joined.hub.link.open(1)
        for payload in (b"one", b"bad", b"two"):
            joined.hub.send(1, payload)
        await until(lambda: got == [b"one", b"two"])
        await until(lambda: joined.hub.link.backlog_bytes(1) == 0)
        assert joined.hub.carrier is not None
        assert "message 1 of stream 1 was not understood" in caplog.text


@in_loop
async def test_preparation_comes_before_the_note_that_a_message_was_taken_even_if_it_fails():
    async with Joined() as joined:
        order: list[str] = []

        def prepare(message: Message) -> None:
            order.append("prepared")
            if message.payload == b"bad":
                raise ValueError("bad message")

        def handler(message: Message) -> bool:
            order.append("handled")
            return True

        joined.agent.before_hand_over = lambda message: order.append("noted")
        joined.agent.claim(1, handler, prepare=prepare)
        joined.hub.link.open(1)
        for payload in (b"one", b"bad"):
            joined.hub.send(1, payload)
        await until(lambda: joined.hub.link.backlog_bytes(1) == 0)
        assert order == ["prepared", "noted", "handled", "prepared", "noted"]


@in_loop
async def test_a_lost_carrier_is_told_once_and_the_next_one_resumes_exactly_once():
    async with Joined() as joined:
        inbox = Inbox()
        joined.agent.claim(1, inbox)
        joined.hub.link.open(1)
        joined.hub.send(1, b"before")
        await until(lambda: inbox.messages)
        await joined.cut_and_noticed()
        joined.hub.send(1, b"during")
        joined.agent.link.open(3)
        joined.agent.send(3, b"during, from the agent")
        assert len(joined.lost) == 1
        back = Inbox()
        joined.hub.claim(3, back)
        joined.connect()
        await joined.up()
        await until(lambda: len(inbox.messages) == 2 and back.messages)
        assert inbox.payloads == [b"before", b"during"]
        assert back.payloads == [b"during, from the agent"]
        assert joined.resumed == [True, True]
        assert len(joined.lost) == 1


@in_loop
async def test_cuts_at_any_moment_lose_and_repeat_nothing():
    chance = random.Random(20261121)
    async with Joined() as joined:
        at_hub, at_agent = Inbox(), Inbox()
        joined.hub.claim(1, at_hub)
        joined.agent.claim(1, at_agent)
        sizes = [chance.choice([0, 10, 3000, 200_000]) for _ in range(120)]
        sent = [b"%d " % place + bytes(size) for place, size in enumerate(sizes)]
        for place, payload in enumerate(sent):
            joined.hub.send(1, payload)
            joined.agent.send(1, payload)
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if place % 10 == 9:
                await joined.cut_and_noticed()
                joined.connect()
        await until(lambda: len(at_hub.messages) == len(at_agent.messages) == len(sent))
        assert at_hub.payloads == sent
        assert at_agent.payloads == sent
        await until(lambda: not joined.hub.link.unacknowledged)
        await until(lambda: not joined.agent.link.unacknowledged)


@pytest.mark.parametrize("towards", ["agent", "hub"])
def test_cut_at_every_byte_of_handshake_and_session_loses_and_repeats_nothing(towards: str):
    sent = [b"one", bytes(100), b"", b"four"]

    @in_loop
    async def whole() -> None:
        wire = await run(None)
        sizes.append(wire.passed[towards])

    @in_loop
    async def cut() -> None:
        for offset in range(1, sizes[0] + 1):
            await run(offset)

    async def run(offset: int | None) -> CutWire:
        joined, wire = Joined(), CutWire(towards, offset or 1 << 30)
        at_hub, at_agent = Inbox(), Inbox()
        joined.hub.claim(1, at_hub)
        joined.agent.claim(1, at_agent)
        for payload in sent:
            joined.hub.send(1, payload)
            joined.agent.send(1, payload)
        joined.connect(wire.ends)
        if offset is not None:
            await asyncio.wait_for(wire.cut.wait(), 5)
            await until(lambda: joined.hub.carrier is None and joined.agent.carrier is None)
            joined.connect()
            await joined.up()
        await until(lambda: len(at_hub.messages) == len(at_agent.messages) == len(sent))
        assert at_hub.payloads == at_agent.payloads == sent, offset
        await until(lambda: not joined.hub.link.unacknowledged)
        await until(lambda: not joined.agent.link.unacknowledged)
        joined.close()
        wire.close()
        return wire

    sizes: list[int] = []
    whole()
    cut()


@in_loop
async def test_a_fenced_carrier_is_closed_and_its_bytes_are_ignored():
    async with Joined() as joined:
        old = joined.hub.carrier
        assert old is not None
        inbox = Inbox()
        joined.hub.claim(1, inbox)
        joined.connect()  # beside the old one, which is alive
        await until(lambda: joined.hub.carrier is not old)
        await joined.up()
        with pytest.raises(OSError):
            os.fstat(old._read_fd)
        assert old.connection.receive_data(b"\xff" * 100, 0.0) == []
        joined.agent.link.open(1)
        joined.agent.send(1, b"over the new one")
        await until(lambda: inbox.payloads == [b"over the new one"])
        assert joined.lost == []


@in_loop
async def test_a_carrier_that_never_resumes_leaves_the_old_one_in_charge():
    async with Joined() as joined:
        old = joined.hub.carrier
        ours, theirs = socket.socketpair()
        second = Carrier(
            Connection.initiate(joined.hub.link, 99), os.dup(ours.fileno()), ours.detach()
        )
        joined.hub.adopt(second)
        second.start()
        theirs.close()
        await until(lambda: joined.lost)
        assert joined.hub.carrier is old
        inbox = Inbox()
        joined.agent.claim(1, inbox)
        joined.hub.link.open(1)
        joined.hub.send(1, b"still here")
        await until(lambda: inbox.messages)


@in_loop
async def test_leaving_is_told_to_the_peer_with_its_reason():
    async with Joined() as joined:
        reasons: list[str] = []
        joined.agent.on_peer_left = reasons.append
        joined.hub.leave("good night")
        await until(lambda: reasons)
        assert reasons == ["good night"]
        assert joined.hub.carrier is None
        joined.hub.leave("again")  # has nobody to tell


@in_loop
async def test_a_silent_carrier_is_suspect_after_a_question(monkeypatch):
    monkeypatch.setattr(driver_module, "TICK_S", 0.01)
    monkeypatch.setattr(connection_module, "PING_IDLE_S", 0.05)
    monkeypatch.setattr(connection_module, "SUSPECT_AFTER_S", 0.1)
    suspected = asyncio.Event()
    joined = Joined()
    joined.hub.on_suspect = suspected.set
    joined.connect()
    await joined.up()
    await asyncio.sleep(0.3)
    assert not suspected.is_set()  # the agent answers what it is asked
    agent_carrier = joined.agent.carrier
    assert agent_carrier is not None
    asyncio.get_running_loop().remove_reader(agent_carrier._read_fd)  # it stops to listen
    await asyncio.wait_for(suspected.wait(), 5)
    joined.close()


# Pace


@in_loop
async def test_what_waited_for_a_connection_passes_at_the_consumers_pace():
    async with Joined() as joined:
        asked: list[bytes] = []

        def pace(message: Message) -> float:
            asked.append(message.payload)
            return 0.01 if asked.count(message.payload) == 1 else 0.0

        inbox = Inbox()
        joined.hub.claim(1, inbox, pace=pace)
        joined.agent.link.open(1)
        joined.agent.send(1, b"live")
        await until(lambda: inbox.payloads == [b"live"])
        assert asked == []
        await joined.cut_and_noticed()
        for payload in (b"a", b"b", b"c"):
            joined.agent.send(1, payload)
        joined.connect()
        await joined.up()
        joined.agent.send(1, b"behind")
        await until(lambda: len(asked) > 0)
        assert joined.hub.link._streams[1].receiver.consumed_seq < 5
        await until(lambda: inbox.payloads == [b"live", b"a", b"b", b"c", b"behind"])
        assert asked.count(b"c") == 2
        asked.clear()
        joined.agent.send(1, b"live again")
        await until(lambda: inbox.payloads[-1] == b"live again")
        assert asked == []


@in_loop
async def test_abandoning_a_stream_does_not_wait_for_its_pace():
    async with Joined() as joined:
        joined.hub.claim(1, Inbox(), pace=lambda message: 1000.0)
        joined.agent.link.open(1)
        await joined.cut_and_noticed()
        joined.agent.send(1, b"a")
        joined.agent.abandon(1)
        joined.connect()
        await joined.up()
        joined.hub.abandon(1)
        await until(lambda: joined.hub.link.is_over(1))
