"""Kernels as a Jupyter server has them: in one event loop, each with a restarter that looks every 3 s.

Where jupyter_server is installed its own kernel manager is used.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

_TICK_S = 0.005
_T = TypeVar("_T")


def _new_manager() -> Any:
    try:
        from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
    except ImportError:
        from jupyter_client.multikernelmanager import AsyncMultiKernelManager

        kind = "jupyter_client.ioloop.AsyncIOLoopKernelManager"
        return AsyncMultiKernelManager(kernel_manager_class=kind)
    return AsyncMappingKernelManager(root_dir=os.getcwd())


class Server:
    """A thread with the loop that all kernels of the server share."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._manager: Any = None
        self._answered = 0
        self._run(self._make(), 30)

    async def _make(self) -> None:
        self._manager = _new_manager()

    def _run(self, work: Coroutine[Any, Any, _T], limit_s: float) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(limit_s + 60)

    def start_many(self, kernel_name: str, count: int, limit_s: float) -> dict[str, Any]:
        """Return how many of ``count`` kernels answered, and the seconds until the last did or failed.

        A provisioner that holds the loop up is not waited for: what answered by then counts.
        """
        self._answered, began_s = 0, time.perf_counter()
        try:
            return self._run(self._start_many(kernel_name, count, limit_s), limit_s)
        except concurrent.futures.TimeoutError:
            took_s = time.perf_counter() - began_s
            failures = [f"the server's loop did not answer within {took_s:.0f} s"]
            return {"started": self._answered, "s": took_s, "failures": failures}

    async def _start_many(self, kernel_name: str, count: int, limit_s: float) -> dict[str, Any]:
        began_s = time.perf_counter()
        launches = (self._start(kernel_name, limit_s) for _ in range(count))
        outcomes = await asyncio.gather(*launches, return_exceptions=True)
        took_s = time.perf_counter() - began_s
        failures = [repr(one)[:300] for one in outcomes if isinstance(one, BaseException)]
        return {"started": count - len(failures), "s": took_s, "failures": failures[:3]}

    async def _start(self, kernel_name: str, limit_s: float) -> None:
        """Start one kernel and have it evaluate something."""

        async def started() -> None:
            kernel_id = await self._manager.start_kernel(kernel_name=kernel_name)
            client = self._manager.get_kernel(kernel_id).client()
            client.start_channels()
            try:
                await client.wait_for_ready(timeout=limit_s)
                await client.execute_interactive("1+1", timeout=limit_s, output_hook=_ignore)
                self._answered += 1
            finally:
                client.stop_channels()

        await asyncio.wait_for(started(), limit_s)

    def end_many(self, limit_s: float) -> dict[str, Any]:
        """Shut all kernels down, side by side; return the seconds that it took."""
        return self._run(self._end_many(limit_s), limit_s)

    async def _end_many(self, limit_s: float) -> dict[str, Any]:
        began_s = time.perf_counter()
        ends = (self._manager.shutdown_kernel(one) for one in self._manager.list_kernel_ids())
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*ends, return_exceptions=True), limit_s)
        return {"s": time.perf_counter() - began_s}

    def stalls(self, kernel_name: str, seconds: float) -> dict[str, Any]:
        """Return the longest pause of the loop within ``seconds``, in which a launch is tried too."""
        return self._run(self._stalls(kernel_name, seconds), seconds + 120)

    async def _stalls(self, kernel_name: str, seconds: float) -> dict[str, Any]:
        launch = asyncio.ensure_future(self._manager.start_kernel(kernel_name=kernel_name))
        longest_s, until_s = 0.0, time.perf_counter() + seconds
        while (before_s := time.perf_counter()) < until_s:
            await asyncio.sleep(_TICK_S)
            longest_s = max(longest_s, time.perf_counter() - before_s - _TICK_S)
        launch.cancel()
        await asyncio.wait({launch}, timeout=10)
        return {"s": longest_s}


def _ignore(_message: Any) -> None:
    """Outputs are not looked at."""
