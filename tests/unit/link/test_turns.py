"""Turns: nobody who has something to send is forgotten, however it came to have it."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from sshpyk.link.frames import Ack, Hello, LinkProtocolError, Position
from sshpyk.link.link import Link
from sshpyk.link.stream import CREDIT_WINDOW_BYTES
from tests.unit.link.pair import Pair

MESSAGE_BYTES = CREDIT_WINDOW_BYTES // 2 + 1
SENDS, FINISHES, TAKES_CHUNKS, PEER_TAKES, CONNECTS = range(5)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), min_size=10, max_size=40))
def test_every_stream_that_is_ready_is_found(actions: list[tuple[int, int]]):
    link = Link("ab" * 16)
    link.attach(1)
    taken = dict.fromkeys(range(1, 5), 0)
    for number in taken:
        link.open(number, urgent=number == 1, bulk=number == 2)
    for action, number in actions:
        sender = link._streams[number].sender
        if action == SENDS and not sender.finished:
            link.send(number, bytes(MESSAGE_BYTES))
        elif action == FINISHES:
            link.finish(number)
        elif action == TAKES_CHUNKS:
            while link.next_chunk(number * MESSAGE_BYTES // 3):
                pass
        elif (
            action == PEER_TAKES
            and link.queued_seq(number)
            and not link._streams[number].sender.ready
        ):
            taken[number] = min(taken[number] + 1, link.queued_seq(number))
            credit = taken[number] * MESSAGE_BYTES + CREDIT_WINDOW_BYTES
            with contextlib.suppress(LinkProtocolError):  # of what was not sent yet
                link.receive_ack(Ack(number, taken[number], credit))
        elif action == CONNECTS:
            at = {n: Position(seq, 0, seq * MESSAGE_BYTES) for n, seq in taken.items()}
            link.attach(link.epoch + 1, Hello(link.link_id, link.epoch + 1, streams=at))
        ready = {number for number, one in link._streams.items() if one.sender.ready}
        assert link.has_chunk is bool(ready)
        assert ready <= set(link._turns._queue)


def test_one_that_runs_out_of_credit_comes_after_the_others_when_it_has_some_again():
    pair = Pair()
    link = pair.hub.link
    pair.connect()
    for number in (1, 3):
        link.open(number)
        link.send(number, b"x" * 100)
    order = []
    for number in (1, 3, 3):
        while (chosen := link.next_chunk(50)) is not None:
            order.append(chosen[0].stream)
        link.send(number, b"y" * 50)
    assert order == [1, 3, 1, 3, 1, 3]


def test_credit_brings_a_stream_its_turn_back():
    link = Link("ab" * 16)
    link.attach(1)
    link.open(1)
    for _ in range(3):
        link.send(1, bytes(MESSAGE_BYTES))
    while link.next_chunk(MESSAGE_BYTES):
        pass
    assert not link.has_chunk
    link.receive_ack(Ack(1, 1, MESSAGE_BYTES + CREDIT_WINDOW_BYTES))
    assert link.has_chunk
