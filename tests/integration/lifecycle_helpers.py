"""What the lifecycle tests need beyond kernels.py.

``own_hub``            a hub, a link and an ssh process that serve this test only
``remote_kernelspec``  kernelspecs on the remote, removed afterwards
:func:`standing`       a program that knows no provisioners: it runs kernel.json's argv
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from sshpyk.hub.client import reach_hub
from sshpyk.ssh.command import SshTarget
from tests.integration.kernels import (
    PATIENCE_S,
    Outcome,
    assert_gone,
    await_ready,
    eventually,
    free_port,
    new_environment,
    run,
    started,
)
from tests.integration.machines import USER, Lab, Machine, Process

REMOTE_PYTHON = "/opt/venv/bin/python"
REMOTE_KERNELS = "/home/lab/.local/share/jupyter/kernels"
USER_CONFIG = Path.home() / ".ssh" / "config"

InstallKernelspec = Callable[..., str]


# Hubs


@dataclass(frozen=True)
class OwnHub:
    """The hub of a host under an ssh config that only this test names: a link of its own."""

    lab: Lab
    host: str
    config: Path

    @property
    def options(self) -> tuple[str, str]:
        """What ``sshpyk add`` must be given for a kernel of this hub."""
        return "--ssh-config", str(self.config)

    def processes(self) -> list[Process]:
        """Return the hub, its ssh, and what that starts for jump hosts."""
        return [
            process
            for process in self.lab.laptop.processes(containing=str(self.config))
            if not any(verb in process.args for verb in ("sshpyk add", "sshpyk login"))
            and process.state != "Z"
        ]

    @property
    def pid(self) -> int:
        """The hub's process id. Fails unless there is exactly one."""
        (hub,) = self.hub_pids()
        return hub

    def hub_pids(self) -> list[int]:
        """Return the process ids of hubs: of one that was killed and its successor, for a moment."""
        return [process.pid for process in self.processes() if "sshpyk.hub.main" in process.args]

    def only_hubs(self) -> bool:
        """Whether hubs alone are left: no ssh, no ssh of a ProxyJump."""
        return all("sshpyk.hub.main" in process.args for process in self.processes())

    def link_state(self) -> str:
        """Ask the hub how its link is."""
        return str(self.status()["link"])

    def status(self) -> dict[str, Any]:
        """Ask the hub how it is."""
        client = reach_hub(SshTarget.parse(self.host, ssh_config=str(self.config)))
        client.say("status")
        answer = client.hear()
        client.close()
        assert answer is not None
        return answer

    def connections(self) -> list[Process]:
        """Return the ssh processes of the hub (not those of ProxyJump).

        The hub's own are its children; those of a ``sshpyk login`` that has ended are init's.
        """
        hub = self.pid
        return [
            process
            for process in self.processes()
            if process.ppid == hub or (process.ppid == 1 and process.pid != hub)
        ]

    def connection(self) -> Process:
        """Return the one ssh process. Fails unless there is exactly one."""
        (ssh,) = self.connections()
        return ssh

    def marker(self) -> str:
        """Return the random word that the processes of the connection have in their arguments."""
        (marker,) = re.findall(r" ([0-9a-f]{16})\b", self.connection().args)
        return str(marker)

    def session(self) -> Process:
        """Return the process of sshd's on the remote that serves the connection, as the user."""
        marker = self.marker()
        processes = {process.pid: process for process in self.lab.remote.processes(user=None)}
        (session,) = [
            processes[process.ppid]
            for process in processes.values()
            if f" {marker}" in process.args
            and processes.get(process.ppid, process).args.startswith("sshd: lab@")
        ]
        return session

    def leave(self) -> None:
        """Tell the hub to leave; its kernels end with it."""
        for process in self.processes():
            if "sshpyk.hub.main" in process.args:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)


@contextlib.contextmanager
def hub_of(lab: Lab, host: str, config: Path, more_config: str = "") -> Iterator[OwnHub]:
    """Make a config that is the user's, preceded by ``more_config``; check in the end that all left."""
    config.write_text(f"{more_config}\n{USER_CONFIG.read_text()}")
    hub = OwnHub(lab, host, config)
    try:
        yield hub
    finally:
        hub.leave()
    eventually(lambda: not hub.processes(), "end of the hub and its ssh")


@pytest.fixture
def own_hub(lab: Lab, host_alias: str, tmp_path: Path) -> Iterator[OwnHub]:
    """A hub to ``host_alias`` that no other test uses, so that its processes can be counted."""
    with hub_of(lab, host_alias, tmp_path / "ssh_config") as hub:
        yield hub


def agents(lab: Lab, *, user: str = USER) -> list[Process]:
    """Return the agents of a user on the remote: detached, so init's children."""
    return [
        process
        for process in lab.remote.processes(user=user, containing="<sshpyk:locate>")
        if process.ppid == 1
    ]


def the_agent(lab: Lab, *, user: str = USER) -> Process:
    """Return a user's one agent.

    What an ssh ran that another test has just killed is init's child, too, until it has noticed.
    """

    def only() -> Process | None:
        found = agents(lab, user=user)
        return found[0] if len(found) == 1 else None

    return eventually(only, "one agent")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port of the laptop, open to all its networks, that accepts connections and says nothing."""
    with socket.create_server(("", 0)) as listener:
        yield listener.getsockname()[1]


# Kernelspecs


def put(machine: Machine, path: str, text: str, *, mode: int = 0o644) -> None:
    """Write a file on a machine, with its folders, as the user."""
    code = (
        "import os, sys; path, text, mode = sys.argv[1:]; folder = os.path.dirname(path);"
        "os.makedirs(folder, exist_ok=True); open(path, 'w').write(text); os.chmod(path, int(mode))"
    )
    machine.run(["python3", "-c", code, path, text, str(mode)])


@pytest.fixture
def remote_kernelspec(lab: Lab) -> Iterator[InstallKernelspec]:
    """Return a function that installs a kernelspec on the remote and returns its name.

    ``files``: what else lies in its folder, name -> text; argv may say ``{resource_dir}``.
    """
    names: list[str] = []

    def install(argv: list[str], files: dict[str, str] | None = None, **more: Any) -> str:
        names.append(f"test-{uuid.uuid4().hex[:8]}")
        spec = {"argv": argv, "display_name": names[-1], "language": "python", **more}
        for file, text in {**(files or {}), "kernel.json": json.dumps(spec)}.items():
            put(lab.remote, f"{REMOTE_KERNELS}/{names[-1]}/{file}", text, mode=0o755)
        return names[-1]

    yield install
    for name in names:
        lab.remote.run(["rm", "-rf", f"{REMOTE_KERNELS}/{name}"])


def local_kernel_json(name: str) -> Path:
    """Return where the kernel.json is that ``add_kernel`` wrote."""
    return Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / name / "kernel.json"


def change_kernel_json(name: str, **members: Any) -> None:
    """Set members of a local kernel.json as somebody would who edits it by hand."""
    path = local_kernel_json(name)
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


# Programs that know no provisioners


@dataclass
class Standing:
    """A running argv of a kernel.json and a client that was given the connection file."""

    process: subprocess.Popen[bytes]
    client: BlockingKernelClient
    mark: str

    def run(self, code: str, **options: Any) -> Outcome:
        """Execute a cell."""
        return run(self.client, code, **options)


def start_argv(name: str, connection_file: Path, **popen: Any) -> subprocess.Popen[bytes]:
    """Run kernel.json's argv as VS Code or Quarto do."""
    spec = json.loads(local_kernel_json(name).read_text())
    argv = [word.replace("{connection_file}", str(connection_file)) for word in spec["argv"]]
    return subprocess.Popen(argv, start_new_session=True, **popen)


def own_connection_file(folder: Path) -> str:
    """Write a connection file, as a program does that manages kernels without jupyter_client."""
    ports = {f"{channel}_port": free_port() for channel in ("shell", "iopub", "stdin", "control")}
    file = str(folder / f"own-{uuid.uuid4().hex[:8]}.json")
    write_connection_file(file, hb_port=free_port(), key=uuid.uuid4().hex.encode(), **ports)
    return file


@contextlib.contextmanager
def standing(lab: Lab, name: str, folder: Path) -> Iterator[Standing]:
    """Run a kernel.json's argv with a connection file of our own; TERM it in the end.

    The mark reaches the remote kernel through kernel.json's ``env``: an environment that the
    program was merely started in describes this machine.
    """
    _, mark = new_environment()
    change_kernel_json(name, env={"SSHPYK_TEST_MARK": mark})
    file = own_connection_file(folder)
    environment = {**os.environ, "SSHPYK_TEST_MARK": mark}
    process = start_argv(name, Path(file), env=environment)
    client = BlockingKernelClient(connection_file=file)
    client.load_connection_file()
    try:
        client.start_channels()
        await_ready(client)
        yield Standing(process, client, mark)
    finally:
        client.stop_channels()
        process.terminate()
        process.wait(20)
        Path(file).unlink()
    assert_gone(lab, mark)


# Messages


def await_text(client: BlockingKernelClient, text: str, *, timeout_s: float = PATIENCE_S) -> None:
    """Read iopub until a stream message has ``text``."""
    deadline_s = time.monotonic() + timeout_s
    seen = ""
    while text not in seen:
        message = client.get_iopub_msg(timeout=max(0.01, deadline_s - time.monotonic()))
        if message["msg_type"] == "stream":
            seen += message["content"]["text"]


def outcome_of(
    client: BlockingKernelClient, msg_id: str, *, timeout_s: float = PATIENCE_S
) -> Outcome:
    """Return what a request brought; what others brought meanwhile (an interrupt) is skipped."""
    outcome = Outcome({})
    while True:
        message = client.get_iopub_msg(timeout=timeout_s)
        parent = message["parent_header"]
        # A manager and its clients count their messages apart, in one session: ids meet.
        if parent.get("msg_id") == msg_id and parent["msg_type"] != "interrupt_request":
            outcome.iopub.append(message)
            if message["content"].get("execution_state") == "idle":
                break
    while outcome.reply.get("parent_header", {}).get("msg_id") != msg_id:
        outcome.reply = client.get_shell_msg(timeout=timeout_s)
    return outcome


# Scenarios


@contextlib.contextmanager
def interrupt_and_restart_beside_another(
    lab: Lab, name: str, disturb: Callable[[], object]
) -> Iterator[None]:
    """Start two kernels, ``disturb``, then interrupt and restart one as a user would.

    Neither may notice anything of the disturbance. Both live until the block ends.
    """
    with started(lab, name) as kernel, started(lab, name) as beside:
        kernel.run("mark = 41")
        beside.run("mark = 42")
        disturb()
        msg_id = kernel.client.execute("print('sleeping', flush=True); import time; time.sleep(60)")
        await_text(kernel.client, "sleeping\n")
        kernel.manager.interrupt_kernel()
        assert outcome_of(kernel.client, msg_id).reply["content"]["ename"] == "KeyboardInterrupt"
        # A line about the disturbance may precede what a cell says.
        assert outcome_of(kernel.client, kernel.client.execute("mark")).result == "41"
        kernel.manager.restart_kernel()
        await_ready(kernel.client)
        assert kernel.run("'mark' in globals()").result == "False"
        assert outcome_of(beside.client, beside.client.execute("mark")).result == "42"
        yield
