"""Frames: what is written is read, however it was cut; what breaks a rule is refused."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshpyk.link import frames
from sshpyk.link.frames import (
    Ack,
    Bye,
    Data,
    FrameReader,
    Hello,
    LinkProtocolError,
    Ping,
    Pong,
    Progress,
)

u8, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 32, 64))
positions = st.dictionaries(u32, st.tuples(u64, u64, u64), max_size=5)
hellos = st.builds(
    Hello,
    st.text(min_size=1, max_size=64),
    u64,
    st.booleans(),
    st.lists(u32, max_size=4).map(tuple),
    positions,
    positions,
)
datas = st.builds(Data, u32, u64, u64, u64, u8, st.binary(max_size=500))
any_frame = st.one_of(
    hellos,
    datas,
    st.builds(Ack, u32, u64, u64),
    st.builds(Progress, u64),
    st.builds(Ping, u64),
    st.builds(Pong, u64),
    st.builds(Bye, st.text(max_size=100)),
)


def encode(frame: frames.Frame) -> bytes:
    if isinstance(frame, Hello):
        return frames.encode_hello(frame)
    if isinstance(frame, Data):
        return frames.encode_data_header(frame, len(frame.chunk)) + frame.chunk
    if isinstance(frame, Ack):
        return frames.encode_ack(frame)
    if isinstance(frame, Bye):
        return frames.encode_bye(frame.reason)
    if isinstance(frame, Progress):
        return frames.encode_progress(frame.received_bytes)
    return (frames.encode_ping if isinstance(frame, Ping) else frames.encode_pong)(frame.token)


@settings(deadline=None)
@given(st.lists(any_frame, max_size=6), st.lists(st.integers(1, 200), min_size=1))
def test_frames_arrive_as_they_were_written_however_the_bytes_are_cut(
    written: list[frames.Frame], sizes: list[int]
):
    data = b"".join(map(encode, written))
    reader = FrameReader()
    read: list[frames.Frame] = []
    place = 0
    while data:
        size = sizes[place % len(sizes)]
        read += reader.feed(data[:size])
        data = data[size:]
        place += 1
    assert read == written


def test_frames_are_laid_out_as_the_protocol_says():
    assert frames.encode_ping(7) == bytes.fromhex("05 00000008 0000000000000007")
    assert frames.encode_pong(7)[:1] == b"\x06"
    assert frames.encode_progress(258) == bytes.fromhex("04 00000008 0000000000000102")
    ack = frames.encode_ack(Ack(1, 2, 3))
    assert ack == bytes.fromhex("03 00000014 00000001 0000000000000002 0000000000000003")
    header = frames.encode_data_header(Data(1, 2, 3, 4, 1, b""), 5)
    numbers = "00000001 0000000000000002 0000000000000003 0000000000000004 01"
    assert header == bytes.fromhex("02 00000022" + numbers)
    assert frames.encode_bye("é") == b"\x07\0\0\0\x02" + "é".encode()


BODY_SIZES = {
    "HELLO": (1, 2, 1024 * 1024),
    "DATA": (2, 29, 29 + 64 * 1024),
    "ACK": (3, 20, 20),
    "PROGRESS": (4, 8, 8),
    "PING": (5, 8, 8),
    "PONG": (6, 8, 8),
    "BYE": (7, 0, 4096),
}


@pytest.mark.parametrize("name", BODY_SIZES)
def test_sizes_beyond_the_caps_are_refused_by_the_header_alone(name: str):
    kind, smallest, largest = BODY_SIZES[name]
    for size in (largest + 1, 2**32 - 1, *([smallest - 1] if smallest else [])):
        with pytest.raises(LinkProtocolError, match=f"{name} frame of {size} bytes"):
            FrameReader().feed(struct.pack(">BI", kind, size))
    for size in {smallest, largest} - {0}:
        assert FrameReader().feed(struct.pack(">BI", kind, size)) == []


@pytest.mark.parametrize("kind", [0, 8, 255])
def test_unknown_types_are_refused(kind: int):
    with pytest.raises(LinkProtocolError, match=f"unknown frame type {kind}"):
        FrameReader().feed(struct.pack(">BI", kind, 0))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_junk_raises_nothing_but_a_protocol_error(junk: bytes):
    with contextlib.suppress(LinkProtocolError):
        FrameReader().feed(junk)


GOOD: dict[str, Any] = {
    "link_id": "ab",
    "epoch": 1,
    "resumed": False,
    "restarted": False,
    "versions": [1],
    "streams": {"1": [2, 3, 5]},
    "over": {},
}


def hello_frame(body: bytes) -> bytes:
    return struct.pack(">BI", frames.HELLO, len(body)) + body


def test_the_good_hello_is_good():
    (hello,) = FrameReader().feed(hello_frame(json.dumps(GOOD).encode()))
    assert hello == Hello("ab", 1, False, (1,), {1: (2, 3, 5)}, {})


def test_a_later_versions_additions_are_skipped():
    (hello,) = FrameReader().feed(hello_frame(json.dumps({**GOOD, "new": [1]}).encode()))
    assert isinstance(hello, Hello)


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b"null", b"12", b'"text"', b"not json", b"\xff\xfe", b"[" * 100_000, b"{" * 9],
    ids=lambda body: repr(body[:12]),
)
def test_a_hello_that_is_no_object_is_refused(body: bytes):
    with pytest.raises(LinkProtocolError, match="malformed HELLO"):
        FrameReader().feed(hello_frame(body))


@pytest.mark.parametrize("missing", GOOD)
def test_a_hello_with_a_member_missing_is_refused(missing: str):
    record = {key: value for key, value in GOOD.items() if key != missing}
    with pytest.raises(LinkProtocolError, match="malformed HELLO"):
        FrameReader().feed(hello_frame(json.dumps(record).encode()))


@pytest.mark.parametrize(
    "change",
    [
        {"link_id": ""},
        {"link_id": "x" * 65},
        {"link_id": 7},
        {"link_id": None},
        {"epoch": -1},
        {"epoch": 1.0},
        {"epoch": "1"},
        {"epoch": True},
        {"epoch": 2**64},
        {"epoch": None},
        {"resumed": 1},
        {"resumed": "no"},
        {"restarted": 0},
        {"versions": 1},
        {"versions": ["1"]},
        {"versions": [True]},
        {"versions": [-1]},
        {"streams": []},
        {"streams": {"x": [0, 0, 0]}},
        {"streams": {"-1": [0, 0, 0]}},
        {"streams": {"1": [0, 0]}},
        {"streams": {"1": [0, 0, 0, 0]}},
        {"streams": {"1": 0}},
        {"streams": {"1": None}},
        {"streams": {"1": ["0", 0, 0]}},
        {"streams": {"1": [0, 0, -1]}},
        {"streams": {"1": [2**64, 0, 0]}},
        {"streams": {"1": [0.5, 0, 0]}},
        {"over": None},
        {"over": {"1": "ab"}},
    ],
    ids=repr,
)
def test_a_hello_with_a_wrong_value_is_refused(change: dict[str, Any]):
    with pytest.raises(LinkProtocolError, match="malformed HELLO"):
        FrameReader().feed(hello_frame(json.dumps({**GOOD, **change}).encode()))


def test_numbers_too_long_for_python_are_refused():
    body = json.dumps(GOOD).replace('"epoch": 1', '"epoch": ' + "9" * 5000)
    with pytest.raises(LinkProtocolError, match="malformed HELLO"):
        FrameReader().feed(hello_frame(body.encode()))


def test_a_hello_in_another_encoding_is_refused():
    with pytest.raises(LinkProtocolError, match="malformed HELLO"):
        FrameReader().feed(hello_frame(json.dumps(GOOD).encode("utf-16")))


def test_frames_before_a_malformed_one_in_the_same_read_are_not_lost_to_the_connection():
    """The reader raises; the bytes of the connection's last read are the price."""
    reader = FrameReader()
    assert reader.feed(frames.encode_ping(1)) == [Ping(1)]
    with pytest.raises(LinkProtocolError):
        reader.feed(frames.encode_ping(2) + b"\xff" * 5)


@pytest.mark.parametrize("reason", ["x" * 10_000, "é" * 4000])
def test_a_long_reason_is_cut_to_what_the_peer_accepts(reason: str):
    (bye,) = FrameReader().feed(frames.encode_bye(reason))
    assert isinstance(bye, Bye)
    assert bye.reason[:100] == reason[:100]


def test_a_chunk_is_a_copy_that_outlives_the_readers_buffer():
    reader = FrameReader()
    data = Data(1, 0, 0, 0, 0, b"abc")
    (first,) = reader.feed(encode(data))
    reader.feed(encode(data._replace(chunk=b"xyz")))
    assert isinstance(first, Data)
    assert type(first.chunk) is bytes
    assert first.chunk == b"abc"
