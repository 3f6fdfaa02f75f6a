"""What the benchmarks count and time can blur is checked here: processes, bytes, lines."""
# ruff: noqa: F401, F811

from __future__ import annotations

import contextlib
import time

import psutil

from tests.integration.faults.bench import Bench, bench
from tests.integration.kernels import (
    add_kernel,
    jupyter_folders,
    started,
)
from tests.integration.machines import Lab

KERNELS = 3
IDLE_S = 5.0
# A ping now and then; what looks at kernels by asking the host needs kilobytes a second.
IDLE_BYTES = 2000
LINES = 3000  # three times what ZeroMQ queues where nobody counts
PRINTING = f"for number in range({LINES}): print(str(number).ljust(1023, '.'), flush=True)"


def _lives(pids: list[int]) -> dict[int, tuple[object, ...]]:
    """Return what changes when one of the processes starts another, or has started one that ended."""
    found: dict[int, tuple[object, ...]] = {}
    for pid in pids:
        process = psutil.Process(pid)
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            faults_of_children = stat.read().rpartition(")")[2].split()[8]
        children = tuple(child.pid for child in process.children())
        found[pid] = (children, faults_of_children, process.num_threads())
    return found


def test_idle_kernels_start_no_process_and_say_next_to_nothing(lab: Lab, bench: Bench) -> None:
    name = bench.add()
    with contextlib.ExitStack() as stack:
        kernels = [stack.enter_context(started(lab, name)) for _ in range(KERNELS)]
        bench.await_one_connection()
        time.sleep(1)  # the last acknowledgements
        pids = [bench.hub.pid, *(kernel.stand_in_pid for kernel in kernels)]
        before, passed = _lives(pids), _passed(bench)
        time.sleep(IDLE_S)
        assert _lives(pids) == before
        assert _passed(bench) - passed < IDLE_BYTES


def _passed(bench: Bench) -> int:
    return bench.proxy.passed_bytes("up") + bench.proxy.passed_bytes("down")


def test_each_line_arrives_over_a_line_that_is_slower_than_the_kernel(bench: Bench) -> None:
    with bench.kernel() as kernel:
        bench.proxy.rate(1_000_000)
        outcome = kernel.run(PRINTING)
        bench.proxy.rate(0)
    assert [int(line.rstrip(".")) for line in outcome.text().split()] == list(range(LINES))
