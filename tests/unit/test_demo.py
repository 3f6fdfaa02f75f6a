"""The demo, as ``make demo`` runs it, and what it does where it cannot run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from demo import demo
from demo.loopback import LoopbackHost, NoSshd, find_sshd
from demo.traces import MARK, Traces

SCRIPT = Path(demo.__file__)
CLEAN = "nothing is left: no process, no socket, no file"


def _sshd_is_here() -> bool:
    try:
        find_sshd()
    except NoSshd:
        return False
    return True


needs_sshd = pytest.mark.skipif(not _sshd_is_here(), reason="no sshd that could be started")
_Run = SimpleNamespace


@pytest.fixture
def no_sshd(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise NoSshd("sshd is missing")

    monkeypatch.setattr(demo, "find_sshd", missing)


@needs_sshd
def test_demo_runs_the_notebook_on_the_host_and_leaves_nothing() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    for wanted in (
        "Hello from Python",
        "328350",
        "image/png",
        "ZeroDivisionError",
        "restart",
        CLEAN,
    ):
        assert wanted in done.stdout
    assert done.stderr == ""


@needs_sshd
@pytest.mark.parametrize("line", ["A kernel on it", "A notebook on", "Timings"])
def test_demo_interrupted_leaves_nothing(line: str) -> None:
    process = subprocess.Popen([sys.executable, "-u", SCRIPT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while line not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.2)  # into the step
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert CLEAN in output


@pytest.mark.usefixtures("no_sshd")
def test_ensure_sshd_without_root_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(demo.DemoFailed, match="apt-get install openssh-server"):
        demo.ensure_sshd()


@pytest.mark.usefixtures("no_sshd")
def test_ensure_sshd_without_apt_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(demo.DemoFailed, match="the OpenSSH server"):
        demo.ensure_sshd()


def test_ensure_sshd_as_root_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[Callable[[], str]] = [_missing, lambda: "/usr/sbin/sshd"]
    ran: list[list[str]] = []
    monkeypatch.setattr(demo, "find_sshd", lambda: answers.pop(0)())
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(demo, "POLICY", Path(os.devnull))

    def run(command: list[str], **_: object) -> _Run:
        ran.append(command)
        return _Run(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    demo.ensure_sshd()
    assert [command[2] for command in ran] == ["update", "install"]
    assert ran[1][-1] == "openssh-server"
    assert "installing openssh-server" in capsys.readouterr().out


def _missing() -> str:
    raise NoSshd("sshd is missing")


def test_services_stay_down_while_installing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(demo, "POLICY", policy)
    with demo.services_stay_down():
        assert subprocess.run([policy]).returncode == 101
    assert not policy.exists()


@needs_sshd
def test_loopback_host_behind_another_is_reached_through_it() -> None:
    with LoopbackHost() as near, LoopbackHost(alias="inside", behind=near) as far:
        folders = [near.folder, far.folder]
        words = ["ssh", "-F", str(far.ssh_config), "inside", "echo $SSH_CONNECTION"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
        assert done.stdout.split()[-1] == str(far.port), done.stderr
        assert near.log().count("Accepted publickey") == 1
    assert not any(folder.exists() for folder in folders)


@needs_sshd
def test_loopback_host_sets_the_environment_of_its_sessions() -> None:
    with LoopbackHost(environment={"ONE": "a word", "TWO": "b"}) as host:
        words = ["ssh", "-F", str(host.ssh_config), host.alias, 'echo "$ONE,$TWO"']
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.stdout == "a word,b\n", done.stderr


@needs_sshd
def test_loopback_host_that_does_not_start_leaves_no_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(RuntimeError, match="NoSuchDirective"):
        LoopbackHost("NoSuchDirective yes")
    assert list(tmp_path.iterdir()) == []


def test_traces_remaining_names_a_marked_process_and_kill_all_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("demo.traces._PATIENCE_S", 0.1)
    traces = Traces()
    process = subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: traces.mark})
    try:
        assert any(f"process {process.pid}: sleep" in line for line in traces.remaining())
        traces.kill_all()
        assert process.wait(timeout=10) == -signal.SIGKILL
        assert traces.remaining() == []
    finally:
        process.kill()


def test_traces_remaining_names_a_watched_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("demo.traces._PATIENCE_S", 0.1)
    traces = Traces()
    traces.watch_file(tmp_path)
    assert traces.remaining() == [f"file {tmp_path}"]
