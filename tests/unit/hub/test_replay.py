"""The pace of a replay, against what jupyter_server does with what it gets."""

from __future__ import annotations

import json
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshpyk.hub.replay import STALL_S, IopubLimits, ReplayPace
from sshpyk.wire import kernel_messages
from sshpyk.wire.jupyter_messages import DELIMITER, Signer
from sshpyk.wire.kernel_messages import IOPUB, SHELL

LIMITS = IopubLimits(1000, 1_000_000, 3)
SIGNER = Signer("key", "hmac-sha256")


def message(kind: str, content: dict[str, object], channel: int = IOPUB) -> bytes:
    return kernel_messages.pack(channel, SIGNER.message(kind, content, identities=[b"topic"]))


def text(size: int) -> bytes:
    return message("stream", {"name": "stdout", "text": "x" * size})


IDLE = message("status", {"execution_state": "idle"})


class JupyterServer:
    """``ZMQChannelsWebsocketConnection._limit_rate`` of jupyter_server 2.x, in short."""

    def __init__(self, limits: IopubLimits) -> None:
        self.limits = limits
        self.queue: deque[tuple[float, int]] = deque()
        self.dropped = 0

    def read(self, payload: bytes, now_s: float) -> None:
        _, views = kernel_messages.unpack(payload)
        parts = [bytes(view) for view in views]
        parts = parts[parts.index(DELIMITER) + 2 :]
        kind = json.loads(parts[0])["msg_type"]
        if kind == "status" and json.loads(parts[3])["execution_state"] == "idle":
            self.queue.clear()
        if kind in {"status", "comm_open", "execute_input"}:
            return
        while self.queue and now_s >= self.queue[0][0]:
            self.queue.popleft()
        size = sum(map(len, parts)) if kind == "stream" else 0
        self.queue.append((now_s + self.limits.rate_limit_window, size))
        window = self.limits.rate_limit_window
        messages = len(self.queue) / window
        bytes_ = sum(one for _, one in self.queue) / window
        if messages > self.limits.iopub_msg_rate_limit > 0:
            self.dropped += 1
        if bytes_ > self.limits.iopub_data_rate_limit > 0:
            self.dropped += 1


def replay(payloads: list[bytes], limits: IopubLimits, stalls: list[float] | None = None) -> float:
    """Pass all at the pace to a server that reads late now and then; return how long it took."""
    pace, server, now_s, reads_at_s = ReplayPace(limits), JupyterServer(limits), 100.0, 0.0
    stalls = stalls or [0.0]
    for number, payload in enumerate(payloads):
        while (delay_s := pace.delay_s(payload, now_s)) > 0:
            now_s += delay_s + 1e-9
        # One heap now and then, each after a stall of its own; in order.
        reads_at_s = max(reads_at_s, now_s + stalls[number % len(stalls)])
        server.read(payload, reads_at_s)
    assert server.dropped == 0
    return now_s - 100.0


def test_lines_are_replayed_below_both_limits_and_not_much_slower():
    taken_s = replay([text(1000)] * 8000, LIMITS)
    size = 8000 * sum(len(part) for part in kernel_messages.unpack(text(1000)).parts)
    assert 0.55 < size / taken_s / 1_000_000 < 0.95
    taken_s = replay([text(1)] * 5000, LIMITS)
    assert 550 < 5000 / taken_s < 950


def test_a_server_that_stalls_drops_nothing():
    stalls = [0.0] * 700 + [STALL_S - 0.05] + [0.0] * 300
    replay([text(1000)] * 8000, LIMITS, stalls)


def test_a_little_passes_at_once():
    assert replay([text(100)] * 20, LIMITS) < 0.1


def test_what_the_server_does_not_count_is_not_held():
    uncounted = [
        IDLE,
        message("execute_input", {"code": "1"}),
        message("comm_open", {}),
        message("execute_reply", {}, SHELL),
        kernel_messages.pack_exit(0),
        kernel_messages.pack(IOPUB, [b"no message at all"]),
    ]
    pace = ReplayPace(LIMITS)
    assert pace.delay_s(text(2_500_000), 1.0) == 0
    assert pace.delay_s(text(500_000), 1.0) > 0
    for payload in uncounted[1:-1]:
        assert pace.delay_s(payload, 1.0) == 0
    assert pace.delay_s(uncounted[0], 1.0) == 0


def test_displays_count_as_messages_and_not_as_bytes():
    display = message("display_data", {"data": {"image/png": "x" * 300_000}, "metadata": {}})
    assert replay([display] * 30, LIMITS) < 0.2


def test_one_that_exceeds_the_window_alone_passes_when_it_is_empty():
    pace = ReplayPace(LIMITS)
    assert pace.delay_s(text(10), 1.0) == 0
    assert pace.delay_s(text(9_000_000), 1.0) == pytest.approx(3 + STALL_S)
    assert pace.delay_s(text(9_000_000), 5.6) == 0


def test_no_limit_is_no_pace():
    assert replay([text(100_000)] * 100, IopubLimits(0, 0, 3)) == 0


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.one_of(st.integers(0, 2_000_000), st.none()), min_size=1, max_size=60),
    st.lists(st.floats(0, STALL_S - 0.05), min_size=1, max_size=9),
)
def test_any_mixture_is_replayed_without_a_drop(sizes: list[int | None], stalls: list[float]):
    replay([IDLE if size is None else text(size) for size in sizes], LIMITS, stalls)
