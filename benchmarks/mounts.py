"""A mounted folder: our SFTP server beside OpenSSH's, behind the same ``sshfs -o passive``, in one run.

``python benchmarks/mounts.py`` needs sshfs, git and tar here, and the right to mount with fuse.
See README.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

if not __package__:  # run as a script: the folder that holds the packages leads the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

_SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")
_SFTP_SERVERS += ("/usr/libexec/sftp-server", "/usr/lib/ssh/sftp-server")
_BLOCK_BYTES = 1 << 20
_PATIENCE_S = 10.0
_GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@localhost")


@dataclass
class Side:
    """A server, what the client calls its folder, and what was measured of it in seconds."""

    title: str
    command: Callable[[Path], list[str]]
    root: Callable[[Path], str]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak_kib: int = 0
    processor_s: float = 0

    def note(self, what: str, took_s: float) -> None:
        self.seconds.setdefault(what, []).append(took_s)


@dataclass(frozen=True)
class Load:
    """How much is to be done."""

    megabytes: int
    files: int


@contextlib.contextmanager
def mounted(side: Side, folder: Path, mount_point: Path) -> Iterator[None]:
    """Serve ``folder`` at ``mount_point``."""
    client_end, server_end = socket.socketpair()
    with client_end, server_end:
        server = subprocess.Popen(side.command(folder), stdin=server_end, stdout=server_end)
        source = f":{side.root(folder)}"
        sshfs = subprocess.Popen(
            ["sshfs", "-f", "-o", "passive", source, str(mount_point)],
            stdin=client_end,
            stdout=client_end,
        )
    try:
        deadline_s = time.monotonic() + _PATIENCE_S
        while not mount_point.is_mount():
            if sshfs.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"{side.title}: sshfs did not mount")
            time.sleep(0.02)
        os.statvfs(mount_point)  # never cached: the server has begun to answer
        yield
        side.processor_s += processor_s(server.pid)
        side.peak_kib = max(side.peak_kib, peak_kib(server.pid))
    finally:
        subprocess.run(["fusermount3", "-u", str(mount_point)], check=False)
        for process in (sshfs, server):
            process.wait(_PATIENCE_S)


def processor_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        ticks = file.read().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def peak_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def timed(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def write(path: Path, megabytes: int) -> None:
    block = os.urandom(_BLOCK_BYTES)
    with path.open("wb", buffering=0) as file:
        for _ in range(megabytes):
            file.write(block)


def read(path: Path, megabytes: int) -> None:
    size_bytes = 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(_BLOCK_BYTES):
            size_bytes += len(data)
    if size_bytes != megabytes * _BLOCK_BYTES:
        raise RuntimeError(f"{path}: {size_bytes} bytes")


def run(*argv: str, cwd: Path) -> str:
    return subprocess.run(argv, cwd=cwd, check=True, capture_output=True, text=True).stdout


def git_status(folder: Path) -> None:
    said = run(*_GIT, "status", "--porcelain", cwd=folder)
    if said:
        raise RuntimeError(f"git sees changes: {said[:200]}")


def measure(side: Side, base: Path, load: Load) -> None:
    """One round. Each measurement has a mount of its own: nothing is in sshfs's or the kernel's cache."""
    folder, mount_point = base / "folder", base / "mounted"
    for path in (folder, mount_point):
        path.mkdir(parents=True)
    big = mount_point / "big"
    with mounted(side, folder, mount_point):
        side.note("write", timed(lambda: write(big, load.megabytes)))
    with mounted(side, folder, mount_point):
        side.note("read", timed(lambda: read(big, load.megabytes)))
    shutil.copytree(base.parent / "repository", folder / "repository", symlinks=True)
    run(*_GIT, "update-index", "--refresh", cwd=folder / "repository")
    for what in ("git status, first", "git status"):  # the first writes the index anew
        with mounted(side, folder, mount_point):
            side.note(what, timed(lambda: git_status(mount_point / "repository")))
    with mounted(side, folder, mount_point):
        archive = str(base.parent / "tree.tar")
        side.note("tar x", timed(lambda: run("tar", "xf", archive, cwd=mount_point)))
    shutil.rmtree(base)


def make_tree(work: Path, files: int) -> None:
    """Make a repository of so many small files, and an archive of the same."""
    repository = work / "repository"
    for number in range(files):
        path = repository / f"package{number // 500}" / f"part{number // 50 % 10}" / f"{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"number = {number}\n" * (number % 90 + 10))
    run("tar", "cf", str(work / "tree.tar"), "repository", cwd=work)
    run(*_GIT, "init", "-q", cwd=repository)
    run(*_GIT, "add", ".", cwd=repository)
    run(*_GIT, "commit", "-q", "-m", "tree", cwd=repository)


def sides() -> list[Side]:
    server = next((path for path in _SFTP_SERVERS if os.path.exists(path)), None)
    if server is None:
        raise SystemExit("no sftp-server of OpenSSH here to compare with")
    ours = [sys.executable, "-m", "sshpyk.mounts.server"]
    return [
        Side("sftp-server", lambda _: [server], str),
        Side("sshpyk", lambda folder: [*ours, str(folder)], lambda _: "/"),
    ]


def table(subjects: list[Side]) -> Table:
    shown = Table(title="seconds: median (min-max)")
    for heading in ("", *(side.title for side in subjects), "speed"):
        shown.add_column(heading)
    for what in subjects[0].seconds:
        medians = [statistics.median(side.seconds[what]) for side in subjects]
        cells = [
            f"{median:.2f} ({min(side.seconds[what]):.2f}-{max(side.seconds[what]):.2f})"
            for side, median in zip(subjects, medians, strict=True)
        ]
        shown.add_row(what, *cells, f"{medians[0] / medians[1]:.2f}x")
    shown.add_row("the servers' own work", *(f"{side.processor_s:.2f}" for side in subjects), "")
    shown.add_row("peak memory, MiB", *(f"{side.peak_kib / 1024:.1f}" for side in subjects), "")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--folder", help="where to work (default: a temporary folder)")
    parser.add_argument("--json", help="write every measurement to this file")
    options = parser.parse_args()
    load = Load(options.megabytes, options.files)
    subjects = sides()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        work = Path(name)
        make_tree(work, load.files)
        for number in range(options.rounds):
            # Who begins changes, so that a busy moment meets both.
            for side in subjects if number % 2 else reversed(subjects):
                measure(side, work / "round", load)
    Console().print(table(subjects))
    print("load:", *(f"{load:.1f}" for load in os.getloadavg()), "on", os.cpu_count(), "processors")
    if options.json:
        measured = {side.title: side.seconds for side in subjects}
        Path(options.json).write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
