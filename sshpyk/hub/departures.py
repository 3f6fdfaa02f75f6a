"""Telling the agent that kernels were left: they go on there without us."""

from __future__ import annotations

import asyncio
import logging

from sshpyk.errors import SshpykError
from sshpyk.hub.host import HostLink

log = logging.getLogger(__name__)


class Departures:
    """What the agent has yet to hear of; across outages, for as long as the hub lives."""

    def __init__(self, host: HostLink) -> None:
        self._host = host
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether the agent has yet to hear of one."""
        return bool(self._telling)

    def tell(self, kernel_id: str, streams: list[int]) -> asyncio.Task[None]:
        """Let go of a kernel's streams, and say so; the task is done when the agent has heard it."""
        task = asyncio.ensure_future(self._tell(kernel_id, streams))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        return task

    async def _tell(self, kernel_id: str, streams: list[int]) -> None:
        """Until the agent has heard, nothing of the kernel's is acknowledged."""
        driver = self._host.driver
        for stream in streams:
            driver.release(stream)
        try:
            await self._host.rpc.call("leave", kernel_id=kernel_id, streams=streams)
        except SshpykError as error:
            log.warning("kernel %s was not left in order: %s", kernel_id, error)
        finally:
            for stream in streams if not driver.left else []:
                driver.abandon(stream)

    async def wait(self) -> None:
        """Return when all has been told; called when the hub leaves."""
        if self._telling:
            await asyncio.wait(self._telling)
