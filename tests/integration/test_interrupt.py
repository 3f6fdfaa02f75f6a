"""A running cell is interrupted, whoever asks and whatever way the remote kernel knows.

The remote kernelspec says ``interrupt_mode`` signal or message. The client is one of three: aware of
provisioners with a local kernel.json that says signal, the same that says message, or a program that
knows nothing but the process that it started and sends it SIGINT. The kernel is ipykernel, which
knows both ways, or one of another language that knows only the one its kernelspec names.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyter_client import BlockingKernelClient

from tests.integration.kernels import (
    AddKernel,
    add_kernel,
    jupyter_folders,
    run,
    started,
)
from tests.integration.lifecycle_helpers import (
    REMOTE_PYTHON,
    InstallKernelspec,
    await_text,
    change_kernel_json,
    outcome_of,
    remote_kernelspec,
    standing,
)
from tests.integration.machines import Lab

SMALL_KERNEL = (Path(__file__).with_name("small_kernel.py")).read_text()
IPYKERNEL = [REMOTE_PYTHON, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
BUSY = "import time\nprint('begun', flush=True)\nfor _ in range(600): time.sleep(0.1)"
PROMPTLY_S = 10  # the cell would take a minute

Client = tuple[BlockingKernelClient, Callable[[], None]]

each_client = pytest.mark.parametrize("client_kind", ["signal", "message", "argv"])
each_remote_mode = pytest.mark.parametrize("remote_mode", ["signal", "message"])


@contextlib.contextmanager
def client_of(lab: Lab, name: str, kind: str, folder: Path) -> Iterator[Client]:
    """Start the kernel as that kind of client does; yield a client and its way to interrupt."""
    if kind == "argv":
        with standing(lab, name, folder) as own:
            yield own.client, lambda: own.process.send_signal(signal.SIGINT)
    else:
        change_kernel_json(name, interrupt_mode=kind)
        with started(lab, name) as kernel:
            yield kernel.client, kernel.manager.interrupt_kernel


@each_client
@each_remote_mode
def test_interrupt_raises_keyboard_interrupt_and_next_cell_works(
    lab: Lab,
    add_kernel: AddKernel,
    host_alias: str,
    remote_kernelspec: InstallKernelspec,
    tmp_path: Path,
    client_kind: str,
    remote_mode: str,
) -> None:
    spec = remote_kernelspec(IPYKERNEL, interrupt_mode=remote_mode)
    name = add_kernel(host_alias, remote_kernel_name=spec)
    with client_of(lab, name, client_kind, tmp_path) as (client, interrupt):
        for _ in range(2):
            msg_id = client.execute(BUSY)
            await_text(client, "begun")
            began_s = time.monotonic()
            interrupt()
            outcome = outcome_of(client, msg_id)
            assert time.monotonic() - began_s < PROMPTLY_S
            assert outcome.reply["content"]["ename"] == "KeyboardInterrupt"
            (error,) = outcome.of_type("error")
            assert error["content"]["ename"] == "KeyboardInterrupt"
        assert outcome_of(client, client.execute("6 * 7")).result == "42"


@each_client
@each_remote_mode
def test_interrupt_of_kernel_that_knows_one_way_only(
    lab: Lab,
    add_kernel: AddKernel,
    host_alias: str,
    remote_kernelspec: InstallKernelspec,
    tmp_path: Path,
    client_kind: str,
    remote_mode: str,
) -> None:
    argv = [REMOTE_PYTHON, "{resource_dir}/small_kernel.py", remote_mode, "{connection_file}"]
    spec = remote_kernelspec(
        argv, {"small_kernel.py": SMALL_KERNEL}, language="small", interrupt_mode=remote_mode
    )
    name = add_kernel(host_alias, "--language", "small", remote_kernel_name=spec)
    with client_of(lab, name, client_kind, tmp_path) as (client, interrupt):
        msg_id = client.execute("wait")
        await_text(client, "wait")
        began_s = time.monotonic()
        interrupt()
        outcome = outcome_of(client, msg_id)
        assert time.monotonic() - began_s < PROMPTLY_S
        assert outcome.reply["content"]["ename"] == "Interrupted"
        assert outcome.reply["content"]["evalue"] == remote_mode
        assert outcome_of(client, client.execute("hello")).text() == "hello"


@each_client
def test_interrupt_of_idle_kernel_changes_nothing(
    lab: Lab, add_kernel: AddKernel, host_alias: str, tmp_path: Path, client_kind: str
) -> None:
    with client_of(lab, add_kernel(host_alias), client_kind, tmp_path) as (client, interrupt):
        assert outcome_of(client, client.execute("x = 6")).reply["content"]["status"] == "ok"
        for _ in range(3):
            interrupt()
        # Nothing tells that a signal had nothing to interrupt; one that comes late finds the next
        # cell, as the SIGINT of a local kernel would.
        time.sleep(2)
        assert outcome_of(client, client.execute("x * 7")).result == "42"


def test_interrupt_reaches_children_of_the_cell(
    lab: Lab, add_kernel: AddKernel, host_alias: str
) -> None:
    """As Ctrl+C in a terminal would: the program that the cell waits for gets the signal too."""
    trap = "trap 'echo interrupted; exit 5' INT; echo begun; while :; do sleep 0.1; done"
    code = (
        f"import subprocess\np = subprocess.Popen(['bash', '-c', {trap!r}], stdout=-1, text=True)\n"
        "print(p.stdout.readline(), flush=True)\np.wait()"
    )
    with started(lab, add_kernel(host_alias)) as kernel:
        msg_id = kernel.client.execute(code)
        await_text(kernel.client, "begun")
        kernel.manager.interrupt_kernel()
        outcome = outcome_of(kernel.client, msg_id)
        assert outcome.reply["content"]["ename"] == "KeyboardInterrupt"
        assert run(kernel.client, "p.stdout.read()").result == r"'interrupted\n'"
