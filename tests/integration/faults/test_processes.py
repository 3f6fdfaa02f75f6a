"""Kernels that end for reasons of the host's, and restarts while nobody can be reached."""

from __future__ import annotations

import contextlib
import queue
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client import KernelManager

from sshpyk.errors import LaunchTimeout
from tests.integration.faults.bench import Bench
from tests.integration.faults.hosts import own_machine
from tests.integration.kernels import (
    PATIENCE_S,
    AddKernel,
    Message,
    Outcome,
    Running,
    await_ready,
    eventually,
    marked,
    new_environment,
)
from tests.integration.lifecycle_helpers import hub_of
from tests.integration.machines import Lab

pytestmark = pytest.mark.timeout(240)

EATER = """
import time
print('begun', flush=True)
time.sleep(0.5)
eaten = [b'x' * 20_000_000 for _ in range(100)]"""


@contextlib.contextmanager
def doomed(name: str) -> Iterator[tuple[KernelManager, Running, str]]:
    """Start a kernel that may be dead in the end."""
    environment, mark = new_environment()
    manager = KernelManager(kernel_name=name)
    manager.start_kernel(env=environment)
    client = manager.client()
    try:
        client.start_channels()
        await_ready(client)
        yield manager, Running(manager, client, mark), mark
    finally:
        client.stop_channels()
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)
        manager.cleanup_connection_file()


def test_f19_kernel_that_eats_the_hosts_memory_dies_with_a_hint(
    lab: Lab, add_kernel: AddKernel, tmp_path: Path
) -> None:
    with (
        own_machine(lab, tmp_path, memory_mb=400) as (machine, config),
        hub_of(lab, "remote", tmp_path / "ssh_config", config) as hub,
        doomed(add_kernel("remote", *hub.options)) as (manager, kernel, mark),
    ):
        msg_id = kernel.client.execute(EATER)
        eventually(lambda: not manager.is_alive(), "the kernel's end", timeout_s=PATIENCE_S)
        assert manager.provisioner.process.returncode == -signal.SIGKILL  # type: ignore[union-attr]
        heard = Outcome({}, all_heard(kernel, msg_id))
        assert heard.text() == "begun\n"
        print(heard.text("stderr"))
        assert "out-of-memory killer was at work" in heard.text("stderr")
        assert not marked(machine, mark)
        manager.restart_kernel(now=True)  # the agent has survived
        await_ready(kernel.client)


def all_heard(kernel: Running, msg_id: str) -> list[Message]:
    """Return what has come on iopub for a request whose kernel is dead."""
    messages = []
    with contextlib.suppress(queue.Empty):
        while True:
            messages.append(kernel.client.get_iopub_msg(timeout=2))
    return [one for one in messages if one["parent_header"].get("msg_id") == msg_id]


# Restarts in an outage


@pytest.mark.parametrize("now", [False, True], ids=["politely", "now"])
def test_f56_restart_in_a_black_hole_waits_and_restarts_once(
    lab: Lab, bench: Bench, now: bool
) -> None:
    with bench.kernel() as kernel:
        old = kernel.remote_pid()
        kernel.run("marker = 1")
        bench.proxy.pause(12)
        began_s = time.monotonic()
        kernel.manager.restart_kernel(now=now)
        print(f"restarted after {time.monotonic() - began_s:.1f} s")
        await_ready(kernel.client)
        assert kernel.run("'marker' in dir()").result == "False"
        new = kernel.remote_pid()
        assert new != old
        eventually(lambda: marked(lab.remote, kernel.mark) == [new], "the new kernel alone")


def test_f56_restart_in_a_longer_black_hole_fails_in_time_and_leaves_no_kernel(
    lab: Lab, bench: Bench
) -> None:
    with doomed(bench.add("--launch-timeout", "6")) as (manager, kernel, mark):
        (old,) = marked(lab.remote, mark)
        bench.proxy.pause()
        began_s = time.monotonic()
        with pytest.raises(LaunchTimeout) as caught:
            manager.restart_kernel(now=True)
        took_s = time.monotonic() - began_s
        print(f"failed after {took_s:.1f} s: {caught.value}")
        assert took_s < 20
        assert marked(lab.remote, mark) == [old]
        bench.proxy.resume()
        resumed_s = time.monotonic()
        seen: list[int] = []
        while time.monotonic() < resumed_s + 8 or marked(lab.remote, mark):
            seen.append(len(marked(lab.remote, mark)))
            assert time.monotonic() < resumed_s + PATIENCE_S
        print(f"kernels seen after the return: {seen}")
        assert max(seen) <= 1
        manager.restart_kernel(now=True)
        await_ready(kernel.client)
        assert kernel.run("6 * 7").result == "42"
