"""A kernel process: its environment, its files, its end."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sshpyk.agent.kernelspecs import RemoteKernelspec
from sshpyk.agent.process import CHANNEL_NAMES, LOG_TAIL_BYTES, KernelProcess, connection_info
from tests.unit.agent.service_bench import alive

PYTHON = sys.executable


class Shop:
    """Makes kernel processes from Python code, and sees to their end."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: list[KernelProcess] = []

    def run(
        self, code: str, env: dict[str, str] | None = None, spec_env: dict[str, str] | None = None
    ) -> KernelProcess:
        folder = self.root / f"k{len(self.made)}"
        folder.mkdir(mode=0o700)
        record = RemoteKernelspec([PYTHON, "-c", code], "/r", "python", env=spec_env or {})
        info = connection_info(record, str(folder), "secret", "hmac-sha256")
        process = KernelProcess(record, info, str(folder), str(self.root / "k.log"))
        process.start(PYTHON, env or {}, str(self.root))
        self.made.append(process)
        return process

    def close(self) -> None:
        for process in self.made:
            process.signal(signal.SIGKILL)
            ended(process)
            process.end_children()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


def wait_for(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def ended(process: KernelProcess) -> int | None:
    wait_for(lambda: process.poll() is not None)
    return process.poll()


def environment(
    shop: Shop, env: dict[str, str] | None = None, spec_env: dict[str, str] | None = None
) -> dict[str, str]:
    process = shop.run("import json, os; print(json.dumps(dict(os.environ)))", env, spec_env)
    assert ended(process) == 0
    found: dict[str, str] = json.loads(process.log_tail())
    return found


def test_what_belongs_to_the_ssh_session_is_not_inherited(shop: Shop, monkeypatch):
    foreign = ("SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "SSH_AUTH_SOCK", "JPY_PARENT_PID")
    for name in foreign:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OF_THE_HOST", "kept")
    found = environment(shop)
    assert not set(foreign) & set(found)
    assert found["OF_THE_HOST"] == "kept"


def test_the_interpreters_folder_leads_path(shop: Shop, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert environment(shop)["PATH"] == f"{os.path.dirname(PYTHON)}:/usr/bin:/bin"


def test_a_host_without_path_gets_one(shop: Shop, monkeypatch):
    monkeypatch.delenv("PATH")
    assert environment(shop)["PATH"] == f"{os.path.dirname(PYTHON)}:{os.defpath}"


def test_the_client_overrides_the_kernelspec_and_that_the_host(shop: Shop, monkeypatch):
    for name in ("A", "B", "C"):
        monkeypatch.setenv(name, "host")
    found = environment(shop, {"C": "client"}, {"B": "spec", "C": "spec"})
    assert [found[name] for name in "ABC"] == ["host", "spec", "client"]


def test_variables_in_the_kernelspecs_env_are_expanded(shop: Shop, monkeypatch):
    monkeypatch.setenv("DATA", "/data")
    found = environment(shop, {"C": "$DATA"}, {"B": "${DATA}/x:$NOT_SET"})
    assert (found["B"], found["C"]) == ("/data/x:$NOT_SET", "$DATA")


def test_log_and_connection_file_are_for_nobody_else(shop: Shop):
    before = os.umask(0)
    try:
        process = shop.run("import time; time.sleep(600)")
    finally:
        os.umask(before)
    for path in (shop.root / "k.log", shop.root / "k0" / "connection.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    info = json.loads((shop.root / "k0" / "connection.json").read_text())
    assert info == process.info
    assert info["key"] == "secret"


def test_the_key_is_in_no_argv_and_no_environment(shop: Shop):
    process = shop.run("import time; time.sleep(600)")
    for name in ("cmdline", "environ"):
        assert b"secret" not in Path(f"/proc/{process.pid}/{name}").read_bytes()


def test_the_kernel_has_a_session_of_its_own_and_nothing_of_ours_open(shop: Shop):
    code = (
        "import os, json; print(json.dumps([os.getsid(0) == os.getpid(), os.getcwd(),"
        " len(os.listdir('/proc/self/fd')), os.read(0, 1).decode()]))"
    )
    process = shop.run(code)
    assert ended(process) == 0
    own_session, cwd, fds, said = json.loads(process.log_tail())
    assert (own_session, cwd, said) == (True, str(shop.root), "")
    assert fds == 4  # three, and the one that lists them


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("pass", 0),
        ("import sys; sys.exit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.kill(os.getpid(), 11)", -11),
    ],
)
def test_the_exit_status_tells_codes_from_signals(shop: Shop, code: str, status: int):
    assert ended(shop.run(code)) == status


def test_a_signal_reaches_kernel_and_children(shop: Shop):
    code = (
        "import subprocess, sys, time; "
        "p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); time.sleep(600)"
    )
    process = shop.run(code)
    wait_for(lambda: process.log_tail().endswith("\n"))
    child = int(process.log_tail())
    process.signal(signal.SIGTERM)
    assert ended(process) == -signal.SIGTERM
    wait_for(lambda: not alive(child))
    process.signal(signal.SIGTERM)  # nobody there: no error


def test_children_left_behind_are_ended(shop: Shop):
    code = "import subprocess; p = subprocess.Popen(['sleep', '600']); print(p.pid)"
    process = shop.run(code)
    assert ended(process) == 0
    child = int(process.log_tail())
    assert alive(child)
    process.end_children()
    wait_for(lambda: not alive(child))
    process.end_children()


def test_a_program_that_is_not_there_raises(shop: Shop, tmp_path: Path):
    spec = RemoteKernelspec(["/no/such/program"], "/r", "python")
    (tmp_path / "kx").mkdir()
    info = connection_info(spec, str(tmp_path / "kx"), "k", "hmac-sha256")
    process = KernelProcess(spec, info, str(tmp_path / "kx"), str(tmp_path / "x.log"))
    with pytest.raises(FileNotFoundError):
        process.start(PYTHON, {}, str(tmp_path))
    assert process.pid == 0
    assert process.poll() is None
    process.signal(signal.SIGKILL)  # reaches nobody, and above all not our own group
    process.remove_files()
    assert os.listdir(tmp_path) == []


def test_end_children_of_a_process_that_never_was_reaches_nobody(tmp_path: Path):
    """killpg(0) would be our own group: ask for it in a process that may die of it."""
    code = (
        "from sshpyk.agent.process import KernelProcess\n"
        "KernelProcess(None, {}, '/nowhere', '/nowhere/log').end_children()\nprint('alive')"
    )
    done = subprocess.run(
        [PYTHON, "-c", code], capture_output=True, text=True, start_new_session=True
    )
    assert done.stdout == "alive\n"


def test_the_log_tail_is_the_end_of_the_log(shop: Shop):
    process = shop.run("print('x' * 100_000); print('é end')", {"PYTHONUTF8": "1"})
    ended(process)
    assert process.log_tail().endswith("é end\n")
    assert len(process.log_tail().encode()) <= LOG_TAIL_BYTES


def test_files_are_removed_and_a_log_with_words_is_kept(shop: Shop):
    process = shop.run("print('words')")
    ended(process)
    process.remove_files()
    assert os.listdir(shop.root) == ["k.log"]
    (shop.root / "k.log").write_text("")
    process.remove_files()
    assert os.listdir(shop.root) == []
    assert process.log_tail() == ""


def test_connection_info_is_ipc_for_kernels_that_speak_it_and_tcp_for_others(tmp_path: Path):
    spec = RemoteKernelspec(["x"], "/r", "python")
    info = connection_info(spec, "/f", "key", "hmac-sha512")
    assert (info["transport"], info["ip"]) == ("ipc", "/f/s")
    assert (info["key"], info["signature_scheme"]) == ("key", "hmac-sha512")
    other = connection_info(RemoteKernelspec(["R"], "/r", "R"), "/f", "key", "hmac-sha256")
    assert (other["transport"], other["ip"]) == ("tcp", "127.0.0.1")
    for found in (info, other):
        assert len({found[f"{name}_port"] for name in CHANNEL_NAMES}) == 5
