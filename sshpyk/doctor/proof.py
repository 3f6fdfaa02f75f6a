"""Proves that kernels run: each is launched once as Jupyter would, computes ``1+1`` and is shut down."""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sshpyk import kernelspecs
from sshpyk.errors import KernelError, SshpykError, error_from_record

AT_ONCE = 4
_PHASE = "checking the kernel"


@dataclass(frozen=True)
class Proof:
    """How the check of a kernel went: ``error`` is None when it answered, after ``took_s``."""

    name: str
    took_s: float
    error: SshpykError | None = None


def prove(names: Iterable[str], tell: Callable[[Proof], None]) -> list[Proof]:
    """Prove kernels side by side; ``tell`` hears of each as soon as it is known.

    On Ctrl+C everything that was started is stopped again, and KeyboardInterrupt goes on.
    """
    return asyncio.run(_prove_all(list(names), tell))


async def _prove_all(names: list[str], tell: Callable[[Proof], None]) -> list[Proof]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> Proof:
        async with turn:
            proof = await _prove(name)
        tell(proof)
        return proof

    return list(await asyncio.gather(*map(one, names)))


async def _prove(name: str) -> Proof:
    began_s = time.monotonic()
    error: SshpykError | None = None
    try:
        await _launch_once(name)
    except SshpykError as failure:
        error = error_from_record(failure.to_record())  # without the disguise for Jupyter servers
    except (RuntimeError, OSError, asyncio.TimeoutError) as failure:  # jupyter_client's own
        error = KernelError(str(failure) or "no answer in time", phase=_PHASE)
    return Proof(name, time.monotonic() - began_s, error)


async def _launch_once(name: str) -> None:
    from jupyter_client.manager import AsyncKernelManager  # here: 200 ms

    remote = kernelspecs.load(name).remote
    assert remote is not None
    manager = AsyncKernelManager(kernel_name=name, log=_quiet_log())
    try:
        await manager.start_kernel()
        client = manager.client()
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=remote.launch_timeout)
            await _compute(client, remote.launch_timeout)
        finally:
            client.stop_channels()
    finally:
        if manager.has_kernel:
            with suppress(RuntimeError):
                await manager.shutdown_kernel()


def _quiet_log() -> logging.Logger:
    """Return a log for jupyter_client, which would print a failed launch with its traceback."""
    log = logging.getLogger(f"{__name__}.jupyter_client")
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        log.setLevel(logging.CRITICAL)
    return log


async def _compute(client: Any, timeout_s: float) -> None:
    """Have the kernel execute ``1+1``: any answer shows that it runs, whatever its language."""
    request = client.execute("1+1", silent=False, store_history=False)
    deadline_s = time.monotonic() + timeout_s
    while True:
        left_s = max(0.1, deadline_s - time.monotonic())
        try:
            reply = await client.get_shell_msg(timeout=left_s)
        except queue.Empty as error:
            what = f"no answer to 1+1 within {timeout_s:g} s"
            raise KernelError(what, phase=_PHASE, code="LAUNCH-TIMEOUT") from error
        if reply["parent_header"].get("msg_id") == request:
            return
