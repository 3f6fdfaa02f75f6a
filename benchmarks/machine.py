"""What processes use: those of one subject here, told by their environment, and those on the host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil

from benchmarks.places import Host

MB = 1_000_000
# Runs on the host. Shared pages count in parts (Pss), so that sums are true; a BSD has no such figure.
_REMOTE_MEMORY = """
import os
total, mark, me = 0, {mark!r}, os.getpid()
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if int(pid) != me and os.stat("/proc/" + pid).st_uid == os.getuid():
            if mark in open("/proc/%s/environ" % pid, errors="replace").read():
                rollup = open("/proc/%s/smaps_rollup" % pid).read()
                total += int(rollup.partition("\\nPss:")[2].split()[0])
    except OSError:
        pass
print(total)
"""


def marked(mark: str) -> Iterator[psutil.Process]:
    """Yield the processes of this machine whose environment contains ``NAME=value``.

    Or whose arguments name the value, a folder: a ControlMaster writes its title over its environment.
    """
    name, _, value = mark.partition("=")
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(name) == value or value in " ".join(process.cmdline()):
                yield process


def end(mark: str) -> int:
    """Kill what a run has left behind, as the other tool does; return how many there were."""
    left = list(marked(mark))
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return len(left)


def cpu_s(mark: str) -> float:
    """Return the processor time so far, with that of children that have ended."""
    total = 0.0
    for process in marked(mark):
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


def memory_mb(mark: str) -> float:
    """Return the memory of all of them; pages that they share count once."""
    total = 0
    for process in marked(mark):
        with contextlib.suppress(psutil.Error):
            full = process.memory_full_info()
            total += getattr(full, "pss", full.rss)
    return total / MB


def count(mark: str, name: str) -> int:
    """Return how many of them run the program of this name."""
    found = 0
    for process in marked(mark):
        with contextlib.suppress(psutil.Error):
            found += process.name() == name
    return found


def remote_memory_mb(host: Host) -> float:
    """Return the memory of the user's processes there (on loopback: of the benchmark's)."""
    return int(host.run_python(_REMOTE_MEMORY.format(mark=host.mark))) * 1024 / MB
