"""F14: the hub is killed; its stand-ins start another, which takes the link over where it was.

The reader of the notebook sees a pause and nothing else: the clients' sockets find the same endpoints.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import os
import signal

from tests.integration.kernels import (
    AddKernel,
    Running,
    add_kernel,
    eventually,
    jupyter_folders,
    started,
)
from tests.integration.lifecycle_helpers import (
    OwnHub,
    interrupt_and_restart_beside_another,
    outcome_of,
    own_hub,
)
from tests.integration.machines import Lab
from tests.integration.printing import EXPECTED, LINES, PRINTING, text_up_to


def kill_hub(hub: OwnHub) -> None:
    """Kill the hub and wait for the one that replaces it."""
    old = hub.pid
    os.kill(old, signal.SIGKILL)
    eventually(
        lambda: [p.pid for p in hub.processes() if "sshpyk.hub.main" in p.args] not in ([], [old]),
        "another hub",
    )
    eventually(lambda: hub.link_state() == "up" and len(hub.connections()) == 1, "the link")


def test_f14_hub_killed_twice_while_a_cell_prints_loses_no_line(
    lab: Lab, add_kernel: AddKernel, own_hub: OwnHub
) -> None:
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        kernel.run("mark = 41")
        msg_id = kernel.client.execute(PRINTING)
        text = ""
        for line in (30, 100):
            text += text_up_to(kernel, f"line {line}\n")
            kill_hub(own_hub)
        outcome = outcome_of(kernel.client, msg_id)
        assert text + outcome.text() == EXPECTED
        assert outcome.result == str(LINES - 1)
        assert kernel.run("mark + 1").result == "42"


def test_f14_kernels_of_a_killed_hub_are_interrupted_and_restarted_as_before(
    lab: Lab, add_kernel: AddKernel, own_hub: OwnHub
) -> None:
    name = add_kernel(own_hub.host, *own_hub.options)
    with interrupt_and_restart_beside_another(lab, name, lambda: kill_hub(own_hub)):
        assert own_hub.link_state() == "up"
