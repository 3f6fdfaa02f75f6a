"""One kernel under a stopwatch, through jupyter_client as any notebook uses it.

The same code times a local kernel and a remote one: what differs is the kernelspec's name.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from queue import Empty
from typing import Any, NamedTuple

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

PATIENCE_S = 30.0
_SLEEP = "print('asleep', flush=True); import time; time.sleep(600)"
_SILENCE_S = 5.0
_ASLEEP_S = 0.1  # from the print to the middle of the sleep


class Spread(NamedTuple):
    """Several measurements of one thing, in seconds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, seconds: list[float]) -> Spread:
        """Summarise at least one measurement."""
        return cls(statistics.median(seconds), min(seconds), max(seconds))


class Output(NamedTuple):
    """What a cell's output was: seconds until its last, characters of text or data, lines of text."""

    s: float
    characters: int
    lines: int
    complete: bool  # its idle arrived


class TimedKernel:
    """A kernel that returns, from each operation, the seconds that it took."""

    def __init__(self, kernel_name: str, env: Mapping[str, str] | None = None) -> None:
        self._manager = KernelManager(kernel_name=kernel_name)
        self._env = dict(os.environ if env is None else env)
        self._client: BlockingKernelClient | None = None

    @property
    def client(self) -> BlockingKernelClient:
        """The client of the running kernel."""
        assert self._client is not None
        return self._client

    def launch(self) -> float:
        """Start the kernel and wait until it answers and its iopub is heard."""
        began_s = time.perf_counter()
        # A kernel's remarks about itself are not for the table; errors of a launch are raised.
        self._manager.start_kernel(env=self._env, stderr=subprocess.DEVNULL)
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=PATIENCE_S)
        return time.perf_counter() - began_s

    def execute(self, code: str) -> float:
        """Run code until its reply and its last output are here."""
        began_s = time.perf_counter()
        request = self.client.execute(code)
        self._reply_to(request)
        self._await_iopub(request, lambda message: _state(message) == "idle")
        return time.perf_counter() - began_s

    def one_plus_one(self, times: int) -> float:
        """Return the median of so many executions of ``1+1``."""
        return statistics.median(self.execute("1+1") for _ in range(times))

    def output(self, code: str, patience_s: float = PATIENCE_S) -> Output:
        """Run code and take all that it shows, until idle, or until silence once its reply is here.

        A line that loses messages may lose the one that says idle.
        """
        began_s = last_s = time.perf_counter()
        request, characters, lines, answered = self.client.execute(code), 0, 0, False
        while time.perf_counter() < last_s + (_SILENCE_S if answered else patience_s):
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except Empty:
                answered = answered or self._has_answered(request)
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            last_s, content = time.perf_counter(), message["content"]
            if content.get("execution_state") == "idle":
                return Output(last_s - began_s, characters, lines, complete=True)
            text = content.get("text", "")
            lines += text.count("\n")
            characters += len(text) + sum(map(len, content.get("data", {}).values()))
        return Output(last_s - began_s, characters, lines, complete=False)

    def _has_answered(self, request: str) -> bool:
        with contextlib.suppress(Empty):
            reply = self.client.get_shell_msg(timeout=0)
            return bool(reply["parent_header"].get("msg_id") == request)
        return False

    def interrupt(self) -> float:
        """Interrupt a cell that sleeps, until its KeyboardInterrupt is here."""
        request = self.client.execute(_SLEEP)
        self._await_iopub(request, lambda message: message["msg_type"] == "stream")
        time.sleep(_ASLEEP_S)
        began_s = time.perf_counter()
        self._manager.interrupt_kernel()
        reply = self._reply_to(request)
        took_s = time.perf_counter() - began_s
        if reply["content"].get("ename") != "KeyboardInterrupt":
            raise RuntimeError(f"not interrupted: {reply['content']}")
        self._await_iopub(request, lambda message: _state(message) == "idle")
        return took_s

    def restart(self) -> float:
        """Restart the kernel and wait until the new one answers the same client."""
        began_s = time.perf_counter()
        self._manager.restart_kernel()
        self.client.wait_for_ready(timeout=PATIENCE_S)
        return time.perf_counter() - began_s

    def shutdown(self) -> float:
        """Shut the kernel down and wait for its end."""
        began_s = time.perf_counter()
        self._manager.shutdown_kernel()
        took_s = time.perf_counter() - began_s
        self._stop_channels()
        return took_s

    def close(self) -> None:
        """End whatever still runs; idempotent, for use after a failure."""
        if self._manager.has_kernel:
            self._manager.shutdown_kernel(now=True)
        self._stop_channels()

    def __enter__(self) -> TimedKernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stop_channels(self) -> None:
        if self._client is not None:
            self._client.stop_channels()
            self._client = None

    def _next(self, get: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        try:
            return get(timeout=PATIENCE_S)
        except Empty:
            state = "lives" if self._manager.is_alive() else "has ended"
            name = self._manager.kernel_name
            raise RuntimeError(f"nothing heard of {name} for {PATIENCE_S} s; it {state}") from None

    def _reply_to(self, request: str) -> dict[str, Any]:
        while True:
            reply: dict[str, Any] = self._next(self.client.get_shell_msg)
            if reply["parent_header"].get("msg_id") == request:
                return reply

    def _await_iopub(self, request: str, wanted: Callable[[dict[str, Any]], bool]) -> None:
        while True:
            message = self._next(self.client.get_iopub_msg)
            if message["parent_header"].get("msg_id") == request and wanted(message):
                return


def _state(message: dict[str, Any]) -> str | None:
    state: str | None = message["content"].get("execution_state")
    return state
