"""What a run of the demo has left on this machine: nothing, or it fails.

Each process of the demo carries a mark in its environment: the local ones inherit it, the agent gets
it from the private sshd and the kernel from both. So the user's own hubs, agents and kernels are never
counted, nor ended.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from sshpyk.wire.private import AGENT_FOLDER, HUB_FOLDER, candidates

MARK = "SSHPYK_DEMO_MARK"
_PATIENCE_S = 8.0


class Traces:
    """Made before anything else of a run; asked by :meth:`remaining` when the run is over."""

    def __init__(self) -> None:
        self.mark = secrets.token_hex(8)
        self._before = set(_socket_folders())
        self._new_state = [folder for folder in _agent_state() if not folder.exists()]
        self._files: list[Path] = []
        self._processes: list[psutil.Process] = []

    def watch_file(self, path: Path) -> None:
        """Count ``path`` as a trace if it is there in the end."""
        self._files.append(path)

    def watch_descendants(self, pid: int) -> None:
        """Count what runs below ``pid`` now: sshd's sessions overwrite their environment."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._processes += psutil.Process(pid).children(recursive=True)

    def remaining(self) -> list[str]:
        """Wait a little for what is about to leave, and describe what is still there."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while self._look() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return self._look()

    def remove_agent_log(self) -> None:
        """Remove the agent's log if the demo's agent was the first that this account has had."""
        if not self._new_state:
            return
        shutil.rmtree(self._new_state[0], ignore_errors=True)
        for folder in self._new_state[1:]:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def kill_all(self) -> None:
        """End the processes that should have left by themselves, the agent after its sessions."""
        for _ in range(2):
            for process in self._living():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.3)

    def _look(self) -> list[str]:
        processes = [f"process {process.pid}: {_command(process)}" for process in self._living()]
        files = [f"file {path}" for path in self._files if path.exists()]
        # A folder with something in it is in use by another kernel of this user.
        new = (folder for folder in _socket_folders() if folder not in self._before)
        empty = [f"folder {folder}" for folder in new if _is_empty(folder)]
        return processes + files + empty

    def _living(self) -> list[psutil.Process]:
        watched = (process for process in self._processes if _is_alive(process))
        found = {process.pid: process for process in (*watched, *self.marked())}
        return [process for process in found.values() if not _serves_others(process)]

    def marked(self) -> Iterator[psutil.Process]:
        """Yield the living processes that bear our mark, without this one."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                marked = process.environ().get(MARK) == self.mark
                if marked and process.pid != os.getpid() and _is_alive(process):
                    yield process


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())[:100]
    return "(it has just ended)"


def _serves_others(process: psutil.Process) -> bool:
    """Whether this is our agent, which another link of this user's has come to use meanwhile."""
    with contextlib.suppress(psutil.Error):
        sockets = [c for c in process.net_connections("unix") if "/agent-" in str(c.laddr)]
        return len(sockets) > 1  # the one that listens, and at least one session
    return False


def _agent_state() -> list[Path]:
    """Where an agent on this machine has its log, and the folders above that it may have to make."""
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # sshd's sessions know no other
    state = home / ".local" / "state" / "sshpyk"
    return [state, state.parent, state.parent.parent]


def _socket_folders() -> Iterable[Path]:
    names = (HUB_FOLDER, AGENT_FOLDER)
    return [Path(path) for name in names for path in candidates(name) if os.path.isdir(path)]


def _is_empty(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return not any(folder.iterdir())
    return False
