"""What the hub's tunnels and mounts have in common: how the link is, and how they come back with it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from sshpyk.errors import SshpykError
from sshpyk.hub.host import HostLink
from sshpyk.hub.linkstate import LinkState

_PAUSES_S = (1.0, 5.0, 15.0, 30.0)
_TRIES = 1000


def link_record(host: HostLink) -> dict[str, Any]:
    """Describe the link as a person at a tunnel or a mount wants to know it."""
    reason = "" if host.reason is None else host.reason.what
    return {
        "host": host.target.host,
        "ssh_config": host.target.ssh_config,
        "link": LinkState.DIALING.value if host.is_silent else host.state.value,
        "away_s": host.outage.duration_s,
        "reason": host.outage.reason or reason,
        "hub_pid": os.getpid(),
    }


async def revive(
    host: HostLink,
    python: Callable[[], str],
    again: Callable[[], Awaitable[None]],
    note: Callable[[str], None],
) -> None:
    """Bring the link up again after it was lost for good, then do ``again``.

    ``python`` is the interpreter to start there, "" when nobody needs the link any more; ``note`` is
    told why it does not come. Ends when a person is needed: their login brings it up.
    """
    for tried in range(_TRIES):
        await asyncio.sleep(_PAUSES_S[min(tried, len(_PAUSES_S) - 1)])
        interpreter = python()
        if not interpreter:
            return
        try:
            await host.bring_up(interpreter)
        except SshpykError as error:
            note(error.what)
            if not error.retryable:
                return  # a connection or a person will try again
        else:
            await again()
            return


def both(first: Callable[..., None], second: Callable[..., None]) -> Callable[..., None]:
    """Return what calls one after the other."""

    def call(*args: Any) -> None:
        first(*args)
        second(*args)

    return call
