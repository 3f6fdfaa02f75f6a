"""Who has a local port: for the message that says why it cannot be ours."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator

_LISTEN = "0A"  # in /proc/net/tcp
_HUB = "sshpyk.hub.main"


def owner_of(port: int) -> str:
    """Return the process that listens on a port, in words; empty when nobody does or nobody knows."""
    if os.path.isdir("/proc/net"):
        inodes = set(_listening_inodes(port))
        if not inodes:
            return ""
        pid = _process_with({f"socket:[{inode}]" for inode in inodes})
    else:
        pid = _process_by_lsof(port)
    return "another user's process" if pid is None else _in_words(pid)


def _listening_inodes(port: int) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{name}", encoding="ascii") as file:
            for line in file:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _process_with(links: set[str]) -> int | None:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            folder = f"/proc/{pid}/fd"
            for fd in os.listdir(folder):
                with contextlib.suppress(OSError):
                    if os.readlink(f"{folder}/{fd}") in links:
                        return int(pid)
    return None


def _process_by_lsof(port: int) -> int | None:
    lsof = shutil.which("lsof")
    if lsof is None:
        return None
    words = [lsof, "-nP", "-t", f"-iTCP:{port}", "-sTCP:LISTEN"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run(words, capture_output=True, text=True, timeout=5, check=False)
        if asked.stdout.split():
            return int(asked.stdout.split()[0])
    return None


def _in_words(pid: int) -> str:
    asked = subprocess.run(
        ["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    words = " ".join(asked.stdout.split()) or "a process"
    hub = re.search(rf"{re.escape(_HUB)} (\S+)", words)
    if hub:
        return f"a tunnel of sshpyk to {hub[1]} (pid {pid}; sshpyk tunnels, sshpyk close)"
    return f"pid {pid} ({words[:80]})"
