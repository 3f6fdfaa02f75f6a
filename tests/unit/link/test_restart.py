"""One end's process is replaced; the other goes on with the same link."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sshpyk.link.link import Link
from tests.unit.link.pair import Pair


def replace_hub(pair: Pair, streams: tuple[int, ...]) -> None:
    """Let a new process take the hub's place, knowing only what the old one had handed over."""
    old = pair.hub.link
    noted = dict.fromkeys(streams, (0, 0))
    for message in pair.hub.handed:
        noted[message.stream] = (message.seq + 1, message.start + len(message.payload))
    noted = {number: noted[number] for number in streams}
    pair.hub.link = Link.restore(old.link_id, old.epoch, noted)


@settings(max_examples=150, deadline=None)
@given(
    before=st.lists(st.binary(max_size=300), max_size=6),
    after=st.lists(st.binary(max_size=300), max_size=6),
    steps=st.integers(0, 40),
    take=st.integers(1, 200),
)
def test_replaced_hub_gets_each_message_of_the_agent_once_and_its_own_arrive(
    before, after, steps, take
):
    pair = Pair(portion=150)
    pair.connect()
    pair.settle()
    for end in (pair.hub, pair.agent):
        end.link.open(1)
    for payload in before:
        pair.agent.link.send(1, payload)
        pair.hub.link.send(1, b"lost or not: " + payload)
    for _ in range(steps):
        pair.step(take)
    replace_hub(pair, (1,))
    arrived = len(pair.agent.handed)
    pair.connect()
    for payload in after:
        pair.hub.link.send(1, b"new: " + payload)
        pair.agent.link.send(1, payload)
    pair.settle(take)
    assert pair.hub.payloads(1) == before + after
    assert [m.payload for m in pair.agent.handed[arrived:]] == [b"new: " + p for p in after]
    assert pair.alive
    assert not pair.agent.link.unacknowledged
    assert not pair.hub.link.unacknowledged


def test_stream_that_the_dead_process_never_consumed_is_found_again():
    pair = Pair()
    pair.connect()
    pair.settle()
    pair.agent.link.open(7)
    pair.agent.link.send(7, b"unheard")
    replace_hub(pair, ())
    pair.connect()
    pair.settle()
    assert pair.hub.payloads(7) == [b"unheard"]
    pair.hub.link.send(7, b"answer")
    pair.settle()
    assert pair.agent.payloads(7) == [b"answer"]


def test_large_message_in_progress_is_dropped_by_the_peer():
    pair = Pair()
    pair.connect()
    pair.hub.link.open(1)
    pair.hub.link.send(1, b"x" * 1_000_000)
    for _ in range(10):
        pair.step()
    assert pair.agent.link.hello(9).streams[1].offset > 0
    replace_hub(pair, (1,))
    pair.connect()
    pair.hub.link.send(1, b"small")
    pair.settle()
    assert pair.agent.payloads(1) == [b"small"]
