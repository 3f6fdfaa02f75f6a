"""What the agent writes down of a kernel, so that another agent can adopt it.

One file in the kernel's private folder, beside its sockets and the connection file with the same key;
replaced as a whole, and gone with the folder once the hub has heard of the kernel's end.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
from dataclasses import asdict, dataclass, replace
from typing import Any, Iterator

from sshpyk.agent.kernelspecs import RemoteKernelspec

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"
SHELF = "shelf"  # in the place of a link's id: nobody carries the kernel
_NAME = "agent.json"
_FOLDER_PREFIX = "k"

log = logging.getLogger(__name__)


def boot_id() -> str:
    """Return what tells this start of the machine from the next; empty where there is no such id."""
    try:
        with open(BOOT_ID_FILE) as file:
            return file.read().strip()[:64]
    except OSError:
        return ""


def kernel_folder(sockets: str, kernel_id: str) -> str:
    """Return the private folder of a kernel."""
    return os.path.join(sockets, _FOLDER_PREFIX + kernel_id[:12])


def kernel_folders(sockets: str) -> list[str]:
    """Return the private folders of all kernels, those of dead ones among them."""
    return [
        os.path.join(sockets, name)
        for name in sorted(os.listdir(sockets))
        if name.startswith(_FOLDER_PREFIX)
    ]


def started_at(pid: int) -> str:
    """Return when a living process began, in the system's own words; empty when it does not live.

    Together with the pid it names one process of this start of the machine.
    """
    if os.path.isdir("/proc/self"):
        try:
            with open("/proc/%d/stat" % pid) as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in "ZX" else fields[19]
    asked = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True
    )
    state, _, started = asked.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()


@dataclass(frozen=True)
class KernelRecord:
    """Everything that another agent needs. ``status`` is set when the kernel has ended.

    ``owner`` is who started it or attached last, as ``user@machine``, ``session`` their notebook's name,
    ``born_s`` the time of day of its start. ``left_s`` is since when nobody carries it, by the host's
    clock (``wire.clock``), ``heard_s`` when its owner was last heard of since then. ``mounts`` is where
    folders of its first client were.
    """

    kernel_id: str
    link_id: str
    streams: tuple[int, int]  # main, control
    info: dict[str, Any]  # the connection file
    spec: RemoteKernelspec
    log_path: str
    boot_id: str
    pid: int = 0
    started: str = ""
    ready: bool = False
    welcomes: bool = False
    status: int | None = None
    owner: str = ""
    session: str = ""
    persistent: bool = False
    born_s: float = 0.0
    left_s: float = 0.0
    heard_s: float = 0.0
    mounts: tuple[str, ...] = ()

    def moved(self, link_id: str, streams: tuple[int, int]) -> KernelRecord:
        """Return the record of the kernel when another link carries it."""
        return replace(self, link_id=link_id, streams=streams)

    def of_process(self, pid: int) -> KernelRecord:
        """Return the record with the process that has just been started."""
        return replace(self, pid=pid, started=started_at(pid))

    def write(self, folder: str) -> None:
        """Replace the file. A full disk costs the succession, not the kernel."""
        path = os.path.join(folder, _NAME)
        try:
            with open(
                os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
            ) as file:
                json.dump(asdict(self), file)
            os.replace(path + ".new", path)
        except OSError as error:
            log.warning("kernel %s could not be adopted: %s: %s", self.kernel_id, path, error)


def read_record(folder: str) -> KernelRecord | None:
    """Return what was written down in a kernel's folder; None where nothing sensible is."""
    try:
        with open(os.path.join(folder, _NAME)) as file:
            fields = json.load(file)
        spec = RemoteKernelspec(**fields.pop("spec"))
        main, control = fields.pop("streams")
        return KernelRecord(spec=spec, streams=(main, control), **fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def records(sockets: str) -> Iterator[tuple[str, KernelRecord | None]]:
    """Yield each kernel's folder and what was written down there."""
    for folder in kernel_folders(sockets):
        yield folder, read_record(folder)
