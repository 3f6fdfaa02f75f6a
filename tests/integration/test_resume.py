"""A connection breaks while somebody asks for something: requests, an interrupt, a restart, a death.

What a broken connection does to output: faults/.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.integration.kernels import (
    PATIENCE_S,
    AddKernel,
    Running,
    add_kernel,
    await_ready,
    eventually,
    jupyter_folders,
    run,
    started,
)
from tests.integration.lifecycle_helpers import OwnHub, await_text, outcome_of, own_hub
from tests.integration.machines import Lab


def kill_ssh(lab: Lab, hub: OwnHub) -> None:
    os.kill(hub.connection().pid, signal.SIGKILL)


def break_and_await_new_connection(
    lab: Lab, hub: OwnHub, act: Callable[[Lab, OwnHub], None]
) -> None:
    old = hub.connection().pid
    act(lab, hub)
    eventually(
        lambda: [process.pid for process in hub.connections()] not in ([], [old]),
        "another ssh process",
    )
    eventually(lambda: len(hub.connections()) == 1, "the end of the old ssh process")
    assert hub.connection().pid != old


def test_requests_sent_while_the_connection_is_broken_are_answered_in_order(
    lab: Lab, own_hub: OwnHub, add_kernel: AddKernel
) -> None:
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        kill_ssh(lab, own_hub)
        requests = [kernel.client.execute(f"{number} * 3") for number in range(20)]
        results = [outcome_of(kernel.client, msg_id).result for msg_id in requests]
        assert results == [str(number * 3) for number in range(20)]


def test_interrupt_restart_and_death_after_a_broken_connection(
    lab: Lab, own_hub: OwnHub, add_kernel: AddKernel
) -> None:
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        for _ in range(2):
            msg_id = kernel.client.execute("import time\nprint('begun')\ntime.sleep(60)")
            await_text(kernel.client, "begun")
            kill_ssh(lab, own_hub)
            kernel.manager.interrupt_kernel()
            reply = outcome_of(kernel.client, msg_id).reply["content"]
            assert reply["ename"] == "KeyboardInterrupt"
        old = kernel.remote_pid()
        kill_ssh(lab, own_hub)
        kernel.manager.restart_kernel()
        await_ready(kernel.client)
        outcome = run(kernel.client, "import os; os.getpid()")
        assert outcome.result not in (None, str(old))
        kernel.client.execute("import os; os._exit(5)")
        break_and_await_new_connection(lab, own_hub, kill_ssh)
        eventually(lambda: not kernel.manager.is_alive(), "the kernel's end")
        eventually(lambda: own_hub.link_state() == "up", "the link, to say good-bye on")
