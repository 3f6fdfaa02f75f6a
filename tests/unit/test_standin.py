"""The stand-in as a process, in front of a hub that a test plays on a unix socket."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sshpyk import standin
from sshpyk.errors import AuthenticationFailed, InvalidInput, KernelDied, error_from_record
from sshpyk.standin import read_request

PATIENCE_S = 15.0
TICKET = {"kernel_id": "k", "streams": [1, 3]}
# The real program, but the hub is the test's.
PROGRAM = """
import socket, sys
from sshpyk import standin
from sshpyk.hub.client import HubClient

def reach_hub(target):
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(PATH)
    return HubClient(connected)

standin.reach_hub = reach_hub
standin.main()
"""
RECORD = {
    "target": {"host": "gpu1", "ssh": "/usr/bin/ssh", "ssh_config": None},
    "shutdown_timeout_s": 7.5,
    "launch": {
        "connection_file": "/tmp/c.json",
        "python": "python3",
        "kernel_name": "python3",
        "launch_timeout_s": 60,
        "env": {"A": "1"},
        "cwd": "",
    },
}


class Hub:
    """The other end of one conversation."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(PATIENCE_S)
        self._listener.bind(str(path))
        self._listener.listen()
        self._connection: socket.socket | None = None

    def accept(self) -> None:
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(PATIENCE_S)
        self._lines = self._connection.makefile("rb")

    def hear(self) -> dict[str, Any] | None:
        try:
            line = self._lines.readline()
        except ConnectionResetError:  # it went with something unread
            return None
        return json.loads(line) if line else None

    def say(self, **record: Any) -> None:
        assert self._connection is not None
        self._connection.sendall(json.dumps(record).encode() + b"\n")

    def launch(self) -> dict[str, Any]:
        """Take the launch and say that the kernel is ready."""
        self.accept()
        record = self.hear()
        assert record is not None
        assert record["op"] == "launch"
        request: dict[str, Any] = record["request"]
        return request

    def go(self) -> None:
        if self._connection is not None:
            self._lines.close()
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        self.go()
        self._listener.close()


class Stage:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub = Hub(folder / "hub.sock")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.sockets: list[socket.socket] = []

    @property
    def program(self) -> str:
        return PROGRAM.replace("PATH", repr(str(self.folder / "hub.sock")))

    def start(self, *words: str, **more: Any) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if key != "JPY_PARENT_PID"}
        environment.update(more.pop("env", {}))
        process = subprocess.Popen(
            [sys.executable, "-c", self.program, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            **more,
        )
        self.processes.append(process)
        return process

    def provisioned(
        self, *, logs_notices: bool = False, **more: Any
    ) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Start it as the provisioner does; return the process and our end of the report."""
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE_S)
        record = {**RECORD, "logs_notices": logs_notices}
        ours.sendall(json.dumps(record).encode() + b"\n")
        words = ["--provisioner-fd", str(theirs.fileno()), "--kernel", "My Kernel (on gpu1)"]
        process = self.start(*words, pass_fds=[theirs.fileno()], **more)
        theirs.close()
        self.sockets.append(ours)
        return process, ours

    def ready(self, **more: Any) -> subprocess.Popen[bytes]:
        """Start it and play the hub until the kernel is ready."""
        process, report = self.provisioned(**more)
        self.hub.launch()
        self.hub.say(event="ready", ticket=TICKET)
        assert json.loads(report.recv(65536)) == {"ready": True}
        return process

    def close(self) -> None:
        self.hub.close()
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for made in self.sockets:
            made.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    folder = Path(tempfile.mkdtemp(prefix="sp", dir="/tmp"))
    made = Stage(folder)
    yield made
    made.close()
    shutil.rmtree(folder)


def test_the_launch_is_passed_on_and_the_outcome_reported(stage: Stage):
    process, report = stage.provisioned()
    assert stage.hub.launch() == RECORD["launch"]
    stage.hub.say(event="ready", ticket=TICKET)
    assert json.loads(report.recv(65536)) == {"ready": True}
    assert process.poll() is None
    stage.hub.say(event="exited", status=0)
    assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_the_exit_code_is_the_kernels(stage: Stage, status: int):
    process = stage.ready()
    stage.hub.say(event="exited", status=status)
    assert process.wait(PATIENCE_S) == status


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV, signal.SIGABRT]
)
def test_a_kernel_that_a_signal_ended_is_shown_as_such(stage: Stage, number: signal.Signals):
    process = stage.ready(cwd=stage.folder)
    stage.hub.say(event="exited", status=-number)
    assert process.wait(PATIENCE_S) == -number
    assert process.stderr
    assert process.stderr.read() == b""
    assert not list(stage.folder.glob("core*"))


def test_a_signal_that_ends_nobody_is_a_failure_all_the_same(stage: Stage):
    process = stage.ready()
    stage.hub.say(event="exited", status=-signal.SIGCHLD)
    assert process.wait(PATIENCE_S) != 0


def test_the_exit_right_behind_ready_is_not_missed(stage: Stage):
    process, report = stage.provisioned()
    stage.hub.launch()
    assert stage.hub._connection is not None
    stage.hub._connection.sendall(
        b'{"event": "ready", "ticket": {}}\n{"event": "exited", "status": 3}\n'
    )
    assert json.loads(report.recv(65536)) == {"ready": True}
    assert process.wait(PATIENCE_S) == 3


def test_a_record_in_pieces_is_one_record(stage: Stage):
    process = stage.ready()
    assert stage.hub._connection is not None
    for piece in (b'{"event": "ex', b'ited", "st', b'atus": 5}\n'):
        stage.hub._connection.sendall(piece)
        time.sleep(0.02)
    assert process.wait(PATIENCE_S) == 5


@pytest.mark.parametrize(
    ("number", "order"),
    [
        (signal.SIGINT, {"op": "interrupt"}),
        (signal.SIGTERM, {"op": "stop", "grace_s": 7.5}),
        (signal.SIGHUP, {"op": "stop", "grace_s": 7.5}),
    ],
)
def test_signals_become_orders_and_end_nothing(
    stage: Stage, number: signal.Signals, order: dict[str, Any]
):
    process = stage.ready()
    for _ in range(2):
        process.send_signal(number)
        assert stage.hub.hear() == order
    assert process.poll() is None
    stage.hub.say(event="exited", status=0)
    assert process.wait(PATIENCE_S) == 0


def test_signals_keep_their_order(stage: Stage):
    process = stage.ready()
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.02)
    assert [(stage.hub.hear() or {})["op"] for _ in range(2)] == ["interrupt", "stop"]


def test_a_stop_during_the_launch_is_an_order_too(stage: Stage):
    process, report = stage.provisioned()
    stage.hub.launch()
    process.send_signal(signal.SIGTERM)
    assert stage.hub.hear() == {"op": "stop", "grace_s": 7.5}
    stage.hub.say(event="failed", error=KernelDied("stopped").to_record())
    assert "stopped" in report.recv(65536).decode()
    assert process.wait(PATIENCE_S) == 1


def test_notice_goes_to_the_log_of_an_application_while_that_listens(stage: Stage):
    process, report = stage.provisioned(logs_notices=True)
    stage.hub.launch()
    stage.hub.say(event="ready", ticket=TICKET)
    assert json.loads(report.recv(65536)) == {"ready": True}
    stage.hub.say(event="notice", text="gpu1: away")
    assert json.loads(report.recv(65536)) == {"notice": "gpu1: away"}
    stage.hub.say(event="exited", status=0)
    assert process.wait(PATIENCE_S) == 0
    assert process.stderr
    assert process.stderr.read() == b""


def test_notice_goes_to_stderr_where_no_application_logs(stage: Stage):
    process = stage.ready()
    stage.hub.say(event="notice", text="gpu1: away")
    stage.hub.say(event="notice", text="gpu1: back")
    stage.hub.say(event="exited", status=0)
    assert process.wait(PATIENCE_S) == 0
    assert process.stderr
    assert process.stderr.read() == b"sshpyk: gpu1: away\nsshpyk: gpu1: back\n"


def test_a_failed_launch_is_reported_whole(stage: Stage):
    process, report = stage.provisioned()
    stage.hub.launch()
    error = AuthenticationFailed("denied", host="gpu1", phase="connecting", said="x", advice="y")
    stage.hub.say(event="failed", error=error.to_record())
    told = error_from_record(json.loads(report.recv(65536))["error"])
    assert type(told) is AuthenticationFailed
    assert str(told) == str(error)
    assert process.wait(PATIENCE_S) == 1


def test_f14_a_hub_that_goes_during_the_launch_is_replaced_and_launches_again(stage: Stage):
    process, report = stage.provisioned()
    stage.hub.launch()
    stage.hub.go()
    assert stage.hub.launch() == RECORD["launch"]
    stage.hub.say(event="ready", ticket=TICKET)
    assert json.loads(report.recv(65536)) == {"ready": True}
    stage.hub.say(event="exited", status=0)
    assert process.wait(PATIENCE_S) == 0


def test_f14_a_hub_that_goes_later_is_replaced_and_gets_the_kernel(stage: Stage):
    process = stage.ready()
    stage.hub.go()
    stage.hub.accept()
    assert stage.hub.hear() == {"op": "reattach", "request": RECORD["launch"], "ticket": TICKET}
    stage.hub.say(event="ready", ticket=TICKET)
    process.send_signal(signal.SIGINT)
    assert stage.hub.hear() == {"op": "interrupt"}
    stage.hub.say(event="exited", status=3)
    assert process.wait(PATIENCE_S) == 3
    assert process.stderr
    assert b"gpu1: the local hub was replaced" in process.stderr.read()


def test_f14_hubs_that_go_again_and_again_end_the_stand_in(stage: Stage):
    process = stage.ready()
    stage.hub.go()
    for _ in range(standin._REATTACH_TRIES):
        stage.hub.accept()
        stage.hub.go()
    assert process.wait(PATIENCE_S) == 1
    assert process.stderr
    assert b"again and again" in process.stderr.read()


def test_a_signal_for_a_hub_that_has_gone_is_no_crash(stage: Stage):
    process = stage.ready()
    process.send_signal(signal.SIGSTOP)
    stage.hub.go()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    stage.hub.accept()
    assert (stage.hub.hear() or {})["op"] == "reattach"
    assert stage.hub.hear() == {"op": "interrupt"}
    stage.hub.say(event="exited", status=0)
    assert process.wait(PATIENCE_S) == 0
    assert process.stderr
    assert b"Traceback" not in process.stderr.read()


def test_a_link_that_was_lost_later_ends_it(stage: Stage):
    process = stage.ready()
    stage.hub.say(event="failed", error=KernelDied("the agent is gone").to_record())
    assert process.wait(PATIENCE_S) == 1
    assert process.stderr
    assert b"the agent is gone" in process.stderr.read()


def test_it_ends_when_the_process_that_started_it_has_gone(stage: Stage):
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen(sys.argv[1:], start_new_session=True)\n"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    words = ["--kernel", "gpu1", "--connection-file", "/tmp/c.json"]
    program = stage.program.replace(
        "standin.main()",
        f"standin.main.__globals__['read_request'] = lambda argv: standin.Request({RECORD!r})\n"
        "standin.main()",
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, sys.executable, "-c", program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "JPY_PARENT_PID": "1"},
    )
    stage.processes.append(parent)
    stage.hub.launch()
    stage.hub.say(event="ready", ticket=TICKET)
    parent.kill()
    assert stage.hub.hear() is None  # which the hub takes for the owner's end


def test_without_a_jupyter_parent_it_outlives_who_started_it(stage: Stage, monkeypatch):
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    before = signal.set_wakeup_fd(-1)
    handlers = {number: signal.getsignal(number) for number in standin._SIGNALS}
    try:
        ours, theirs = socket.socketpair()
        made = standin.StandIn(standin.Request(RECORD), standin.HubClient(ours))
        assert made._parent == 0
        for each in (ours, theirs, made._wakeup, made._wakeup_writer):
            each.close()
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


# What the command line may say


@pytest.fixture
def kernelspecs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    ssh = tmp_path / "ssh"
    ssh.touch(mode=0o755)
    folder = tmp_path / "jupyter" / "kernels"
    config = {
        "ssh": str(ssh),
        "ssh_host_alias": "gpu1",
        "remote_kernel_name": "python3",
        "remote_python": "python3",
        "shutdown_timeout": 3,
    }
    remote = {"provisioner_name": "sshpyk-provisioner", "config": config}
    for name, metadata in (("remote", {"kernel_provisioner": remote}), ("local", {})):
        (folder / name).mkdir(parents=True)
        spec = {"argv": ["x"], "display_name": name, "language": "python", "metadata": metadata}
        spec["env"] = {"FROM": "spec"}
        (folder / name / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["--kernel", "remote", "--connection-file", "FILE"],
        ["--kernel=remote", "--connection-file=FILE"],
        ["-k", "remote", "-f", "FILE"],
        # As sshpyk 1.x wrote it.
        ["--SSHKernelApp.kernel_name=remote", "--KernelManager.connection_file='FILE'"],
        ["--SSHKernelApp.kernel_name=remote", '--KernelManager.connection_file="FILE"'],
        ["--SSHKernelApp.kernel_name=remote", "--KernelManager.connection_file=FILE"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("path", ["/run/user/c.json", "/with a space/c.json"])
def test_every_form_of_the_command_line_names_the_same(
    kernelspecs: Path, words: list[str], path: str
):
    request = read_request([word.replace("FILE", path) for word in words])
    assert request.launch["connection_file"] == path
    assert request.launch["env"] == {"FROM": "spec"}
    assert (request.target.host, request.shutdown_timeout_s) == ("gpu1", 3.0)


def test_a_relative_connection_file_is_made_absolute(
    kernelspecs: Path, monkeypatch: pytest.MonkeyPatch
):
    """The hub reads it, and works in another folder."""
    monkeypatch.chdir(kernelspecs)
    request = read_request(["-k", "remote", "-f", "c.json"])
    assert request.launch["connection_file"] == str(kernelspecs / "c.json")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a kernel"),
        (["-k", "remote"], "name a kernel"),
        (["-f", "c.json"], "name a kernel"),
        (["-k", "local", "-f", "c.json"], "local is not a kernel of sshpyk's"),
        (["-k", "missing", "-f", "c.json"], "missing"),
    ],
)
def test_an_incomplete_command_line_is_an_error_in_words(
    kernelspecs: Path, words: list[str], said: str
):
    with pytest.raises(InvalidInput, match=said):
        read_request(words)


def test_an_error_of_the_command_line_goes_to_stderr_with_its_exit_code(stage: Stage):
    process = stage.start("-k", "no-such-kernel", "-f", "/tmp/c.json")
    _, said = process.communicate(timeout=PATIENCE_S)
    assert b"no-such-kernel" in said
    assert b"Traceback" not in said
    assert process.returncode == 2


def test_a_failed_launch_from_a_command_line_goes_to_stderr(stage: Stage, kernelspecs: Path):
    process = stage.start("-k", "remote", "-f", "/tmp/c.json")
    stage.hub.launch()
    stage.hub.say(event="failed", error=KernelDied("no luck", said="words").to_record())
    _, said = process.communicate(timeout=PATIENCE_S)
    assert said.decode() == "no luck [KERNEL-DIED]\n  | words\n"
    assert process.returncode == 1
