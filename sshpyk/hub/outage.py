"""Tells people when the link has been away for longer than a moment, and when it is back.

The hub says it once each way, to whoever cares for a kernel of this host. A break that ends within
:data:`NOTICE_AFTER_S` is nobody's business but the log's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sshpyk.errors import SshpykError
from sshpyk.wire.clock import now_s

NOTICE_AFTER_S = 3.0


class Outage:
    """The link's absences, one after the other. ``say`` gets the sentences."""

    def __init__(self, host: str, say: Callable[[str], None]) -> None:
        self.reason = ""  # why there is no connection, in ssh's or our words
        self._host = host
        self._say = say
        self._since_s: float | None = None
        self._said = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def duration_s(self) -> float | None:
        """For how long the link has been away; None while it is there."""
        return None if self._since_s is None else now_s() - self._since_s

    def begin(self, reason: str, silent_s: float = 0.0) -> None:
        """Note that the connection is lost, or has been silent for ``silent_s``."""
        self.reason = reason
        if self._since_s is None:
            self._since_s = now_s() - silent_s
            patience_s = max(0.0, NOTICE_AFTER_S - silent_s)
            self._timer = asyncio.get_running_loop().call_later(patience_s, self._tell)

    def go_on(self, error: SshpykError) -> None:
        """Note why a dial failed; an outage for a person to end is told at once."""
        said = error.said.strip().splitlines()
        self.reason = f"{error.what}: {said[-1].strip()}" if said else error.what
        if self._since_s is not None and not error.retryable:
            self._stop_timer()
            self._said = True
            text = f"the connection is down, and needs you: {self.reason}. {error.advice}".strip()
            self._say(f"{self._host}: {text.rstrip('.')}. Its kernels run on and keep their output")

    def end(self) -> float | None:
        """Note that the link is up; return how long it was away if that had been told."""
        duration_s = self.duration_s if self._said else None
        self._stop_timer()
        self._since_s, self._said, self.reason = None, False, ""
        return duration_s

    def tell_end(self, duration_s: float, messages: int, size_bytes: int) -> None:
        """Say that the link is back, and what waited on the host meanwhile."""
        waited = f"{messages:,} messages ({readable_size(size_bytes)}) that waited there follow"
        self._say(f"{self._host}: connected again after {duration_s:.0f} s; {waited}")

    def _tell(self) -> None:
        self._timer = None
        self._said = True
        self._say(
            f"{self._host}: the connection is down ({self.reason}). Its kernels run on and keep their "
            "output; connecting again until it succeeds"
        )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def readable_size(size_bytes: float) -> str:
    """Return a size in the unit that suits it: ``999 B``, ``1.2 kB``, ``34.0 MB``."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    for unit in ("kB", "MB"):
        size_bytes /= 1000
        if size_bytes < 1000:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1000:.1f} GB"
