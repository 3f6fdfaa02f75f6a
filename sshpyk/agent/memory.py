"""What the host tells everybody about its memory."""

from __future__ import annotations

_VMSTAT = "/proc/vmstat"  # since Linux 4.13; it counts for control groups (containers, jobs) too


def oom_kills() -> int | None:
    """Return how many processes the out-of-memory killer has ended since boot; None: not told."""
    try:
        with open(_VMSTAT) as file:
            counts = dict(line.split() for line in file)
        return int(counts["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None
