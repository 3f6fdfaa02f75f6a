"""The life of a remote kernel: restarts, ends that were asked for, ends that were not, lost owners.

What is promised is what a local kernel does: a restart keeps ports and clients, a shutdown takes the
kernel's children along, a death shows the last output and then its status, and nobody's kernel
outlives its owner.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from jupyter_client import AsyncKernelClient
from jupyter_client.ioloop import AsyncIOLoopKernelManager, IOLoopKernelManager
from jupyter_client.manager import KernelManager
from jupyter_core.utils import ensure_async

from tests.integration.kernels import (
    PATIENCE_S,
    AddKernel,
    Running,
    add_kernel,
    assert_gone,
    await_ready,
    eventually,
    jupyter_folders,
    kernel,
    marked,
    new_environment,
    run,
    started,
)
from tests.integration.lifecycle_helpers import (
    OwnHub,
    await_text,
    outcome_of,
    own_hub,
    standing,
)
from tests.integration.machines import Lab

CHILDREN = """
import subprocess
child = subprocess.Popen(["sleep", "1000"])
family = subprocess.Popen(["bash", "-c", "sleep 1001 & wait"])
"""
OWNER_LIMIT_S = 5  # how long a kernel may outlive its owner


# Restart


def assert_restarted(kernel: Running, lab: Lab, old_pid: int) -> None:
    """The client that was there before talks to a new process, which knows no variable."""
    await_ready(kernel.client)
    outcome = outcome_of(kernel.client, kernel.client.execute("import os; [os.getpid(), dir()]"))
    assert outcome.reply["content"]["execution_count"] == 1
    assert outcome.result is not None
    assert "'marker'" not in outcome.result
    assert not outcome.result.startswith(f"[{old_pid},")
    assert str(old_pid) not in [str(process.pid) for process in lab.remote.processes()]


@pytest.mark.parametrize("now", [False, True], ids=["politely", "now"])
def test_restart_keeps_ports_clients_and_connection(
    lab: Lab, own_hub: OwnHub, add_kernel: AddKernel, now: bool
) -> None:
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        before = kernel.manager.get_connection_info()
        file = Path(kernel.manager.connection_file)
        text, hub, ssh = file.read_text(), own_hub.pid, own_hub.connection().pid
        assert kernel.run("marker = 1").reply["content"]["status"] == "ok"
        old_pid = kernel.remote_pid()
        kernel.manager.restart_kernel(now=now)
        assert_restarted(kernel, lab, old_pid)
        assert kernel.manager.get_connection_info() == before
        assert file.read_text() == text
        assert (own_hub.pid, own_hub.connection().pid) == (hub, ssh)


def test_restart_five_times_in_a_row(lab: Lab, kernel: Running) -> None:
    for _ in range(5):
        old_pid = kernel.remote_pid()
        kernel.manager.restart_kernel()
        assert_restarted(kernel, lab, old_pid)


@pytest.mark.parametrize("now", [False, True], ids=["politely", "now"])
def test_restart_while_a_cell_runs(lab: Lab, kernel: Running, now: bool) -> None:
    old_pid = kernel.remote_pid()
    kernel.client.execute("import time\nprint('begun', flush=True)\ntime.sleep(60)")
    await_text(kernel.client, "begun")
    began_s = time.monotonic()
    kernel.manager.restart_kernel(now=now)
    assert time.monotonic() - began_s < 20
    assert_restarted(kernel, lab, old_pid)


def test_restart_ends_children_of_the_old_kernel(lab: Lab, kernel: Running) -> None:
    kernel.run(CHILDREN)
    assert len(marked(lab.remote, kernel.mark)) == 4
    kernel.manager.restart_kernel(now=True)
    await_ready(kernel.client)
    eventually(lambda: len(marked(lab.remote, kernel.mark)) == 1, "the new kernel alone")


# Autorestart, as jupyter_server does it


@contextlib.asynccontextmanager
async def watched(
    lab: Lab,
    name: str,
    kind: type[IOLoopKernelManager | AsyncIOLoopKernelManager] = AsyncIOLoopKernelManager,
    **traits: Any,
) -> AsyncIterator[tuple[Any, AsyncKernelClient, list[str]]]:
    """Start a kernel with a restarter; yield manager, client and the restarter's words."""
    environment, mark = new_environment()
    manager = kind(kernel_name=name, autorestart=True, **traits)
    words: list[str] = []
    await ensure_async(manager.start_kernel(env=environment))
    for word in ("restart", "dead"):
        manager.add_restart_callback(lambda word=word: words.append(word), word)
    try:
        async with client_of(manager) as client:
            yield manager, client, words
    finally:
        await ensure_async(manager.shutdown_kernel())
    assert_gone(lab, mark)


@contextlib.asynccontextmanager
async def client_of(manager: Any) -> AsyncIterator[AsyncKernelClient]:
    """A client of its own that is ready."""
    client = AsyncKernelClient()
    client.load_connection_info(manager.get_connection_info())
    client.start_channels()
    try:
        await ready(client)
        yield client
    finally:
        client.stop_channels()


async def ready(client: AsyncKernelClient) -> None:
    """Wait for an answer; a second without a heartbeat on a busy machine is no death."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(RuntimeError):
            await client.wait_for_ready(timeout=PATIENCE_S)
            return
        assert time.monotonic() < deadline_s, "an answer of the kernel"
        await asyncio.sleep(0.1)


async def eventually_async(condition: Callable[[], Any], what: str) -> None:
    """Wait for something that the event loop brings about."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, what
        await asyncio.sleep(0.05)


async def value_of(client: Any, expression: str) -> str:
    """Evaluate an expression through an asynchronous client."""
    msg_id = client.execute("", user_expressions={"it": expression}, silent=True)
    reply: Any = {"parent_header": {}}
    while reply["parent_header"].get("msg_id") != msg_id:  # several requests of wait_for_ready
        reply = await client.get_shell_msg(timeout=PATIENCE_S)
    data: str = reply["content"]["user_expressions"]["it"]["data"]["text/plain"]
    return data


MANAGERS = {"async": AsyncIOLoopKernelManager, "sync": IOLoopKernelManager}
PID = "__import__('os').getpid()"


@pytest.mark.parametrize(
    ("kind", "when"), [("async", "early"), ("async", "stable"), ("sync", "early")]
)
def test_f19_autorestart_once_after_death_keeps_ports_and_clients(
    lab: Lab, add_kernel: AddKernel, host_alias: str, kind: str, when: str
) -> None:
    async def scenario() -> None:
        name = add_kernel(host_alias)
        async with watched(lab, name, MANAGERS[kind]) as (manager, client, words):
            if when == "stable":
                manager._restarter.stable_start_time = 1.0
                await eventually_async(
                    lambda: not manager._restarter._initial_startup, "a stable start"
                )
            ports, pid = manager.ports, await value_of(client, PID)
            client.execute("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
            await eventually_async(lambda: words, "the restarter's word")
            await ready(client)
            assert await value_of(client, PID) != pid
            assert manager.ports == ports
            assert words == ["restart"]

    asyncio.run(scenario())


def test_f18_autorestart_once_with_new_ports(
    lab: Lab, add_kernel: AddKernel, host_alias: str
) -> None:
    """So it goes where ports are not kept for a kernel: a client must look into the file again."""

    async def scenario() -> None:
        async with watched(lab, add_kernel(host_alias), cache_ports=False) as watching:
            manager, client, words = watching
            ports = manager.ports
            client.execute("import os; os._exit(1)")
            await eventually_async(lambda: words, "the restarter's word")
            await eventually_async(lambda: manager.ports not in (ports, [0] * 5), "new ports")
            async with client_of(manager) as later:
                assert await value_of(later, "6 * 7") == "42"
            assert words == ["restart"]

    asyncio.run(scenario())


# Shutdown


@pytest.mark.parametrize("now", [False, True], ids=["politely", "now"])
def test_shutdown_ends_kernel_children_and_grandchildren(
    lab: Lab, add_kernel: AddKernel, host_alias: str, now: bool
) -> None:
    with started(lab, add_kernel(host_alias)) as kernel:
        kernel.run(CHILDREN)
        assert len(marked(lab.remote, kernel.mark)) == 4
        began_s = time.monotonic()
        kernel.manager.shutdown_kernel(now=now)
        # ipykernel goes on to wait for children that it has ended; Jupyter has had enough after 5 s.
        assert time.monotonic() - began_s < 9
        assert_gone(lab, kernel.mark)


def test_shutdown_while_a_cell_runs(lab: Lab, kernel: Running) -> None:
    kernel.client.execute("print('begun', flush=True)\nwhile True: pass")
    await_text(kernel.client, "begun")
    began_s = time.monotonic()
    kernel.manager.shutdown_kernel()
    assert time.monotonic() - began_s < 15
    assert_gone(lab, kernel.mark)


def test_term_of_stand_in_shuts_down_and_exits_as_the_kernel(
    lab: Lab, add_kernel: AddKernel, host_alias: str, tmp_path: Path
) -> None:
    with standing(lab, add_kernel(host_alias), tmp_path) as own:
        own.process.terminate()
        assert own.process.wait(PATIENCE_S) == 0


# Death

LAST_WORDS = "".join(f"last line {number}\n" for number in range(200))
ENDS = {
    "f18-exit-0": ("os._exit(0)", 0),
    "f18-exit-3": ("os._exit(3)", 3),
    "f19-kill": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    "f19-abort": ("os.abort()", -signal.SIGABRT),
    "f19-segfault": ("ctypes.string_at(0)", -signal.SIGSEGV),
}
each_end = pytest.mark.parametrize("end", ENDS)


def last_output(client: Any) -> str:
    """Return the text that had reached the client, or was on its way to it, at its kernel's end."""
    text = ""
    while not text.endswith(LAST_WORDS[-20:]):
        message = client.get_iopub_msg(timeout=5)
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            text += message["content"]["text"]
    return text


def dying_cell(end: str) -> str:
    """Print, give the kernel's own threads a moment to pass that on, and die."""
    return (
        "import ctypes, os, signal, sys, time\n"
        "print(''.join(f'last line {n}\\n' for n in range(200)), end='', flush=True)\n"
        f"time.sleep(0.3)\n{ENDS[end][0]}"
    )


@each_end
def test_death_brings_last_output_then_its_status_to_the_stand_in(
    lab: Lab, add_kernel: AddKernel, host_alias: str, tmp_path: Path, end: str
) -> None:
    with standing(lab, add_kernel(host_alias), tmp_path) as own:
        assert own.process.poll() is None
        own.client.execute(dying_cell(end))
        assert own.process.wait(PATIENCE_S) == ENDS[end][1]
        assert last_output(own.client) == LAST_WORDS


@each_end
def test_death_brings_last_output_then_its_status_to_the_provisioner(
    lab: Lab, add_kernel: AddKernel, host_alias: str, end: str
) -> None:
    with started(lab, add_kernel(host_alias)) as kernel:
        provisioner = kernel.manager.provisioner
        assert provisioner is not None
        assert asyncio.run(provisioner.poll()) is None
        kernel.client.execute(dying_cell(end))
        eventually(lambda: not kernel.manager.is_alive(), "the kernel's end")
        assert asyncio.run(provisioner.poll()) == ENDS[end][1]
        assert last_output(kernel.client) == LAST_WORDS


def test_death_ends_children(lab: Lab, kernel: Running) -> None:
    kernel.run(CHILDREN)
    kernel.client.execute("import os; os._exit(4)")
    assert_gone(lab, kernel.mark)


# The owner vanishes


def test_killed_stand_in_ends_the_kernel_and_its_children(lab: Lab, kernel: Running) -> None:
    kernel.run(CHILDREN)
    os.kill(kernel.stand_in_pid, signal.SIGKILL)
    eventually(
        lambda: not marked(lab.remote, kernel.mark), "the kernel's end", timeout_s=OWNER_LIMIT_S
    )


SERVER = """
import sys, time
from jupyter_client import KernelManager
manager = KernelManager(kernel_name=sys.argv[1], connection_file=sys.argv[3])
manager.start_kernel()
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=60)
client.execute_interactive(sys.argv[2])
print("ready", flush=True)
time.sleep(600)
"""


def test_f15_killed_server_ends_its_kernels_and_their_children(
    lab: Lab, add_kernel: AddKernel, host_alias: str, tmp_path: Path
) -> None:
    environment, mark = new_environment()
    # What a kernelspec's env sets reaches the kernel; what the server was started with does not.
    code = f"import os; os.environ['SSHPYK_TEST_MARK'] = {mark!r}\n{CHILDREN}"
    file = str(tmp_path / "killed-server.json")
    argv = [sys.executable, "-c", SERVER, add_kernel(host_alias), code, file]
    server = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    with server.stdout as said:
        assert said.readline() == "ready\n"
    assert len(marked(lab.laptop, mark)) == 1
    assert len(marked(lab.remote, mark)) == 3  # the kernel itself was started without the mark
    server.kill()
    server.wait()
    for machine in (lab.laptop, lab.remote):
        eventually(
            lambda machine=machine: not marked(machine, mark),  # type: ignore[misc]
            f"the end of what the server left on the {machine.role}",
            timeout_s=OWNER_LIMIT_S,
        )


def test_hub_told_to_leave_ends_kernels_and_leaves_nothing(
    lab: Lab, own_hub: OwnHub, add_kernel: AddKernel
) -> None:
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        kernel.run(CHILDREN)
        own_hub.leave()
        assert_gone(lab, kernel.mark)
        eventually(lambda: not own_hub.processes(), "the end of the hub and of its ssh")
        assert not kernel.manager.is_alive()


def test_hub_that_left_is_started_again_for_the_next_kernel(
    lab: Lab, own_hub: OwnHub, add_kernel: AddKernel
) -> None:
    name = add_kernel(own_hub.host, *own_hub.options)
    for _ in range(2):
        with started(lab, name) as kernel:
            assert run(kernel.client, "6 * 7").result == "42"
        own_hub.leave()
        eventually(lambda: not own_hub.processes(), "the end of the hub and of its ssh")
