"""Dialling again through a line that may still be a black hole.

A dial into a black hole waits for TCP's next SYN, and these come ever later (after 1, 3, 7, 15, 31 s): it
finds the line back by up to half of the hole's length too late. A fresh dial does not. So beside one that
takes longer than dials to this host do, another is started; the first that gets through is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from sshpyk.hub.ssh_process import SshProcess

# The SYNs of dials that start so often and live for so many intervals leave no gap of more than 2 s.
EVERY_S = 4.0
AT_ONCE = 3


async def dial_again(
    dial: Callable[[], Coroutine[Any, Any, SshProcess]], usual_s: float
) -> SshProcess:
    """Return the first connection of several dials; the others are ended.

    ``usual_s`` is what a dial to this host takes: a slow login is not taken for a hole. Raises what the
    first dial that fails meets. The caller sets the deadline.
    """
    every_s = max(EVERY_S, 2 * usual_s)
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
                running.pop(0).cancel()
    finally:
        for task in running:
            task.cancel()
        for outcome in await asyncio.gather(*running, return_exceptions=True):
            if not isinstance(outcome, BaseException):
                outcome.end(close_pipes=True)
