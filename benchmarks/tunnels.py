"""A forwarded port beside `ssh -L`, and beside no tunnel, in one run: throughput, latency, many at once.

``python benchmarks/tunnels.py`` makes its own host on loopback. With a real host, start the server there
(``python3 tests/integration/tunnel_server.py FOLDER``) and give ``--host ALIAS --port PORT``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

if not __package__:  # run as a script: the folder that holds the packages leads the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from sshpyk.hub.client import stop_hub
from sshpyk.servers.owner import TunnelOwner
from sshpyk.servers.tunnels import TunnelRequest
from sshpyk.ssh.command import SshTarget
from sshpyk.wire.endpoint import Endpoint
from tests.integration import tunnel_server

MB = tunnel_server.MB
MANY = 200
_PATIENCE_S = 30.0


@dataclass
class Subject:
    """One way to the same server, and what was measured on it."""

    title: str
    port: int
    mb_per_s: list[float] = field(default_factory=list)
    round_trip_s: list[float] = field(default_factory=list)
    connect_s: list[float] = field(default_factory=list)
    many_s: list[float] = field(default_factory=list)

    def connect(self, line: str) -> socket.socket:
        """Open a connection and say what it is for."""
        connection = socket.create_connection(("localhost", self.port), timeout=_PATIENCE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(f"{line}\n".encode())
        return connection

    def measure(self, size_mb: int, round_trips: int) -> None:
        """Measure everything once."""
        self.mb_per_s.append(self._throughput(size_mb))
        with self.connect("echo") as connection:
            self._echo(connection)
            times = [self._echo(connection) for _ in range(round_trips)]
        self.round_trip_s.append(statistics.median(times))
        self.connect_s.append(statistics.median(self._visit() for _ in range(20)))
        began_s = time.perf_counter()
        with ThreadPoolExecutor(MANY) as pool:
            list(pool.map(lambda _: self._visit(), range(MANY)))
        self.many_s.append(time.perf_counter() - began_s)

    def _throughput(self, size_mb: int) -> float:
        began_s, received, buffer = time.perf_counter(), 0, bytearray(MB)
        with self.connect(f"send {size_mb * MB}") as connection:
            while size := connection.recv_into(buffer):
                received += size
        if received != size_mb * MB:
            raise RuntimeError(f"{self.title}: {received} bytes of {size_mb} MB")
        return received / 1e6 / (time.perf_counter() - began_s)

    @staticmethod
    def _echo(connection: socket.socket) -> float:
        began_s = time.perf_counter()
        connection.sendall(b"x")
        if connection.recv(1) != b"x":
            raise RuntimeError("no echo")
        return time.perf_counter() - began_s

    def _visit(self) -> float:
        """Connect, exchange a few bytes, and close."""
        began_s = time.perf_counter()
        with self.connect("echo") as connection:
            self._echo(connection)
        return time.perf_counter() - began_s


@contextlib.contextmanager
def through_sshpyk(target: SshTarget, python: str, port: int) -> Iterator[Subject]:
    """Open a tunnel of ours."""
    there = Endpoint("localhost", port)
    owner = TunnelOwner(target, TunnelRequest(Endpoint("localhost", 0), there, python))
    try:
        owner.open()
        yield Subject("sshpyk forward", owner.tunnel["listens"]["port"])
    finally:
        owner.close()
        stop_hub(target)


@contextlib.contextmanager
def through_ssh(target: SshTarget, port: int) -> Iterator[Subject]:
    """Open a tunnel of ssh's."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        here = free.getsockname()[1]
    config = ["-F", target.ssh_config] if target.ssh_config else []
    words = ["ssh", *config, "-N", "-L", f"127.0.0.1:{here}:localhost:{port}", target.host]
    process = subprocess.Popen(words)
    try:
        deadline_s = time.monotonic() + _PATIENCE_S
        while socket.socket().connect_ex(("127.0.0.1", here)):
            if time.monotonic() > deadline_s:
                raise RuntimeError("ssh -L did not listen")
            time.sleep(0.05)
        yield Subject("ssh -L", here)
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def loopback() -> Iterator[tuple[SshTarget, int]]:
    """Start an sshd and the server on this machine."""
    from demo.loopback import LoopbackHost  # only here: a real host needs no sshd of ours

    with tempfile.TemporaryDirectory() as folder, LoopbackHost() as host:
        server = subprocess.Popen([sys.executable, tunnel_server.__file__, folder])
        try:
            while not (Path(folder) / "port").exists():
                time.sleep(0.05)
            port = int((Path(folder) / "port").read_text())
            yield SshTarget.parse(host.alias, ssh_config=str(host.ssh_config)), port
        finally:
            server.terminate()
            server.wait()


def show(subjects: list[Subject], load: float) -> None:
    """Print the table."""
    table = Table("median", "MB/s", "round trip, ms", "connect and echo, ms", f"{MANY} at once, s")
    for one in subjects:
        table.add_row(
            one.title,
            f"{statistics.median(one.mb_per_s):.0f}",
            f"{1000 * statistics.median(one.round_trip_s):.2f}",
            f"{1000 * statistics.median(one.connect_s):.2f}",
            f"{statistics.median(one.many_s):.2f}",
        )
    console = Console(width=100)
    console.print(table)
    ours, theirs = (statistics.median(one.mb_per_s) for one in subjects[:2])
    more_ms = 1000 * (
        statistics.median(subjects[0].round_trip_s) - statistics.median(subjects[1].round_trip_s)
    )
    console.print(f"{ours / theirs:.2f} of ssh -L's throughput, {more_ms:+.2f} ms a round trip")
    console.print(f"{os.cpu_count()} processors, load {load:.1f} at the start")


def main() -> None:
    """Run the rounds; the subjects take turns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", help="a host of your ssh config; else loopback")
    parser.add_argument("--ssh-config", help="for ssh -F")
    parser.add_argument("--port", type=int, help="where the server is on that host")
    parser.add_argument("--remote-python", default="python3")
    parser.add_argument("--mb", type=int, default=300)
    parser.add_argument("--round-trips", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        if given.host:
            target = SshTarget.parse(given.host, ssh_config=given.ssh_config)
            port, direct = given.port, []
        else:
            target, port = stack.enter_context(loopback())
            direct = [Subject("no tunnel", port)]
        subjects = [
            stack.enter_context(through_sshpyk(target, given.remote_python, port)),
            stack.enter_context(through_ssh(target, port)),
            *direct,
        ]
        for number in range(given.rounds):
            for subject in subjects[number % 2 :] + subjects[: number % 2]:
                subject.measure(given.mb, given.round_trips)
        show(subjects, load)


if __name__ == "__main__":
    main()
