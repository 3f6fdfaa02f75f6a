from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshpyk.wire.kernel_messages import CONTROL, EXITED, SHELL, pack, pack_exit, unpack

parts_of_any_kind = st.lists(st.binary(max_size=300), max_size=20)


@settings(deadline=None)
@given(st.integers(SHELL, EXITED), parts_of_any_kind)
def test_unpack_returns_what_was_packed(channel: int, parts: list[bytes]):
    assert unpack(pack(channel, [memoryview(part) for part in parts])) == (channel, parts)
    assert unpack(pack(channel, parts)) == (channel, parts)


@settings(deadline=None)
@given(st.integers(SHELL, EXITED), parts_of_any_kind, st.data())
def test_any_truncation_is_refused(channel: int, parts: list[bytes], data: st.DataObject):
    payload = pack(channel, parts)
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(ValueError):
        unpack(payload[:cut])


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_junk_is_refused_or_says_what_it_holds(junk: bytes):
    try:
        channel, parts = unpack(junk)
    except ValueError:
        return
    assert pack(channel, parts) == junk


def test_bytes_behind_the_last_part_are_refused():
    with pytest.raises(ValueError, match="malformed"):
        unpack(pack(SHELL, [b"x"]) + b"y")


def test_sizes_that_overflow_are_refused():
    with pytest.raises(ValueError, match="malformed"):
        unpack(b"\x00\x00\x02" + b"\xff" * 16 + b"x")


def test_unknown_channel_is_refused():
    with pytest.raises(ValueError, match="malformed"):
        unpack(bytes([EXITED + 1]) + pack(SHELL, [])[1:])


def test_parts_share_the_memory_of_the_payload():
    payload = pack(CONTROL, [b"a" * 100])
    assert unpack(payload).parts[0].obj is payload


@pytest.mark.parametrize("status", [0, 1, -9, 255])
def test_exit_status_round_trips(status: int):
    channel, parts = unpack(pack_exit(status))
    assert channel == EXITED
    assert int(bytes(parts[0])) == status
