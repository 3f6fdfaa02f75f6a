"""A launch that fails says why within its timeout, blocks nobody, and leaves nothing behind.

Each failure is met in three ways: through ``AsyncKernelManager`` with a clock ticking beside it in
Jupyter's event loop, through the synchronous ``KernelManager``, and by a program that runs
kernel.json's argv and has nothing but its stderr and its exit code.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from jupyter_client.manager import AsyncKernelManager, KernelManager
from jupyter_client.provisioning import KernelProvisionerFactory

import sshpyk.provisioner
from sshpyk.errors import SshpykError
from tests.integration.kernels import (
    AddKernel,
    add_kernel,
    eventually,
    jupyter_folders,
    marked,
    new_environment,
    started,
)
from tests.integration.lifecycle_helpers import (
    REMOTE_KERNELS,
    USER_CONFIG,
    InstallKernelspec,
    OwnHub,
    change_kernel_json,
    local_kernel_json,
    own_connection_file,
    own_hub,
    remote_kernelspec,
    silent_port,
    start_argv,
)
from tests.integration.machines import Lab

LONGEST_GAP_S = 0.25


@dataclass
class Case:
    """A kernel that cannot start, and what its error must say."""

    kind: str
    name: str
    says: list[str]
    phase: str
    limit_s: float = 30.0
    exit_code: int = 1
    code: str = ""


@dataclass
class Bench:
    """What a case is made from."""

    lab: Lab
    hub: OwnHub
    add: AddKernel
    install: InstallKernelspec
    folder: Path
    silent_port: int

    def add_kernel(self, *options: str, host: str = "", spec: str = "python3") -> str:
        """Add a kernel of this test's own hub, on its host or another."""
        host = host or self.hub.host
        return self.add(host, *self.hub.options, *options, remote_kernel_name=spec)

    def configure(self, text: str) -> None:
        """Put settings before the user's own."""
        self.hub.config.write_text(f"{text}\n{self.hub.config.read_text()}")

    @property
    def jumps(self) -> bool:
        """Whether the host is behind the bastion."""
        return self.hub.host == "remote-jump"


CONNECTING = "while connecting with ssh"
STARTING = "while starting the kernel"


def unknown_host(bench: Bench) -> Case:
    host = "no-such-host.invalid"
    if bench.jumps:
        bench.configure(f"Host {host}\n ProxyJump bastion")
    who = "the jump host" if bench.jumps else f"the name {host}"
    return Case("UnknownHost", bench.add_kernel(host=host), [who, "could not", host], CONNECTING)


def refused_port(bench: Bench) -> Case:
    name = bench.add_kernel(host=f"{bench.hub.host}:9")
    says = [f"host {bench.hub.host}:9: ", "Connection refused"]
    return Case("Unreachable", name, says, CONNECTING)


def wrong_key(bench: Bench) -> Case:
    key = bench.folder / "other_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    bench.configure(f"Host {bench.hub.host}\n IdentityFile {key}\n IdentitiesOnly yes")
    login = f"sshpyk login {bench.hub.host} --ssh-config {bench.hub.config} "
    says = ["ermission denied (publickey", f"in a terminal, run: {login}"]
    return Case("AuthenticationFailed", bench.add_kernel(), says, CONNECTING)


def changed_host_key(bench: Bench) -> Case:
    known = bench.folder / "known_hosts"
    lines = (Path.home() / ".ssh" / "known_hosts").read_text().splitlines()
    another = next(line for line in lines if line.startswith("bastion ") and "ed25519" in line)
    inside = "remote-inside" if bench.jumps else "remote"
    known.write_text(f"{inside} {another.partition(' ')[2]}\n")
    bench.configure(f"Host {bench.hub.host}\n UserKnownHostsFile {known}")
    says = [f"the host key of {inside} has changed", "REMOTE HOST IDENTIFICATION HAS CHANGED"]
    return Case("HostKeyChanged", bench.add_kernel(), says, CONNECTING)


def unknown_host_key(bench: Bench) -> Case:
    bench.configure(f"Host {bench.hub.host}\n UserKnownHostsFile {bench.folder}/nothing_known")
    says = ["Host key verification failed", "not confirmed yet", "run: sshpyk login"]
    return Case("HostKeyRejected", bench.add_kernel(), says, CONNECTING)


def bastion_refuses_key(bench: Bench) -> Case:
    """Only with a bastion; directly it is a wrong key again, given on the command line's host."""
    host = "bastion" if bench.jumps else bench.hub.host
    bench.configure(f"Host {host}\n IdentityFile /dev/null\n IdentitiesOnly yes")
    says = [f"lab@{host}", "ermission denied (publickey"]
    return Case("AuthenticationFailed", bench.add_kernel(), says, CONNECTING)


def silent_host(bench: Bench) -> Case:
    """Somebody accepts the connection and never says a word."""
    way = "HostName laptop\n ProxyJump bastion" if bench.jumps else "HostName localhost"
    bench.configure(f"Host silent\n {way}\n Port {bench.silent_port}")
    name = bench.add_kernel("--launch-timeout", "3", host="silent")
    return Case("LaunchTimeout", name, ["not ready within 3 s", "host silent"], CONNECTING, 8.0)


def f34_nologin(bench: Bench) -> Case:
    name = bench.add_kernel(host=f"{NO_SHELL}@{bench.hub.host}")
    says = ["the account on the host has no login shell", "currently not available"]
    return Case("RemoteShellFailed", name, says, CONNECTING)


def f36_python_missing(bench: Bench) -> Case:
    name = bench.add_kernel("--remote-python-prefix", "/no/such")
    says = ["/no/such/bin/python", "No such file or directory"]
    return Case("RemoteShellFailed", name, says, CONNECTING)


def f36_python_too_old(bench: Bench) -> Case:
    """A stub says what Python 3.6 would: the marker and its version."""
    stub = "#!/bin/sh\nprintf '%s 3.6 ' \"$3\"\nexec cat >/dev/null\n"
    prefix = f"{REMOTE_KERNELS}/{bench.install(['unused'], {'bin/python': stub})}"
    name = bench.add_kernel("--remote-python-prefix", prefix)
    says = [f"{prefix}/bin/python is Python 3.6", "needs 3.8 or newer", "--remote-python"]
    return Case("RemoteShellFailed", name, says, "while starting Python on the host")


def f36_python_broken(bench: Bench) -> Case:
    """An interpreter that is there and has lost its library."""
    stub = '#!/bin/sh\nPYTHONHOME=/no/such exec /usr/bin/python3 "$@"\n'
    prefix = f"{REMOTE_KERNELS}/{bench.install(['unused'], {'bin/python': stub})}"
    name = bench.add_kernel("--remote-python-prefix", prefix)
    says = ["does not start", "No module named 'encodings'", "--remote-python"]
    return Case("RemoteShellFailed", name, says, CONNECTING)


def no_kernelspec(bench: Bench) -> Case:
    says = ["no kernelspec 'nope' for /opt/venv/bin/python", "found there:", "python3"]
    name = bench.add_kernel(spec="nope")
    return Case("KernelspecNotFound", name, says, "while finding the kernelspec")


def kernel_dies_with_words(bench: Bench) -> Case:
    spec = bench.install(["/bin/sh", "-c", "echo out; echo 'boom ü' >&2; exit 7"])
    says = ["ended with status 7", "  | out", "  | boom ü", "/bin/sh -c"]
    return Case("KernelDied", bench.add_kernel(spec=spec), says, STARTING)


def kernel_is_killed(bench: Bench) -> Case:
    spec = bench.install(["/bin/sh", "-c", "kill -KILL $$"])
    says = ["signal SIGKILL", "(the kernel printed nothing)"]
    return Case("KernelDied", bench.add_kernel(spec=spec), says, STARTING)


def kernel_program_missing(bench: Bench) -> Case:
    spec = bench.install(["/no/such/kernel", "{connection_file}"])
    says = ["cannot run /no/such/kernel", "No such file or directory"]
    return Case("KernelError", bench.add_kernel(spec=spec), says, STARTING)


def f37_ipykernel_missing(bench: Bench) -> Case:
    """A kernelspec that one environment made, and an interpreter of another."""
    argv = ["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    bare = '#!/bin/sh\nexec /usr/bin/python3 "$@"\n'
    spec = bench.install(argv, {"bin/python": bare})
    name = bench.add_kernel("--remote-python-prefix", f"{REMOTE_KERNELS}/{spec}", spec=spec)
    says = ["No module named ipykernel_launcher", "python -m pip install ipykernel"]
    return Case("KernelDied", name, says, STARTING)


def f37_ipykernel_broken(bench: Bench) -> Case:
    """One of its own imports is missing: an upgrade that ended half-way."""
    code = "raise ImportError(\"cannot import name 'new' from 'traitlets'\")"
    argv = ["/opt/venv/bin/python", "-c", code, "{connection_file}"]
    name = bench.add_kernel(spec=bench.install(argv))
    says = ["ended with status 1", "  | ImportError: cannot import name 'new' from 'traitlets'"]
    return Case("KernelDied", name, says, STARTING)


def kernel_never_listens(bench: Bench) -> Case:
    spec = bench.install(["/bin/sh", "-c", "sleep 1000 & sleep 1001"])
    name = bench.add_kernel("--launch-timeout", "2", spec=spec)
    return Case("LaunchTimeout", name, ["not ready within 2 s", "launch_timeout"], STARTING, 7.0)


NO_SHELL = "noshell"
CASES: list[Callable[[Bench], Case]] = [
    unknown_host,
    refused_port,
    wrong_key,
    changed_host_key,
    unknown_host_key,
    bastion_refuses_key,
    silent_host,
    f34_nologin,
    f36_python_missing,
    f36_python_too_old,
    f36_python_broken,
    no_kernelspec,
    kernel_dies_with_words,
    kernel_is_killed,
    kernel_program_missing,
    f37_ipykernel_missing,
    f37_ipykernel_broken,
    kernel_never_listens,
]

# Rows of docs/errors.md; the others differ with the way to the host, and are in test_errors.py.
CODES = {
    f34_nologin: "[HOST-NO-LOGIN-SHELL]",
    f36_python_missing: "[HOST-NO-PROGRAM]",
    f36_python_too_old: "[HOST-PYTHON-TOO-OLD]",
    f36_python_broken: "[HOST-PYTHON-BROKEN]",
    no_kernelspec: "[KERNELSPEC-NOT-FOUND]",
    kernel_dies_with_words: "[KERNEL-DIED]",
    kernel_program_missing: "[KERNEL-NO-PROGRAM]",
    f37_ipykernel_missing: "[KERNEL-NO-IPYKERNEL]",
    kernel_never_listens: "[LAUNCH-TIMEOUT]",
}


# A clock in Jupyter's event loop


class Ticking:
    """Measures the longest time that the event loop was blocked.

    A thread ticks as well: a gap that it had too is the machine's, not the launch's.
    """

    def __init__(self) -> None:
        self._gaps = {"loop": 0.0, "thread": 0.0}
        self._over = threading.Event()

    @property
    def blocked_s(self) -> float:
        return self._gaps["loop"] - self._gaps["thread"]

    def _note(self, who: str, before_s: float) -> float:
        now_s = time.monotonic()
        self._gaps[who] = max(self._gaps[who], now_s - before_s)
        return now_s

    async def _tick(self) -> None:
        before_s = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            before_s = self._note("loop", before_s)

    def _tick_in_thread(self) -> None:
        before_s = time.monotonic()
        while not self._over.wait(0.005):
            before_s = self._note("thread", before_s)

    async def __aenter__(self) -> Ticking:
        self._thread = threading.Thread(target=self._tick_in_thread)
        self._thread.start()
        self._task = asyncio.ensure_future(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        self._over.set()
        self._thread.join()


# Three ways to launch


def error_of_async_manager(name: str, environment: dict[str, str]) -> Exception:
    async def scenario() -> Exception:
        KernelProvisionerFactory.instance()  # reads entry points once: not a part of a launch
        manager = AsyncKernelManager(kernel_name=name)
        manager.kernel_spec  # noqa: B018  # the same goes for the search for kernelspecs
        async with Ticking() as ticking:
            with pytest.raises(Exception) as caught:
                await manager.start_kernel(env=environment)
        assert ticking.blocked_s < LONGEST_GAP_S
        assert not manager.has_kernel
        manager.cleanup_connection_file()
        return caught.value

    return asyncio.run(scenario())


def error_of_manager(name: str, environment: dict[str, str]) -> Exception:
    manager = KernelManager(kernel_name=name)
    with pytest.raises(Exception) as caught:
        manager.start_kernel(env=environment)
    assert not manager.has_kernel
    manager.cleanup_connection_file()
    return caught.value


def check_error(error: Exception, case: Case) -> None:
    assert isinstance(error, SshpykError)
    assert type(error).__name__ == case.kind
    check_text(str(error), case)


def check_text(text: str, case: Case) -> None:
    assert case.code in text.splitlines()[0]
    assert [words for words in case.says if words not in text] == []
    assert case.phase in text.splitlines()[0]


def check_argv(case: Case, folder: Path, environment: dict[str, str]) -> None:
    file = own_connection_file(folder)
    program = start_argv(case.name, Path(file), env=environment, stderr=subprocess.PIPE)
    _, said = program.communicate(timeout=60)
    check_text(said.decode(), case)
    assert program.returncode == case.exit_code
    assert "Traceback" not in said.decode().replace("  | Traceback", "")  # the kernel's own


@pytest.fixture
def bench(
    lab: Lab,
    own_hub: OwnHub,
    add_kernel: AddKernel,
    remote_kernelspec: InstallKernelspec,
    tmp_path: Path,
    silent_port: int,
) -> Bench:
    return Bench(lab, own_hub, add_kernel, remote_kernelspec, tmp_path, silent_port)


@pytest.fixture(scope="module", autouse=True)
def _account_without_shell(lab: Lab) -> None:
    """An account on the remote that may log in and has nothing to run."""
    keys = f"/home/{NO_SHELL}/.ssh"
    lines = [
        f"id {NO_SHELL} >&/dev/null || useradd --create-home --shell /usr/sbin/nologin {NO_SHELL}",
        f"install -d -m 700 -o {NO_SHELL} {keys}",
        f"install -m 600 -o {NO_SHELL} /home/lab/.ssh/authorized_keys {keys}/authorized_keys",
    ]
    # Workers do this at the same time.
    lab.remote.run(["flock", "/run/lock", "bash", "-ec", "\n".join(lines)], user="root")


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_failed_launch_says_why_blocks_nobody_and_leaves_nothing(
    bench: Bench, make: Callable[[Bench], Case]
) -> None:
    case = make(bench)
    case.code = CODES.get(make, "")
    environment, mark = new_environment()
    change_kernel_json(case.name, env={"SSHPYK_TEST_MARK": mark})  # for the program without more
    for error_of in (error_of_async_manager, error_of_manager):
        began_s = time.monotonic()
        check_error(error_of(case.name, environment), case)
        assert time.monotonic() - began_s < case.limit_s
    check_argv(case, bench.folder, environment)
    for machine in (bench.lab.laptop, bench.lab.remote):
        eventually(
            lambda machine=machine: not marked(machine, mark),  # type: ignore[misc]
            f"the end of what was started on the {machine.role}",
        )
    if case.phase == CONNECTING and make is not f36_python_missing:
        eventually(lambda: bench.hub.only_hubs(), "the end of ssh", timeout_s=5)


# A kernel.json that cannot be: nothing is asked of any host

BAD_CONFIGS = {
    "no interpreter": ({"remote_python_prefix": None}, "remote_python"),
    "no host": ({"ssh_host_alias": None}, "ssh_host_alias is missing"),
    "a host that is an option": (
        {"ssh_host_alias": "-oProxyCommand=touch pwned"},
        "'-oProxyCommand=touch pwned' cannot be an ssh host",
    ),
    "a missing ssh": ({"ssh": "/no/such/ssh"}, "/no/such/ssh"),
    "a missing ssh config": ({"ssh_config": "/no/such/config"}, "/no/such/config"),
    "a path with a newline": ({"remote_cwd": "/tmp\n/etc"}, "remote_cwd"),
    "a timeout that is none": ({"launch_timeout": "soon"}, "launch_timeout 'soon'"),
}


def change_config(name: str, **settings: object) -> None:
    """Edit ``metadata.kernel_provisioner.config`` by hand; None removes a setting."""
    metadata = json.loads(local_kernel_json(name).read_text())["metadata"]
    config = {**metadata["kernel_provisioner"]["config"], **settings}
    metadata["kernel_provisioner"]["config"] = {k: v for k, v in config.items() if v is not None}
    change_kernel_json(name, metadata=metadata)


@pytest.mark.parametrize("what", BAD_CONFIGS)
def test_bad_config_is_invalid_input(add_kernel: AddKernel, what: str, tmp_path: Path) -> None:
    settings, words = BAD_CONFIGS[what]
    name = add_kernel("remote")
    change_config(name, **settings)
    case = Case("InvalidInput", name, [words], "", 5.0, exit_code=2)
    environment, _ = new_environment()
    for error_of in (error_of_async_manager, error_of_manager):
        check_error(error_of(name, environment), case)
    check_argv(case, tmp_path, environment)
    assert not (tmp_path / "pwned").exists()


def test_two_interpreters_are_as_in_1x_the_interpreter_wins(
    lab: Lab, add_kernel: AddKernel, host_alias: str
) -> None:
    name = add_kernel(host_alias)
    change_config(name, remote_python="/opt/venv/bin/python3", remote_python_prefix="/no/such")
    with started(lab, name) as kernel:
        assert kernel.run("import sys; sys.executable").result == "'/opt/venv/bin/python3'"


def test_failed_launch_does_not_spoil_the_next_one(
    lab: Lab, own_hub: OwnHub, add_kernel: AddKernel
) -> None:
    """The reason is mended, and the same hub launches."""
    own_hub.config.write_text(f"Host {own_hub.host}\n Port 9\n{own_hub.config.read_text()}")
    name = add_kernel(own_hub.host, *own_hub.options)
    assert "refused" in str(error_of_manager(name, new_environment()[0]))
    hub = own_hub.pid
    own_hub.config.write_text(USER_CONFIG.read_text())
    with started(lab, name) as kernel:
        assert kernel.run("6 * 7").result == "42"
        assert own_hub.pid == hub
