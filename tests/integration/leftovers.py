"""What a test run left behind on the lab's machines.

Tests run side by side on the same machines, so "nothing is left" is exact only once all have
ended: conftest.py takes a :class:`Inventory` before the first test and compares after the last.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from tests.integration.machines import USER, Lab, Machine, Process

# Everything new under /tmp; and where sshpyk, Jupyter and their sockets live in a home folder.
_WATCHED = (
    "/tmp/*",
    "/tmp/sshpyk-*/**",
    "/run/user/*/**",
    "/dev/shm/*",
    "~/.local/state/sshpyk/**",
    "~/.local/share/jupyter/runtime/kernel-*",
    "~/.local/share/jupyter/runtime/jp*",
    "~/.local/share/jupyter/kernels/*",
)
# pytest removes its own folders by its own rules; ipykernel keeps one for the debugger.
_OTHERS = (f"/tmp/pytest-of-{USER}", "/tmp/ipykernel_")


@dataclass(frozen=True)
class Inventory:
    """What there is on all machines, each thing as the line that a report would show."""

    things: frozenset[str]

    @classmethod
    def taken(cls, lab: Lab) -> Inventory:
        """Look at every machine now."""
        return cls(frozenset(thing for machine in lab.machines for thing in _things_on(machine)))

    def added_since(self, earlier: Inventory) -> list[str]:
        """Return what is there now and was not there ``earlier``."""
        return sorted(self.things - earlier.things)


def stop_hubs() -> None:
    """Stop the hubs of this user on the laptop: they linger on purpose, and end when told to."""
    from sshpyk.hub.client import stop_all_hubs

    stop_all_hubs()


def wait_until_clean(lab: Lab, before: Inventory, *, timeout_s: float) -> list[str]:
    """Return what is still left after ``timeout_s``, or at once an empty list when nothing is."""
    deadline = time.monotonic() + timeout_s
    while left := Inventory.taken(lab).added_since(before):
        if time.monotonic() > deadline:
            break
        time.sleep(0.25)
    return left


def _things_on(machine: Machine) -> list[str]:
    snapshot = machine.snapshot(*_WATCHED)
    ours = _own_family(snapshot.processes) if machine.role == "laptop" else set()
    things = [
        f"process {process.pid} (started {process.started}): {process.args[:150]}"
        for process in snapshot.processes
        if _counts(process) and process.pid not in ours
    ]
    things += [f"mount {path}" for path in snapshot.mounts]
    things += [f"{kind} {path}" for path, kind in snapshot.files.items() if _is_ours(path, kind)]
    return [f"{machine.role}: {thing}" for thing in things]


def _counts(process: Process) -> bool:
    # A session's sshd ends after what it served: no process of ours, and the kernel's TCP decides.
    is_sshd = process.args.startswith("sshd: ")
    return process.user == USER and not process.by_hand and not is_sshd


def _own_family(processes: list[Process]) -> set[int]:
    """Return this process and its ancestors: pytest itself and what started it."""
    parents = {process.pid: process.ppid for process in processes}
    family, pid = set(), os.getpid()
    while pid in parents:
        family.add(pid)
        pid = parents[pid]
    return family


def _is_ours(path: str, kind: str) -> bool:
    if path.startswith(_OTHERS):
        return False
    # Folders may stay to be used again, and logs are there to be read afterwards.
    in_sshpyk_folder = path.startswith("/tmp/sshpyk-") or "/.local/state/" in path
    # What a kernel's log is about lies beside it.
    is_log = path.endswith(".log") or "/.local/state/sshpyk/kernels/" in path
    # The key by which hosts know this machine is kept, so that they still do.
    is_kept = is_log or path.endswith("/.local/state/sshpyk/mounts/host_key")
    return not (in_sshpyk_folder and (kind == "dir" or is_kept))
