"""A mounted folder: ours beside an ``sshfs -o passive`` that OpenSSH's server feeds over a plain ssh.

``python benchmarks/mounts.py`` needs sshfs, git and tar here, and the right to mount with fuse.
See README.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

if not __package__:  # run as a script: the folder that holds the packages leads the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import mounted
from benchmarks.mounted import Side
from benchmarks.places import Way, line_to, loopback

_BLOCK_BYTES = 1 << 20
_GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@localhost")


@dataclass(frozen=True)
class Load:
    """How much is to be done."""

    megabytes: int
    files: int


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
    with side.mounted(folder, mount_point):
        side.note("write", timed(lambda: write(big, load.megabytes)))
    with side.mounted(folder, mount_point):
        side.note("read", timed(lambda: read(big, load.megabytes)))
    shutil.copytree(base.parent / "repository", folder / "repository", symlinks=True)
    run(*_GIT, "update-index", "--refresh", cwd=folder / "repository")
    for what in ("git status, first", "git status"):  # the first writes the index anew
        with side.mounted(folder, mount_point):
            side.note(what, timed(lambda: git_status(mount_point / "repository")))
    with side.mounted(folder, mount_point):
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


def table(subjects: list[Side], title: str) -> Table:
    shown = Table(title=f"{title}; seconds: median (min-max)")
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


def run_rounds(subjects: list[Side], work: Path, load: Load, rounds: int) -> None:
    """Measure all in turns; who begins changes, so that a busy moment meets both."""
    make_tree(work, load.files)
    for number in range(rounds):
        for side in subjects if number % 2 else reversed(subjects):
            measure(side, work / "round", load)


def over_ssh(work: Path, round_trip_ms: float, load: Load, rounds: int) -> list[Side]:
    """Measure with a private sshd on this machine as the host, so far away."""
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(loopback(sys.executable, work / "host"))
        way = Way(host, host.ssh_config)
        if round_trip_ms:
            way = stack.enter_context(line_to(host, work / "line"))
            assert way.line is not None
            way.line.delay(round_trip_ms / 2000)
        stack.callback(mounted.stop_hub_of, way)
        subjects = mounted.over(way)
        run_rounds(subjects, work, load, rounds)
        return subjects


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--far-files", type=int, default=300, help="where the host is far away")
    parser.add_argument("--round-trip-ms", type=float, nargs="*", default=[0, 20])
    parser.add_argument("--alone", action="store_true", help="the servers without a network")
    parser.add_argument("--folder", help="where to work (default: a temporary folder)")
    parser.add_argument("--json", help="write every measurement to this file")
    return parser.parse_args()


def main() -> None:
    """Measure as the command line says, and print a table for each distance."""
    options = arguments()
    measured = {}
    for round_trip_ms in [0.0] if options.alone else options.round_trip_ms:
        files = options.far_files if round_trip_ms else options.files
        load = Load(options.megabytes, files)
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            if options.alone:
                title, subjects = "without a network", mounted.alone()
                run_rounds(subjects, Path(name), load, options.rounds)
            else:
                title = f"{round_trip_ms:g} ms round trip"
                subjects = over_ssh(Path(name), round_trip_ms, load, options.rounds)
        Console().print(table(subjects, f"{title}, {files} files"))
        measured[title] = {side.title: side.seconds for side in subjects}
    print("load:", *(f"{load:.1f}" for load in os.getloadavg()), "on", os.cpu_count(), "processors")
    if options.json:
        Path(options.json).write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
