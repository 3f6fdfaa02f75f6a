"""One broken connection is dialled again and the link resumes: no line is lost, none comes twice.

While a cell prints, the local ssh process is killed, or the remote end of its session, or one after
the other. The reader of the notebook sees a pause and nothing else.
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

LINES = 200
PRINTING = f"""
import time
for number in range({LINES}):
    print("line", number, flush=True)
    time.sleep(0.05)
number
"""
EXPECTED = "".join(f"line {number}\n" for number in range(LINES))


def kill_ssh(lab: Lab, hub: OwnHub) -> None:
    os.kill(hub.connection().pid, signal.SIGKILL)


def kill_session(lab: Lab, hub: OwnHub) -> None:
    lab.remote.kill(hub.session().pid)


BREAKS: dict[str, list[Callable[[Lab, OwnHub], None]]] = {
    "ssh": [kill_ssh],
    "sshd": [kill_session],
    "both": [kill_ssh, kill_session],
}


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


def printed(kernel: Running, lab: Lab, hub: OwnHub, how: str) -> None:
    """Run the printing cell, break the connection in its middle, and check what came."""
    kernel.run("number = None")
    msg_id = kernel.client.execute(PRINTING)
    text = ""
    for place, act in enumerate(BREAKS[how]):
        text += text_up_to(kernel, f"line {40 + 60 * place}\n")
        break_and_await_new_connection(lab, hub, act)
    outcome = outcome_of(kernel.client, msg_id)
    assert text + outcome.text() == EXPECTED
    assert outcome.result == str(LINES - 1)
    assert outcome.reply["content"]["status"] == "ok"
    assert outcome.reply["content"]["execution_count"] == 2


def text_up_to(kernel: Running, end: str) -> str:
    """Read iopub until its text has ``end``; return all of the text."""
    text, deadline_s = "", time.monotonic() + PATIENCE_S
    while end not in text:
        message = kernel.client.get_iopub_msg(timeout=max(0.01, deadline_s - time.monotonic()))
        text += message["content"]["text"] if message["msg_type"] == "stream" else ""
    return text


@pytest.mark.parametrize("how", BREAKS)
def test_broken_connection_loses_and_repeats_no_line(
    lab: Lab, own_hub: OwnHub, add_kernel: AddKernel, how: str
) -> None:
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        printed(kernel, lab, own_hub, how)
        outcome = kernel.run("[number, 6 * 7]")
        assert outcome.result == f"[{LINES - 1}, 42]"
        assert outcome.reply["content"]["execution_count"] == 3


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
