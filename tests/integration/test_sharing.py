"""Many kernels, one ssh process: whatever sshd's MaxSessions, and however they are started."""
# ruff: noqa: F401, F811

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager, KernelManager

from tests.integration.kernels import (
    PATIENCE_S,
    AddKernel,
    add_kernel,
    assert_gone,
    await_ready,
    in_threads,
    jupyter_folders,
    marked,
    new_environment,
    run,
    started,
)
from tests.integration.lifecycle_helpers import OwnHub, hub_of, own_hub, the_agent
from tests.integration.machines import Lab

MANY = 12  # the remote's sshd allows 10 sessions per connection, as Debian ships it
CELL = "import os; os.getpid(), sum(range(10))"


def test_two_kernels_on_one_host_share_one_connection(
    lab: Lab, own_hub: OwnHub, add_kernel: AddKernel
) -> None:
    name = add_kernel(own_hub.host, *own_hub.options)
    with started(lab, name) as first, started(lab, name) as second:
        ssh, session = own_hub.connection(), own_hub.session()
        assert first.run("x = 1").reply["content"]["status"] == "ok"
        assert second.run("x").reply["content"]["ename"] == "NameError"
        assert first.remote_pid() != second.remote_pid()
        assert (own_hub.connection(), own_hub.session().pid) == (ssh, session.pid)


def test_twelve_kernels_started_at_once_by_threads(
    lab: Lab, own_hub: OwnHub, add_kernel: AddKernel
) -> None:
    name = add_kernel(own_hub.host, *own_hub.options)
    environment, mark = new_environment()
    managers = [KernelManager(kernel_name=name) for _ in range(MANY)]

    def execute(manager: KernelManager) -> str:
        client = manager.client()
        client.start_channels()
        await_ready(client)
        result = run(client, CELL).result
        client.stop_channels()
        return result or ""

    try:
        in_threads(lambda manager: manager.start_kernel(env=environment), managers)
        results = in_threads(execute, managers)
        own_hub.connection()  # fails unless there is exactly one
        own_hub.session()
    finally:
        in_threads(lambda manager: manager.shutdown_kernel(), managers)
    assert len(set(results)) == MANY
    assert {result.split(", ")[1] for result in results} == {"45)"}
    assert_gone(lab, mark)


def test_twelve_kernels_started_at_once_by_asyncio(
    lab: Lab, own_hub: OwnHub, add_kernel: AddKernel
) -> None:
    name = add_kernel(own_hub.host, *own_hub.options)
    environment, mark = new_environment()

    async def execute(manager: AsyncKernelManager) -> str:
        client: Any = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=PATIENCE_S)
        msg_id = client.execute("", user_expressions={"it": CELL.partition("; ")[2]})
        reply: Any = {"parent_header": {}}
        while reply["parent_header"].get("msg_id") != msg_id:
            reply = await client.get_shell_msg(timeout=PATIENCE_S)
        client.stop_channels()
        return str(reply["content"]["user_expressions"]["it"])

    async def scenario() -> list[str]:
        managers = [AsyncKernelManager(kernel_name=name) for _ in range(MANY)]
        try:
            await asyncio.gather(*(manager.start_kernel(env=environment) for manager in managers))
            results = await asyncio.gather(*map(execute, managers))
            own_hub.connection()
            own_hub.session()
        finally:
            await asyncio.gather(*(manager.shutdown_kernel() for manager in managers))
        return results

    results = asyncio.run(scenario())
    assert len(results) == MANY
    assert_gone(lab, mark)


def test_direct_and_jump_at_once_are_two_hubs_and_one_agent(
    lab: Lab, tmp_path: Path, add_kernel: AddKernel
) -> None:
    with (
        hub_of(lab, "remote", tmp_path / "direct_config") as direct,
        hub_of(lab, "remote-jump", tmp_path / "jump_config") as jump,
        started(lab, add_kernel(direct.host, *direct.options)) as first,
        started(lab, add_kernel(jump.host, *jump.options)) as second,
    ):
        assert direct.pid != jump.pid
        assert direct.session().pid != jump.session().pid
        agent = the_agent(lab)
        parents = {process.pid: process.ppid for process in lab.remote.processes()}
        assert {parents[kernel.remote_pid()] for kernel in (first, second)} == {agent.pid}
