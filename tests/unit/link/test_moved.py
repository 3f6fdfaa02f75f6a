"""What waits on a stream goes on over another link; the first one's peer hears only the end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshpyk.link.link import Link
from tests.unit.link.pair import Pair

_payloads = st.lists(st.binary(min_size=1, max_size=400), max_size=8)


def connected(stream: int) -> Pair:
    pair = Pair(portion=150)
    pair.connect()
    pair.settle()
    pair.agent.link.open(stream)
    pair.hub.link.open(stream)
    return pair


def move(source: Link, number: int, target: Link, new_number: int) -> None:
    target.receive_moved(new_number, source.give_away(number))


@settings(max_examples=150, deadline=None)
@given(
    before=_payloads,
    between=_payloads,
    after=_payloads,
    steps=st.integers(0, 30),
    take=st.integers(1, 200),
    cut=st.booleans(),
    via_shelf=st.booleans(),
    ends=st.booleans(),
)
def test_peers_get_each_message_once_in_order_and_the_first_gets_a_whole_beginning(
    before, between, after, steps, take, cut, via_shelf, ends
):
    first, second, shelf = connected(1), connected(7), Link("shelf")
    for payload in before:
        first.agent.link.send(1, payload)
    for _ in range(steps):
        first.step(take)
    if cut:
        first.connect()
    if via_shelf:
        move(first.agent.link, 1, shelf, 3)
        for payload in between:
            shelf.send(3, payload)
        move(shelf, 3, second.agent.link, 7)
    else:
        move(first.agent.link, 1, second.agent.link, 7)
        for payload in between:
            second.agent.link.send(7, payload)
    for payload in after:
        second.agent.link.send(7, payload)
    if ends:
        second.agent.link.finish(7)
    first.hub.link.finish(1)
    first.settle(take)
    second.settle(take)
    assert second.hub.handed == [] or second.hub.handed[-1].end == ends
    got = second.hub.payloads(7)
    sent = before + between + after
    assert got == sent[len(sent) - len(got) :]
    handed = first.hub.payloads(1)
    whole = [payload for number, payload in enumerate(handed) if payload == sent[number]]
    assert len(whole) >= len(sent) - len(got) >= len(whole) - len(before)
    assert len(handed) - len(whole) <= 1  # what was in the middle is completed short
    assert first.hub.handed[-1].end
    assert first.alive
    assert second.alive
    assert not first.agent.link.unacknowledged


def test_acknowledged_messages_do_not_go_with_the_others() -> None:
    first, second = connected(1), connected(1)
    first.agent.link.send(1, b"taken")
    first.settle()
    first.hub.consume_at_once = False
    first.agent.link.send(1, b"arrived, and not taken")
    first.settle()
    move(first.agent.link, 1, second.agent.link, 1)
    second.settle()
    assert second.hub.payloads(1) == [b"arrived, and not taken"]


def test_places_go_on_so_that_whoever_counts_them_need_not_know() -> None:
    first, shelf = connected(1), Link("shelf")
    places = [first.agent.link.send(1, b"a"), first.agent.link.send(1, b"b")]
    first.settle()
    places.append(first.agent.link.send(1, b"c"))
    move(first.agent.link, 1, shelf, 3)
    places.append(shelf.send(3, b"d"))
    assert places == [0, 1, 2, 3]
    assert shelf.place_of(3, 0) == 2
    assert shelf.place_of(3, 1) == 3
    assert shelf.acknowledged_seq(3) == 2
    assert shelf.queued_seq(3) == 4


def test_peer_that_was_away_and_comes_back_in_the_middle_of_a_message_hears_the_end() -> None:
    first, second = connected(1), connected(1)
    first.agent.link.send(1, b"x" * 1000)
    first.step(100)
    first.step(100)
    first.agent.connection.fence()  # type: ignore[union-attr]
    move(first.agent.link, 1, second.agent.link, 1)
    first.connect()
    first.settle()
    second.settle()
    assert first.hub.handed[-1].end
    assert second.hub.payloads(1) == [b"x" * 1000]
    first.connect()  # and again, when all has been said
    first.settle()
    assert first.alive


def test_nothing_is_sent_where_the_stream_was_moved_away_or_is_moved_twice() -> None:
    first, shelf = connected(1), Link("shelf")
    move(first.agent.link, 1, shelf, 3)
    with pytest.raises(ValueError, match="was moved"):
        first.agent.link.send(1, b"x")
    with pytest.raises(LookupError, match="was moved"):
        first.agent.link.give_away(1)
    first.agent.link.finish(1)


def test_end_that_was_said_is_not_said_again_and_goes_with_the_rest() -> None:
    first, second = connected(1), connected(1)
    first.hub.consume_at_once = False
    first.agent.link.send(1, b"last words")
    first.agent.link.finish(1)
    first.settle()
    move(first.agent.link, 1, second.agent.link, 1)
    first.settle()
    second.settle()
    assert [message.end for message in first.hub.handed] == [False, True]
    assert [message.payload for message in second.hub.handed] == [b"last words", b""]
    assert second.hub.handed[-1].end
    first.hub.link.consumed(1)
    first.hub.link.consumed(1)
    first.hub.link.finish(1)
    first.settle()
    assert first.agent.link.is_over(1)


def test_stream_whose_end_was_taken_has_nothing_to_give() -> None:
    first = connected(1)
    first.agent.link.finish(1)
    first.settle()
    with pytest.raises(LookupError):
        first.agent.link.give_away(1)
