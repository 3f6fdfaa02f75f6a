"""Silence of every kind: nothing passes, one way only, or a process on the way does not run."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import datetime, timezone

import psutil
import pytest
from jupyter_client import KernelManager

from lab.faultproxy import BOTH, DOWN, UP
from tests.integration.faults.bench import (
    RESUMED_WITHIN_S,
    Bench,
    assert_exact,
    session,
)
from tests.integration.kernels import (
    PATIENCE_S,
    assert_gone,
    await_ready,
    eventually,
    marked,
    new_environment,
)
from tests.integration.lifecycle_helpers import await_text, the_agent
from tests.integration.machines import Lab
from tests.integration.recorder import Recorder

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize(
    "seconds",
    [
        1,
        10,
        60,
        pytest.param(600, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_f01_black_hole_loses_nothing_and_ends_with_a_second_dial(
    bench: Bench, control: Recorder, seconds: float
) -> None:
    patience_s = 2 * seconds + PATIENCE_S
    recorder = bench.exactly_as(control, lambda: bench.proxy.pause(seconds), patience_s=patience_s)
    bench.assert_resumed_soon(recorder)


@pytest.mark.parametrize("bench", ["remote-jump"], indirect=True)
def test_f01_black_hole_before_the_bastion(bench: Bench, control: Recorder) -> None:
    recorder = bench.exactly_as(control, lambda: bench.proxy.pause(10))
    bench.assert_resumed_soon(recorder)


def test_f07_stopped_ssh_is_replaced_and_ended(bench: Bench, control: Recorder) -> None:
    stopped: list[int] = []

    def stop() -> None:
        stopped.append(bench.hub.connection().pid)
        os.kill(stopped[0], signal.SIGSTOP)

    recorder = bench.exactly_as(control, stop)
    assert bench.proxy.total_connections == 2
    assert not psutil.pid_exists(stopped[0])
    print(f"silent for {recorder.longest_silence_s:.2f} s")


@pytest.mark.parametrize("way", [UP, DOWN, BOTH], ids=["up", "down", "both"])
def test_f12_half_open_connection_is_replaced_and_fenced(
    lab: Lab, bench: Bench, control: Recorder, way: str
) -> None:
    """Lost without an end that anybody could see; the host's sshd goes on serving it."""
    markers: list[str] = []

    def strand() -> None:
        markers.append(bench.hub.marker())
        bench.proxy.strand(way)

    bench.exactly_as(control, strand)
    assert bench.proxy.total_connections == 2
    eventually(
        # The agent itself, if this connection was the one that started it, stays.
        lambda: all(p.ppid == 1 for p in lab.remote.processes(containing=markers[0])),
        "the end of the old session",
    )


def test_f11_laptop_asleep_wakes_to_everything(bench: Bench, control: Recorder) -> None:
    """Stand-in, hub and ssh sleep, and the client too; the clock goes on, and so does the host."""
    woken: list[tuple[float, datetime]] = []

    def sleep() -> None:
        tree = [family(kernel.stand_in_pid), family(bench.hub.pid)]
        processes = [process for one in tree for process in one]
        bench.proxy.pause()
        for process in processes:
            process.suspend()
        asleep = datetime.now(timezone.utc)
        time.sleep(20)
        bench.proxy.resume()
        for process in processes:
            process.resume()
        woken.append((time.monotonic(), asleep))

    with bench.kernel() as kernel:
        pid = kernel.stand_in_pid
        recorder = session(kernel, sleep)
        assert kernel.manager.is_alive()
        assert kernel.stand_in_pid == pid
        bench.await_one_connection()
    assert_exact(recorder, control)
    ((woken_s, asleep),) = woken
    # What the kernel said before may have been in the client's sockets all the time.
    after_s = next(heard for heard, sent in recorder.times if sent > asleep) - woken_s
    print(f"resumed {after_s:.2f} s after the wake, {bench.proxy.total_connections} connections")
    assert after_s < 2 * RESUMED_WITHIN_S  # the old connection is asked first


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all that it started."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


@pytest.mark.exclusive  # the agent serves all tests
def test_f17_stopped_agent_loses_nothing_and_is_not_dead(
    lab: Lab, bench: Bench, control: Recorder
) -> None:
    agent = the_agent(lab)

    def stop() -> None:
        lab.remote.kill(agent.pid, "STOP")
        timer.start()

    with bench.kernel() as kernel:
        agent = the_agent(lab)
        timer = threading.Timer(10, lab.remote.kill, [agent.pid, "CONT"])
        recorder = session(kernel, stop)
        timer.join()
        assert kernel.manager.is_alive()
        bench.await_one_connection()
    assert_exact(recorder, control)


def test_f20_kernel_killed_in_a_black_hole_is_alive_until_told(lab: Lab, bench: Bench) -> None:
    code = "import os, time\nprint('begun', flush=True)\ntime.sleep(1)\nprint('tail', flush=True)"
    name = bench.add()
    environment, mark = new_environment()
    manager = KernelManager(kernel_name=name)
    manager.start_kernel(env=environment)
    client = manager.client()
    try:
        client.start_channels()
        await_ready(client)
        (pid,) = marked(lab.remote, mark)
        client.execute(f"{code}\ntime.sleep(60)")
        await_text(client, "begun")
        bench.proxy.pause()
        time.sleep(2)  # for the tail to be printed, behind the hole
        lab.remote.kill(pid)
        eventually(lambda: not marked(lab.remote, mark), "the kernel's end")
        time.sleep(8)  # long enough for the silence to be noticed
        assert manager.is_alive()
        bench.proxy.resume()
        await_text(client, "tail")
        eventually(lambda: not manager.is_alive(), "the news of the kernel's end")
        assert manager.provisioner.process.returncode == -signal.SIGKILL  # type: ignore[union-attr]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert_gone(lab, mark)
