"""Kernels that are asked for before their restart is: a round trip and a process's start sooner.

A kernel that is restarted says so as it goes (``shutdown_reply`` with ``restart``); the next one is asked
for when it has ended. Meanwhile Jupyter, which looks ten times a second, notices the end and starts a
stand-in, whose launch finds the kernel under way. What nobody comes for is ended, as is what a launch
does not want because it asks for something else.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

from sshpyk.hub.host import HostLink
from sshpyk.hub.kernel_start import KernelStart, new_kernel_id
from sshpyk.hub.requests import LaunchRequest

HELD_S = 6.0  # as long as the local sockets wait for a restart

log = logging.getLogger(__name__)


class Successors:
    """See the module. ``kernel_ids`` are those that are under way."""

    def __init__(self, host: HostLink) -> None:
        self._host = host
        self._waiting: dict[str, _Successor] = {}  # by connection file

    @property
    def kernel_ids(self) -> set[str]:
        """Those that nobody has come for yet."""
        return {waiting.start.kernel_id for waiting in self._waiting.values()}

    def ask_for(self, request: LaunchRequest, info: dict[str, Any]) -> None:
        """Ask for the kernel that a restart is about to launch; ``info`` is its connection file's.

        Not where folders would have to be mounted first, nor for a persistent one: such a kernel could
        be left on the host without anybody who knows of it. No link is brought up for it.
        """
        host = self._host
        if request.persistent or request.mounts or not host.is_up or host.is_silent:
            return
        file = request.connection_file
        self.give_up(file)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + request.launch_timeout_s
        start = KernelStart(host, new_kernel_id(), request, info, deadline_s)
        timer = loop.call_later(HELD_S, self.give_up, file)
        self._waiting[file] = _Successor(start, request, info, timer)

    def take(self, request: LaunchRequest, info: dict[str, Any]) -> KernelStart | None:
        """Return the kernel that was asked for by the same request.

        None where that has failed or its link is lost; also during an outage, which may be one that only
        a person ends: a launch hears of that.
        """
        host, waiting = self._host, self._waiting.get(request.connection_file)
        if waiting is None:
            return None
        same = (waiting.request, waiting.info) == (request, info)
        if not (same and host.is_up and waiting.start.is_good_for(host)):
            self.give_up(request.connection_file)
            return None
        del self._waiting[request.connection_file]
        waiting.timer.cancel()
        return waiting.start

    def give_up(self, connection_file: str) -> None:
        """End what was asked for and nobody wants."""
        waiting = self._waiting.pop(connection_file, None)
        if waiting is not None:
            log.info("kernel %s, asked for in advance, is not needed", waiting.start.kernel_id)
            waiting.timer.cancel()
            waiting.start.give_up()

    def give_up_all(self) -> None:
        """End all of them; called when the hub leaves."""
        for file in list(self._waiting):
            self.give_up(file)


class _Successor(NamedTuple):
    start: KernelStart
    request: LaunchRequest
    info: dict[str, Any]
    timer: asyncio.TimerHandle
