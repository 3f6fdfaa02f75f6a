"""The clock of everything that waits for the other end: it counts the time that a laptop sleeps."""

from __future__ import annotations

import time

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def now_s() -> float:
    """Return seconds that never jump with the wall clock and go on during suspend where possible."""
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)
