"""F49, F51: what a broken or hostile connection does to a real agent that holds somebody's kernel."""

from __future__ import annotations

import array
import contextlib
import os
import random
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshpyk.link import frames
from sshpyk.link.frames import Data, FrameReader, Hello
from sshpyk.link.link import MAX_STREAMS, Link
from sshpyk.wire.private import AGENT_SOCKET
from tests.unit.agent.service_bench import alive
from tests.unit.agent.test_main import (
    PATIENCE_S,
    Carried,
    Host,
    Session,
    carried,
    host,  # noqa: F401
    start_sleeper,
    wait_for,
)

FEW_MB = 8 << 20
HELLO = frames.encode_hello(Hello("cd" * 16, 1))


def resident_bytes(pid: int, what: str = "VmHWM") -> int:
    """Return what a process takes of memory; VmHWM is the most that it ever took."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise AssertionError(what)


def chunk(stream: int, seq: int, size: int) -> bytes:
    return frames.encode_data_header(Data(stream, seq, 0, 0, 0, b""), size) + bytes(size)


def random_bytes() -> bytes:
    return random.Random(49).randbytes(1 << 20)


ATTACKS = {
    "random bytes": random_bytes,
    "random bytes behind a HELLO": lambda: HELLO + random_bytes(),
    "a HELLO of 4 GiB": lambda: struct.pack(">BI", 1, 2**32 - 1) + random_bytes(),
    "a HELLO at the cap that is only brackets": lambda: (
        struct.pack(">BI", 1, frames.MAX_HELLO_BYTES) + b"[" * frames.MAX_HELLO_BYTES
    ),
    "DATA of 4 GiB": lambda: HELLO + struct.pack(">BI", 2, 2**32 - 1) + random_bytes(),
    "streams without end": lambda: (
        HELLO + b"".join(chunk(stream, 0, 1) for stream in range(MAX_STREAMS + 9))
    ),
    "PINGs whose answers are not read, and a BYE too long": lambda: (
        HELLO + frames.encode_ping(1) * 200_000 + struct.pack(">BI", 7, 4097)
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_f49_malformed_input_closes_that_connection_and_nothing_else(
    host: Host,  # noqa: F811
    attack: str,
):
    made = carried(host)
    pid = start_sleeper(host, made)
    (agent,) = [found for found in host.agents() if found != pid]
    before = resident_bytes(agent)
    session = host.session()
    session.bring_up()
    with contextlib.suppress(BrokenPipeError):  # closed before we were through
        session.say(ATTACKS[attack]())
    assert session.process.wait(PATIENCE_S) == 0
    assert alive(pid)
    (kernel,) = made.call("list")["result"]["kernels"]  # type: ignore[index]
    assert kernel["pid"] == pid
    assert resident_bytes(agent) - before < FEW_MB


def agent_socket(host: Host) -> socket.socket:  # noqa: F811
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(PATIENCE_S)
    connected.connect(str(host.folder / AGENT_SOCKET))
    return connected


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.fixture
def odd_fds(tmp_path: Path) -> Iterator[dict[str, list[int]]]:
    plain = os.open(tmp_path / "plain", os.O_RDWR | os.O_CREAT)
    reading, writing = os.pipe()
    yield {"none": [], "one": [reading], "of a plain file": [plain] * 2}
    for fd in (plain, reading, writing):
        os.close(fd)


@pytest.mark.parametrize("which", ["none", "one", "of a plain file"])
def test_f49_a_session_that_brings_odd_descriptors_leaves_none(
    host: Host,  # noqa: F811
    odd_fds: dict[str, list[int]],
    which: str,
):
    made = carried(host)
    made.call("list")
    (agent,) = host.agents()
    before = descriptors(agent)
    with agent_socket(host) as session:
        rights = array.array("i", odd_fds[which])
        session.sendmsg([b"c"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else [])
        assert session.recv(1) == b""
    assert "result" in made.call("list")
    wait_for(lambda: descriptors(agent) == before, "the end of what that session brought")


BAD_STARTS = [
    {"streams": ["x", None]},
    {"streams": [0, 0]},
    {"streams": [2**40, 3]},
    {"streams": 5},
    {"kernel_id": "../../../tmp/x"},
    {"kernel_id": {}},
    {"env": {"A": 5}},
    {"env": {"A": "\0"}},
    {"env": {"A=\0": "b"}},
    {"signature_scheme": "hmac-none"},
    {"signature_scheme": 5},
    {"cwd": "\0"},
    {"python": 5},
    {"kernel_name": []},
]


@pytest.mark.parametrize("change", BAD_STARTS, ids=repr)
def test_f49_a_malformed_start_is_answered_and_leaves_nothing(
    host: Host,  # noqa: F811
    change: dict[str, object],
):
    made = carried(host)
    pid = start_sleeper(host, made)
    params: dict[str, object] = {
        "kernel_id": "12" * 16,
        "kernel_name": "sleeper",
        "python": sys.executable,
        "key": "k",
        "signature_scheme": "hmac-sha256",
        "env": {},
        "cwd": "",
        "streams": [5, 7],
    }
    assert "error" in made.call("start", **{**params, **change})
    (kernel,) = made.call("list")["result"]["kernels"]  # type: ignore[index]
    assert kernel["pid"] == pid
    assert [path.name for path in host.folder.glob("k*")] == ["k" + ("ef" * 16)[:12]]


# Other versions


def hear_frames(session: Session) -> list[frames.Frame]:
    """Return everything until the end of the connection."""
    assert session.process.stdout
    return FrameReader().feed(session.process.stdout.read())


def test_f51_a_client_of_another_version_is_told_ours_and_the_kernel_lives(
    host: Host,  # noqa: F811
):
    made = carried(host)
    pid = start_sleeper(host, made)
    session = host.session()
    session.bring_up()
    session.say(frames.encode_hello(Hello("ab" * 16, 2, versions=(2, 3))))
    (answer,) = hear_frames(session)
    assert isinstance(answer, Hello)
    assert answer.versions == frames.VERSIONS
    assert session.process.wait(PATIENCE_S) == 0
    (kernel,) = made.call("list")["result"]["kernels"]  # type: ignore[index]
    assert kernel["pid"] == pid
    assert "speaks the versions (2, 3)" in host.log


def test_f51_agents_of_two_versions_live_side_by_side(host: Host):  # noqa: F811
    made = carried(host)
    pid = start_sleeper(host, made)
    (agent,) = [found for found in host.agents() if found != pid]
    other = AGENT_SOCKET.replace("1", "2")
    host.program = host.program.replace(AGENT_SOCKET, other)
    private = host.modules["sshpyk.wire.private"]
    host.modules["sshpyk.wire.private"] = private.replace(AGENT_SOCKET, other)
    session = host.session()
    assert session.bring_up() == "absent"  # so far as the newer one is concerned
    newer = Carried(session, Link("cd" * 16), 1)
    assert newer.call("list")["result"] == {"kernels": []}
    assert len(host.agents()) == 3  # two agents and the kernel
    newer.session.say(frames.encode_bye("good bye"))
    wait_for(lambda: len(host.agents()) == 2, "the end of the newer agent")
    assert alive(agent)
    (kernel,) = made.call("list")["result"]["kernels"]  # type: ignore[index]
    assert kernel["pid"] == pid
