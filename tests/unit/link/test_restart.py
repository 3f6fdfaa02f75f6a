"""One end's process is replaced; the other goes on with the same link. The same for both ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshpyk.link.connection import Broken, Connection
from sshpyk.link.frames import Hello, LinkProtocolError, Position, encode_hello
from sshpyk.link.link import Link
from sshpyk.link.stream import Taken
from tests.unit.link.pair import End, Pair

SIDES = ("hub", "agent")


def ends_of(pair: Pair, side: str) -> tuple[End, End]:
    """Return the end whose process is replaced, and the other."""
    return (pair.hub, pair.agent) if side == "hub" else (pair.agent, pair.hub)


def replace(end: End) -> None:
    """Let a new process take the end's place, knowing only what the old one had handed over."""
    noted = {
        message.stream: Taken(message.seq + 1, message.start + len(message.payload), message.end)
        for message in end.handed
    }
    end.link = Link.restore(end.link.link_id, end.link.epoch, noted, "boot")
    for stream, taken in noted.items():
        if taken.ended:
            end.link.finish(stream)


def opened(*streams: int) -> Pair:
    pair = Pair(portion=150)
    pair.connect()
    pair.settle()
    for end in (pair.hub, pair.agent):
        for stream in streams:
            end.link.open(stream)
    return pair


@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=150, deadline=None)
@given(
    before=st.lists(st.binary(max_size=300), max_size=6),
    after=st.lists(st.binary(max_size=300), max_size=6),
    steps=st.integers(0, 40),
    cut_after=st.lists(st.integers(0, 6), max_size=3),
    take=st.integers(1, 200),
)
def test_replaced_end_gets_each_message_once_and_its_own_arrive(
    side, before, after, steps, cut_after, take
):
    pair = opened(1)
    replaced, other = ends_of(pair, side)
    for payload in before:
        other.link.send(1, payload)
        replaced.link.send(1, b"lost or not: " + payload)
    for _ in range(steps):
        pair.step(take)
    replace(replaced)
    replaced.link.open(1)
    arrived = len(other.handed)
    for payload in after:
        replaced.link.send(1, b"new: " + payload)
        other.link.send(1, payload)
    for steps_of_connection in cut_after:  # connections that break while they open
        pair.connect()
        for _ in range(steps_of_connection):
            pair.step(take)
    pair.connect()
    pair.settle(take)
    assert replaced.payloads(1) == before + after
    assert [m.payload for m in other.handed[arrived:]] == [b"new: " + p for p in after]
    assert pair.alive
    assert not pair.agent.link.unacknowledged
    assert not pair.hub.link.unacknowledged


@settings(max_examples=100, deadline=None)
@given(
    payloads=st.lists(st.binary(max_size=300), max_size=6),
    steps=st.lists(st.integers(0, 20), min_size=3, max_size=3),
    take=st.integers(1, 200),
)
def test_ends_replaced_in_turn_and_together_go_on(payloads, steps, take):
    pair = opened(1)
    turns = (pair.agent,), (pair.hub,), (pair.hub, pair.agent)
    for replaced, count in zip(turns, steps, strict=True):
        for payload in payloads:
            pair.hub.link.send(1, payload)
            pair.agent.link.send(1, payload)
        for _ in range(count):
            pair.step(take)
        for end in replaced:
            replace(end)
            end.link.open(1)
        pair.connect()
    pair.settle(take)
    handed = [len(end.handed) for end in (pair.hub, pair.agent)]
    for end in (pair.hub, pair.agent):
        end.link.send(1, b"last")
    pair.settle(take)
    for end, count in zip((pair.hub, pair.agent), handed, strict=True):
        assert [message.payload for message in end.handed[count:]] == [b"last"]
        assert [message.seq for message in end.handed] == list(range(len(end.handed)))
        assert not end.broken


@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=150, deadline=None)
@given(
    steps=st.integers(0, 30),
    take=st.integers(1, 200),
    ended_by_both=st.booleans(),
    connects=st.integers(1, 3),
)
def test_stream_that_was_ending_ends_at_both_sides(side, steps, take, ended_by_both, connects):
    pair = opened(1)
    replaced, other = ends_of(pair, side)
    for end in (pair.hub, pair.agent):
        end.link.send(1, b"x" * 200)
    other.link.finish(1)
    if ended_by_both:
        replaced.link.finish(1)
    for _ in range(steps):
        pair.step(take)
    replace(replaced)
    # What an agent does for a kernel that has ended: it says so, whether it was said before or not.
    replaced.link.open(1)
    if not replaced.link._streams[1].sender.finished:
        replaced.link.send(1, b"status")
        replaced.link.finish(1)
    for _ in range(connects):
        pair.connect()
        pair.settle(take)
    assert pair.alive
    assert replaced.payloads(1) == [b"x" * 200]
    assert len([m for m in other.handed if m.end]) == 1
    for end in (pair.hub, pair.agent):
        assert not end.broken
        assert not end.link.unacknowledged
        assert 1 not in end.link._streams


@pytest.mark.parametrize("side", SIDES)
def test_stream_that_the_dead_process_never_consumed_is_found_again(side: str):
    pair = opened(7)
    replaced, other = ends_of(pair, side)
    other.link.send(7, b"unheard")
    replace(replaced)
    pair.connect()
    pair.settle()
    assert replaced.payloads(7) == [b"unheard"]
    replaced.link.send(7, b"answer")
    pair.settle()
    assert other.payloads(7) == [b"answer"]


@pytest.mark.parametrize("side", SIDES)
def test_large_messages_in_progress_are_dropped_one_way_and_sent_anew_the_other(side: str):
    pair = Pair()
    pair.connect()
    replaced, other = ends_of(pair, side)
    for end, fill in ((replaced, b"x"), (other, b"y")):
        end.link.open(1)
        end.link.send(1, fill * 1_000_000)
    for _ in range(10):
        pair.step()
    for end in (pair.hub, pair.agent):
        assert end.link.hello(9).streams[1].offset > 0
    replace(replaced)
    pair.connect()
    replaced.link.open(1)
    replaced.link.send(1, b"small")
    pair.settle()
    assert other.payloads(1) == [b"small"]
    assert replaced.payloads(1) == [b"y" * 1_000_000]


@pytest.mark.parametrize("side", SIDES)
def test_restart_and_machine_are_told_to_the_other_end_until_it_knows(side: str):
    pair = opened(1)
    replaced, other = ends_of(pair, side)
    replace(replaced)
    assert replaced.link.hello(2).restarted
    pair.connect()
    pair.settle()
    if side == "agent":
        assert (other.resumed[-1].restarted, other.resumed[-1].boot_id) == (True, "boot")
    assert not replaced.link.hello(3).restarted
    pair.connect()
    pair.settle()
    assert not other.resumed or not other.resumed[-1].restarted


def test_peer_tells_how_much_it_had_got_of_the_dead_process():
    pair = opened(1)
    for _ in range(3):
        pair.agent.link.send(1, b"x")
    pair.settle()
    replace(pair.agent)
    pair.agent.link.open(1)
    assert pair.agent.link.found_seq(1) is None
    pair.agent.link.send(1, b"new")
    assert pair.agent.link.queued_seq(1) == 1
    pair.connect()
    pair.settle()
    assert pair.agent.link.found_seq(1) == 3
    assert pair.agent.link.queued_seq(1) == pair.agent.link.acknowledged_seq(1) == 4


@pytest.mark.parametrize(
    ("epoch", "expected"), [(1, 0), (9, 99)], ids=["of an older epoch", "that expects too much"]
)
@pytest.mark.parametrize("side", SIDES)
def test_refused_hello_of_a_new_process_leaves_the_message_that_is_arriving(
    side: str, epoch: int, expected: int
):
    """It was under way when its process dialled once more, and that connection was the first here."""
    pair = opened(1)
    pair.connect()
    pair.settle()
    end, other = ends_of(pair, side)
    other.link.send(1, b"x" * 1_000_000)
    pair.step()
    before = end.link.hello(9)
    assert before.streams[1].offset > 0
    late = Hello(
        end.link.link_id, epoch, resumed=True, streams={1: Position(expected)}, restarted=True
    )
    if side == "agent":
        with pytest.raises(LinkProtocolError):
            Connection.accept().answer(end.link, late)
    else:
        dialled = Connection.initiate(end.link, epoch)
        (event,) = dialled.receive_data(encode_hello(late), pair.now)
        assert isinstance(event, Broken)
    assert (end.link.hello(9), end.link.epoch) == (before, 2)
    pair.settle()
    assert end.payloads(1) == [b"x" * 1_000_000]
    assert not end.broken
