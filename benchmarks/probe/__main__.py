"""Does what each line of standard input says, a JSON record, and answers each with another.

``python -m probe`` with ``benchmarks`` as the current folder; ``{"do": NAME, …}`` names a method of
:class:`Probe`. The answer has ``error`` where it failed. Jupyter's words go to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

from .server import Server
from .timing import TimedKernel


class Probe:
    """One kernel under a stopwatch at a time, and a server with many."""

    def __init__(self) -> None:
        self._kernel: TimedKernel | None = None
        self._server: Server | None = None

    @property
    def kernel(self) -> TimedKernel:
        """The kernel that was launched last."""
        assert self._kernel is not None
        return self._kernel

    def launch(self, kernel_name: str) -> dict[str, Any]:
        """Start a kernel; the one before is ended."""
        self.close()
        self._kernel = TimedKernel(kernel_name)
        return {"s": self._kernel.launch()}

    def one_plus_one(self, times: int) -> dict[str, Any]:
        """Return the median of so many."""
        return {"s": self.kernel.one_plus_one(times)}

    def interrupt(self) -> dict[str, Any]:
        """Interrupt a sleeping cell."""
        return {"s": self.kernel.interrupt()}

    def restart(self) -> dict[str, Any]:
        """Restart the kernel."""
        return {"s": self.kernel.restart()}

    def shutdown(self) -> dict[str, Any]:
        """Shut the kernel down."""
        return {"s": self.kernel.shutdown()}

    def output(self, code: str, limit_s: float) -> dict[str, Any]:
        """Run a cell with much output, and count it."""
        return self.kernel.output(code, limit_s)._asdict()

    def close(self) -> dict[str, Any]:
        """End the kernel, if there is one."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None
        return {}

    # A Jupyter server's kernels

    @property
    def server(self) -> Server:
        """The server, which runs from its first use."""
        if self._server is None:
            self._server = Server()
        return self._server

    def start_many(self, kernel_name: str, count: int, limit_s: float) -> dict[str, Any]:
        """Start kernels side by side, until each answers or has failed."""
        return self.server.start_many(kernel_name, count, limit_s)

    def end_many(self, limit_s: float) -> dict[str, Any]:
        """Shut all of them down."""
        return self.server.end_many(limit_s)

    def stalls(self, kernel_name: str, seconds: float) -> dict[str, Any]:
        """Return the longest time for which the server's loop did nothing else."""
        return self.server.stalls(kernel_name, seconds)


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # kernels inherit stdout, and what they print there is no answer
    os.chdir(os.environ["BENCH_FOLDER"])
    probe = Probe()
    for line in sys.stdin:
        record = json.loads(line)
        try:
            answer = getattr(probe, record.pop("do"))(**record)
        except Exception as error:  # noqa: BLE001  whatever a provisioner raises is its result
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    probe.close()
    os._exit(0)  # whatever a provisioner has left behind in threads


main()
