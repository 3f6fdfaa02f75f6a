"""Both halves of a stream on their own: positions, overlaps, credit."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshpyk.link import receiver as receiver_module
from sshpyk.link import sender as sender_module
from sshpyk.link.frames import FLAG_END, FLAG_LAST_CHUNK, Ack, Data, LinkProtocolError, Position
from sshpyk.link.receiver import Receiver
from sshpyk.link.sender import Sender
from sshpyk.link.stream import CREDIT_WINDOW_BYTES

messages = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


def send_all(sender: Sender, limit: int) -> list[Data]:
    chunks = []
    while sender.ready:
        fields, chunk = sender.next_chunk(limit)
        chunks.append(fields._replace(chunk=bytes(chunk)))
    return chunks


def filled(payloads: list[bytes], *, end: bool = False) -> Sender:
    sender = Sender(1)
    for payload in payloads:
        sender.push(payload, 0)
    if end:
        sender.push(b"", 0, end=True)
    return sender


def take_all(receiver: Receiver, chunks: list[Data]) -> list[bytes]:
    taken = [receiver.take(chunk) for chunk in chunks]
    return [message.payload for message in taken if message is not None]


@settings(deadline=None)
@given(messages, st.integers(1, 50))
def test_chunks_join_to_the_messages(payloads: list[bytes], limit: int):
    chunks = send_all(filled(payloads), limit)
    assert all(len(chunk.chunk) <= limit for chunk in chunks)
    assert take_all(Receiver(1), chunks) == payloads


@settings(deadline=None)
@given(messages, st.integers(1, 20), st.integers(1, 20), st.data())
def test_rewinding_to_any_position_that_was_reached_loses_and_repeats_nothing(
    payloads: list[bytes], limit: int, second_limit: int, data: st.DataObject
):
    sender, receiver = filled(payloads, end=True), Receiver(1)
    chunks = send_all(sender, limit)
    cut = data.draw(st.integers(0, len(chunks)))
    got = take_all(receiver, chunks[:cut])
    sender.rewind(receiver.position)
    got += take_all(receiver, send_all(sender, second_limit))
    assert got == [*payloads, b""]
    assert receiver.ended


@settings(deadline=None)
@given(messages, st.data())
def test_rewinding_further_back_than_needed_repeats_nothing(
    payloads: list[bytes], data: st.DataObject
):
    """A position that is older than what has arrived: the overlap is dropped."""
    sender, receiver = filled(payloads), Receiver(1)
    got = take_all(receiver, send_all(sender, 7))
    seq = data.draw(st.integers(0, len(payloads) - 1))
    offset = data.draw(st.integers(0, len(payloads[seq])))
    sender.rewind(Position(seq, offset))
    again = send_all(sender, 11)
    assert again[0].seq == seq
    assert take_all(receiver, again) == []
    assert got == payloads


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=60), st.data())
def test_an_overlap_inside_a_message_is_trimmed(payload: bytes, data: st.DataObject):
    have = data.draw(st.integers(0, len(payload) - 1))
    start = data.draw(st.integers(0, have))
    receiver = Receiver(1)
    assert receiver.take(Data(1, 0, 0, 0, 0, payload[:have])) is None
    message = receiver.take(Data(1, 0, start, 0, FLAG_LAST_CHUNK, payload[start:]))
    assert message is not None
    assert message.payload == payload


def test_a_repeated_chunk_that_ends_before_what_we_have_changes_nothing():
    receiver = Receiver(1)
    receiver.take(Data(1, 0, 0, 0, 0, b"abcdef"))
    assert receiver.take(Data(1, 0, 1, 0, 0, b"bc")) is None
    assert receiver.position == (0, 6, 0)
    message = receiver.take(Data(1, 0, 6, 0, FLAG_LAST_CHUNK, b"g"))
    assert message is not None
    assert message.payload == b"abcdefg"


@pytest.mark.parametrize(
    "data",
    [
        Data(1, 1, 0, 0, 0, b"the one after next"),
        Data(1, 0, 4, 0, 0, b"a hole"),
        Data(1, 7, 7, 0, FLAG_LAST_CHUNK, b""),
    ],
)
def test_holes_are_refused(data: Data):
    receiver = Receiver(1)
    receiver.take(Data(1, 0, 0, 0, 0, b"abc"))
    with pytest.raises(LinkProtocolError, match="expected 0 at 3"):
        receiver.take(data)


def test_nothing_comes_after_the_last_message():
    receiver = Receiver(1)
    last = receiver.take(Data(1, 0, 0, 0, FLAG_LAST_CHUNK | FLAG_END, b""))
    assert last is not None
    assert last.end
    assert receiver.take(Data(1, 0, 0, 0, FLAG_LAST_CHUNK | FLAG_END, b"")) is None
    with pytest.raises(LinkProtocolError):
        receiver.take(Data(1, 1, 0, 0, FLAG_LAST_CHUNK, b"more"))


def test_a_message_beyond_the_cap_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(receiver_module, "MAX_MESSAGE_BYTES", 10)
    receiver = Receiver(1)
    receiver.take(Data(1, 0, 0, 0, 0, bytes(10)))
    with pytest.raises(LinkProtocolError, match="too large"):
        receiver.take(Data(1, 0, 10, 0, 0, b"x"))


# Acknowledgements


@settings(deadline=None)
@given(messages, st.data())
def test_the_backlog_is_what_is_not_acknowledged(payloads: list[bytes], data: st.DataObject):
    sender = filled(payloads)
    send_all(sender, 9)
    seq = data.draw(st.integers(0, len(payloads)))
    sender.acknowledge(Ack(1, seq, 0))
    assert sender.backlog_bytes == sum(map(len, payloads[seq:]))
    assert sender.drained == (seq == len(payloads))


def test_an_acknowledgement_of_what_was_not_sent_is_refused():
    sender = filled([b"abc", b"def"])
    sender.next_chunk(2)
    with pytest.raises(LinkProtocolError, match="ACK of message 1, sent 0"):
        sender.acknowledge(Ack(1, 1, 0))
    sender.next_chunk(2)
    sender.acknowledge(Ack(1, 1, 0))
    assert sender.backlog_bytes == 3


def test_an_old_acknowledgement_changes_nothing():
    sender = filled([b"abc", b"def"])
    send_all(sender, 9)
    sender.acknowledge(Ack(1, 2, 100))
    sender.acknowledge(Ack(1, 1, 50))
    assert sender.drained


@pytest.mark.parametrize("position", [(3, 0), (0, 4), (2, 1), (2**63, 0)])
def test_a_peer_that_expects_what_was_never_sent_is_refused(position: tuple[int, int]):
    sender = filled([b"abc", b"def"])
    send_all(sender, 9)
    with pytest.raises(LinkProtocolError, match="the peer expects"):
        sender.rewind(Position(*position))


def test_a_position_below_the_acknowledged_is_merely_old():
    sender = filled([b"abc", b"def", b"ghi"])
    send_all(sender, 9)
    sender.acknowledge(Ack(1, 2, 0))
    sender.rewind(Position(0, 1))
    assert [chunk.seq for chunk in send_all(sender, 9)] == [2]


def test_a_finished_sender_takes_nothing_more():
    sender = filled([], end=True)
    assert sender.finished
    with pytest.raises(ValueError, match="finished"):
        sender.push(b"x", 0)


def test_what_the_user_could_have_seen_travels_with_each_message():
    sender = Sender(1)
    sender.push(b"a", 3)
    sender.push(b"b", 5)
    assert [chunk.seen for chunk in send_all(sender, 9)] == [3, 5]


# Credit


def test_credit_bounds_what_is_sent_and_an_acknowledgement_extends_it():
    sender = filled([bytes(CREDIT_WINDOW_BYTES), b"abc"])
    sent = send_all(sender, 1 << 30)
    assert sum(len(chunk.chunk) for chunk in sent) == CREDIT_WINDOW_BYTES
    assert not sender.ready
    sender.acknowledge(Ack(1, 1, CREDIT_WINDOW_BYTES + 2))
    assert [chunk.chunk for chunk in send_all(sender, 9)] == [b"ab"]
    sender.acknowledge(Ack(1, 1, CREDIT_WINDOW_BYTES + 3))
    assert [chunk.chunk for chunk in send_all(sender, 9)] == [b"c"]


def test_an_empty_message_needs_no_credit():
    sender = filled([bytes(CREDIT_WINDOW_BYTES), b""])
    assert [chunk.seq for chunk in send_all(sender, 1 << 30)] == [0, 1]


def test_credit_is_never_taken_back():
    sender = filled([bytes(CREDIT_WINDOW_BYTES + 10)])
    sender.acknowledge(Ack(1, 0, CREDIT_WINDOW_BYTES + 10))
    sender.acknowledge(Ack(1, 0, 5))
    assert sum(len(chunk.chunk) for chunk in send_all(sender, 1 << 30)) == CREDIT_WINDOW_BYTES + 10


def test_the_receiver_promises_what_was_consumed_plus_a_window():
    receiver = Receiver(1)
    take_all(receiver, send_all(filled([bytes(1000), bytes(500)]), 1 << 20))
    assert receiver.make_ack() == Ack(1, 0, CREDIT_WINDOW_BYTES)
    receiver.consume()
    assert receiver.ack_due
    assert receiver.make_ack() == Ack(1, 1, CREDIT_WINDOW_BYTES + 1000)
    receiver.consume()
    assert receiver.make_ack() == Ack(1, 2, CREDIT_WINDOW_BYTES + 1500)
    assert not receiver.ack_due


def test_an_unfinished_message_earns_credit_and_says_so_now_and_then():
    receiver = Receiver(1)
    quarter = CREDIT_WINDOW_BYTES // 4
    receiver.take(Data(1, 0, 0, 0, 0, bytes(quarter - 1)))
    assert not receiver.ack_due
    receiver.take(Data(1, 0, quarter - 1, 0, 0, b"x"))
    assert receiver.ack_due
    assert receiver.make_ack() == Ack(1, 0, CREDIT_WINDOW_BYTES + quarter)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=30), st.integers(1, 2000))
def test_with_a_consumer_credit_never_runs_out(sizes: list[int], limit: int):
    with (
        patch.object(sender_module, "CREDIT_WINDOW_BYTES", 2000),
        patch.object(receiver_module, "CREDIT_WINDOW_BYTES", 2000),
    ):
        sender, receiver = filled([bytes(size) for size in sizes]), Receiver(1)
        done = 0
        while not sender.drained:
            assert sender.ready or receiver.ack_due, "stuck"
            if sender.ready:
                fields, chunk = sender.next_chunk(limit)
                if receiver.take(fields._replace(chunk=bytes(chunk))) is not None:
                    receiver.consume()
                    done += 1
            if receiver.ack_due:
                sender.acknowledge(receiver.make_ack())
        assert done == len(sizes)


def test_ack_of_what_an_old_connection_brought_after_the_rewind_is_taken():
    """The peer said where to go on, and then took more from the connection before."""
    sender, receiver = Sender(1), Receiver(1)
    for number in range(5):
        sender.push(b"%d" % number * 10, 0)
    chunks = []
    for _ in range(4):
        fields, chunk = sender.next_chunk(100)
        chunks.append(fields._replace(chunk=bytes(chunk)))
    got = [receiver.take(chunk) for chunk in chunks[:1]]
    position = receiver.position
    got += [receiver.take(chunk) for chunk in chunks[1:3]]  # over the old connection
    sender.rewind(position)
    fields, chunk = sender.next_chunk(5)  # half of message 1 again
    assert receiver.take(fields._replace(chunk=bytes(chunk))) is None
    for _ in range(3):
        receiver.consume()
    sender.acknowledge(receiver.make_ack())
    assert sender.acked_seq == 3
    while sender.ready:
        fields, chunk = sender.next_chunk(100)
        got.append(receiver.take(fields._replace(chunk=bytes(chunk))))
    payloads = [message.payload for message in got if message is not None]
    assert payloads == [b"%d" % number * 10 for number in range(5)]
    with pytest.raises(LinkProtocolError):
        sender.acknowledge(Ack(1, 6, 0))
