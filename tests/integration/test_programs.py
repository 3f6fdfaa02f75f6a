"""The programs that people use, each with a remote kernel: nbclient, papermill, a console, a server."""

# ruff: noqa: F401, F811
from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pexpect
import pytest
from jupyter_client import AsyncKernelManager, KernelManager
from jupyter_client.multikernelmanager import MultiKernelManager
from nbclient import NotebookClient

from tests.integration.kernels import (
    PATIENCE_S,
    AddKernel,
    add_kernel,
    await_ready,
    jupyter_folders,
    new_environment,
    run,
    started,
)
from tests.integration.machines import Lab

BIN = Path(sys.executable).parent


def notebook(*cells: str) -> nbformat.NotebookNode:
    node = nbformat.v4.new_notebook()
    node.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    return node


CELLS = (
    "print('from', __import__('socket').gethostname())",
    "6 * 7",
    "from IPython.display import display, HTML; display(HTML('<b>shown</b>'))",
)


def check_outputs(executed: nbformat.NotebookNode) -> None:
    printed, value, shown = (cell.outputs[0] for cell in executed.cells[-3:])
    assert printed.text == "from remote\n"
    assert value.data["text/plain"] == "42"
    assert shown.data["text/html"] == "<b>shown</b>"


def test_nbclient_executes_a_notebook(add_kernel: AddKernel, host_alias: str) -> None:
    name = add_kernel(host_alias)
    executed = NotebookClient(notebook(*CELLS), kernel_name=name, timeout=PATIENCE_S).execute()
    check_outputs(executed)


def test_papermill_executes_a_notebook(
    add_kernel: AddKernel, host_alias: str, tmp_path: Path
) -> None:
    name = add_kernel(host_alias)
    nbformat.write(notebook(*CELLS), tmp_path / "in.ipynb")
    command = [str(BIN / "papermill"), "in.ipynb", "out.ipynb", "-k", name, "--no-progress-bar"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_outputs(nbformat.read(tmp_path / "out.ipynb", as_version=4))


def test_console_prints_interrupts_and_exits(add_kernel: AddKernel, host_alias: str) -> None:
    name = add_kernel(host_alias)
    console = pexpect.spawn(
        str(BIN / "jupyter"),
        ["console", "--kernel", name, "--simple-prompt", "--ZMQTerminalInteractiveShell.banner="],
        encoding="utf-8",
        timeout=PATIENCE_S,
        env={**os.environ, "TERM": "dumb", "NO_COLOR": "1"},
    )
    try:
        console.expect(r"In \[1\]:")
        console.sendline("print(40 + 2, 'on', __import__('socket').gethostname())")
        console.expect("42 on remote")
        console.expect(r"In \[2\]:")
        console.sendline("import time; print('slee' + 'ping', flush=True); time.sleep(100)")
        console.expect("sleeping")
        press_until(console, "KeyboardInterrupt")
        console.expect(r"In \[3\]:")
        console.sendline("exit")
        console.expect(pexpect.EOF)
    finally:
        console.close(force=True)
    assert console.exitstatus == 0


def press_until(console: pexpect.spawn, text: str) -> None:
    """Press Ctrl+C as a person does: again, when one that came while a line was printed was lost."""
    for _ in range(5):
        console.sendintr()
        if console.expect([text, pexpect.TIMEOUT], timeout=5) == 0:
            return
    raise AssertionError(f"no {text} after five Ctrl+C: {console.before}")


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
@pytest.mark.parametrize("encryption", ["disabled", "required"])
def test_local_sockets_of_every_kind(
    lab: Lab,
    add_kernel: AddKernel,
    host_alias: str,
    tmp_path_factory: pytest.TempPathFactory,
    transport: str,
    encryption: str,
) -> None:
    options: dict[str, Any] = {"transport": transport, "transport_encryption": encryption}
    if transport == "ipc":
        options["ip"] = f"/tmp/ipc-{os.getpid()}-{host_alias}-{encryption}"
    manager = KernelManager(kernel_name=add_kernel(host_alias), **options)
    with started(lab, manager.kernel_name, manager=manager) as kernel:
        assert kernel.run("1 + 1").result == "2"
        assert bool(manager.curve_publickey) is (encryption == "required")
        manager.restart_kernel()
        await_ready(kernel.client)
        assert run(kernel.client, "2 + 2").result == "4"


def test_async_manager(add_kernel: AddKernel, host_alias: str) -> None:
    async def session() -> str:
        manager = AsyncKernelManager(kernel_name=add_kernel(host_alias))
        await manager.start_kernel()
        client = manager.client()
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=PATIENCE_S)
            reply = await client.execute_interactive(
                "pass", user_expressions={"answer": "6 * 7"}, timeout=PATIENCE_S
            )
        finally:
            client.stop_channels()
            await manager.shutdown_kernel()
        text: str = reply["content"]["user_expressions"]["answer"]["data"]["text/plain"]
        return text

    assert asyncio.run(session()) == "42"


def test_multi_kernel_manager(add_kernel: AddKernel, host_alias: str) -> None:
    name = add_kernel(host_alias)
    kernels = MultiKernelManager()
    ids = [kernels.start_kernel(kernel_name=name) for _ in range(2)]
    try:
        pids = set()
        for kernel_id in ids:
            client = kernels.get_kernel(kernel_id).client()
            client.start_channels()
            await_ready(client)
            pids.add(run(client, "import os; os.getpid()").result)
            client.stop_channels()
        assert len(pids) == 2
    finally:
        kernels.shutdown_all(now=True)


def test_debugger_answers(lab: Lab, add_kernel: AddKernel, host_alias: str) -> None:
    name = add_kernel(host_alias)
    spec = json.loads(
        (Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / name / "kernel.json").read_text()
    )
    assert spec["metadata"]["debugger"] is True
    with started(lab, name) as kernel:
        content = {"type": "request", "seq": 1, "command": "debugInfo", "arguments": {}}
        kernel.client.control_channel.send(
            kernel.client.session.msg("debug_request", content=content)
        )
        reply = kernel.client.get_control_msg(timeout=PATIENCE_S)
        assert reply["content"]["success"] is True
