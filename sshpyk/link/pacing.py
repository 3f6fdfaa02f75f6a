"""How much of a connection may be under way: enough to fill the line, not enough to queue up in it.

ssh and the sockets below it would buffer megabytes, which on a slow line is minutes of queue in front
of an interrupt. The peer reports the DATA bytes that it has received (PROGRESS). Each report tells two
things of the bytes it covers, as BBR does it (https://doi.org/10.1145/3012426.3022184):

- the delivery rate: what was delivered between the last report before they were sent and this one.
  Measured over a round trip at least, so bursts do not count; the highest of the last seconds holds,
  and a lower one replaces it only if the window was full, else there was just not more to send.
- the round trip: the least holds, because the rest is queue. A transfer that never pauses has a queue
  of our own making in every sample; so now and then the window shrinks for a moment to look below it.

The window is what that rate carries in that round trip plus half a second. It starts small; as long as
the line is not full each round trip shows a higher rate than the one before. It becomes smaller only
where it was full: else the next output after a quiet hour would take a round trip for each few kilobytes.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from sshpyk.link.frames import MAX_CHUNK_BYTES

PROGRESS_EVERY_BYTES = 2 * 1024
FIRST_WINDOW_BYTES = 16 * 1024
MIN_WINDOW_BYTES = 2 * PROGRESS_EVERY_BYTES  # less, and we would wait for a report of less
MAX_WINDOW_BYTES = 16 * 1024 * 1024
MIN_CHUNK_BYTES = 1024
QUEUE_S = 0.5
CHUNK_S = 0.05
MIN_PORTION_BYTES = 64 * 1024
MAX_PORTION_BYTES = 256 * 1024
RATE_MEMORY_S = 1.0
ROUND_TRIP_MEMORY_S = 10.0
_SHORTEST_S = 1e-4  # of a sample: the two ends may be one machine


class _Mark(NamedTuple):
    """Bytes up to ``position``, and what had been delivered when they were sent."""

    position: int
    sent_s: float
    delivered_bytes: int
    delivered_s: float


class Pacing:
    """The window of one connection, for DATA bytes that the peer has not reported yet."""

    def __init__(self, first_window_bytes: int = FIRST_WINDOW_BYTES) -> None:
        self.window_bytes = first_window_bytes
        self.chunk_bytes = max(MIN_CHUNK_BYTES, first_window_bytes // 8)
        self.portion_bytes = MIN_PORTION_BYTES  # to write at once
        self._sent_bytes = 0
        self._reported_bytes = 0
        self._full_at_bytes = 0  # what had been sent when the window was full last
        self._marks: deque[_Mark] = deque()
        self._delivered_bytes = 0
        self._delivered_s = 0.0
        self._rates = (0.0, 0.0)  # highest of the last and of this period
        self._rates_since_s = 0.0
        self._rtt_s = 0.0
        self._rtt_since_s = 0.0
        self._below: int | None = (
            None  # while looking below the queue: samples sent after this count
        )
        self._shrunk = False

    @property
    def room_bytes(self) -> int:
        """How many bytes may be sent now."""
        return self.window_bytes - self._sent_bytes + self._reported_bytes

    def sent(self, size_bytes: int, now_s: float) -> None:
        """Note DATA bytes given to the connection."""
        if not size_bytes:
            return
        under_way_bytes = self._sent_bytes - self._reported_bytes
        if under_way_bytes < PROGRESS_EVERY_BYTES:
            # Idle until now: that time says nothing about the line.
            self._delivered_bytes, self._delivered_s = self._sent_bytes, now_s
        self._sent_bytes += size_bytes
        mark = _Mark(self._sent_bytes, now_s, self._delivered_bytes, self._delivered_s)
        self._marks.append(mark)
        if under_way_bytes + size_bytes >= self.window_bytes:
            self._full_at_bytes = self._sent_bytes

    def measured_round_trip(self, rtt_s: float) -> None:
        """Note the time that a PING took."""
        self._rtt_s = min(self._rtt_s or rtt_s, rtt_s)

    def reported(self, received_bytes: int, now_s: float) -> bool:
        """Note a PROGRESS report; return False if it claims more than was sent."""
        if not self._reported_bytes <= received_bytes <= self._sent_bytes:
            return False
        self._reported_bytes = received_bytes
        mark = None
        while self._marks and self._marks[0].position <= received_bytes:
            mark = self._marks.popleft()
        if mark is not None:
            self._learn(mark, now_s)
        self._delivered_bytes = max(self._delivered_bytes, received_bytes)
        self._delivered_s = now_s
        return True

    def _learn(self, mark: _Mark, now_s: float) -> None:
        was_full = mark.position <= self._full_at_bytes
        elapsed_s = max(now_s - mark.delivered_s, _SHORTEST_S)
        rate = (self._reported_bytes - mark.delivered_bytes) / elapsed_s
        self._note_rate(rate, now_s, was_full=was_full)
        self._note_round_trip(mark, now_s, was_full=was_full)
        rate = max(self._rates)
        wanted = rate * self._rtt_s / 2 if self._shrunk else rate * (self._rtt_s + QUEUE_S)
        if wanted < self.window_bytes and not (was_full or self._shrunk):
            return  # a few small messages say nothing about what the line can carry
        self.window_bytes = int(min(max(wanted, MIN_WINDOW_BYTES), MAX_WINDOW_BYTES))
        chunk_bytes = int(rate * CHUNK_S)
        self.chunk_bytes = min(max(chunk_bytes, MIN_CHUNK_BYTES), MAX_CHUNK_BYTES)
        self.portion_bytes = min(max(chunk_bytes, MIN_PORTION_BYTES), MAX_PORTION_BYTES)

    def _note_rate(self, rate: float, now_s: float, *, was_full: bool) -> None:
        last, highest = self._rates
        if rate < max(last, highest) and not was_full:
            return
        if now_s - self._rates_since_s > max(RATE_MEMORY_S, 2 * self._rtt_s):
            last, highest = highest, 0.0
            self._rates_since_s = now_s
        self._rates = (last, max(highest, rate))

    def _note_round_trip(self, mark: _Mark, now_s: float, *, was_full: bool) -> None:
        rtt_s = max(now_s - mark.sent_s, _SHORTEST_S)
        if not self._rtt_s or rtt_s <= self._rtt_s:
            self._rtt_s, self._rtt_since_s = rtt_s, now_s
            self._shrunk = False
        elif not self._shrunk:
            if was_full and now_s - self._rtt_since_s > ROUND_TRIP_MEMORY_S:
                self._shrunk, self._below = True, None
        elif self._below is None:
            if self.room_bytes > 0:
                self._below = self._sent_bytes
        elif mark.position > self._below:
            self._rtt_s, self._rtt_since_s = rtt_s, now_s
            self._shrunk = False
