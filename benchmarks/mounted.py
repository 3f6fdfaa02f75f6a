"""The ways to have a folder mounted that ``mounts.py`` compares; each is an sshfs and what feeds it."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.places import Way
from sshpyk.hub.client import stop_hub
from sshpyk.hub.mount_request import MountRequest
from sshpyk.servers.owner import MountOwner
from sshpyk.ssh.command import SshTarget

_SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")
_SFTP_SERVERS += ("/usr/libexec/sftp-server", "/usr/lib/ssh/sftp-server")
_PATIENCE_S = 120.0
_SSHFS = ("sshfs", "-f", "-o", "passive")

# Mounts a folder at a mount point while it lasts, and yields the server's process id.
Mounting = Callable[[Path, Path], contextlib.AbstractContextManager[int]]


@dataclass
class Side:
    """One way, and what was measured of it; ``seconds`` by what was done."""

    title: str
    mounting: Mounting
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak_kib: int = 0  # of the server
    processor_s: float = 0

    def note(self, what: str, took_s: float) -> None:
        """Keep one measurement."""
        self.seconds.setdefault(what, []).append(took_s)

    @contextlib.contextmanager
    def mounted(self, folder: Path, mount_point: Path) -> Iterator[None]:
        """Serve ``folder`` at ``mount_point``, and account for the server's work."""
        with self.mounting(folder, mount_point) as server_pid:
            _await(lambda: _is_mounted(mount_point), f"{self.title}: a mount")
            os.statvfs(mount_point)  # never cached: the server has begun to answer
            yield
            self.processor_s += _processor_s(server_pid)
            self.peak_kib = max(self.peak_kib, _peak_kib(server_pid))


def alone() -> list[Side]:
    """The two servers, on this machine and without a network."""
    ours = [sys.executable, "-m", "sshpyk.mounts.server"]
    return [
        Side("sftp-server", lambda folder, at: _fed([sftp_server()], str(folder), at)),
        Side("sshpyk's server", lambda folder, at: _fed([*ours, str(folder)], "/", at)),
    ]


def over(way: Way) -> list[Side]:
    """A plain ssh that carries what ``sftp-server`` says, and our link."""
    ssh = ["ssh", "-F", way.ssh_config, way.host.alias]
    return [
        Side(
            "sftp-server over ssh", lambda folder, at: _fed([sftp_server()], str(folder), at, ssh)
        ),
        Side("sshpyk mount", lambda folder, at: _carried(way, folder, at)),
    ]


def sftp_server() -> str:
    """Return the path of OpenSSH's server; ends the program where there is none."""
    server = next((path for path in _SFTP_SERVERS if os.path.exists(path)), None)
    if server is None:
        raise SystemExit("no sftp-server of OpenSSH here to compare with")
    return server


@contextlib.contextmanager
def _fed(
    server: list[str], root: str, mount_point: Path, ssh: list[str] | None = None
) -> Iterator[int]:
    """An sshfs and a server with their pipes crossed; with ``ssh`` the sshfs runs at its other end."""
    words = [*_SSHFS, f":{root}", str(mount_point)]
    client_end, server_end = socket.socketpair()
    with client_end, server_end:
        feeding = subprocess.Popen(server, stdin=server_end, stdout=server_end)
        sshfs = subprocess.Popen(
            words if ssh is None else [*ssh, shlex.join(words)], stdin=client_end, stdout=client_end
        )
    try:
        yield feeding.pid
    finally:
        subprocess.run(["fusermount3", "-u", str(mount_point)], check=False)
        for process in (sshfs, feeding):
            process.wait(_PATIENCE_S)


@contextlib.contextmanager
def _carried(way: Way, folder: Path, mount_point: Path) -> Iterator[int]:
    target = SshTarget.parse(way.host.alias, ssh_config=way.ssh_config)
    owner = MountOwner(target, MountRequest(str(folder), str(mount_point)), way.host.python)
    try:
        owner.open()
        yield _server_of(owner.link["hub_pid"])
    finally:
        owner.close()
        _await(lambda: not _is_mounted(mount_point), "unmounting")


def stop_hub_of(way: Way) -> None:
    """End the hub that carried mounts."""
    stop_hub(SshTarget.parse(way.host.alias, ssh_config=way.ssh_config))


def _server_of(hub_pid: int) -> int:
    """Return the process that serves the hub's only mount."""
    children = Path(f"/proc/{hub_pid}/task/{hub_pid}/children").read_text().split()
    return next(
        int(pid)
        for pid in children
        if b"mounts.server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )


def _is_mounted(mount_point: Path) -> bool:
    """Look it up in the system's table: a mount that is going answers with errors."""
    return f" {mount_point} " in Path("/proc/self/mountinfo").read_text()


def _await(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{what} took too long")
        time.sleep(0.02)


def _processor_s(pid: int) -> float:
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _peak_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
