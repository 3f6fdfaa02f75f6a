"""Kernels for the integration tests: added with the real CLI, started, talked to, checked when gone.

A test module imports the three fixtures (and begins with ``# ruff: noqa: F401, F811`` for that)::

    from tests.integration.kernels import add_kernel, jupyter_folders, kernel, started

    def test_x(kernel):                       # a running Python kernel, over both aliases
        assert kernel.run("1+1").result == "2"

    def test_y(lab, add_kernel, host_alias):  # the same by hand
        name = add_kernel(host_alias, "--shutdown-timeout", "3")
        with started(lab, name) as kernel:
            ...
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_server
from typing import Any, TypeVar

import pytest
import zmq
from jupyter_client import BlockingKernelClient, KernelManager
from jupyter_client.connect import LocalPortCache
from jupyter_core.utils import ensure_event_loop

from tests.integration.machines import Lab, Machine

REMOTE_PREFIX = "/opt/venv"
PATIENCE_S = 60.0  # for what takes far less: two cores, four workers
SSHPYK = str(Path(sys.executable).with_name("sshpyk"))

Message = dict[str, Any]
AddKernel = Callable[..., str]
_T = TypeVar("_T")
_Item = TypeVar("_Item")


def eventually(condition: Callable[[], _T], what: str, *, timeout_s: float = 20) -> _T:
    """Return the first true answer of ``condition``; fail with ``what`` was awaited after a while."""
    deadline_s = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what}; the last answer: {answer!r}")
        time.sleep(0.05)
    return answer


def in_threads(function: Callable[[_Item], _T], items: Sequence[_Item]) -> list[_T]:
    """Call a function of jupyter_client's for all items at once, each in a thread of its own.

    jupyter_core gives each thread an event loop and never closes it; when such loops are collected,
    whichever test runs then is blamed for them.
    """

    def call(item: _Item) -> _T:
        try:
            return function(item)
        finally:
            ensure_event_loop().close()

    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(call, items))


# Ports

# Below the system's own choice (32768 and up), 1000 for each of eight workers.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8
_PORTS = itertools.cycle(range(20_000 + 1000 * _WORKER, 21_000 + 1000 * _WORKER))


def free_port(ip: str = "127.0.0.1") -> int:
    """Return a port that stays free until it is bound.

    Jupyter's choice is free when it is made; a launch later another worker may have chosen it too.
    """
    while True:
        port = next(_PORTS)
        with contextlib.suppress(OSError), create_server((ip, port)):
            return port


def _reserve_port(cache: LocalPortCache, ip: str) -> int:
    """Do what ``LocalPortCache.find_available_port`` is for."""
    port = free_port(ip)
    cache.currently_used_ports.add(port)
    return port


# Kernelspecs


@pytest.fixture
def jupyter_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the test Jupyter folders of its own; return the one that holds connection files."""
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setattr(LocalPortCache, "find_available_port", _reserve_port)
    # ipc sockets are made beside the connection file, and their paths must be short.
    runtime = Path(tempfile.mkdtemp(prefix="test-"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(runtime))
    yield runtime
    left = [path.name for path in runtime.iterdir() if path.name.startswith("kernel-")]
    shutil.rmtree(runtime)
    assert left == [], "connection files or sockets were left behind"


@pytest.fixture
def add_kernel(jupyter_folders: Path) -> AddKernel:
    """Return a function that adds an SSH kernel with the real CLI and returns its name."""

    def add(host_alias: str, *options: str, remote_kernel_name: str = "python3") -> str:
        name = f"lab-{uuid.uuid4().hex[:8]}"
        flags = {
            "--ssh-host-alias": host_alias,
            "--kernel-name": name,
            "--remote-python-prefix": REMOTE_PREFIX,
            "--remote-kernel-name": remote_kernel_name,
        }
        words = [word for flag in flags.items() for word in flag]
        done = subprocess.run(
            [SSHPYK, "add", "--no-check", *words, *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return name

    return add


# Processes


def new_environment() -> tuple[dict[str, str], str]:
    """Return an environment for ``start_kernel(env=…)`` and the mark in it.

    The mark reaches the remote kernel and its children: :func:`marked` finds them.
    """
    mark = uuid.uuid4().hex
    return {**os.environ, "SSHPYK_TEST_MARK": mark}, mark


def marked(machine: Machine, mark: str) -> list[int]:
    """Return the pids of the processes on ``machine`` with that mark in their environment.

    On the laptop: the stand-ins, for a hub inherits the environment of whoever needed it first.
    """
    grep = f"grep -lsz '^SSHPYK_TEST_MARK={mark}$' /proc/[0-9]*/environ"
    pids = [int(path.split("/")[2]) for path in machine.run(grep, check=False).split()]
    if machine.role != "laptop":
        return pids
    stand_ins = {process.pid for process in machine.processes(containing="sshpyk.standin")}
    return [pid for pid in pids if pid in stand_ins]


def assert_gone(lab: Lab, mark: str) -> None:
    """Check that neither the remote kernel, nor a child of it, nor a stand-in is left."""
    for machine in (lab.remote, lab.laptop):
        eventually(
            lambda machine=machine: not marked(machine, mark),  # type: ignore[misc]
            f"end of the kernel's processes on the {machine.role}",
        )


# Messages


@dataclass
class Outcome:
    """What one request brought: its reply, and what came on iopub up to its idle."""

    reply: Message
    iopub: list[Message] = field(default_factory=list)
    prompts: list[Message] = field(default_factory=list)

    @property
    def sequence(self) -> list[tuple[str, Message]]:
        """Type and content of each iopub message; text that was merely flushed in two is joined."""
        pairs: list[tuple[str, Message]] = []
        for message in self.iopub:
            kind, content = message["msg_type"], message["content"]
            last = pairs[-1] if pairs else ("", {})
            if kind == last[0] == "stream" and content["name"] == last[1]["name"]:
                content = {**content, "text": last[1]["text"] + content["text"]}
                pairs.pop()
            pairs.append((kind, content))
        return pairs

    def of_type(self, kind: str) -> list[Message]:
        """Return the iopub messages of one type."""
        return [message for message in self.iopub if message["msg_type"] == kind]

    def text(self, name: str = "stdout") -> str:
        """Return all that was written to ``stdout`` or ``stderr``."""
        streams = [message["content"] for message in self.of_type("stream")]
        return "".join(content["text"] for content in streams if content["name"] == name)

    @property
    def result(self) -> str | None:
        """Return the last execute_result as plain text."""
        results = self.of_type("execute_result")
        return results[-1]["content"]["data"]["text/plain"] if results else None


@dataclass
class Running:
    """A started kernel and a client of it. ``mark`` finds its processes: see :func:`marked`."""

    manager: KernelManager
    client: BlockingKernelClient
    mark: str

    @property
    def stand_in_pid(self) -> int:
        """Return the pid of the local process."""
        pid: int = self.manager.provisioner.process.pid  # type: ignore[union-attr]
        return pid

    def run(self, code: str, *, answers: Iterable[str] = (), **options: Any) -> Outcome:
        """Execute a cell; ``answers`` are for its input() prompts."""
        return run(self.client, code, answers=answers, **options)

    def remote_pid(self) -> int:
        """Ask a Python kernel for its pid."""
        return int(self.run("import os; os.getpid()").result or 0)


def run(
    client: BlockingKernelClient,
    code: str,
    *,
    answers: Iterable[str] = (),
    timeout_s: float = PATIENCE_S,
    **options: Any,
) -> Outcome:
    """Execute a cell and return what it brought, as :func:`collect` does."""
    options.setdefault("allow_stdin", bool(answers))
    return collect(client, client.execute(code, **options), answers=answers, timeout_s=timeout_s)


def collect(
    client: BlockingKernelClient,
    msg_id: str,
    *,
    answers: Iterable[str] = (),
    timeout_s: float = PATIENCE_S,
    awaits_reply: bool = True,
) -> Outcome:
    """Take messages until the request ``msg_id`` has its reply (comms have none) and its idle.

    Fails on a message of another request: call it when nothing else is under way.
    """
    outcome, waiting = Outcome({}), iter(answers)
    sockets = {
        channel.socket: channel
        for channel in (client.iopub_channel, client.stdin_channel, client.shell_channel)
    }
    poller = zmq.Poller()
    for one in sockets:
        poller.register(one, zmq.POLLIN)
    deadline_s = time.monotonic() + timeout_s
    while not (_is_idle(outcome.iopub) and (outcome.reply or not awaits_reply)):
        patience_s = max(0.0, deadline_s - time.monotonic())
        ready = dict(poller.poll(patience_s * 1000))
        assert ready, f"silence after {[kind for kind, _ in outcome.sequence]}"
        for socket in ready:
            message = sockets[socket].get_msg(timeout=0)
            assert message["parent_header"].get("msg_id") == msg_id, message
            if message["msg_type"] == "input_request":
                outcome.prompts.append(message)
                client.input(next(waiting))
            elif sockets[socket] is client.shell_channel:
                outcome.reply = message
            else:
                outcome.iopub.append(message)
    return outcome


def _is_idle(messages: list[Message]) -> bool:
    return bool(messages) and messages[-1]["content"].get("execution_state") == "idle"


# Started kernels


def await_ready(client: BlockingKernelClient) -> None:
    """Wait until the kernel answers, and until everything that was asked meanwhile is answered.

    On a busy machine ``wait_for_ready`` asks several times and takes the first answer; to a client
    that no manager made, a second without a heartbeat is a death.
    """
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            client.wait_for_ready(timeout=PATIENCE_S)
            break
        except RuntimeError:
            if time.monotonic() > deadline_s:
                raise
    last_id = client.kernel_info()
    is_last = {"msg_id": last_id}.items()
    while not is_last <= client.get_shell_msg(timeout=PATIENCE_S)["parent_header"].items():
        pass
    while True:
        message = client.get_iopub_msg(timeout=PATIENCE_S)
        if is_last <= message["parent_header"].items() and _is_idle([message]):
            return


@contextlib.contextmanager
def started(
    lab: Lab,
    name: str,
    *,
    manager: KernelManager | None = None,
    env: dict[str, str] | None = None,
    **options: Any,
) -> Iterator[Running]:
    """Start a kernel and a client that is ready; in the end shut down and check that all is gone.

    ``manager``: one with other traits; ``env``: more variables; ``options``: for ``start_kernel``.
    """
    environment, mark = new_environment()
    manager = manager or KernelManager(kernel_name=name)
    manager.start_kernel(env={**environment, **(env or {})}, **options)
    client = manager.client()
    try:
        client.start_channels()
        await_ready(client)
        yield Running(manager, client, mark)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=not manager.is_alive())
    assert not Path(manager.connection_file).exists()
    assert_gone(lab, mark)


@pytest.fixture
def kernel(lab: Lab, add_kernel: AddKernel, host_alias: str) -> Iterator[Running]:
    """A running Python kernel on the remote, over both aliases."""
    with started(lab, add_kernel(host_alias)) as running:
        yield running
