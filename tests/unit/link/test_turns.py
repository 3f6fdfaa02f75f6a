"""Turns: nobody who has something to send is forgotten, however it came to have it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sshpyk.link.stream import CREDIT_WINDOW_BYTES
from tests.unit.link.pair import Pair

SENDS, CONNECTS, STEPS, LETS_THEM_READ = range(4)
actions = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=30)


@given(actions)
def test_every_stream_that_is_ready_is_found(actions: list[tuple[int, int]]):
    pair = Pair()
    pair.agent.consume_at_once = False
    link = pair.hub.link
    pair.connect()
    for action, number in actions:
        if action == SENDS and not link.is_over(number):
            link.open(number, urgent=number == 1, bulk=number == 2)
            link.finish(number) if number == 4 else link.send(
                number, bytes(CREDIT_WINDOW_BYTES // 2)
            )
        elif action == CONNECTS:
            pair.connect()
        elif action == STEPS:
            pair.step()
        elif action == LETS_THEM_READ:
            taken, pair.agent.handed = pair.agent.handed, []
            for message in taken:
                pair.agent.link.consumed(message.stream)
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
