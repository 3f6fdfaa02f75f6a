"""What a person clicks while the line is down: shut down, reload, run."""

from __future__ import annotations

import queue
import time

import pytest
from jupyter_client import BlockingKernelClient, KernelManager

from tests.integration.faults.bench import Bench
from tests.integration.kernels import (
    PATIENCE_S,
    Running,
    assert_gone,
    await_ready,
    marked,
    new_environment,
    run,
)
from tests.integration.lifecycle_helpers import outcome_of
from tests.integration.machines import Lab

pytestmark = pytest.mark.timeout(240)

COUNT_KERNEL_INFO = """
asked, answer = 0, get_ipython().kernel.shell_handlers["kernel_info_request"]
def count(*parts):
    global asked
    asked += 1
    return answer(*parts)
get_ipython().kernel.shell_handlers["kernel_info_request"] = count"""


@pytest.mark.parametrize("now", [False, True], ids=["politely", "now"])
def test_f57_shutdown_in_a_black_hole_returns_and_reaches_the_kernel_later(
    lab: Lab, bench: Bench, now: bool
) -> None:
    environment, mark = new_environment()
    manager = KernelManager(kernel_name=bench.add())
    manager.start_kernel(env=environment)
    client = manager.client()
    try:
        client.start_channels()
        await_ready(client)
        assert marked(lab.remote, mark)
        bench.proxy.pause()
    finally:
        client.stop_channels()
        began_s = time.monotonic()
        manager.shutdown_kernel(now=now)
    took_s = time.monotonic() - began_s
    assert marked(lab.remote, mark)
    assert not manager.has_kernel
    bench.proxy.resume()
    resumed_s = time.monotonic()
    assert_gone(lab, mark)
    print(
        f"returned after {took_s:.1f} s; gone {time.monotonic() - resumed_s:.1f} s after the return"
    )
    # Jupyter itself gives a kernel 5 s of grace, and then asks harder.
    assert took_s < 15


def another_client(kernel: Running) -> BlockingKernelClient:
    """Return a client with a session of its own, as a page that was opened anew has."""
    client = BlockingKernelClient(connection_file=kernel.manager.connection_file)
    client.load_connection_file()
    return client


def test_f58_reload_in_a_black_hole_works_after_it(bench: Bench) -> None:
    with bench.kernel() as kernel:
        bench.proxy.pause()
        fresh = another_client(kernel)
        try:
            fresh.start_channels()
            msg_id = fresh.kernel_info()
            bench.proxy.resume()
            reply = fresh.get_shell_msg(timeout=PATIENCE_S)
            assert reply["parent_header"]["msg_id"] == msg_id
            await_ready(fresh)
            assert run(fresh, "1 + 1").result == "2"
        finally:
            fresh.stop_channels()
        outcome_of(kernel.client, kernel.client.execute("0"))


@pytest.mark.parametrize("how", ["hole", "refused"])
def test_f58_reload_during_an_outage_opens_and_requests_do_not_pile_up(
    bench: Bench, how: str
) -> None:
    """As jupyter_server does for a page: it asks for kernel_info, up to four times a second."""
    with bench.kernel() as kernel:
        kernel.run(COUNT_KERNEL_INFO)
        await_ready(kernel.client)
        counted = int(kernel.run("asked").result or 0)
        assert counted > 0
        if how == "hole":
            bench.proxy.pause()
        else:
            bench.proxy.refuse()
            bench.proxy.reset()
        fresh = another_client(kernel)
        try:
            fresh.start_channels()
            began_s = time.monotonic()
            unanswered = answers = 0
            while answers < 10 and time.monotonic() - began_s < 20:
                fresh.kernel_info()
                try:
                    fresh.get_shell_msg(timeout=0.25)
                except queue.Empty:
                    unanswered += 1
                else:
                    answers += 1
            print(
                f"the first answer after {time.monotonic() - began_s:.1f} s; {unanswered} without"
            )
            bench.proxy.accept()
            bench.proxy.resume()
            asked = int(outcome_of(fresh, fresh.execute("asked")).result or 0)
            print(f"the kernel was asked {asked - counted} times")
        finally:
            fresh.stop_channels()
    assert answers == 10
    # What was sent before the outage was noticed is on its way and cannot be called back.
    assert asked - counted <= unanswered
