"""Streams that are over are forgotten by both ends, on one connection as across many."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshpyk.link import connection as connection_module
from sshpyk.link.connection import PING_OVER_S
from tests.unit.link.pair import End, Pair
from tests.unit.link.test_restart import ends_of, replace


def remembered(pair: Pair) -> int:
    return sum(len(end.link._over) + len(end.link._streams) for end in (pair.hub, pair.agent))


def tick(pair: Pair, end: End) -> None:
    assert end.connection is not None
    pair.now += PING_OVER_S
    end.connection.tick(pair.now)


def settle_and_forget(pair: Pair) -> None:
    pair.settle()
    for _ in range(3):
        for end in (pair.hub, pair.agent):
            tick(pair, end)
        pair.settle()


def use(pair: Pair, number: int) -> None:
    """Let a stream live and end at both ends."""
    for end in (pair.hub, pair.agent):
        end.link.open(number)
        end.link.send(number, b"word")
        end.link.finish(number)


def test_short_streams_on_one_connection_are_forgotten():
    pair = Pair()
    pair.connect()
    for number in range(1, 3001, 2):
        use(pair, number)
        if number % 100 == 1:
            settle_and_forget(pair)
    settle_and_forget(pair)
    assert remembered(pair) == 0
    assert pair.agent.payloads(99) == [b"word"]
    assert pair.alive


def test_a_line_that_is_never_quiet_is_asked_all_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection_module, "PING_WAITING_S", 1e9)
    pair = Pair()
    pair.connect()
    use(pair, 1)
    settle_and_forget(pair)
    assert remembered(pair) == 0


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 30), take=st.integers(20, 300))
def test_cuts_and_questions_at_any_moment_lose_nothing_and_leave_nothing(seed: int, take: int):
    chance, pair, number = random.Random(seed), Pair(portion=150), 1
    pair.connect()
    for _ in range(120):
        act = chance.choices(("step", "use", "tick", "connect"), (20, 4, 3, 1))[0]
        if act == "step":
            pair.step(take)
        elif act == "use":
            use(pair, number)
            number += 2
        elif act == "tick":
            tick(pair, chance.choice((pair.hub, pair.agent)))
        else:
            pair.connect()
    pair.connect()
    settle_and_forget(pair)
    for end in (pair.hub, pair.agent):
        assert not end.broken
        assert [end.payloads(used) for used in range(1, number, 2)] == [[b"word"]] * (number // 2)
    assert remembered(pair) == 0


@pytest.mark.parametrize("side", ["hub", "agent"])
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 30), take=st.integers(20, 300))
def test_an_end_that_is_replaced_while_streams_end_breaks_nothing(side: str, seed: int, take: int):
    chance, pair, number = random.Random(seed), Pair(portion=150), 1
    pair.connect()
    pair.settle()
    replaced, other = ends_of(pair, side)
    for _ in range(chance.randrange(80)):
        act = chance.choices(("step", "use", "tick"), (20, 4, 3))[0]
        if act == "step":
            pair.step(take)
        elif act == "use":
            use(pair, number)
            number += 2
        else:
            tick(pair, chance.choice((pair.hub, pair.agent)))
    replace(replaced)
    for used in range(1, number, 2):  # as who is told that a consumer is gone
        if not replaced.link.is_over(used) and other.link.knows(used):
            replaced.link.open(used)
            replaced.link.finish(used)
    pair.connect()
    settle_and_forget(pair)
    assert replaced.broken == other.broken == []
    assert pair.alive
    assert replaced.link._streams == other.link._streams == {}
    pair.connect()
    settle_and_forget(pair)
    assert remembered(pair) == 0
