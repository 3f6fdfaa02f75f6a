"""The lab's machines as the tests see them: commands, processes, files, networks.

Everything goes through the Docker Engine, not through ssh: what is watched must not depend on what
is tested, and must not add a login to the machine that is being counted.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import docker
from docker.models.containers import Container

PROJECT = os.environ.get("SSHPYK_LAB", "")  # set on the laptop: see lab/compose.yaml
USER = "lab"
ROLES = ("laptop", "bastion", "remote")

# Runs on the machine, as the user: root in a container may not read another's environment.
_SNAPSHOT = """
import glob, json, os, pwd, stat, sys

def read(pid, name):
    with open("/proc/%s/%s" % (pid, name), "rb") as source:
        return source.read()

def process(pid):
    name, _, rest = read(pid, "stat").decode(errors="replace").partition("(")[2].rpartition(")")
    fields = rest.split()
    args = read(pid, "cmdline").rstrip(b"\\0").replace(b"\\0", b" ").decode(errors="replace")
    uid = os.stat("/proc/" + pid).st_uid
    status = dict(line.split(":", 1) for line in read(pid, "status").decode().splitlines())
    uid = int(status["Uid"].split()[1])
    try:
        shell = b"LAB_SHELL=1" in read(pid, "environ").split(b"\\0")
    except OSError:
        shell = False
    return {"pid": int(pid), "ppid": int(fields[1]), "state": fields[0], "started": int(fields[19]),
            "user": pwd.getpwuid(uid).pw_name, "args": args or "[%s]" % name, "by_hand": shell}

def processes():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) != os.getpid():
            try:
                yield process(pid)
            except OSError:
                pass

def files():
    for pattern in json.loads(sys.argv[1]):
        for path in glob.iglob(os.path.expanduser(pattern), recursive=True):
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                continue
            kind = "dir" if stat.S_ISDIR(mode) else "socket" if stat.S_ISSOCK(mode) else "file"
            yield [path, kind]

def mounts():
    with open("/proc/self/mounts") as source:
        return [line.split()[1] for line in source if line.split()[2].startswith("fuse.")]

print(json.dumps({"processes": list(processes()), "files": sorted(files()), "mounts": mounts()}))
"""


@dataclass(frozen=True)
class Process:
    """One process as /proc tells it; ``started`` (clock ticks since boot) makes the pid unique."""

    pid: int
    ppid: int
    state: str
    started: int
    user: str
    args: str
    by_hand: bool
    """Belongs to a contributor's `make lab-shell`."""


@dataclass(frozen=True)
class Snapshot:
    """What runs and lies on a machine at one moment. ``files`` maps paths to file|dir|socket."""

    processes: list[Process]
    files: dict[str, str]
    mounts: list[str]


class CommandFailed(AssertionError):
    """A command on a lab machine ended with another exit code than 0."""


class Machine:
    """One of the lab's containers."""

    def __init__(self, role: str, client: docker.DockerClient) -> None:
        self.role = role
        self._client = client

    def __repr__(self) -> str:
        return f"<Machine {self.role}>"

    @property
    def container(self) -> Container:
        """The container, for what the docker SDK can do and this class cannot."""
        labels = [
            f"com.docker.compose.project={PROJECT}",
            f"com.docker.compose.service={self.role}",
        ]
        (found,) = self._client.containers.list(filters={"label": labels})
        return found

    def run(self, command: str | list[str], *, user: str = USER, check: bool = True) -> str:
        """Run a bash line or an argv; return stdout and stderr as they came.

        Raises :class:`CommandFailed` on a non-zero exit code, unless ``check`` is off.
        """
        argv = ["bash", "-c", command] if isinstance(command, str) else command
        home = "/root" if user == "root" else f"/home/{user}"
        done = self.container.exec_run(argv, user=user, workdir=home, environment={"HOME": home})
        text: str = done.output.decode(errors="replace")
        if check and done.exit_code:
            raise CommandFailed(f"{self.role}: {command!r} ended with {done.exit_code}:\n{text}")
        return text

    def snapshot(self, *patterns: str) -> Snapshot:
        """Return processes, mounts, and the files that match the glob patterns (`~`, `**`)."""
        said = self.run(["python3", "-c", _SNAPSHOT, json.dumps(patterns)])
        found: dict[str, Any] = json.loads(said)
        return Snapshot(
            [Process(**entry) for entry in found["processes"]],
            dict(found["files"]),
            found["mounts"],
        )

    def processes(self, *, user: str | None = USER, containing: str = "") -> list[Process]:
        """Return what runs: of ``user`` (None: of everybody), with that text in its arguments."""
        return [
            process
            for process in self.snapshot().processes
            if user in (None, process.user) and containing in process.args
        ]

    def files(self, *patterns: str) -> list[str]:
        """Return the paths that match any of the glob patterns (`~`, `**`)."""
        return sorted(self.snapshot(*patterns).files)

    def kill(self, pid: int, signal: str = "KILL") -> None:
        """Send a signal to a process, as root."""
        self.run(["bash", "-c", f"kill -{signal} {pid}"], user="root")

    def address_in(self, network: str) -> str:
        """Return the machine's address in ``direct``, ``edge`` or ``inside``."""
        attached = self.container.attrs["NetworkSettings"]["Networks"]
        address: str = attached[f"{PROJECT}_{network}"]["IPAddress"]
        return address

    def take_another_address(self, network: str, other: Machine) -> None:
        """Leave a network and come back with another address; ``other`` is not on that network.

        The engine gives the lowest address that is free. Only in tests marked ``exclusive``.
        """
        before = self.address_in(network)
        with self.unplugged(network):
            pass
        if self.address_in(network) == before:
            (wire,) = self._client.networks.list(names=[f"^{PROJECT}_{network}$"])
            with self.unplugged(network):
                wire.connect(other.container)
            wire.disconnect(other.container)

    @contextlib.contextmanager
    def unplugged(self, network: str) -> Iterator[None]:
        """Take the machine off ``direct``, ``edge`` or ``inside`` for a while.

        Only in tests marked ``exclusive``: the others use the same network. The machine comes back
        under its old names, possibly with another address.
        """
        (wire,) = self._client.networks.list(names=[f"^{PROJECT}_{network}$"])
        attached = self.container.attrs["NetworkSettings"]["Networks"][wire.name]
        own_id = self.container.id[:12]
        aliases = [alias for alias in attached["Aliases"] or [] if alias != own_id]
        wire.disconnect(self.container)
        try:
            yield
        finally:
            wire.connect(self.container, aliases=aliases)


class Lab:
    """The three machines; also a context manager that closes the engine's client."""

    def __init__(self) -> None:
        self.client = docker.from_env()
        self.laptop, self.bastion, self.remote = (Machine(role, self.client) for role in ROLES)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    @property
    def machines(self) -> tuple[Machine, Machine, Machine]:
        """Laptop, bastion and remote."""
        return self.laptop, self.bastion, self.remote
