"""Rows of docs/errors.md, each produced for real: a broken way to a host, and what `sshpyk doctor` says.

A case is named after its code: ``ssh_refused`` makes SSH-REFUSED. It writes an ssh config or disturbs an
sshd, an account or a port of its own, and returns the host to ask about. What happens at a launch is in
``test_launch_failures.py``.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from sshpyk.errors import SshpykError
from tests.integration.faults.bench import own_account
from tests.integration.faults.hosts import own_sshd
from tests.integration.kernels import AddKernel, add_kernel, eventually, jupyter_folders
from tests.integration.lifecycle_helpers import (
    REMOTE_KERNELS,
    InstallKernelspec,
    hub_of,
    remote_kernelspec,
)
from tests.integration.machines import Lab

OWN_CONFIG = Path.home() / ".ssh" / "config"


@dataclass
class Bench:
    """What a case is made from; ``stack`` undoes it."""

    lab: Lab
    folder: Path
    stack: contextlib.ExitStack
    blocks: list[str] = field(default_factory=list)

    def host(self, alias: str, *settings: str) -> str:
        """Put settings for a host before the user's own config."""
        self.blocks.append("\n    ".join([f"Host {alias}", *settings]))
        return alias

    def config(self) -> Path:
        """Write the config."""
        path = self.folder / "config"
        path.write_text("\n".join([*self.blocks, "Host *", f"Include {OWN_CONFIG}", ""]))
        return path

    def account(self, *, shell: str = "/bin/bash", bashrc: str = "") -> str:
        """Make an account on the remote, with this start-up file; return the host that is it."""
        name = self.stack.enter_context(own_account(self.lab, shell=shell))
        if bashrc:
            write = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
            path = f"/home/{name}/.bashrc"
            self.lab.remote.run(["python3", "-c", write, path, bashrc], user=name)
        return f"{name}@remote"

    def port(self, answer: Callable[[socket.socket], None]) -> int:
        """Listen on a port of the laptop; each connection gets ``answer``."""
        listener = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connected, _ = listener.accept()
                    self.stack.callback(connected.close)
                    answer(connected)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self.stack.callback(thread.join, 5)
        self.stack.callback(listener.shutdown, socket.SHUT_RDWR)
        return int(listener.getsockname()[1])

    def at_port(self, port: int, *settings: str) -> str:
        """Return a host that is this port of the laptop."""
        return self.host("odd", "HostName 127.0.0.1", f"Port {port}", *settings)

    def key(self, name: str = "key", passphrase: str = "") -> Path:
        """Make a key that no host knows."""
        path = self.folder / name
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)]
        subprocess.run(words, check=True)
        return path

    def known_hosts(self, text: str) -> Path:
        """Write a known_hosts file."""
        path = self.folder / "known_hosts"
        path.write_text(text)
        return path


def another_key(name: str) -> str:
    """Return a line of known_hosts that gives ``name`` the bastion's key."""
    lines = OWN_CONFIG.with_name("known_hosts").read_text().splitlines()
    line = next(line for line in lines if line.startswith("bastion ") and "ed25519" in line)
    return f"{name} {line.partition(' ')[2]}\n"


# Names and connections


def ssh_unknown_host(bench: Bench) -> str:
    return "no-such-host.invalid"


def ssh_refused(bench: Bench) -> str:
    return "remote:9"


def ssh_timeout(bench: Bench) -> str:
    """An address of the network that nobody has: one second is less than ARP takes."""
    return bench.host("away", f"HostName {unused_address(bench)}", "ConnectTimeout 1")


def ssh_no_route(bench: Bench) -> str:
    return bench.host("away", f"HostName {unused_address(bench)}")


def unused_address(bench: Bench) -> str:
    address = bench.lab.remote.address_in("direct")
    return f"{address.rpartition('.')[0]}.250"


def ssh_not_ssh(bench: Bench) -> str:
    return bench.at_port(bench.port(lambda peer: peer.sendall(b"HTTP/1.1 400 no\r\n\r\n" * 2000)))


def ssh_no_banner(bench: Bench) -> str:
    return bench.at_port(bench.port(lambda _peer: None), "ConnectTimeout 1")


def ssh_dropped_early(bench: Bench) -> str:
    return bench.at_port(bench.port(lambda peer: peer.close()))


def ssh_algorithms(bench: Bench) -> str:
    return bench.host("remote", "Ciphers aes128-cbc")


# Host keys


def ssh_host_key_unconfirmed(bench: Bench) -> str:
    return bench.host("remote", f"UserKnownHostsFile {bench.known_hosts('')}")


def ssh_host_key_unknown(bench: Bench) -> str:
    known = bench.known_hosts("")
    return bench.host("remote", f"UserKnownHostsFile {known}", "StrictHostKeyChecking yes")


def ssh_host_key_changed(bench: Bench) -> str:
    return bench.host("remote", f"UserKnownHostsFile {bench.known_hosts(another_key('remote'))}")


def ssh_host_key_revoked(bench: Bench) -> str:
    own = OWN_CONFIG.with_name("known_hosts").read_text().splitlines()
    lines = [f"@revoked {line}" for line in own if line.startswith("remote,")]
    known = bench.known_hosts("\n".join(lines) + "\n")
    return bench.host("remote", f"UserKnownHostsFile {known}")


# Authentication


def ssh_permission_denied(bench: Bench) -> str:
    """A wrong key, where nothing but keys is taken."""
    sshd = bench.stack.enter_context(
        own_sshd(bench.lab.remote, "PasswordAuthentication=no", "KbdInteractiveAuthentication=no")
    )
    bench.blocks.append(sshd.ssh_config("remote"))
    return bench.host("remote", f"IdentityFile {bench.key()}", "IdentitiesOnly yes")


def ssh_needs_login(bench: Bench) -> str:
    return "remote-otp"


def ssh_key_file(bench: Bench) -> str:
    """The right key: ssh looks at the file only when the server has accepted it."""
    key = bench.folder / "id"
    key.write_text(OWN_CONFIG.with_name("id_ed25519").read_text())
    key.chmod(0o644)
    return bench.host("remote", f"IdentityFile {key}", "IdentitiesOnly yes")


def ssh_key_refused(bench: Bench) -> str:
    """The key is in an agent that wants to be asked, and there is nobody to ask."""
    own = OWN_CONFIG.with_name("id_ed25519")
    sock = f"/tmp/agent-{uuid.uuid4().hex[:8]}"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", sock], stdout=subprocess.DEVNULL)
    bench.stack.callback(agent.wait)
    bench.stack.callback(agent.terminate)
    eventually(lambda: os.path.exists(sock), "an agent that listens")
    subprocess.run(
        ["ssh-add", "-q", "-c", own], check=True, env={**os.environ, "SSH_AUTH_SOCK": sock}
    )
    public = bench.folder / "id.pub"
    public.write_text(own.with_suffix(".pub").read_text())
    return bench.host(
        "remote", f"IdentityAgent {sock}", f"IdentityFile {public}", "IdentitiesOnly yes"
    )


def ssh_too_many_keys(bench: Bench) -> str:
    keys = [f"IdentityFile {bench.key(f'key{number}')}" for number in range(7)]
    return bench.host("remote", *keys, "IdentitiesOnly yes")


def ssh_password_expired(bench: Bench) -> str:
    host = bench.account()
    bench.lab.remote.run(["chage", "-d", "0", host.partition("@")[0]], user="root")
    return host


# The ssh config


def ssh_config_option(bench: Bench) -> str:
    return bench.host("remote", "NoSuchOption yes")


def ssh_config_rejected(bench: Bench) -> str:
    return bench.host("remote", "Port")


def ssh_config_hurts(bench: Bench) -> str:
    return bench.host("remote", "StdinNull yes")


def ssh_config_timeout(bench: Bench) -> str:
    bench.blocks.append('Match exec "sleep 30"\n    Compression yes')
    return "remote"


def ssh_control_path(bench: Bench) -> str:
    """The jump host's master could not bind; found in the config, before anything is dialed."""
    return (
        bench.host("bastion", "ControlMaster auto", f"ControlPath /tmp/{'x' * 95}")
        and "remote-jump"
    )


def ssh_jump_loop(bench: Bench) -> str:
    return bench.host("one", "ProxyJump two") and bench.host("two", "ProxyJump one")


def ssh_proxy_command(bench: Bench) -> str:
    return bench.host("remote", "ProxyCommand nosuchnc %h %p")


# Jump hosts


def ssh_jump_unknown_host(bench: Bench) -> str:
    return bench.host("nowhere", "HostName no-such-host.invalid", "ProxyJump bastion")


def ssh_jump_unreachable(bench: Bench) -> str:
    return "remote-jump:9"


def ssh_jump_forbidden(bench: Bench) -> str:
    sshd = bench.stack.enter_context(own_sshd(bench.lab.bastion, "AllowTcpForwarding=no"))
    bench.blocks.append(sshd.ssh_config("bastion"))
    return "remote-jump"


def ssh_proxy_ended(bench: Bench) -> str:
    return bench.host("remote", "ProxyCommand false")


def ssh_no_session(bench: Bench) -> str:
    sshd = bench.stack.enter_context(own_sshd(bench.lab.remote, "MaxSessions=0"))
    bench.blocks.append(sshd.ssh_config("remote"))
    return "remote"


# The account


def host_no_login_shell(bench: Bench) -> str:
    return bench.account(shell="/usr/sbin/nologin")


def host_no_answer(bench: Bench) -> str:
    host = bench.account(bashrc="sleep 1000\n")
    account = host.partition("@")[0]
    # Not ours to end: sshd leaves it running when the connection goes.
    end = ["pkill", "-u", account, "sleep"]
    bench.stack.callback(lambda: bench.lab.remote.run(end, user="root", check=False))
    return host


def host_restricted_shell(bench: Bench) -> str:
    return bench.account(shell="/bin/rbash")


def host_ended_early(bench: Bench) -> str:
    return bench.account(bashrc="exit 0\n")


def host_exit_status(bench: Bench) -> str:
    return bench.account(bashrc="exit 3\n")


CASES: list[Callable[[Bench], str]] = [
    *(ssh_unknown_host, ssh_refused, ssh_timeout, ssh_no_route),
    *(ssh_not_ssh, ssh_no_banner, ssh_dropped_early, host_no_answer, ssh_algorithms),
    *(ssh_host_key_unconfirmed, ssh_host_key_unknown, ssh_host_key_changed, ssh_host_key_revoked),
    *(
        ssh_permission_denied,
        ssh_needs_login,
        ssh_key_file,
        ssh_key_refused,
        ssh_too_many_keys,
        ssh_password_expired,
    ),
    *(ssh_config_option, ssh_config_rejected, ssh_config_hurts, ssh_config_timeout),
    *(ssh_control_path, ssh_jump_loop, ssh_proxy_command),
    *(ssh_jump_unknown_host, ssh_jump_unreachable, ssh_jump_forbidden, ssh_proxy_ended),
    *(ssh_no_session, host_no_login_shell, host_restricted_shell),
    *(host_ended_early, host_exit_status),
]


@pytest.fixture
def bench(lab: Lab, tmp_path: Path) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        yield Bench(lab, tmp_path, stack)


def examined(name: str, *options: str) -> dict[str, Any]:
    """Return the doctor's report on a host or a kernel that is broken."""
    words = ["sshpyk", "doctor", name, "--json", "--timeout", "5", *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, (done.stdout, done.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_doctor_stops_at_the_cause_and_says_what_to_do(
    bench: Bench, make: Callable[[Bench], str]
) -> None:
    host = make(bench)
    report = examined(host, "--ssh-config", str(bench.config()))
    assert_stopped_at(report, make.__name__)


def assert_stopped_at(report: dict[str, Any], name: str) -> None:
    """Check that the last finding, and no other, has the code that a case is named after, and advice."""
    code = name.upper().replace("_", "-")
    *before, cause = report["findings"]
    broken = [item for item in before if item["mark"] == "broken"]
    assert (broken, cause["code"]) == ([], code), cause
    assert cause["mark"] == "broken"
    said = {part["label"]: part["value"] for part in cause["parts"]}
    assert said.get("advice") or "write" in str(said), cause
    assert report["healthy"] is False


# Behind the login


@dataclass
class KernelBench:
    """What a case is made from that is about a kernel; ``add`` returns its name."""

    lab: Lab
    add_kernel: AddKernel
    install: InstallKernelspec

    def add(self, *options: str, spec: str = "python3") -> str:
        return self.add_kernel("remote", *options, remote_kernel_name=spec)

    def stub(self, text: str) -> str:
        """Put an interpreter on the remote that is this script; add a kernel of it."""
        spec = self.install(["unused"], {"bin/python": f"#!/bin/sh\n{text}\n"})
        return self.add("--remote-python-prefix", f"{REMOTE_KERNELS}/{spec}")


def host_no_interpreter(bench: KernelBench) -> str:
    return bench.add("--remote-python-prefix", "/no/such")


def host_python_broken(bench: KernelBench) -> str:
    return bench.stub('PYTHONHOME=/no/such exec /usr/bin/python3 "$@"')


def host_python_too_old(bench: KernelBench) -> str:
    """A Python 3.11 that says it is 3.6, for want of one in the lab."""
    lie = "import sys; sys.version_info = (3, 6, 8, 'final', 0); exec(sys.argv.pop(1))"
    return bench.stub(f'shift 2; exec /usr/bin/python3 -c "{lie}" "$@"')


def kernelspec_not_found(bench: KernelBench) -> str:
    return bench.add(spec="nope")


def kernel_no_program(bench: KernelBench) -> str:
    return bench.add(spec=bench.install(["/no/such/kernel", "{connection_file}"]))


def kernel_no_ipykernel(bench: KernelBench) -> str:
    """A kernelspec that one environment made, and an interpreter of another."""
    argv = ["/usr/bin/python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    return bench.add(spec=bench.install(argv))


def kernel_no_pyzmq(bench: KernelBench) -> str:
    """ipykernel is there, and what it needs is not: an upgrade that ended half-way."""
    python = 'PYTHONPATH="$(dirname "$0")" exec /opt/venv/bin/python "$@"'
    files = {"p": f"#!/bin/sh\n{python}\n", "zmq.py": "raise ModuleNotFoundError('No module zmq')"}
    argv = ["{resource_dir}/p", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    return bench.add(spec=bench.install(argv, files))


def kernel_no_module(bench: KernelBench) -> str:
    return bench.add(spec=bench.install(["python", "-m", "no_such_kernel", "{connection_file}"]))


def kernel_no_folder(bench: KernelBench) -> str:
    return bench.add("--remote-cwd", "/no/such")


def mount_local_folder(bench: KernelBench) -> str:
    return bench.add("--mount-local-on-remote", "/no/such:/tmp/x")


def mount_no_sshfs(bench: KernelBench) -> str:
    return bench.add("--mount-local-on-remote", "/tmp:~/x", "--remote-sshfs", "/no/such/sshfs")


def mount_allow_other(bench: KernelBench) -> str:
    return bench.add("--mount-local-on-remote", "/tmp:~/x:allow_other")


def mount_point(bench: KernelBench) -> str:
    return bench.add("--mount-local-on-remote", "/tmp:/proc/no/such")


def kernel_died(bench: KernelBench) -> str:
    """Only a launch shows it."""
    return bench.add(spec=bench.install(["/bin/sh", "-c", "echo boom >&2; exit 7"]))


KERNEL_CASES: list[Callable[[KernelBench], str]] = [
    *(host_no_interpreter, host_python_broken, host_python_too_old, kernelspec_not_found),
    *(kernel_no_program, kernel_no_ipykernel, kernel_no_pyzmq, kernel_no_module),
    *(kernel_no_folder, mount_local_folder, mount_no_sshfs, mount_allow_other, mount_point),
    kernel_died,
]


@pytest.mark.parametrize("make", KERNEL_CASES, ids=lambda make: make.__name__)
def test_doctor_stops_at_what_a_kernel_lacks(
    lab: Lab,
    add_kernel: AddKernel,
    remote_kernelspec: InstallKernelspec,
    make: Callable[[KernelBench], str],
) -> None:
    bench = KernelBench(lab, add_kernel, remote_kernelspec)
    options = [] if make is kernel_died else ["--no-launch"]
    assert_stopped_at(examined(make(bench), *options), make.__name__)


def test_bad_input_has_a_code_too(tmp_path: Path) -> None:
    for words, code in [
        (["remote", "--ssh", "/no/such/ssh"], "SSH-MISSING"),
        (["remote", "--ssh-config", "/no/such/config"], "SSH-CONFIG-MISSING"),
    ]:
        done = subprocess.run(
            ["sshpyk", "doctor", *words], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2
        assert f"[{code}]" in done.stderr


FULL = """
install -d -o {user} -g {user} -m 700 {home}/.ipython
cp --archive {home} {home}.copy
mount -t tmpfs -o size=200k tmpfs {home}
cp --archive {home}.copy/. {home}
rm -r {home}.copy
dd if=/dev/zero of={home}/all bs=4096 2>/dev/null || true"""


def test_full_disk_is_said_before_and_at_a_launch(
    lab: Lab, add_kernel: AddKernel, tmp_path: Path
) -> None:
    with own_account(lab) as user:
        home = f"/home/{user}"
        lab.remote.run(f"set -e; {FULL.format(home=home, user=user)}", user="root")
        try:
            config = f"Host remote\n    User {user}\n"
            with hub_of(lab, "remote", tmp_path / "ssh_config", config) as hub:
                name = add_kernel("remote", *hub.options)
                assert_stopped_at(examined(name, "--no-launch"), "host_disk_full")
                manager = KernelManager(kernel_name=name)
                with pytest.raises(SshpykError) as caught:
                    manager.start_kernel()
                manager.cleanup_connection_file()
        finally:
            lab.remote.run(["umount", "--lazy", home], user="root")
    assert "[HOST-DISK-FULL]" in str(caught.value).splitlines()[0]
    assert "No space left on device" in str(caught.value)
