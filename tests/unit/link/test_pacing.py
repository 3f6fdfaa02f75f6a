"""How much is under way, on simulated lines with a clock of their own."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshpyk.link.connection import Connection, Event, HelloReceived
from sshpyk.link.frames import MAX_CHUNK_BYTES
from sshpyk.link.link import Link
from sshpyk.link.pacing import (
    FIRST_WINDOW_BYTES,
    MAX_WINDOW_BYTES,
    MIN_CHUNK_BYTES,
    MIN_WINDOW_BYTES,
    PROGRESS_EVERY_BYTES,
    Pacing,
)
from sshpyk.link.stream import Message
from tests.unit.link.pair import Pair

BULK, URGENT = 1, 3
SSH_BUFFERS_BYTES = 4 * 1024 * 1024  # ssh's channel window, and the sockets below it
PORTION_BYTES = 64 * 1024


class OneWay:
    """Bytes in one direction: a queue that drains at the line's rate, then the way itself."""

    def __init__(self, rate: float, delay_s: float) -> None:
        self.rate = rate
        self.delay_s = delay_s
        self.queue = bytearray()
        self._budget = 0.0
        self._under_way: deque[tuple[float, bytes]] = deque()

    @property
    def has_room(self) -> bool:
        return len(self.queue) < SSH_BUFFERS_BYTES

    def move(self, now_s: float, step_s: float) -> bytes:
        """Let time pass; return what arrives."""
        self._budget = min(self._budget + self.rate * step_s, self.rate * step_s * 2)
        size = min(int(self._budget), len(self.queue))
        if size:
            self._budget -= size
            self._under_way.append((now_s + self.delay_s, bytes(self.queue[:size])))
            del self.queue[:size]
        arrived = b""
        while self._under_way and self._under_way[0][0] <= now_s:
            arrived += self._under_way.popleft()[1]
        return arrived


class Line:
    """A sender of bulk and a receiver, over a line with a rate and a round trip time."""

    def __init__(self, rate: float, rtt_s: float, step_s: float) -> None:
        self.now_s = 0.0
        self.step_s = step_s
        self.there = OneWay(rate, rtt_s / 2)
        self.back = OneWay(rate, rtt_s / 2)
        self.link, self.peer_link = Link("ab" * 16), Link("ab" * 16)
        self.link.open(BULK)
        self.link.open(URGENT, urgent=True)
        self.sender = Connection.initiate(self.link, 1)
        self.receiver = Connection.accept()
        self.received_bytes = 0
        self.arrivals: list[tuple[float, bytes]] = []  # of urgent messages
        self.queued: list[int] = []  # bytes in front of an urgent message, each step
        self.bulk = True
        self._next_tick_s = 1.0

    def pass_time(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self._step()

    def _step(self) -> None:
        self.now_s += self.step_s
        if self.bulk and self.link.backlog_bytes(BULK) < 16_000_000:
            self.link.send(BULK, bytes(1_000_000))
        self._flush(self.sender, self.there)
        self._flush(self.receiver, self.back)
        self.queued.append(len(self.there.queue))
        arrived = self.there.move(self.now_s, self.step_s)
        if arrived:
            self._act(self.receiver.receive_data(arrived, self.now_s))
        returned = self.back.move(self.now_s, self.step_s)
        if returned:
            self.sender.receive_data(returned, self.now_s)
        if self.now_s >= self._next_tick_s:
            self._next_tick_s += 1
            assert not self.sender.tick(self.now_s), "a busy line is no dead one"
            assert not self.receiver.tick(self.now_s)

    def _flush(self, end: Connection, way: OneWay) -> None:
        while way.has_room:
            portion = end.data_to_send(PORTION_BYTES, self.now_s)
            if not portion:
                return
            for buffer in portion:
                way.queue += buffer

    def _act(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, HelloReceived):
                self._act(self.receiver.answer(self.peer_link, event.hello))
            elif isinstance(event, Message):
                self.peer_link.consumed(event.stream)
                if event.stream == URGENT:
                    self.arrivals.append((self.now_s, event.payload))
                else:
                    self.received_bytes += len(event.payload)

    def urgent_latency_s(self) -> float:
        """Send an urgent message behind all that is under way; return how long it takes."""
        sent_s = self.now_s
        before = len(self.arrivals)
        self.link.send(URGENT, b"interrupt")
        while len(self.arrivals) == before:
            self._step()
            assert self.now_s - sent_s < 60, "it never came"
        return self.arrivals[-1][0] - sent_s

    @property
    def window_bytes(self) -> int:
        return self.sender._pacing.window_bytes

    def throughput(self, seconds: float) -> float:
        """Return the part of the line that bulk fills."""
        begun = self.receiver._received_bytes
        began_s = self.now_s
        self.pass_time(seconds)
        return (self.receiver._received_bytes - begun) / (self.now_s - began_s) / self.there.rate


# rate, round trip, step of the simulation, seconds to converge, seconds to look at
LINES = {
    "10 KB/s": (1e4, 0.05, 0.01, 30, 60),
    "10 KB/s over a satellite": (1e4, 0.6, 0.01, 30, 60),
    "100 KB/s": (1e5, 0.05, 0.005, 10, 20),
    "1 MB/s at 100 ms": (1e6, 0.1, 0.002, 3, 12),
    "1 MB/s over a satellite": (1e6, 0.6, 0.002, 8, 15),
    "10 MB/s at 200 ms": (1e7, 0.2, 0.002, 3, 3),
    "100 MB/s": (1e8, 0.001, 0.0005, 0.5, 0.5),
    "100 MB/s at 40 ms": (1e8, 0.04, 0.001, 1, 0.5),
}


@pytest.mark.parametrize(
    ("rate", "rtt_s", "step_s", "warm_s", "look_s"), LINES.values(), ids=list(LINES)
)
def test_bulk_fills_the_line_and_an_urgent_message_passes_soon(
    rate: float, rtt_s: float, step_s: float, warm_s: float, look_s: float
):
    line = Line(rate, rtt_s, step_s)
    line.pass_time(warm_s)
    line.queued.clear()
    assert line.throughput(look_s) > 0.85
    assert line.window_bytes < 2 * rate * (rtt_s + 0.5)
    latencies = []
    for _ in range(6):
        line.pass_time(look_s / 30)
        latencies.append(line.urgent_latency_s())
    assert sum(latencies) / 6 < rtt_s / 2 + 0.9
    assert max(latencies) < rtt_s / 2 + 1.2
    assert sum(line.queued) / len(line.queued) / rate < 0.9


def test_the_first_urgent_message_on_a_slow_line_waits_two_seconds_at_most():
    line = Line(1e4, 0.05, 0.01)
    line.pass_time(0.5)
    assert line.urgent_latency_s() < 2


def test_a_line_that_slows_down_is_noticed_and_so_is_its_recovery():
    line = Line(1e6, 0.05, 0.002)
    line.pass_time(4)
    line.there.rate = 5e4
    line.pass_time(25)  # the queue that the faster line had is gone
    assert line.throughput(5) > 0.9
    assert len(line.there.queue) / line.there.rate < 0.9
    line.there.rate = 1e6
    line.pass_time(4)
    assert line.throughput(4) > 0.9


def test_a_way_that_becomes_longer_is_filled_again():
    line = Line(1e6, 0.02, 0.002)
    line.pass_time(4)
    line.there.delay_s = line.back.delay_s = 0.4
    line.pass_time(15)
    assert line.throughput(10) > 0.8
    assert line.urgent_latency_s() < 1.6


def test_the_queue_does_not_grow_during_a_long_transfer():
    line = Line(2e5, 0.05, 0.005)
    for _ in range(8):
        line.pass_time(12)
        assert len(line.there.queue) / line.there.rate < 0.9


def test_a_pause_says_nothing_about_the_line():
    line = Line(1e6, 0.05, 0.002)
    line.pass_time(4)
    window_bytes = line.window_bytes
    line.bulk = False
    line.pass_time(30)
    for _ in range(50):  # a little every now and then, as a person works
        line.link.send(BULK, bytes(3000))
        line.pass_time(0.3)
    assert line.window_bytes > window_bytes / 2
    line.bulk = True
    line.pass_time(0.5)
    assert line.throughput(2) > 0.85


def test_small_messages_now_and_then_leave_room_for_the_next_output():
    pacing, sent = Pacing(), 0
    for second in range(60):
        pacing.sent(PROGRESS_EVERY_BYTES, float(second))
        sent += PROGRESS_EVERY_BYTES
        assert pacing.reported(sent, second + 0.1)
    assert pacing.window_bytes >= FIRST_WINDOW_BYTES
    assert pacing.room_bytes == pacing.window_bytes


def test_many_small_messages_fill_a_line_too():
    line = Line(1e6, 0.05, 0.002)
    line.bulk = False
    for _ in range(40_000):
        line.link.send(BULK, bytes(200))
    line.pass_time(1)
    assert line.throughput(4) > 0.75  # the rest is headers


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 70_000), st.floats(0, 5), st.floats(0, 1)), max_size=60),
)
def test_the_window_keeps_its_bounds_whatever_is_reported(steps: list[tuple[int, float, float]]):
    pacing = Pacing()
    now_s = sent = reported = 0.0
    for size, pause_s, part in steps:
        now_s += pause_s
        pacing.sent(size, now_s)
        sent += size
        reported += int((sent - reported) * part)
        assert pacing.reported(int(reported), now_s)
        assert MIN_WINDOW_BYTES <= pacing.window_bytes <= MAX_WINDOW_BYTES
        assert MIN_CHUNK_BYTES <= pacing.chunk_bytes <= MAX_CHUNK_BYTES
        assert pacing.room_bytes == pacing.window_bytes - (sent - reported)


def test_a_report_of_more_than_was_sent_or_of_less_than_before_is_refused():
    pacing = Pacing()
    pacing.sent(1000, 0.0)
    assert not pacing.reported(1001, 0.1)
    assert pacing.reported(600, 0.1)
    assert not pacing.reported(599, 0.2)
    assert pacing.reported(1000, 0.2)


def test_the_window_never_waits_for_a_report_that_is_not_due():
    assert MIN_WINDOW_BYTES >= PROGRESS_EVERY_BYTES + MIN_CHUNK_BYTES


def test_the_next_connection_begins_no_faster_than_a_slow_line_was_and_learns_a_fast_one_anew():
    pair = Pair()
    pair.connect()
    pair.settle()
    assert pair.hub.link.pacing is not None
    pair.hub.link.pacing.window_bytes = 5_000
    assert pair.agent.link.pacing is not None
    pair.agent.link.pacing.window_bytes = 9_000_000
    pair.connect()
    pair.settle()
    assert pair.hub.link.pacing.window_bytes == 5_000
    assert pair.agent.link.pacing.window_bytes == FIRST_WINDOW_BYTES
