"""The stand-in as a process, in front of a hub that a test plays on a unix socket."""
# ruff: noqa: F401, F811

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from sshpyk import standin
from sshpyk.errors import AuthenticationFailed, KernelDied, error_from_record
from tests.unit.staged_hub import PATIENCE_S, RECORD, TICKET, Stage, stage


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


# A kernel that runs already


def attaching(stage: Stage) -> tuple[subprocess.Popen[bytes], socket.socket, dict[str, Any]]:
    """Start a stand-in as ``sshpyk attach`` does; return it with what it asks the hub for."""
    file, link = stage.folder / "attached.json", stage.folder / "link.json"
    launch = {"connection_file": str(file), "python": "python3", "persistent": True}
    record = {"attach_to": "3f2a", "links": [str(link)], "launch": launch}
    process, report = stage.provisioned(record=record)
    asked = stage.hub.opening()
    file.touch()
    link.symlink_to(file)
    return process, report, asked


def test_attaching_asks_for_the_kernel_and_removes_its_file_in_the_end(stage: Stage):
    process, report, asked = attaching(stage)
    assert (asked["op"], asked["kernel_id"]) == ("attach", "3f2a")
    stage.hub.say(event="ready", ticket=TICKET)
    assert json.loads(report.recv(65536)) == {"ready": True}
    process.send_signal(signal.SIGTERM)
    assert stage.hub.hear() == {"op": "leave"}  # not stop: a laptop that shuts down sends it, too
    stage.hub.say(event="left", told=True)
    assert process.wait(PATIENCE_S) == 0
    assert not list(stage.folder.glob("*.json"))


def test_attaching_that_fails_removes_no_file_of_others(stage: Stage):
    process, report, _ = attaching(stage)
    stage.hub.say(event="failed", error=KernelDied("no such kernel").to_record())
    assert "no such kernel" in report.recv(65536).decode()
    assert process.wait(PATIENCE_S) == 1
    assert (stage.folder / "attached.json").exists()


def test_f52_stand_in_whose_kernel_is_taken_over_says_by_whom_and_ends(stage: Stage):
    process = stage.ready()
    stage.hub.say(event="taken", by="bob@other")
    assert process.wait(PATIENCE_S) == 1
    assert process.stderr
    assert b"gpu1: the kernel was taken over by bob@other" in process.stderr.read()


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
    program = stage.program.replace(
        "standin.main()",
        f"standin.read_request = lambda fd: standin.Request({RECORD!r})\n"
        "standin.main(['--provisioner-fd', '0'])",
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, sys.executable, "-c", program],
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
    handlers = {number: signal.getsignal(number) for number in standin.SIGNALS}
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


def test_the_way_of_the_provisioner_imports_nothing_that_only_a_terminal_needs():
    code = (
        "import sys; import sshpyk.standin; heavy = {'argparse', 'click', 'jupyter_core', 'rich',"
        "'platformdirs', 'sshpyk.kernelapp', 'sshpyk.kernelspecs', 'asyncio', 'subprocess'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT])
def test_what_only_a_terminal_asks_ends_the_stand_in_of_a_provisioner(
    stage: Stage, number: signal.Signals, request: pytest.FixtureRequest
):
    # A shell that starts tests in the background has SIGQUIT ignored, and so has every child.
    before = signal.signal(number, signal.SIG_DFL)
    request.addfinalizer(lambda: signal.signal(number, before))
    process = stage.ready(cwd=stage.folder)
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == -number
    assert stage.hub.hear() is None  # which the hub takes for the owner's end
