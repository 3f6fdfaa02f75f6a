"""A local kernel is the yardstick: the same cells bring the same messages from the remote one.

Every message of every channel is recorded from a kernel on the laptop and from one on the remote,
with the same versions of Python and ipykernel. What may differ (ids, times, pids) is replaced by its
place in the order of appearance; the rest must be equal: type, parent, header fields, metadata,
content, buffers.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client import BlockingKernelClient, KernelManager

from tests.integration.kernels import (
    PATIENCE_S,
    AddKernel,
    Message,
    Running,
    add_kernel,
    jupyter_folders,
    kernel,
    started,
)
from tests.integration.machines import Lab
from tests.integration.recorder import Recorder

CELLS = [
    "%config IPCompleter.use_jedi = False",  # jedi gives up when the machine is busy
    "print('one'); 1+1",
    "import sys\nprint('out', flush=True)\nprint('err', file=sys.stderr, flush=True)",
    "for i in range(200): print(i, flush=True)",
    "display({'text/html': '<b>é</b>', 'text/plain': 'é'}, raw=True, metadata={'a': [1, None]})",
    "h = display(1, display_id='d'); h.update(2); from IPython.display import clear_output",
    "clear_output(wait=True); print('a\\rb', end='')",
    "def f(n):\n    return 1 / n\nf(0)",
    "1 = (",
    "raise KeyboardInterrupt",
    "raise SystemExit('bye')",
    "import warnings; warnings.warn('careful')",
    "print('nul \\0 unicode \\u2028 \\U0001f40d')",
    "print('lone \\udc80 surrogate', flush=True)",
    "display({'text/plain': '\\udcff'}, raw=True)",
    "!echo from a child; echo and its stderr >&2",
    "%%bash\necho bash",
    "len?",
    "%load_ext autoreload",
    "[input('a? '), __import__('getpass').getpass()]",
    "from comm import create_comm; c = create_comm('t', {'d': 1}, buffers=[b'\\0\\xff', b''])",
    "c.send({'d': 2}, buffers=[bytes(range(256))]); c.close()",
    "display(*range(50)); print('x' * 1_000_000)",
    "import threading; t = threading.Thread(target=print, args=['thread']); t.start(); t.join()",
    "# 'lone \udc80 in the code'",
    "",
    "_i, _, In[1], Out[1]",
]
REQUESTS: list[tuple[str, str, Message]] = [
    ("shell", "kernel_info_request", {}),
    ("shell", "complete_request", {"code": "impo", "cursor_pos": 4}),
    ("shell", "inspect_request", {"code": "len", "cursor_pos": 2, "detail_level": 0}),
    ("shell", "is_complete_request", {"code": "if x:"}),
    ("shell", "comm_info_request", {}),
    ("shell", "history_request", {"hist_access_type": "range", "session": 0, "start": 1,
                                  "stop": 4, "raw": True, "output": True}),
    ("control", "kernel_info_request", {}),
    ("control", "debug_request", {"type": "request", "seq": 1, "command": "debugInfo"}),
    ("control", "create_subshell_request", {}),
    ("control", "list_subshell_request", {}),
]  # fmt: skip


def record(client: BlockingKernelClient) -> Recorder:
    recorder = Recorder(client)
    for code in CELLS:
        recorder.execute(code)
    for request in REQUESTS:
        recorder.request(*request)
    return recorder


@pytest.fixture
def local_kernel(lab: Lab, jupyter_folders: Any) -> Iterator[Running]:
    """The yardstick: ipykernel on the laptop."""
    with started(lab, "python3") as running:
        yield running


def test_same_cells_same_messages(kernel: Running, local_kernel: Running) -> None:
    remote, local = record(kernel.client), record(local_kernel.client)
    for channel, said in local.normal().items():
        heard = remote.normal()[channel]
        for index, (theirs, ours) in enumerate(zip(said, heard, strict=False)):
            assert ours == theirs, f"message {index} of {channel}"
        assert len(heard) == len(said)


def test_no_message_twice(kernel: Running) -> None:
    assert record(kernel.client).repeated == []


def test_kernels_message_numbers_have_no_gap(kernel: Running, local_kernel: Running) -> None:
    """Ipykernel numbers its messages in the msg_id: a number that is missing was lost under way."""

    assert record(kernel.client).missing == record(local_kernel.client).missing


def test_first_subscriber_greeted(lab: Lab, add_kernel: AddKernel, host_alias: str) -> None:
    manager = KernelManager(kernel_name=add_kernel(host_alias))
    # A kernel that has something to say by itself, as its debugger has, may say it before.
    manager.start_kernel(env={**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"})
    client = manager.client()
    try:
        # A heartbeat thread that is stopped before it has begun opens sockets until none is left.
        client.start_channels(hb=False)
        greeting = client.get_iopub_msg(timeout=PATIENCE_S)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    assert (greeting["msg_type"], greeting["content"]) == ("iopub_welcome", {"subscription": ""})


def test_interrupt_request_brings_the_same(kernel: Running, local_kernel: Running) -> None:
    """A signal does it on the remote, so the agent answers in the kernel's place."""

    def heard(running: Running) -> dict[str, list[tuple[str, Message]]]:
        recorder = Recorder(running.client)
        recorder.request("control", "interrupt_request", {})
        said = recorder.heard.items()
        return {name: [(m["msg_type"], m["content"]) for m in messages] for name, messages in said}

    assert heard(kernel) == heard(local_kernel)
