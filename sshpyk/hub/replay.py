"""How fast a backlog may be handed to a Jupyter server, which drops output that comes faster.

After an outage the link brings in a second what the kernel printed in minutes. A Jupyter server counts
what it sends to each browser and drops what exceeds its limits (jupyter_server 2.x,
``ZMQChannelsWebsocketConnection._limit_rate`` in services/kernels/connection/channels.py): by default
1000 iopub messages and 1 MB of ``stream`` messages a second, over a window of 3 s. ``status``,
``comm_open`` and ``execute_input`` do not count, and an idle status begins a new window. Live output is
never held back: it comes as fast as it would from a local kernel.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass

from sshpyk.wire import kernel_messages
from sshpyk.wire.jupyter_messages import DELIMITER
from sshpyk.wire.kernel_messages import IOPUB

# The server counts when it gets to read: what we spread it may find in a heap.
STALL_S = 1.5
SHARE = 0.95
_SMOOTH_S = 0.1  # how far apart messages may be bundled
_UNCOUNTED = ("status", "comm_open", "execute_input")


@dataclass(frozen=True)
class IopubLimits:
    """The server's settings of these names; a rate of 0 is none."""

    iopub_msg_rate_limit: float
    iopub_data_rate_limit: float
    rate_limit_window: float


class ReplayPace:
    """The pace for one kernel's backlog. No clock inside: ``now_s`` is passed in."""

    def __init__(self, limits: IopubLimits) -> None:
        self._window_s = limits.rate_limit_window + STALL_S
        self._max_messages = limits.iopub_msg_rate_limit * limits.rate_limit_window * SHARE
        self._max_bytes = limits.iopub_data_rate_limit * limits.rate_limit_window * SHARE
        self._passed: deque[tuple[float, int]] = deque()  # when, bytes that count
        self._passed_bytes = 0
        self._due_s = 0.0  # when what has passed would be through at an even pace

    def delay_s(self, payload: bytes, now_s: float) -> float:
        """Return 0 and count the message, if it may pass now; otherwise how long to wait."""
        channel, parts = kernel_messages.unpack(payload)
        if channel != IOPUB:
            return 0.0
        frames = [bytes(part) for part in parts]
        kind, is_idle = _kind(frames)
        if is_idle:
            self._passed.clear()
            self._passed_bytes = 0
        if kind in _UNCOUNTED:
            return 0.0
        size = _counted_bytes(frames) if kind == "stream" else 0
        wait_s = max(self._window_wait_s(size, now_s), self._due_s - now_s - _SMOOTH_S)
        if wait_s > 0:
            return wait_s
        self._passed.append((now_s, size))
        self._passed_bytes += size
        self._due_s = max(self._due_s, now_s) + self._even_s(size)
        return 0.0

    def _even_s(self, size_bytes: int) -> float:
        """How long a message takes at an even pace below both limits."""
        shares = [1 / self._max_messages] if self._max_messages > 0 else [0.0]
        if self._max_bytes > 0:
            shares.append(size_bytes / self._max_bytes)
        return self._window_s * max(shares)

    def _window_wait_s(self, size_bytes: int, now_s: float) -> float:
        """How long until the window has room; one that exceeds it alone waits until it is empty."""
        passed = self._passed
        while passed and passed[0][0] + self._window_s <= now_s:
            self._passed_bytes -= passed.popleft()[1]
        count, total = len(passed) + 1, self._passed_bytes + size_bytes
        for at_s, size in passed:
            if not self._exceeded(count, total):
                return 0.0
            count, total = count - 1, total - size
            if not self._exceeded(count, total) or count == 1:
                return at_s + self._window_s - now_s
        return 0.0

    def _exceeded(self, count: int, size_bytes: int) -> bool:
        too_many = 0 < self._max_messages < count
        return too_many or 0 < self._max_bytes < size_bytes


def _kind(frames: list[bytes]) -> tuple[str, bool]:
    """Return the message's type, and whether it says that the kernel is idle."""
    try:
        start = frames.index(DELIMITER)
        kind = str(json.loads(frames[start + 2])["msg_type"])
        is_idle = kind == "status" and json.loads(frames[start + 5])["execution_state"] == "idle"
    except (ValueError, LookupError, TypeError):
        return "", False
    return kind, is_idle


def _counted_bytes(frames: list[bytes]) -> int:
    return sum(len(frame) for frame in frames[frames.index(DELIMITER) + 2 :])
