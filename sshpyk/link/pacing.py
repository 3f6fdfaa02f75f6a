"""How much of a connection may be under way: enough to fill the line, not enough to queue up in it.

ssh and the sockets below it would buffer megabytes, which on a slow line is minutes of queue in front
of an interrupt. The peer reports the DATA bytes that it has received (PROGRESS); from these reports
comes the delivery rate, and the window is what that rate carries in one round trip plus half a
second. It starts small and grows with every report that shows the line can do more.
"""

from __future__ import annotations

from sshpyk.link.frames import MAX_CHUNK_BYTES

FIRST_WINDOW_BYTES = 64 * 1024
MIN_WINDOW_BYTES = 16 * 1024
MAX_WINDOW_BYTES = 16 * 1024 * 1024
MIN_CHUNK_BYTES = 2 * 1024
QUEUE_S = 0.5
CHUNK_S = 0.05
_SAMPLE_S = 0.05
_RATE_DECAY = 0.8

PROGRESS_EVERY_BYTES = 8 * 1024


class Pacing:
    """The window of one connection, for DATA bytes that the peer has not reported yet."""

    def __init__(self) -> None:
        self.window_bytes = FIRST_WINDOW_BYTES
        self.chunk_bytes = FIRST_WINDOW_BYTES // 8
        self._sent_bytes = 0
        self._reported_bytes = 0
        self._rtt_s = 0.0
        self._rate = 0.0
        self._sample_began_s = 0.0
        self._sample_bytes = 0
        self._was_full = False

    @property
    def room_bytes(self) -> int:
        """How many bytes may be sent now."""
        return self.window_bytes - (self._sent_bytes - self._reported_bytes)

    def sent(self, size_bytes: int, now_s: float) -> None:
        """Note DATA bytes given to the connection."""
        if self._sent_bytes - self._reported_bytes < 2 * PROGRESS_EVERY_BYTES:
            self._begin_sample(now_s)  # idle until now: that time says nothing about the line
        self._sent_bytes += size_bytes
        self._was_full = self._was_full or self.room_bytes <= 0

    def measured_round_trip(self, rtt_s: float) -> None:
        """Note the time that a PING took; the least is the line's own."""
        self._rtt_s = min(self._rtt_s or rtt_s, rtt_s)

    def reported(self, received_bytes: int, now_s: float) -> bool:
        """Note a PROGRESS report; return False if it claims more than was sent."""
        if not self._reported_bytes <= received_bytes <= self._sent_bytes:
            return False
        self._sample_bytes += received_bytes - self._reported_bytes
        self._reported_bytes = received_bytes
        elapsed_s = now_s - self._sample_began_s
        if elapsed_s >= _SAMPLE_S:
            self._update_rate(self._sample_bytes / elapsed_s)
            self._begin_sample(now_s)
        elif self._was_full and self._sample_bytes >= self.window_bytes:
            self._was_full = False
            self._set_window(self.window_bytes * 2)  # a whole window in less than a sample
            self._begin_sample(now_s)
        return True

    def _begin_sample(self, now_s: float) -> None:
        self._sample_began_s = now_s
        self._sample_bytes = 0

    def _update_rate(self, rate: float) -> None:
        if rate >= self._rate:
            self._rate = rate
        elif self._was_full:  # a slow sample says something only if we had enough to send
            self._rate = max(rate, self._rate * _RATE_DECAY)
        else:
            return
        self._was_full = False
        self._set_window(int(self._rate * (self._rtt_s + QUEUE_S)))

    def _set_window(self, size_bytes: int) -> None:
        self.window_bytes = min(max(size_bytes, MIN_WINDOW_BYTES), MAX_WINDOW_BYTES)
        chunk_bytes = int(self.window_bytes * CHUNK_S / QUEUE_S)
        self.chunk_bytes = min(max(chunk_bytes, MIN_CHUNK_BYTES), MAX_CHUNK_BYTES)
