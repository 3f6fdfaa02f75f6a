"""Tunnels: what goes through them arrives, whatever happens to the line, and nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tornado.websocket import websocket_connect

from lab.faultproxy import DOWN
from tests.integration import tunnel_server
from tests.integration.faults.bench import BOTH_WAYS, Bench, bench_to
from tests.integration.kernels import PATIENCE_S, REMOTE_PREFIX, SSHPYK, AddKernel, eventually
from tests.integration.lifecycle_helpers import OwnHub, agents, the_agent
from tests.integration.machines import USER, Lab, Machine
from tests.integration.tunnel_server import MB, digest


@dataclass
class Served:
    """A running tunnel_server."""

    port: int
    path: str


@contextlib.contextmanager
def serving(machine: Machine, user: str = USER) -> Iterator[Served]:
    folder = f"/tmp/tunnel-test-{uuid.uuid4().hex[:8]}"
    source = Path(tunnel_server.__file__).read_text()
    machine.run(["mkdir", folder], user=user)
    machine.run(["python3", "-c", _WRITE, f"{folder}/server.py", source], user=user)
    start = f"cd {folder}; setsid python3 server.py {folder} >/dev/null 2>&1 </dev/null & echo $!"
    pid = int(machine.run(start, user=user))
    try:
        read = f"cat {folder}/port 2>/dev/null || true"
        port = eventually(lambda: machine.run(read, user=user).strip(), "the server's port")
        yield Served(int(port), f"{folder}/socket")
    finally:
        machine.kill(pid)
        machine.run(["rm", "-rf", folder], user=user)


_WRITE = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"


@pytest.fixture
def server(lab: Lab) -> Iterator[Served]:
    """What the tunnels lead to on the remote."""
    with serving(lab.remote) as served:
        yield served


@dataclass
class Forward:
    """A running ``sshpyk forward``."""

    process: subprocess.Popen[str]
    line: str
    rest: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.line.split()[0]

    @property
    def port(self) -> int:
        return int(self.line.split("localhost:")[1].split()[0])

    def connect(self) -> socket.socket:
        return socket.create_connection(("localhost", self.port), timeout=PATIENCE_S)


@contextlib.contextmanager
def forward(hub: OwnHub, *words: str) -> Iterator[Forward]:
    process = subprocess.Popen(
        [SSHPYK, "forward", hub.host, *words, *hub.options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Forward(process, process.stdout.readline())
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0, process.stdout.read()
        process.stdout.close()


def sshpyk(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SSHPYK, *words], capture_output=True, text=True, timeout=PATIENCE_S)


def say(connection: socket.socket, line: str) -> socket.socket:
    connection.sendall(f"{line}\n".encode())
    return connection


def read_all(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(lambda: connection.recv(MB), b""))


def echo(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    answer = b""
    while len(answer) < len(data):
        more = connection.recv(len(data))
        assert more, "the connection was closed"
        answer += more
    return answer


def download(
    connection: socket.socket, size_bytes: int, acts: dict[int, Callable[[], object]]
) -> str:
    """Return the hash of what comes; each act is done when so many bytes are there."""
    found, received = hashlib.sha256(), 0
    say(connection, f"send {size_bytes}")
    while data := connection.recv(MB):
        found.update(data)
        received += len(data)
        for at in [at for at in acts if at <= received]:
            acts.pop(at)()
    assert not acts
    return found.hexdigest()


@pytest.mark.parametrize(
    ("bench", "size_mb"),
    [
        ("remote", 200),
        ("remote-jump", 20),
        pytest.param("remote", 1000, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
        pytest.param("remote-jump", 1000, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
    indirect=["bench"],
)
def test_a_download_across_two_cuts_is_exact(bench: Bench, size_mb: int, server: Served) -> None:
    size = size_mb * MB

    def cut() -> None:
        bench.proxy.cut(100_000, DOWN)

    with forward(bench.hub, f"0:{server.port}") as tunnel, tunnel.connect() as connection:
        began_s = time.monotonic()
        found = download(connection, size, {size // 5: cut, size // 2: cut})
        print(f"{size_mb} MB in {time.monotonic() - began_s:.1f} s")
    assert found == digest(size)
    assert bench.proxy.total_connections >= 3


@pytest.mark.parametrize("hole_s", [15, pytest.param(60, marks=pytest.mark.slow)])
def test_connections_stay_open_through_a_black_hole(
    bench: Bench, hole_s: int, server: Served
) -> None:
    with forward(bench.hub, f"0:{server.port}") as tunnel, tunnel.connect() as connection:
        say(connection, "echo")
        assert echo(connection, b"before") == b"before"
        bench.proxy.pause(hole_s)
        connection.sendall(b"during")
        with tunnel.connect() as later:  # one that is made while nobody can be reached
            say(later, "echo")
            later.sendall(b"later")
            assert later.recv(5) == b"later"
        assert connection.recv(6) == b"during"
        assert echo(connection, b"x" * 100_000) == b"x" * 100_000


_ECHO_WEBSOCKET = """
import asyncio, tornado.httpserver, tornado.netutil, tornado.web, tornado.websocket
class Echo(tornado.websocket.WebSocketHandler):
    def on_message(self, message):
        self.write_message(message, binary=isinstance(message, bytes))
async def main():
    application = tornado.web.Application([("/", Echo)])
    (listening,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
    tornado.httpserver.HTTPServer(application).add_socket(listening)
    print(listening.getsockname()[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("hole_s", [12, pytest.param(60, marks=pytest.mark.slow)])
def test_a_websocket_stays_open_through_a_black_hole(bench: Bench, lab: Lab, hole_s: int) -> None:
    folder = f"/tmp/tunnel-test-{uuid.uuid4().hex[:8]}"
    lab.remote.run(["mkdir", folder])
    lab.remote.run(["python3", "-c", _WRITE, f"{folder}/echo.py", _ECHO_WEBSOCKET])
    start = (
        f"cd {folder}; setsid {REMOTE_PREFIX}/bin/python echo.py >port 2>&1 </dev/null & echo $!"
    )
    pid = int(lab.remote.run(start))
    try:
        said = eventually(lambda: lab.remote.run(f"cat {folder}/port").strip(), "the server")
        with forward(bench.hub, f"0:{said}") as tunnel:
            asyncio.run(_talk_across(bench, f"ws://localhost:{tunnel.port}/", hole_s))
    finally:
        lab.remote.kill(pid)
        lab.remote.run(["rm", "-rf", folder])


async def _talk_across(bench: Bench, url: str, hole_s: float) -> None:
    socket = await websocket_connect(url, connect_timeout=PATIENCE_S)
    await socket.write_message("before")
    assert await socket.read_message() == "before"
    bench.proxy.pause(hole_s)
    for number in range(100):
        await socket.write_message(f"during {number}")
    for number in range(100):
        assert await socket.read_message() == f"during {number}"
    await socket.write_message(b"x" * 100_000, binary=True)
    assert await socket.read_message() == b"x" * 100_000
    socket.close()
    assert await socket.read_message() is None


@pytest.mark.parametrize("bench", BOTH_WAYS, indirect=True)
def test_a_web_server_a_unix_socket_and_half_closes(
    bench: Bench, lab: Lab, server: Served, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    with (
        forward(bench.hub, f"{here}:{server.path}"),
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.connect(str(here))
        say(connection, "hash")
        connection.sendall(b"".join(map(tunnel_server.block, range(10))))
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).decode() == digest(10 * MB)
    assert not here.exists()
    folder = Path(server.path).parent
    web = f"cd {folder}; setsid python3 -m http.server 0 >web.log 2>&1 </dev/null & echo $!"
    pid = int(lab.remote.run(web.replace("python3 -m", "python3 -u -m")))
    try:
        said = eventually(lambda: lab.remote.run(f"cat {folder}/web.log"), "the web server")
        port = said.split("port ")[1].split()[0]
        with contextlib.ExitStack() as stack:
            tunnel = stack.enter_context(forward(bench.hub, f"0:{port}"))
            url = f"http://localhost:{tunnel.port}/server.py"
            with urllib.request.urlopen(url) as page:
                assert page.read() == Path(tunnel_server.__file__).read_bytes()
    finally:
        lab.remote.kill(pid)


def test_the_host_reaches_a_port_of_the_laptop(bench: Bench, lab: Lab) -> None:
    with serving(lab.laptop) as here, forward(bench.hub, "-R", f"0:{here.port}") as tunnel:
        code = (
            "import socket, sys; c = socket.create_connection(('localhost', int(sys.argv[1])));"
            "c.sendall(b'hash\\n' + b'x' * 5_000_000); c.shutdown(1); print(c.recv(64).decode())"
        )
        ask = ["python3", "-c", code, str(tunnel.port)]
        assert lab.remote.run(ask).strip() == hashlib.sha256(b"x" * 5_000_000).hexdigest()
        bench.proxy.reset()
        assert lab.remote.run(ask).strip() == hashlib.sha256(b"x" * 5_000_000).hexdigest()
    refused = (
        "import socket, sys; print(socket.socket().connect_ex(('localhost', int(sys.argv[1]))))"
    )
    eventually(
        lambda: lab.remote.run(["python3", "-c", refused, str(tunnel.port)]).strip() != "0",
        "the end of the listener on the host",
    )


def test_two_hundred_connections_at_once(bench: Bench, server: Served) -> None:
    with forward(bench.hub, f"0:{server.port}") as tunnel:

        def use(number: int) -> bool:
            with tunnel.connect() as connection:
                say(connection, "echo")
                word = b"%d " % number * 500
                return echo(connection, word) == word

        with ThreadPoolExecutor(200) as pool:
            assert all(pool.map(use, range(200)))


def test_a_reader_that_stops_costs_little_memory(bench: Bench, lab: Lab, server: Served) -> None:
    with forward(bench.hub, f"0:{server.port}") as tunnel:
        with tunnel.connect() as connection:
            say(connection, "echo")
            assert echo(connection, b"warm") == b"warm"
        held = [tunnel.connect() for _ in range(10)]
        pids = [(lab.laptop, bench.hub.pid), *((lab.remote, one.pid) for one in agents(lab))]
        before = [rss_mb(machine, pid) for machine, pid in pids]
        for connection in held:
            say(connection, f"send {100 * MB}")
        time.sleep(5)
        grown = [rss_mb(*where) - was for where, was in zip(pids, before, strict=True)]
        print("grown by MB:", grown)
        assert max(grown) < 120  # of the 1000 that were sent
        connection = held.pop()
        for other in held:
            other.close()
        assert sum(map(len, iter(lambda: connection.recv(MB), b""))) == 100 * MB
        connection.close()


def rss_mb(machine: Machine, pid: int) -> int:
    for line in machine.run(["cat", f"/proc/{pid}/status"]).splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024
    raise AssertionError("no such process")


def test_closing_frees_the_port_and_ends_the_command(bench: Bench, server: Served) -> None:
    with forward(bench.hub, f"0:{server.port}") as tunnel, tunnel.connect() as connection:
        say(connection, "echo")
        assert echo(connection, b"x") == b"x"
        taken = sshpyk("forward", bench.hub.host, f"{tunnel.port}:1", *bench.hub.options)
        assert taken.returncode == 1
        assert f"is taken by a tunnel of sshpyk to {bench.hub.host} (pid" in taken.stderr
        listed = sshpyk("tunnels").stdout
        assert f"{tunnel.name}  localhost:{tunnel.port} -> {bench.hub.host}" in listed
        assert "1 open of 1" in listed
        assert sshpyk("close", str(tunnel.port)).returncode == 0
        with pytest.raises(ConnectionResetError):
            assert connection.recv(1) == b"never in order"
        assert tunnel.process.wait(PATIENCE_S) == 0
        with pytest.raises(OSError, match=r"refused|assign"):  # of the second loopback address
            tunnel.connect()
        with forward(bench.hub, f"{tunnel.port}:{server.port}") as again:  # at once
            assert again.port == tunnel.port


def test_a_background_tunnel_outlives_a_killed_hub(bench: Bench, server: Served) -> None:
    words = ("forward", bench.hub.host, f"0:{server.port}", "--background", *bench.hub.options)
    opened = sshpyk(*words)
    assert opened.returncode == 0, opened.stderr
    name, port = opened.stdout.split()[0], int(opened.stdout.split("localhost:")[1].split()[0])
    try:
        with socket.create_connection(("localhost", port), timeout=PATIENCE_S) as connection:
            say(connection, "echo")
            assert echo(connection, b"x") == b"x"
            os.kill(bench.hub.pid, signal.SIGKILL)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""

        def answers() -> bool:
            try:
                connection = socket.create_connection(("localhost", port), timeout=5)
                with connection:
                    say(connection, "echo")
                    return echo(connection, b"again") == b"again"
            except (OSError, AssertionError):
                return False

        eventually(answers, "the tunnel of the next hub", timeout_s=PATIENCE_S)
        assert name in sshpyk("tunnels").stdout
    finally:
        assert sshpyk("close", name).returncode == 0
    keepers = [p for p in bench.hub.processes() if " forward " in p.args]
    eventually(lambda: not any(os.path.exists(f"/proc/{p.pid}") for p in keepers), "its process")


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_killed_agent_resets_connections_and_the_next_serves_the_tunnel(
    lab: Lab, account: str, add_kernel: AddKernel, tmp_path: Path, goes_on: bool
) -> None:
    with (
        serving(lab.remote) as server,
        bench_to(lab, "remote", add_kernel, tmp_path, user=account) as bench,
        forward(bench.hub, f"0:{server.port}") as tunnel,
    ):
        with tunnel.connect() as connection:
            say(connection, "echo")
            assert echo(connection, b"x") == b"x"
            agent = the_agent(lab, user=account)
            lab.remote.kill(agent.pid)
            with pytest.raises(ConnectionResetError):
                assert connection.recv(1) == b"never in order"
        if goes_on:  # else all ends in this moment, and nothing may stay
            with tunnel.connect() as connection:
                say(connection, "echo")
                assert echo(connection, b"again") == b"again"
