"""The program that is sent over ssh, and the agent that it starts: real processes, no ssh.

Their folder under /tmp is replaced in the text that is sent, so that no agent of the developer's is met.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sshpyk.agent.record import boot_id
from sshpyk.hub.bundle import agent_bundle, locate_program
from sshpyk.hub.ssh_start import _FIRST_WORDS
from sshpyk.link import frames
from sshpyk.link.connection import Connection, Resumed
from sshpyk.link.link import Link
from sshpyk.link.stream import Message
from sshpyk.wire.private import AGENT_SOCKET
from tests.unit.agent.service_bench import alive, write_kernelspec

ROOT = '_ROOT = "/tmp"'
PATIENCE_S = 20.0


def python_of(version: str) -> str:
    """Return the path of a Python 2.7, 3.8, …; skip the test where this machine has none."""
    home = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [
        shutil.which(f"python{version}"),
        *map(str, home.glob(f"versions/{version}.*/bin/python")),
    ]
    for candidate in filter(None, candidates):
        asked = subprocess.run([candidate, "-V"], capture_output=True, text=True, env={})
        if (asked.stdout + asked.stderr).startswith(f"Python {version}."):
            return candidate
    pytest.skip(f"there is no Python {version} on PATH or below {home}")


class Host:
    """A machine without ssh: a root for sockets, a home folder, and processes that look for the agent."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.python = sys.executable
        self.home = root / "home"
        self.home.mkdir()
        self.sessions: list[Session] = []
        replaced = f"_ROOT = {str(root)!r}"
        self.program = locate_program(AGENT_SOCKET).decode()
        assert ROOT in self.program
        self.program = self.program.replace(ROOT, replaced)
        modules = json.loads(zlib.decompress(agent_bundle()))
        modules["sshpyk.wire.private"] = modules["sshpyk.wire.private"].replace(ROOT, replaced)
        self.change_bundle: Callable[[dict[str, str]], None] = lambda modules: None
        self.modules = modules

    @property
    def folder(self) -> Path:
        return self.root / f"sshpyk-{os.getuid()}"

    @property
    def log(self) -> str:
        return (self.home / ".local/state/sshpyk/agent.log").read_text()

    def bundle(self) -> bytes:
        self.change_bundle(self.modules)
        return zlib.compress(json.dumps(self.modules).encode())

    def session(self) -> Session:
        self.sessions.append(Session(self))
        return self.sessions[-1]

    def agents(self) -> list[int]:
        """Return the processes whose home is ours and that are no session: agents."""
        found = []
        mark = f"HOME={self.home}".encode()
        sessions = {session.process.pid for session in self.sessions}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in sessions and alive(int(entry.name)):
                try:
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        for pid in self.agents():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not self.agents(), "the end of every agent")


class Session:
    """What ssh runs on the host, and the hub's end of its pipes."""

    def __init__(self, host: Host) -> None:
        self.host = host
        environment = {"HOME": str(host.home), "PATH": os.environ["PATH"], "SSH_TTY": "x"}
        self.process = subprocess.Popen(
            [host.python, "-c", host.program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**environment, "JUPYTER_PATH": str(host.root / "jupyter")},
            bufsize=0,
        )

    def say(self, data: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(data)

    def hear(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().decode().strip()

    def bring_up(self) -> str:
        """Do what the hub does; return what the session said of the agent at first."""
        word = self.hear()
        if word == "absent":
            bundle = self.host.bundle()
            self.say(b"%08x" % len(bundle) + bundle)
            assert self.hear() == "started", self.process.communicate()
        return word

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


class Carried:
    """A link over a session, by hand."""

    def __init__(self, session: Session, link: Link, epoch: int) -> None:
        self.session = session
        self.link = link
        self.connection = Connection.initiate(link, epoch)
        self.messages: list[Message] = []
        self.resumed: list[Resumed] = []

    def flush(self) -> None:
        self.session.say(b"".join(self.connection.data_to_send(1 << 20, time.monotonic())))

    def pump(self) -> bool:
        """Read once; return False at the end of the connection."""
        assert self.session.process.stdout
        data = os.read(self.session.process.stdout.fileno(), 65536)
        for event in self.connection.receive_data(data, time.monotonic()):
            if isinstance(event, Message):
                self.messages.append(event)
                self.link.consumed(event.stream)
            elif isinstance(event, Resumed):
                self.resumed.append(event)
        if data:
            self.flush()
        return bool(data)

    def call(self, op: str, **params: object) -> dict[str, object]:
        self.link.open(0)
        number = len(self.messages) + 1
        self.link.send(0, json.dumps({"id": number, "op": op, **params}).encode())
        self.flush()
        while True:
            answers = [
                json.loads(message.payload) for message in self.messages if not message.stream
            ]
            for answer in answers:
                if answer.get("id") == number:
                    return dict(answer)
            assert self.pump(), "the connection ended"


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"never happened: {what}"
        time.sleep(0.01)


@pytest.fixture
def host(short_folder: Path) -> Iterator[Host]:
    made = Host(short_folder)
    yield made
    made.close()


def carried(host: Host, link_id: str = "ab" * 16) -> Carried:
    session = host.session()
    session.bring_up()
    return Carried(session, Link(link_id), 1)


def test_the_first_session_starts_the_agent_and_the_next_one_finds_it(host: Host):
    first = carried(host)
    assert first.call("list")["result"] == {"kernels": []}
    assert stat.S_IMODE(host.folder.stat().st_mode) == 0o700
    assert len(host.agents()) == 1
    session = host.session()
    assert session.bring_up() == "found"
    second = Carried(session, Link("cd" * 16), 1)
    assert second.call("list")["result"] == {"kernels": []}
    assert len(host.agents()) == 1


def test_sessions_that_start_at_once_share_one_agent(host: Host):
    sessions = [host.session() for _ in range(4)]
    for place, session in enumerate(sessions):
        session.bring_up()
        carried = Carried(session, Link(f"{place:032x}"), 1)
        assert carried.call("list")["result"] == {"kernels": []}
    assert len(host.agents()) == 1


def test_the_agent_is_detached_and_holds_nothing_of_the_session(host: Host):
    session = host.session()
    session.bring_up()
    (agent,) = host.agents()
    assert os.getsid(agent) != os.getsid(session.process.pid)
    session.process.kill()
    session.process.wait()
    assert session.process.stderr
    assert session.process.stderr.read() == b""  # nobody else has it open
    assert alive(agent)
    assert os.readlink(f"/proc/{agent}/cwd") == "/"
    assert os.readlink(f"/proc/{agent}/fd/0") == os.devnull


def test_the_session_ends_with_its_connection(host: Host):
    made = carried(host)
    made.call("list")
    made.session.say(frames.encode_bye("good bye"))
    assert made.session.process.wait(PATIENCE_S) == 0


def test_an_agent_with_nothing_to_hold_leaves_and_removes_its_folder(host: Host):
    made = carried(host)
    made.call("list")
    made.session.say(frames.encode_bye("good bye"))
    wait_for(lambda: not host.agents(), "the end of the agent")
    assert not host.folder.exists()


def test_a_link_resumes_on_a_new_session(host: Host):
    made = carried(host)
    made.call("list")
    made.session.close()
    session = host.session()
    assert session.bring_up() == "found"
    again = Carried(session, made.link, 2)
    again.messages = made.messages
    again.flush()
    assert again.call("list")["result"] == {"kernels": []}
    assert again.resumed == [Resumed(2, known=True, boot_id=boot_id())]


def test_an_older_epoch_is_refused_and_the_link_unharmed(host: Host):
    made = carried(host)
    made.call("list")
    session = host.session()
    session.bring_up()
    session.say(frames.encode_hello(frames.Hello("ab" * 16, 1)))
    assert session.process.wait(PATIENCE_S) == 0
    assert "result" in made.call("list")


@pytest.mark.parametrize("junk", [b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n", b""])
def test_a_session_that_speaks_nonsense_or_nothing_costs_nobody(host: Host, junk: bytes):
    made = carried(host)
    made.call("list")
    session = host.session()
    session.bring_up()
    session.say(junk)
    assert session.process.stdin
    session.process.stdin.close()
    assert session.process.wait(PATIENCE_S) == 0
    assert "result" in made.call("list")


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff" * 100,
        frames.encode_data_header(frames.Data(99, 5, 0, 0, 1, b""), 0),
        frames.encode_progress(5),
    ],
    ids=["no frame", "DATA behind a hole", "PROGRESS beyond what was sent"],
)
def test_nonsense_behind_the_hello_ends_that_session(host: Host, junk: bytes):
    session = host.session()
    session.bring_up()
    session.say(frames.encode_hello(frames.Hello("ab" * 16, 1)) + junk)
    assert session.process.wait(PATIENCE_S) == 0


def start_sleeper(host: Host, made: Carried) -> int:
    write_kernelspec(host.root / "jupyter", "sleeper", ["sleep", "600"], language="python")
    params = {
        "key": "k",
        "signature_scheme": "hmac-sha256",
        "env": {},
        "cwd": "",
        "streams": [1, 3],
    }
    record = {"id": 99, "op": "start", "kernel_id": "ef" * 16, "kernel_name": "sleeper", **params}
    made.link.open(0)
    made.link.send(0, json.dumps({**record, "python": sys.executable}).encode())
    made.flush()
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        kernels = made.call("list")["result"]["kernels"]  # type: ignore[index]
        if kernels and kernels[0]["pid"]:
            return int(kernels[0]["pid"])
    raise AssertionError("the kernel did not start")


def test_a_kernel_survives_its_session(host: Host):
    made = carried(host)
    pid = start_sleeper(host, made)
    made.session.close()
    session = host.session()
    session.bring_up()
    again = Carried(session, made.link, 2)
    again.messages = made.messages
    again.flush()
    (kernel,) = again.call("list")["result"]["kernels"]  # type: ignore[index]
    assert kernel["pid"] == pid
    assert alive(pid)


def test_a_link_that_is_given_up_takes_its_kernels_along(host: Host):
    made = carried(host)
    pid = start_sleeper(host, made)
    made.session.say(frames.encode_bye("the hub leaves"))
    wait_for(lambda: not alive(pid), "the end of the kernel")
    wait_for(lambda: not host.agents(), "the end of the agent")


def test_an_agent_that_is_told_to_end_ends_its_kernels(host: Host):
    made = carried(host)
    pid = start_sleeper(host, made)
    (agent,) = [found for found in host.agents() if found != pid]
    os.kill(agent, signal.SIGTERM)
    wait_for(lambda: not alive(agent), "the end of the agent")
    assert not alive(pid)
    assert not host.folder.exists()
    assert "leaving" in host.log


def test_a_socket_file_that_nobody_serves_is_replaced(host: Host):
    host.folder.mkdir(mode=0o700)
    (host.folder / AGENT_SOCKET).touch()
    made = carried(host)
    assert "result" in made.call("list")


def test_a_folder_that_is_not_ours_alone_is_not_trusted(host: Host):
    host.folder.mkdir()
    host.folder.chmod(0o755)
    made = carried(host)
    assert "result" in made.call("list")
    assert (host.root / f"sshpyk-{os.getuid()}-1" / AGENT_SOCKET).exists()


def test_an_agent_that_cannot_start_is_said_in_words(host: Host):
    host.change_bundle = lambda modules: modules.update(
        {"sshpyk.agent.main": "raise SystemExit(3)"}
    )
    host.program = host.program.replace("_START_PATIENCE_S = 20.0", "_START_PATIENCE_S = 0.2")
    session = host.session()
    assert session.hear() == "absent"
    bundle = host.bundle()
    session.say(b"%08x" % len(bundle) + bundle)
    _, errors = session.process.communicate(timeout=PATIENCE_S)
    assert b"the agent did not start" in errors
    assert session.process.returncode != 0


def test_an_upload_that_is_cut_is_said_in_words(host: Host):
    session = host.session()
    assert session.hear() == "absent"
    session.say(b"00001000half")
    _, errors = session.process.communicate(timeout=PATIENCE_S)
    assert b"closed during the upload" in errors
    assert not host.agents()


def test_tracebacks_of_the_agent_show_source_lines(host: Host):
    host.change_bundle = lambda modules: modules.update(
        {
            "sshpyk.agent.custody": modules["sshpyk.agent.custody"].replace(
                "return {", "1 / 0; return {", 9
            )
        }
    )
    made = carried(host)
    made.call("list")
    assert re.search(r'File "<sshpyk:sshpyk\.agent\.custody>".*\n.*1 / 0', host.log)


def test_the_log_is_for_nobody_else(host: Host):
    carried(host).call("list")
    for path in (host.home / ".local/state/sshpyk").rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_a_home_that_cannot_be_written_to_is_no_obstacle(host: Host):
    (host.home / ".local").touch()  # a file where the folder would be, also for root
    made = carried(host)
    assert "result" in made.call("list")
    assert (host.folder / "state" / "agent.log").exists()


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"])
def test_every_python_of_hosts_carries_a_kernel(host: Host, version: str):
    host.python = python_of(version)
    made = carried(host)
    streams = {"streams": [1, 3], "key": "k", "signature_scheme": "hmac-sha256"}
    kernel = {"kernel_id": "ef" * 16, "python": sys.executable, "kernel_name": "python3"}
    lines = {"activate": "export FROM=lines", "activate_s": PATIENCE_S}
    answer = made.call("start", **kernel, **streams, **lines, env={}, cwd="")
    pid = answer["result"]["pid"]  # type: ignore[index]  # ipykernel has answered by then
    assert b"FROM=lines" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert f"on Python {version}." in host.log
    answer = made.call("stop", kernel_id="ef" * 16, grace_s=5)
    assert "result" in answer
    wait_for(lambda: not alive(pid), "the end of the kernel")
    assert "Traceback" not in host.log
    assert "Warning" not in host.log


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_a_python_that_is_too_old_can_say_so(version: str):
    done = subprocess.run(
        [python_of(version), "-c", _FIRST_WORDS, "marker", "asyncio"],
        input=b"00000004pass",
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode() == f"marker {version} "


def test_asyncio_is_not_needed_by_what_only_hands_descriptors_over():
    """The session's process lives as long as the connection: it should be small.

    Only that of a link's first connection has imported it, for the agent that it forks.
    """
    assert asyncio.__name__ not in locate_program(AGENT_SOCKET).decode()
