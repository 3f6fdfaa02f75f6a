"""Notices that this machine's network has changed: WiFi is back, a VPN came up, an address was lost.

The kernel tells anybody of it on a routing socket (rtnetlink(7)). Where there is none (macOS), the link
finds out by itself, as it does when a network fails that is not this machine's: some seconds later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator

_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE = 0x1, 0x10, 0x40, 0x100, 0x400
_GROUPS = _LINK | _IPV4_ADDRESS | _IPV4_ROUTE | _IPV6_ADDRESS | _IPV6_ROUTE
SETTLE_S = 0.2  # a change is told in several messages: the link, its address, the routes

log = logging.getLogger(__name__)


@contextlib.contextmanager
def network_watched(on_change: Callable[[], None]) -> Iterator[None]:
    """Call ``on_change`` in the running loop a moment after each change."""
    try:
        told = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        told.bind((0, _GROUPS))
    except (AttributeError, OSError) as error:
        log.info("changes of the network are not told here: %s", error)
        yield
        return
    loop = asyncio.get_running_loop()
    planned: list[asyncio.TimerHandle] = []

    def note() -> None:
        _drain(told)
        if not planned or planned[0].when() < loop.time():
            planned[:] = [loop.call_later(SETTLE_S, on_change)]

    told.setblocking(False)
    loop.add_reader(told, note)
    try:
        yield
    finally:
        loop.remove_reader(told)
        told.close()
        for timer in planned:
            timer.cancel()


def _drain(told: socket.socket) -> None:
    """Read whatever is there; what it says in particular does not matter."""
    with contextlib.suppress(OSError):  # empty, or overflown (ENOBUFS), which is news as well
        while told.recv(os.sysconf("SC_PAGESIZE")):
            pass
