"""Hosts that a test may disturb as it likes: an sshd of its own, a machine of its own, many kernels.

:func:`own_sshd`     another sshd on a lab machine, to be configured, stopped and started
:func:`own_machine`  another remote, with a limit of its own on memory
:func:`many_kernels` kernels that are started at once, tiny ones
:func:`hub_as`       a hub that logs in to the remote as another user
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from jupyter_client import BlockingKernelClient, KernelManager

from sshpyk.errors import SshpykError
from tests.integration.kernels import (
    assert_gone,
    await_ready,
    eventually,
    free_port,
    in_threads,
    new_environment,
)
from tests.integration.lifecycle_helpers import (
    REMOTE_PYTHON,
    InstallKernelspec,
    OwnHub,
    hub_of,
)
from tests.integration.machines import PROJECT, USER, Lab, Machine

_BURST_KERNEL = Path(__file__).with_name("burst_kernel.py")


@dataclass
class OwnSshd:
    """An sshd on a port of its own, with Debian's settings and those of the test before them."""

    machine: Machine
    port: int
    options: tuple[str, ...]
    missing: tuple[str, ...] = ()

    @property
    def _log(self) -> str:
        return f"/run/sshd-{self.port}.log"

    @property
    def _pid_file(self) -> str:
        return f"/run/sshd-{self.port}.pid"

    def ssh_config(self, alias: str) -> str:
        """Return what leads ssh to this sshd instead of the machine's; its host keys are the same."""
        return f"Host {alias}\n    Port {self.port}\n    HostKeyAlias {alias}\n"

    def start(self) -> None:
        """Return when it listens."""
        options = [f"PidFile={self._pid_file}", *self.options]
        words = [word for option in options for word in ("-o", option)]
        argv = ["/usr/sbin/sshd", "-E", self._log, "-p", str(self.port), *words]
        if self.missing:
            hide = "".join(f"mount --bind /dev/null {program}; " for program in self.missing)
            argv = ["unshare", "--mount", "sh", "-ec", f'{hide}exec "$@"', "sh", *argv]
        self.machine.run(argv, user="root")
        listens = ["bash", "-c", f"echo > /dev/tcp/127.0.0.1/{self.port} && echo yes"]
        eventually(lambda: "yes" in self.machine.run(listens, check=False), "an sshd that listens")

    def stop(self) -> None:
        """Kill it with all its sessions, as a reboot would."""
        # Each session makes itself the leader of a group of its own, so the tree is what counts.
        listener = int(self.machine.run(["cat", self._pid_file], user="root"))
        processes = self.machine.processes(user=None)
        tree = {listener}
        while more := {p.pid for p in processes if p.ppid in tree} - tree:
            tree |= more
        self.machine.run(f"kill -KILL {' '.join(map(str, tree))}", user="root", check=False)

    def log(self) -> str:
        """Return what it has said, over all its lives."""
        return self.machine.run(["cat", self._log], user="root")

    @property
    def logins(self) -> int:
        """How many connections have logged in."""
        return self.log().count("Accepted publickey")


@contextlib.contextmanager
def own_sshd(machine: Machine, *options: str, missing: tuple[str, ...] = ()) -> Iterator[OwnSshd]:
    """Run an sshd beside the machine's own; ``options`` as in sshd_config, ``MaxSessions=1``.

    ``missing``: programs that cannot be run in its sessions.
    """
    sshd = OwnSshd(machine, free_port(), options, missing)
    sshd.start()
    try:
        yield sshd
    finally:
        sshd.stop()
        machine.run(f"rm -f /run/sshd-{sshd.port}.*", user="root")


@contextlib.contextmanager
def own_machine(lab: Lab, folder: Path, *, memory_mb: int) -> Iterator[tuple[Machine, str]]:
    """Run another container of the remote's image; yield it and the ssh config that leads to it."""
    container = lab.client.containers.run(
        lab.remote.container.image.id,
        ["remote"],
        detach=True,
        network=f"{PROJECT}_direct",
        mem_limit=f"{memory_mb}m",
        memswap_limit=f"{memory_mb}m",
    )
    machine = _Other(container, lab)
    try:
        keys = lab.remote.run(["cat", f"/home/{USER}/.ssh/authorized_keys"])
        machine.run(["python3", "-c", _ACCEPT_KEY, keys])
        eventually(lambda: machine.run("pgrep -x sshd", check=False), "an sshd that listens")
        container.reload()
        known = folder / "known_hosts"
        known.write_text(f"own {machine.run('cat /etc/ssh/ssh_host_ed25519_key.pub')}")
        address = container.attrs["NetworkSettings"]["Networks"][f"{PROJECT}_direct"]["IPAddress"]
        way = f"HostName {address}\n    HostKeyAlias own\n    UserKnownHostsFile {known}"
        yield machine, f"Host remote\n    {way}\n"
    finally:
        container.remove(force=True, v=True)


_ACCEPT_KEY = (
    "import os, sys; path = os.path.expanduser('~/.ssh/authorized_keys');"
    "open(path, 'w').write(sys.argv[1]); os.chmod(path, 0o600)"
)


class _Other(Machine):
    """A machine that is none of the three."""

    def __init__(self, container, lab: Lab) -> None:  # type: ignore[no-untyped-def]
        super().__init__("remote", lab.client)
        self._container = container

    @property
    def container(self):  # type: ignore[no-untyped-def]
        return self._container


def tiny_kernelspec(remote_kernelspec: InstallKernelspec) -> str:
    """Install a kernel that starts quickly and prints as many numbers as a cell says."""
    argv = [REMOTE_PYTHON, "{resource_dir}/burst_kernel.py", "{connection_file}"]
    return remote_kernelspec(argv, files={_BURST_KERNEL.name: _BURST_KERNEL.read_text()})


@contextlib.contextmanager
def many_kernels(lab: Lab, name: str, count: int) -> Iterator[list[BlockingKernelClient]]:
    """Start ``count`` kernels at once; yield a client of each that is ready."""
    environment, mark = new_environment()
    managers = [KernelManager(kernel_name=name) for _ in range(count)]
    clients: list[BlockingKernelClient] = []
    try:
        in_threads(lambda manager: manager.start_kernel(env=environment), managers)
        clients += [manager.client() for manager in managers]
        for client in clients:
            client.start_channels()
            await_ready(client)
        yield clients
    finally:
        for client in clients:
            client.stop_channels()
        in_threads(lambda manager: manager.shutdown_kernel(now=True), managers)
    assert_gone(lab, mark)


def put_for(lab: Lab, account: str, name: str, text: str) -> None:
    """Write a file in the home folder of an account."""
    path = f"/home/{account}/{name}"
    lab.remote.run(
        ["python3", "-c", "import sys; open(sys.argv[1], 'w').write(sys.argv[2])", path, text],
        user=account,
    )


@contextlib.contextmanager
def hub_as(lab: Lab, user: str, folder: Path, more_config: str = "") -> Iterator[OwnHub]:
    """A hub of this test's own, which logs in to the remote as ``user``."""
    config = f"Host remote\n    User {user}\n{more_config}"
    with hub_of(lab, "remote", folder / "ssh_config", config) as hub:
        yield hub


def failure_of(name: str) -> SshpykError:
    """Return why a kernel does not start."""
    manager = KernelManager(kernel_name=name)
    with pytest.raises(SshpykError) as caught:
        manager.start_kernel()
    manager.cleanup_connection_file()
    print(caught.value)
    return caught.value
