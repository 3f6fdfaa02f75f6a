"""When to dial: the one task that connects until a connection carries the link, or a person is needed.

What a dial is, and what its failure means for the link, is :class:`.host.HostLink`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Awaitable, Callable

from sshpyk.hub.dial import Terminal
from sshpyk.hub.linkstate import LONG_AWAY_S
from sshpyk.wire.clock import now_s

FIRST_PAUSE_S = 0.2
# A refusal costs one ssh; whoever waits for the host looks at the screen for minutes, not for hours.
SHORTLY_AWAY_S = 60.0
SHORTLY_AWAY_PAUSE_S = 2.0
LONGEST_PAUSE_S = 5.0
LONG_AWAY_PAUSE_S = 30.0

log = logging.getLogger(__name__)

Connect = Callable[[Terminal | None], Awaitable[bool]]


def pause_s(failures: int, away_s: float) -> float:
    """Return the time between the beginnings of two dials, after so many that were refused at once."""
    longest_s = LONGEST_PAUSE_S if away_s < LONG_AWAY_S else LONG_AWAY_PAUSE_S
    if away_s < SHORTLY_AWAY_S:
        longest_s = min(longest_s, SHORTLY_AWAY_PAUSE_S)
    return min(longest_s, math.ldexp(FIRST_PAUSE_S, min(failures - 1, 16)))


class Dialing:
    """One task at a time. ``connect`` makes one try and returns whether another is wanted.

    It gets the terminal where a person can be asked, in the first try only. ``on_defect`` is told of an
    exception that nobody expected. ``away_s`` says for how long the link has been away.
    """

    def __init__(
        self,
        connect: Connect,
        away_s: Callable[[], float],
        on_defect: Callable[[BaseException], None],
    ) -> None:
        self._connect = connect
        self._away_s = away_s
        self._on_defect = on_defect
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self.failures = 0  # since the task began

    @property
    def goes_on(self) -> bool:
        """Whether somebody dials."""
        return self._task is not None and not self._task.done()

    def start(self, terminal: Terminal | None = None) -> None:
        """Dial now, unless somebody does."""
        if not self.goes_on:
            self.failures = 0
            self._task = asyncio.ensure_future(self._dial_until_done(terminal))
            self._task.add_done_callback(self._done)

    def hurry(self) -> None:
        """Make no pause before the next dial: somebody waits, or the network has changed."""
        self._hurry.set()

    def stop(self) -> None:
        """Give up, whatever is under way."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def end(self) -> None:
        """Give up, and return when nothing is under way any more."""
        task = self._task
        self.stop()
        if task is not None:
            await asyncio.wait({task})

    def _done(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None
        defect = None if task.cancelled() else task.exception()
        if defect is not None:
            log.error("dialing failed", exc_info=defect)
            self._on_defect(defect)

    async def _dial_until_done(self, terminal: Terminal | None) -> None:
        while True:
            began_s = now_s()
            self._hurry.clear()
            if not await self._connect(terminal):
                return
            terminal = None
            self.failures += 1
            # Between the beginnings of two dials: one that came to nothing after long has waited enough.
            wanted_s = pause_s(self.failures, self._away_s()) * random.uniform(0.75, 1.25)  # noqa: S311
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), max(0.0, wanted_s - (now_s() - began_s)))
