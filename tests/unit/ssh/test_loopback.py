"""The argv of one connection, run against a private sshd on loopback."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sshpyk.errors import AuthenticationFailed, HostKeyRejected, RemoteShellFailed, Unreachable
from sshpyk.ssh.command import SshTarget, batch_environment, remote_python_command, ssh_argv
from sshpyk.ssh.diagnose import diagnose

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")

pytestmark = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None or not Path("/run/sshd").is_dir(),
    reason="no sshd that could be started",
)


@dataclass(frozen=True)
class Loopback:
    folder: Path
    port: int

    def target(self, name: str) -> SshTarget:
        return SshTarget.parse(name, ssh_config=str(self.folder / "config"))

    def run(self, name: str, *words: str, **keywords: str) -> subprocess.CompletedProcess[str]:
        options = [f"{key}={value}" for key, value in keywords.items()]
        return subprocess.run(
            ssh_argv(self.target(name), words, options=options),
            input="",
            capture_output=True,
            text=True,
            timeout=20,
            env=batch_environment({"PATH": "/usr/bin:/bin"}),
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def _also_v6() -> str:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return ""
    return "ListenAddress ::1\n"


def _wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("sshd did not come up")


def _write_files(folder: Path, port: int) -> None:
    for name in ("hostkey", "id", "stranger"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(argv, check=True)
    host_key = (folder / "hostkey.pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port},[::1]:{port} {host_key}")
    (folder / "empty").touch()
    shutil.copy(folder / "id.pub", folder / "authorized")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\n{_also_v6()}HostKey {folder}/hostkey\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
    )
    # A host entry made for a person at a terminal, with all that could disturb a program.
    (folder / "config").write_text(
        f"Host ::1\n HostName ::1\n IdentityFile {folder}/id\n"
        f"Host *\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n"
        f" UserKnownHostsFile {folder}/known\n GlobalKnownHostsFile none\n IdentitiesOnly yes\n"
        "Host stranger\n"
        f" IdentityFile {folder}/stranger\n"
        "Host gpu inside jump-refused\n"
        f" IdentityFile {folder}/id\n"
        f" RequestTTY yes\n RemoteCommand tmux\n LocalForward {port} localhost:1\n"
        "Host inside\n ProxyJump gpu\n"
        "Host jump-refused\n ProxyJump stranger\n"
    )


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    server = Loopback(tmp_path_factory.mktemp("sshd"), _free_port())
    _write_files(server.folder, server.port)
    assert SSHD is not None
    with (server.folder / "log").open("w") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(server.folder / "sshd_config")], stderr=log
        )
    with process:
        try:
            _wait_for(server.port)
            yield server
        finally:
            process.terminate()


@pytest.mark.parametrize("name", ["gpu", "inside"])
def test_remote_python_runs_despite_a_config_for_terminals(loopback: Loopback, name: str) -> None:
    words = remote_python_command("/usr/bin/env", "x")[:1]
    command = remote_python_command("python3", "import sys; print(sys.argv[1:])", "a b", "$HOME")
    run = loopback.run(name, *words, *command)
    assert (run.stdout, run.stderr, run.returncode) == ("['a b', '$HOME']\n", "", 0)


@pytest.mark.skipif(not _also_v6(), reason="no IPv6 here")
@pytest.mark.parametrize("name", ["[::1]:{port}", "{user}@[::1]:{port}", "::1"])
def test_remote_python_runs_over_ipv6(loopback: Loopback, name: str) -> None:
    host = name.format(port=loopback.port, user=getpass.getuser())
    run = loopback.run(host, *remote_python_command("python3", "print(6 * 7)"))
    assert (run.stdout, run.stderr, run.returncode) == ("42\n", "", 0)


@pytest.mark.parametrize(
    ("name", "command", "options", "kind"),
    [
        ("gpu", "/no/such/python", {}, RemoteShellFailed),
        ("gpu", "exit 0", {}, RemoteShellFailed),
        ("gpu", "kill -9 $PPID", {}, Unreachable),
        ("gpu", "true", {"Port": "1"}, Unreachable),
        ("inside", "true", {"Port": "1"}, Unreachable),
        ("stranger", "true", {}, AuthenticationFailed),
        ("jump-refused", "true", {}, AuthenticationFailed),
        ("gpu", "true", {"UserKnownHostsFile": "/dev/null"}, HostKeyRejected),
        ("stranger", "true", {"LogLevel": "QUIET"}, Unreachable),
    ],
)
def test_diagnose_of_a_real_failure(
    loopback: Loopback, name: str, command: str, options: dict[str, str], kind: type[Exception]
) -> None:
    run = loopback.run(name, command, **options)
    assert run.stdout == ""
    assert type(diagnose(run.stderr, run.returncode, host=name, phase="test")) is kind


def test_ssh_argv_uses_a_live_master_and_never_becomes_one(
    loopback: Loopback, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("m") / "s"
    loopback.run("gpu", "true", ControlPath=str(path))
    assert not path.exists()
    master = [loopback.target("gpu").ssh, "-F", str(loopback.folder / "config"), "-MNf"]
    overrides = ["-oClearAllForwardings=yes", "-oRemoteCommand=none", f"-oControlPath={path}"]
    subprocess.run([*master, *overrides, "gpu"], check=True, stderr=subprocess.DEVNULL)
    try:
        # A wrong port shows that no connection of its own was made.
        run = loopback.run("gpu", "echo via master", ControlPath=str(path), Port="1")
        assert (run.stdout, run.returncode) == ("via master\n", 0)
    finally:
        stop = [*master[:3], f"-oControlPath={path}", "-O", "exit", "gpu"]
        subprocess.run(stop, check=True, stderr=subprocess.DEVNULL)
