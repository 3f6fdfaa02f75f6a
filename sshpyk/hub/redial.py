"""Dialling again through a line that may still be a black hole.

A dial into a black hole waits for TCP's next SYN, and these come ever later (after 1, 3, 7, 15, 31 s): it
finds the line back by up to half of the hole's length too late. A fresh dial does not. So beside one that
takes longer than dials to this host do, another is started; the first that gets through is taken.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

from sshpyk.errors import Unreachable
from sshpyk.hub.dial import DIAL_DEADLINE_S, FirstFrames, Phase, Terminal, dial
from sshpyk.hub.linkstate import LONG_AWAY_S
from sshpyk.hub.ssh_process import SshProcess
from sshpyk.hub.ssh_start import SshStart
from sshpyk.ssh.command import SshTarget
from sshpyk.wire.clock import now_s

# The SYNs of dials that start so often and live for so many intervals leave no gap of more than 1 s.
EVERY_S = 2.0
LONG_AWAY_EVERY_S = 15.0
AT_ONCE = 4
UNCLAIMED_S = 3.0  # how long an ssh that was started in advance waits for the dial that it is for

Dial = Callable[[], Coroutine[Any, Any, SshProcess]]


class Redial:
    """Dials one host, and remembers what that takes.

    ``note_phase`` is told what is being done; ``away_s`` says for how long the link has been away.
    ``start``: an ssh for the first dial, which connects already.
    """

    def __init__(
        self,
        target: SshTarget,
        note_phase: Callable[[str], None],
        away_s: Callable[[], float],
        start: SshStart | None = None,
    ) -> None:
        self._target = target
        self._note_phase = note_phase
        self._away_s = away_s
        self._usual_s = 0.0  # the shortest so far; 0 until one came through
        self._start = start
        if start is not None:
            asyncio.get_running_loop().call_later(UNCLAIMED_S, self.drop_start)

    async def connect(
        self, python: str, terminal: Terminal | None = None, *, behind: FirstFrames | None
    ) -> SshProcess:
        """Return a connection; dial more than once if that takes long.

        ``behind``: of a first connection, which is dialled once; see :func:`.dial.dial`. A person at
        ``terminal`` takes the time that it takes. Raises what the dial met.
        """

        if terminal is not None or (self._start is not None and self._start.python != python):
            self.drop_start()

        async def dial_timed() -> SshProcess:
            began_s = now_s()
            start, self._start = self._start, None
            ssh = await dial(
                self._target, python, self._note_phase, terminal, behind=behind, start=start
            )
            if start is None:  # else it had begun before
                self._usual_s = min(self._usual_s or math.inf, now_s() - began_s)
            return ssh

        if terminal is not None or behind is not None:
            return await dial_timed()
        every_s = EVERY_S if self._away_s() < LONG_AWAY_S else LONG_AWAY_EVERY_S
        again_s = max(every_s, 3 * self._usual_s)  # a slow login is not taken for a hole
        try:
            return await asyncio.wait_for(dial_again(dial_timed, again_s), DIAL_DEADLINE_S)
        except asyncio.TimeoutError:
            raise Unreachable(
                f"no answer within {DIAL_DEADLINE_S:.0f} s",
                host=self._target.host,
                phase=Phase.CONNECT.value,
            ) from None

    def drop_start(self) -> None:
        """End the ssh that was started in advance, if no dial has taken it."""
        start, self._start = self._start, None
        if start is not None:
            SshProcess(start.process, start.pipes).end(close_pipes=True)


async def dial_again(dial: Dial, every_s: float) -> SshProcess:
    """Return the first connection of several dials, one more ``every_s``; the others are ended.

    The first has as long as the caller gives us, for a host whose logins have become slow; those after it
    make room for fresh ones.
    Raises what the first dial that fails meets. The caller sets the deadline.
    """
    running: list[asyncio.Task[SshProcess]] = []
    try:
        while True:
            running.append(asyncio.ensure_future(dial()))
            done, _ = await asyncio.wait(
                running, timeout=every_s, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                first = next(task for task in running if task in done)
                running.remove(first)
                return first.result()
            if len(running) == AT_ONCE:
                running.pop(1).cancel()
    finally:
        for task in running:
            task.cancel()
        for outcome in await asyncio.gather(*running, return_exceptions=True):
            if not isinstance(outcome, BaseException):
                outcome.end(close_pipes=True)
