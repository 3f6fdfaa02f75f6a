"""A local kernel is the yardstick: the same cells bring the same messages from the remote one.

Every message of every channel is recorded from a kernel on the laptop and from one on the remote,
with the same versions of Python and ipykernel. What may differ (ids, times, pids) is replaced by its
place in the order of appearance; the rest must be equal: type, parent, header fields, metadata,
content, buffers.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
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
# Ids, moments, processes, folders: what two runs on one machine do not have in common either.
_VARIABLE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{24}\w*|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{32}\b"
    r"|\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)|/tmp/ipykernel_\d+/\d*|0x[0-9a-f]+"
)


class Recorder:
    """Sends requests one after the other and records what comes, by channel."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self._client = client
        self._channels = {
            getattr(client, f"{name}_channel").socket: name
            for name in ("shell", "iopub", "stdin", "control")
        }
        self.heard: dict[str, list[Message]] = {name: [] for name in self._channels.values()}
        self._parents: list[str] = []

    def request(self, channel: str, msg_type: str, content: Message) -> None:
        """Send one request; return when it has its reply and its idle."""
        message = self._client.session.msg(msg_type, content)
        self._parents.append(message["header"]["msg_id"])
        getattr(self._client, f"{channel}_channel").send(message)
        awaited = {channel, "idle"}
        poller = zmq.Poller()
        for socket in self._channels:
            poller.register(socket, zmq.POLLIN)
        while awaited:
            ready = poller.poll(PATIENCE_S * 1000)
            assert ready, f"silence after {content}"
            for socket, _ in ready:
                awaited -= self._take(self._channels[socket])

    def execute(self, code: str) -> None:
        """Execute a cell."""
        rest = {"silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": True}
        self.request("shell", "execute_request", {"code": code, **rest, "stop_on_error": False})

    def _take(self, channel: str) -> set[str]:
        message = getattr(self._client, f"{channel}_channel").get_msg(timeout=0)
        self.heard[channel].append(message)
        if channel == "stdin":
            self._client.input("answer é")
        mine = message["parent_header"].get("msg_id") == self._parents[-1]
        idle = message["content"].get("execution_state") == "idle"
        return {"idle" if idle else channel} if mine and (idle or channel != "iopub") else set()

    def normal(self) -> dict[str, list[Any]]:
        """Return what was heard without what may differ between two runs."""
        return {channel: self._normal(said) for channel, said in self.heard.items()}

    def _normal(self, messages: list[Message]) -> list[Any]:
        known: dict[str, str] = {}

        def place(found: re.Match[str]) -> str:
            return known.setdefault(found[0], f"<{len(known)}>")

        normal: list[Any] = []
        for message in messages:
            parent = self._parents.index(message["parent_header"]["msg_id"])
            # IPython's banner ends with a tip of the day.
            content = {key: item for key, item in message["content"].items() if key != "banner"}
            # Text that was merely flushed in two pieces is joined.
            last = normal[-1] if normal else (None,) * 6
            same = message["msg_type"] == "stream" == last[1] and last[0] == parent
            if same and content["name"] == last[4]["name"]:
                last[4]["text"] += content["text"]
                continue
            normal.append(
                (
                    parent,
                    message["msg_type"],
                    {key: message["header"][key] for key in ("version",)},
                    _replaced(message["metadata"], place),
                    _replaced(content, place),
                    [bytes(buffer) for buffer in message["buffers"]],
                )
            )
        return normal


def _replaced(value: Any, place: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, place) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, place) for item in value]
    return _VARIABLE.sub(place, value) if isinstance(value, str) else value


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
    heard = record(kernel.client).heard
    ids = [message["msg_id"] for said in heard.values() for message in said]
    assert len(ids) == len(set(ids))


def test_kernels_message_numbers_have_no_gap(kernel: Running, local_kernel: Running) -> None:
    """Ipykernel numbers its messages in the msg_id: a number that is missing was lost under way."""

    def missing(running: Running) -> int:
        heard = record(running.client).heard
        ids = [message["msg_id"] for said in heard.values() for message in said]
        numbers = sorted(int(msg_id.rpartition("_")[2]) for msg_id in ids)
        return len(set(range(numbers[0], numbers[-1])) - set(numbers))

    assert missing(kernel) == missing(local_kernel)


def test_first_subscriber_greeted(lab: Lab, add_kernel: AddKernel, host_alias: str) -> None:
    manager = KernelManager(kernel_name=add_kernel(host_alias))
    manager.start_kernel()
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
