"""The host that is measured, and the line to it: a private sshd on 127.0.0.1, or a host of the user's.

The line is a fault proxy (``lab/faultproxy.py``) in front of the first sshd on the way. It delays, slows
down, counts and breaks. It is no ProxyCommand, so that its processor time is nobody's. Where nothing of
that is wanted (0 ms) ssh goes straight.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.faultproxy import FaultProxy

_SSH_PATIENCE_S = 60.0
_ECHOES = 15
# bash reads .bashrc for sshd where it is the first shell; what this account has there is nobody's figure.
_NO_BASHRC = "1"
# What the README of sshpyk 1.25 demands of the alias that it uses, and of each jump host.
_MASTERED = """\
Host *
    BatchMode yes
    ControlMaster auto
    ControlPath {folder}/%C
    ControlPersist 10m
"""


@dataclass(frozen=True)
class Host:
    """An ssh destination, and a Python there that has ipykernel."""

    alias: str
    ssh_config: str
    python: str
    mark: str = ""  # what the environment of its processes contains; "": all of the user's count

    def run(self, script: str, *, stdin: str = "") -> str:
        """Run a shell script there and return what it says."""
        words = ["ssh", "-F", self.ssh_config, self.alias, script]
        return subprocess.run(
            words, input=stdin, capture_output=True, text=True, check=True, timeout=_SSH_PATIENCE_S
        ).stdout

    def run_python(self, code: str) -> str:
        """Run Python code there and return what it prints."""
        return self.run(f"{self.python} -", stdin=code)


@dataclass(frozen=True)
class Way:
    """How one subject's ssh comes to the host: with the line in between, or without."""

    host: Host
    ssh_config: str
    line: FaultProxy | None = None

    def handshake_s(self) -> float:
        """Return the seconds from ssh's start until it is logged in, through all jump hosts."""
        began_s = time.perf_counter()
        words = ["ssh", "-v", "-N", "-F", self.ssh_config, self.host.alias]
        last = "(via proxy)" if "proxyjump" in _settings(self.ssh_config, self.host.alias) else ""
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as ssh:
            assert ssh.stderr is not None
            for said in ssh.stderr:
                if said.startswith("Authenticated to") and last in said:
                    took_s = time.perf_counter() - began_s
                    ssh.terminate()
                    return took_s
        raise RuntimeError(f"ssh {self.host.alias} did not log in")


def _settings(config: str, alias: str) -> dict[str, str]:
    """Return what ssh makes of the alias."""
    said = subprocess.run(
        ["ssh", "-F", config, "-G", alias], capture_output=True, text=True, check=True
    ).stdout
    return dict(line.partition(" ")[::2] for line in said.splitlines())


def round_trip_s(rtt_ms: int) -> float:
    """Return what a byte needs through such a line and back: what it was set to, and its own timers."""
    with (
        socket.create_server(("127.0.0.1", 0)) as echo,
        FaultProxy("127.0.0.1", echo.getsockname()[1]) as line,
        socket.create_connection(("127.0.0.1", line.port)) as near,
        echo.accept()[0] as far,
    ):
        line.delay(rtt_ms / 2000)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return statistics.median(_echo_s(near, far) for _ in range(_ECHOES))


def _echo_s(near: socket.socket, far: socket.socket) -> float:
    began_s = time.perf_counter()
    near.sendall(b"x")
    far.sendall(far.recv(1))
    near.recv(1)
    return time.perf_counter() - began_s


@contextlib.contextmanager
def line_to(host: Host, folder: Path) -> Iterator[Way]:
    """Yield a way to the host that passes a line of its own."""
    hop = host.alias
    while jump := _settings(host.ssh_config, hop).get("proxyjump"):
        hop = jump.split(",")[0].rpartition("@")[2].partition(":")[0]
    said = _settings(host.ssh_config, hop)
    name, port = said["hostname"], int(said["port"])
    key_name = said.get("hostkeyalias") or (name if port == 22 else f"[{name}]:{port}")
    with FaultProxy(name, port) as line:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "ssh_config"
        config.write_text(
            f"Host {hop}\n    HostName 127.0.0.1\n    Port {line.port}\n"
            f"    HostKeyAlias {key_name}\n{Path(host.ssh_config).read_text()}"
        )
        yield Way(host, str(config), line)


def mastered(way: Way, folder: Path) -> Way:
    """Return the same way through a ControlMaster, in a configuration of its own."""
    sockets = folder / "cm"
    sockets.mkdir(parents=True)
    config = folder / "mastered_config"
    config.write_text(_MASTERED.format(folder=sockets) + Path(way.ssh_config).read_text())
    return Way(way.host, str(config), way.line)


@contextlib.contextmanager
def loopback(python: str, folder: Path) -> Iterator[Host]:
    """Yield a host that ends with the run, and keeps Jupyter's files in ``folder``."""
    from demo.loopback import LoopbackHost  # only here: a real host needs no sshd of ours

    mark = secrets.token_hex(8)
    environment = {**jupyter_folders(folder), "BENCH_HOST": mark, "SHLVL": _NO_BASHRC}
    with LoopbackHost(environment=environment) as sshd:
        yield Host(sshd.alias, str(sshd.ssh_config), python, f"BENCH_HOST={mark}")


@contextlib.contextmanager
def chosen_host(options: argparse.Namespace, folder: Path) -> Iterator[Host]:
    """Yield the host of the command line (``host_options``), or one on loopback."""
    if options.host is None:
        with loopback(options.remote_python, folder / "host") as host:
            yield host
        return
    config = options.ssh_config or str(Path.home() / ".ssh/config")
    yield Host(options.host, config, options.remote_python)


def host_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the host."""
    parser.add_argument("--host", metavar="ALIAS", help="a host of your ssh config; else loopback")
    parser.add_argument("--ssh-config", metavar="FILE", help="for ssh -F")
    parser.add_argument(
        "--remote-python", default=sys.executable, metavar="PATH", help="there, with ipykernel"
    )


def jupyter_folders(folder: Path) -> dict[str, str]:
    """Return the variables that keep what Jupyter and IPython write in ``folder``."""
    jupyter = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    return {name: str(folder / name.lower()) for name in (*jupyter, "IPYTHONDIR")}
