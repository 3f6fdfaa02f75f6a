"""Two cores back to back: exactly once, in order, fair, whatever happens to the connection."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshpyk.link import frames
from sshpyk.link import receiver as receiver_module
from sshpyk.link import stream as stream_module
from sshpyk.link.connection import Connection, Incompatible, PeerLeft, State
from sshpyk.link.frames import LinkProtocolError, Position
from sshpyk.link.link import Link
from tests.unit.link.pair import Pair

payloads = st.lists(st.binary(max_size=300), max_size=8)


def test_messages_arrive_in_order_each_way():
    pair = Pair()
    pair.connect()
    for end in (pair.hub, pair.agent):
        end.link.open(1)
        for index in range(20):
            end.link.send(1, b"%s %d" % (end.name.encode(), index))
    pair.settle()
    assert pair.agent.payloads(1) == [b"hub %d" % i for i in range(20)]
    assert pair.hub.payloads(1) == [b"agent %d" % i for i in range(20)]
    assert not pair.hub.link.unacknowledged
    assert not pair.agent.link.unacknowledged


@settings(max_examples=150, deadline=None)
@given(
    to_agent=payloads,
    to_hub=payloads,
    portion=st.integers(1, 400),
    take=st.integers(1, 200),
    cuts=st.lists(st.integers(0, 60), max_size=12),
)
def test_cut_at_any_byte_delivers_exactly_once_in_order(to_agent, to_hub, portion, take, cuts):
    pair = Pair(portion)
    for end, messages in ((pair.hub, to_agent), (pair.agent, to_hub)):
        for number in (1, 3):
            end.link.open(number, urgent=number == 3)
            for payload in messages:
                end.link.send(number, payload)
    pair.connect()
    for steps in cuts:
        for _ in range(steps):
            pair.step(take)
        pair.connect()
    pair.settle(take)
    for number in (1, 3):
        assert pair.agent.payloads(number) == to_agent
        assert pair.hub.payloads(number) == to_hub
    assert pair.alive
    assert not pair.hub.link.unacknowledged
    assert not pair.agent.link.unacknowledged


@pytest.mark.parametrize("towards", ["agent", "hub"])
def test_cut_at_every_byte_of_handshake_and_session_is_survived(towards: str):
    expected = [bytes([index]) * (40 * index) for index in range(5)]

    def session() -> Pair:
        pair = Pair(portion=200)
        for end in (pair.hub, pair.agent):
            end.link.open(1)
            for payload in expected:
                end.link.send(1, payload)
            end.link.finish(1)
        pair.connect()
        return pair

    whole = session()
    whole.settle()
    for offset in range(whole.passed[towards] + 1):
        pair = session()
        pair.room[towards] = offset
        pair.settle()
        pair.connect()
        pair.settle()
        assert pair.agent.payloads(1) == pair.hub.payloads(1) == expected, offset
        assert pair.alive


@pytest.mark.parametrize("towards", ["agent", "hub"])
def test_cut_at_every_byte_of_the_second_handshake_is_survived(towards: str):
    """The one that resumes: both ends have something of each other, in the middle of a message."""

    def interrupted() -> Pair:
        pair = Pair()
        for end in (pair.hub, pair.agent):
            end.link.open(1)
            end.link.send(1, bytes(3000))
        pair.connect()
        pair.room = {"agent": 1500, "hub": 1500}
        pair.settle()
        pair.connect()
        return pair

    whole = interrupted()
    whole.settle()
    for offset in range(whole.passed[towards] + 1):
        pair = interrupted()
        pair.room[towards] = offset
        pair.settle()
        pair.connect()
        pair.settle()
        assert pair.agent.payloads(1) == pair.hub.payloads(1) == [bytes(3000)], offset
        assert pair.alive


def test_message_cut_in_the_middle_continues_from_its_offset():
    pair = Pair()
    pair.hub.link.open(1)
    pair.hub.link.send(1, b"x" * 1_000_000)
    pair.connect()
    for _ in range(10):
        pair.step()
    offset = pair.agent.link.hello(99).streams[1].offset
    assert 0 < offset < 1_000_000
    pair.connect()
    sent = 0
    while pair.agent.handed == []:
        before = len(pair.wire["agent"])
        pair.step()
        sent += len(pair.wire["agent"]) - before
    assert pair.agent.payloads(1) == [b"x" * 1_000_000]
    assert pair.hub.link.backlog_bytes(1) in (0, 1_000_000)


def test_acknowledgement_waits_for_the_consumer():
    pair = Pair()
    pair.agent.consume_at_once = False
    pair.hub.link.open(1)
    pair.hub.link.send(1, b"held")
    pair.connect()
    pair.settle()
    assert pair.agent.payloads(1) == [b"held"]
    assert pair.hub.link.backlog_bytes(1) == 4
    pair.agent.link.consumed(1)
    pair.settle()
    assert pair.hub.link.backlog_bytes(1) == 0


def test_credit_holds_the_sender_back_when_nobody_consumes():
    pair = Pair()
    pair.agent.consume_at_once = False
    pair.hub.link.open(1)
    for _ in range(40):
        pair.hub.link.send(1, b"x" * 1_000_000)
    pair.connect()
    pair.settle()
    received = len(pair.agent.handed) * 1_000_000
    window = stream_module.CREDIT_WINDOW_BYTES
    assert window - 1_000_000 <= received <= window + 1_000_000
    handed = 0
    while handed < 40:
        while handed < len(pair.agent.handed):
            pair.agent.link.consumed(1)
            handed += 1
        pair.settle()
    assert not pair.hub.link.unacknowledged


def test_message_larger_than_the_window_passes():
    pair = Pair()
    pair.agent.consume_at_once = False
    pair.hub.link.open(1)
    pair.hub.link.send(1, b"x" * (3 * stream_module.CREDIT_WINDOW_BYTES))
    pair.connect()
    pair.settle()
    assert [len(p) for p in pair.agent.payloads(1)] == [3 * stream_module.CREDIT_WINDOW_BYTES]


def test_urgent_stream_overtakes_a_large_message():
    pair = Pair()
    pair.hub.link.open(1)
    pair.hub.link.open(3, urgent=True)
    pair.hub.link.send(1, b"x" * 50_000_000)
    pair.connect()
    for _ in range(20):
        pair.step()
    assert pair.agent.handed == []
    pair.hub.link.send(3, b"interrupt")
    for _ in range(3):
        pair.step()
    assert pair.agent.payloads(3) == [b"interrupt"]
    assert pair.agent.payloads(1) == []


def test_two_streams_take_turns():
    pair = Pair()
    for number in (1, 3):
        pair.hub.link.open(number)
        pair.hub.link.send(number, b"x" * 2_000_000)
    pair.connect()
    order = []
    while len(order) < 40:
        chosen = pair.hub.link.next_chunk(10_000)
        assert chosen is not None
        order.append(chosen[0].stream)
    assert order == [1, 3] * 20


def test_seen_tells_what_the_sender_had_been_handed():
    pair = Pair()
    pair.hub.link.open(1)
    pair.connect()
    pair.agent.link.open(1)
    for index in range(3):
        pair.agent.link.send(1, b"output %d" % index)
    pair.hub.link.send(1, b"early")
    pair.settle()
    pair.hub.link.send(1, b"late")
    pair.settle()
    assert [m.seen for m in pair.agent.handed] == [0, 3]


def test_finished_stream_is_forgotten_by_both_ends_and_its_number_stays_used():
    pair = Pair()
    pair.connect()
    pair.hub.link.open(5)
    pair.hub.link.send(5, b"last words")
    pair.hub.link.finish(5)
    pair.settle()
    pair.agent.link.finish(5)
    pair.settle()
    assert pair.agent.payloads(5) == [b"last words"]
    assert [m.end for m in pair.hub.handed] == [True]
    with pytest.raises(ValueError, match="over"):
        pair.hub.link.open(5)
    pair.connect()
    pair.settle()
    pair.connect()
    pair.settle()
    assert pair.alive
    assert pair.hub.link.hello(9).over == {}
    assert pair.agent.link.hello(9).over == {}


def test_first_connection_that_never_arrived_is_no_loss():
    pair = Pair()
    pair.hub.link.open(1)
    pair.hub.link.send(1, b"start")
    pair.connect()
    assert pair.hub.connection is not None
    pair.hub.connection.data_to_send(1000, 0.0)  # written into a connection that died at once
    pair.connect()
    pair.settle()
    assert pair.agent.payloads(1) == [b"start"]
    assert [r.known for r in pair.hub.resumed] == [True]


def test_peer_that_lost_the_link_is_told_apart():
    pair = Pair()
    pair.connect()
    pair.settle()
    pair.agent.link = type(pair.agent.link)(pair.agent.link.link_id)
    pair.connect()
    pair.settle()
    assert [r.known for r in pair.hub.resumed] == [True, False]


def test_old_epoch_is_refused():
    pair = Pair()
    pair.connect()
    pair.settle()
    with pytest.raises(LinkProtocolError, match="epoch"):
        pair.hub.link.attach(1)


def test_bye_is_reported_with_its_reason():
    pair = Pair()
    pair.connect()
    pair.settle()
    assert pair.hub.connection is not None
    assert pair.agent.connection is not None
    events = pair.agent.connection.receive_data(pair.hub.connection.leave("idle"), pair.now)
    assert events == [PeerLeft("idle")]


def test_silence_after_messages_is_asked_about_soon_and_then_seldom():
    pair = Pair()
    pair.agent.link.open(1)
    pair.connect()
    pair.settle()
    connection = pair.hub.connection
    assert connection is not None
    questions = []
    for second in range(1, 31):
        if second == 15:
            pair.agent.link.send(1, b"output")
        pair.now = float(second)
        connection.tick(pair.now)
        if connection._ping_sent_s == pair.now:
            questions.append(second)
        pair.settle()
    assert questions == [11, 16, 26]  # of ticks a second apart


def test_silence_after_a_question_makes_the_connection_suspect_and_any_byte_clears_it():
    pair = Pair()
    pair.connect()
    pair.settle()
    connection = pair.hub.connection
    assert isinstance(connection, Connection)
    assert not connection.tick(pair.now)
    assert not connection.tick(pair.now + 11)  # asks
    question = connection.data_to_send(1000, pair.now)
    assert question
    assert not connection.tick(pair.now + 13)
    assert connection.tick(pair.now + 15)
    assert pair.agent.connection is not None
    pair.agent.connection.receive_data(b"".join(question), pair.now)
    pair.now += 18
    pair.settle()
    assert not connection.tick(pair.now)


def test_a_line_in_doubt_is_asked_at_once_and_only_once():
    pair = Pair()
    pair.connect()
    pair.settle()
    connection = pair.hub.connection
    assert isinstance(connection, Connection)
    connection.ask(pair.now)
    connection.ask(pair.now)
    assert len(connection.data_to_send(1000, pair.now)) == 1
    assert connection.tick(pair.now + 6)  # the answer is due


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_malformed_bytes_break_the_connection_and_nothing_else(junk, after_hello):
    pair = Pair()
    pair.hub.link.open(1)
    pair.connect()
    if after_hello:
        pair.settle()
    assert pair.agent.connection is not None
    pair.agent.act(list(pair.agent.connection.receive_data(junk, pair.now)))
    pair.hub.link.send(1, b"still here")
    pair.epoch = max(pair.epoch, pair.agent.link.epoch)
    if pair.agent.handed == [] and pair.agent.link.hello(9).streams in ({}, {1: (0, 0, 0)}):
        pair.connect()
        pair.settle()
        assert pair.agent.payloads(1) == [b"still here"]


def test_f49_a_peer_that_ignores_its_credit_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(receiver_module, "CREDIT_WINDOW_BYTES", 1000)
    receiver = receiver_module.Receiver(1)
    assert receiver.take(frames.Data(1, 0, 0, 0, frames.FLAG_LAST_CHUNK, bytes(600))) is not None
    receiver.take(frames.Data(1, 1, 0, 0, 0, bytes(400)))
    with pytest.raises(LinkProtocolError, match="credit"):
        receiver.take(frames.Data(1, 1, 400, 0, 0, b"x"))


def test_f49_a_refused_hello_leaves_the_streams_where_they_are():
    """Whoever guesses a link's id and claims too much must not make its connection skip or repeat."""
    pair = Pair()
    pair.connect()
    for number in (1, 3):
        pair.agent.link.open(number)
        for index in range(3):
            pair.agent.link.send(number, b"%d" % index)
    pair.agent.consume_at_once = False
    link = pair.agent.link
    pair.step()
    before = [vars(link._streams[number].sender).copy() for number in (1, 3)]
    claim = frames.Hello(link.link_id, 9, True, streams={1: Position(1), 3: Position(99)})
    with pytest.raises(LinkProtocolError, match="expects message 99"):
        Connection.accept().answer(link, claim)
    assert [vars(link._streams[number].sender) for number in (1, 3)] == before
    assert link.epoch == 1
    pair.settle()
    assert pair.hub.payloads(1) == pair.hub.payloads(3) == [b"0", b"1", b"2"]


def test_f49_pings_that_are_not_waited_for_get_one_answer():
    pair = Pair()
    pair.connect()
    pair.settle()
    connection = pair.agent.connection
    assert connection is not None
    connection.receive_data(b"".join(map(frames.encode_ping, range(1000))), pair.now)
    assert connection.has_to_send
    assert b"".join(connection.data_to_send(1 << 16, pair.now)) == frames.encode_pong(999)


def test_f51_ends_without_a_common_version_both_learn_it(monkeypatch: pytest.MonkeyPatch):
    agent = Connection.accept()
    newer = frames.encode_hello(frames.Hello("ab" * 16, 5, versions=(8, 9)))
    assert agent.receive_data(newer, 0.0) == [Incompatible((8, 9))]
    answer = b"".join(agent.data_to_send(1 << 16, 0.0))
    assert not agent.receive_data(newer, 0.0)  # nothing comes of it any more
    monkeypatch.setattr(frames, "VERSIONS", (8, 9))
    hub = Connection.initiate(Link("ab" * 16), 5)
    assert hub.receive_data(answer, 0.0) == [Incompatible((1,))]
    assert hub.state is State.CLOSED


def test_what_a_connection_brings_after_a_stall_is_a_replay_until_its_pong():
    pair = Pair()
    pair.connect()
    pair.settle()
    pair.agent.link.open(1)
    pair.agent.link.send(1, b"live")
    pair.settle()
    pair.now += 11
    for end in (pair.hub, pair.agent):
        assert end.connection is not None
        end.connection.tick(pair.now)
    for payload in (b"a", b"b"):
        pair.agent.link.send(1, payload)
    pair.now += 4
    pair.settle()
    pair.agent.link.send(1, b"live again")
    pair.settle()
    assert [(m.payload, m.replayed) for m in pair.hub.handed if not m.end] == [
        (b"live", False),
        (b"a", True),
        (b"b", True),
        (b"live again", False),
    ]
