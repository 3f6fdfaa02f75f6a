"""Hosts as they are: each is reached, runs one kernel, and computes 1+1. See docs/hosts.md."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshpyk.errors import RemoteShellFailed
from tests.integration.faults.bench import own_account
from tests.integration.faults.hosts import OwnSshd, failure_of, hub_as, own_sshd, put_for
from tests.integration.kernels import AddKernel, Running, await_ready, started
from tests.integration.lifecycle_helpers import REMOTE_PYTHON, hub_of
from tests.integration.machines import Lab

PROCPS = tuple(f"/usr/bin/{name}" for name in ("ps", "pgrep", "pkill", "free", "top", "uptime"))


@contextlib.contextmanager
def kernel_behind(
    lab: Lab, add_kernel: AddKernel, host: str, config: Path, text: str, *options: str
) -> Iterator[Running]:
    """Start a kernel on ``host`` under an ssh config; it has computed 1+1."""
    with (
        hub_of(lab, host, config, text) as hub,
        started(lab, add_kernel(host, *hub.options, *options)) as kernel,
    ):
        assert kernel.run("1 + 1").result == "2"
        yield kernel


def computes(
    lab: Lab, add_kernel: AddKernel, account: str, config: Path, sshd: OwnSshd, *options: str
) -> None:
    """Start a kernel of an account's through an sshd of the test's; it computes 1+1."""
    text = f"Host remote\n    User {account}\n{sshd.ssh_config('remote')}"
    with kernel_behind(lab, add_kernel, "remote", config, text, *options):
        pass


# Accounts


@pytest.mark.parametrize("shell", ["/bin/dash", "/usr/bin/zsh"])
def test_login_shell(lab: Lab, add_kernel: AddKernel, tmp_path: Path, shell: str) -> None:
    with own_account(lab, shell=shell) as account:
        for rc in (".profile", ".zshenv", ".zshrc", ".zprofile"):
            put_for(lab, account, rc, "echo noise; echo more >&2\n")
        text = f"Host remote\n    User {account}\n"
        with kernel_behind(lab, add_kernel, "remote", tmp_path / "config", text) as kernel:
            assert kernel.run("import os; os.environ['SHELL']").result == repr(shell)


@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_python_that_carries_the_agent(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path, version: str
) -> None:
    """The kernel's own interpreter is another: ipykernel is in one environment of the lab only."""
    python = f"/opt/python{version}/bin/python"
    if f"Python {version}" not in lab.remote.run([python, "-V"], check=False):
        pytest.skip(f"the lab's remote has no Python {version}: see lab/other_pythons.sh")
    kernels = ".local/share/jupyter/kernels/mine"
    lab.remote.run(["mkdir", "-p", f"/home/{account}/{kernels}"], user=account)
    argv = [REMOTE_PYTHON, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "mine", "language": "python"}
    put_for(lab, account, f"{kernels}/kernel.json", json.dumps(spec))
    options = ("--remote-python-prefix", "", "--remote-python", python)
    with hub_as(lab, account, tmp_path) as hub:
        name = add_kernel("remote", *hub.options, *options, remote_kernel_name="mine")
        with started(lab, name) as kernel:
            parent = int(kernel.run("import os; os.getppid()").result or 0)
            (agent,) = [p for p in lab.remote.processes(user=account) if p.pid == parent]
            assert f"python{version}" in agent.args


def test_modules_of_the_users_in_both_folders_named_as_pythons_own(
    lab: Lab,
    add_kernel: AddKernel,
    account: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    for name in ("json.py", "socket.py", "asyncio.py"):
        put_for(lab, account, name, "raise RuntimeError('not meant')\n")
        (notebooks / name).write_text("raise RuntimeError('not meant')\n")
    monkeypatch.chdir(notebooks)
    with (
        hub_as(lab, account, tmp_path) as hub,
        started(lab, add_kernel("remote", *hub.options)) as kernel,
    ):
        assert kernel.run("1 + 1").result == "2"


def test_no_procps_no_forwarding_no_terminal_and_one_session(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path
) -> None:
    options = ("MaxSessions=1", "DisableForwarding=yes", "AllowTcpForwarding=no", "PermitTTY=no")
    with own_sshd(lab.remote, *options, missing=PROCPS) as sshd:
        text = f"Host remote\n    User {account}\n{sshd.ssh_config('remote')}"
        with kernel_behind(lab, add_kernel, "remote", tmp_path / "config", text) as kernel:
            said = kernel.run("import subprocess; subprocess.run(['ps'])").reply["content"]
            assert said["ename"] == "PermissionError"
            kernel.manager.restart_kernel()
            await_ready(kernel.client)
            assert kernel.run("2 + 2").result == "4"


# Forced commands

WRAPPERS = {
    "login shell": '"$SHELL" -lc "$SSH_ORIGINAL_COMMAND"',
    "eval": "echo audited: $SSH_CLIENT; eval $SSH_ORIGINAL_COMMAND",
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_forced_command_that_runs_ours(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path, wrapper: str
) -> None:
    with own_sshd(lab.remote, f"ForceCommand={WRAPPERS[wrapper]}") as sshd:
        computes(lab, add_kernel, account, tmp_path / "config", sshd)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo This account is for backups.", "This account is for backups."),
        ("echo Only rsync is allowed. >&2; exit 1", "Only rsync is allowed."),
        ("cat", "forced command"),
    ],
    ids=["talks", "refuses", "waits"],
)
def test_forced_command_that_runs_something_else_is_named(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path, command: str, words: str
) -> None:
    with (
        own_sshd(lab.remote, f"ForceCommand={command}") as sshd,
        hub_as(lab, account, tmp_path, sshd.ssh_config("remote")) as hub,
    ):
        patience = ("--launch-timeout", "5") if command == "cat" else ()
        error = failure_of(add_kernel("remote", *hub.options, *patience))
    assert words in str(error)
    assert "forced command" in error.advice
    assert isinstance(error, RemoteShellFailed) or command == "cat"


# Ways


def test_user_and_port_in_the_name(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path
) -> None:
    with own_sshd(lab.remote) as sshd:
        host, text = f"{account}@remote:{sshd.port}", "Host remote\n    HostKeyAlias remote\n"
        with kernel_behind(lab, add_kernel, host, tmp_path / "config", text):
            assert sshd.logins == 1


def test_chain_of_jumps(lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path) -> None:
    with own_sshd(lab.remote) as sshd:
        text = f"""Host remote-inside
    HostKeyAlias remote-inside
Host chain
    HostName remote-inside
    HostKeyAlias remote-inside
    User {account}
    ProxyJump bastion,lab@remote-inside:{sshd.port}
"""
        with kernel_behind(lab, add_kernel, "chain", tmp_path / "config", text):
            assert sshd.logins == 1


def test_proxy_command(lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path) -> None:
    text = f"""Host proxied
    HostName remote-inside
    User {account}
    ProxyCommand ssh -F {Path.home()}/.ssh/config -W %h:%p bastion
"""
    with kernel_behind(lab, add_kernel, "proxied", tmp_path / "config", text):
        pass


def test_certificates_for_host_and_user(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path
) -> None:
    for name in ("ca", "id"):
        keygen("-t", "ed25519", "-N", "", "-f", str(tmp_path / name))
    host_key = tmp_path / "host.pub"
    host_key.write_text(lab.remote.run("cat /etc/ssh/ssh_host_ed25519_key.pub"))
    ca = str(tmp_path / "ca")
    keygen("-s", ca, "-h", "-I", "host", "-n", "certified", "-V", "+1h", str(host_key))
    keygen("-s", ca, "-I", "user", "-n", account, "-V", "+1h", str(tmp_path / "id.pub"))
    put_for(lab, account, "ca.pub", (tmp_path / "ca.pub").read_text())
    put_for(lab, account, "host-cert.pub", (tmp_path / "host-cert.pub").read_text())
    (tmp_path / "known").write_text(f"@cert-authority * {(tmp_path / 'ca.pub').read_text()}")
    options = (
        f"TrustedUserCAKeys=/home/{account}/ca.pub",
        f"HostCertificate=/home/{account}/host-cert.pub",
        "AuthorizedKeysFile=none",
    )
    with own_sshd(lab.remote, *options) as sshd:
        text = f"""Host certified
    HostName remote
    HostKeyAlias certified
    Port {sshd.port}
    User {account}
    UserKnownHostsFile {tmp_path}/known
    IdentityFile {tmp_path}/id
    IdentitiesOnly yes
"""
        with kernel_behind(lab, add_kernel, "certified", tmp_path / "config", text):
            assert "CA" in sshd.log()


def keygen(*words: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], check=True, stdin=subprocess.DEVNULL)
