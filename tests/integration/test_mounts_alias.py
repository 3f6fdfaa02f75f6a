"""Mounts as sshpyk 1.x asked for them: the remote logs in to the laptop by an alias of its own."""
# ruff: noqa: F401, F811

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.faultproxy import UP
from sshpyk.ssh.command import SshTarget
from tests.integration.faults.bench import Bench, account, bench_to
from tests.integration.kernels import (
    AddKernel,
    add_kernel,
    collect,
    eventually,
    free_port,
    jupyter_folders,
    started,
)
from tests.integration.machines import USER, Lab
from tests.integration.test_mounts import mounts

AUTHORIZED_KEYS = Path.home() / ".ssh" / "authorized_keys"


@dataclass
class Remote:
    """An account on the remote whose ssh config has an alias for the laptop; a hub that goes there."""

    bench: Bench
    account: str
    port: int

    def run(self, command: str, *, check: bool = False) -> str:
        return self.bench.lab.remote.run(command, user=self.account, check=check)

    @property
    def folder(self) -> str:
        return f"/home/{self.account}/mounted"

    def options(self, local: Path, remote: str, options: str = "") -> list[str]:
        mount = ":".join(filter(None, [str(local), remote, options]))
        return [
            *("--ssh-host-alias-local-on-remote", "laptop", "--remote-sshfs", "/usr/bin/sshfs"),
            *("--mount-local-on-remote", mount),
        ]

    def trust(self, line: str) -> None:
        """Add a line to the account's known_hosts."""
        self.run(f"echo '{line}' >> ~/.ssh/known_hosts", check=True)

    def sshd_pids(self) -> set[int]:
        """Return the private sshd of this test's hub, and what they have started."""
        target = SshTarget.parse(self.bench.hub.host, ssh_config=str(self.bench.hub.config))
        found = self.bench.lab.laptop.processes(containing=f"sshpyk/mounts/{target.identity}-")
        return {process.pid for process in found if process.state != "Z"}


@contextlib.contextmanager
def authorized(public_key: str) -> Iterator[None]:
    """Let a key log in to the laptop; other tests do the same meanwhile."""
    _change_authorized_keys(lambda lines: [*lines, public_key])
    try:
        yield
    finally:
        _change_authorized_keys(lambda lines: [line for line in lines if line != public_key])


def _change_authorized_keys(change) -> None:  # type: ignore[no-untyped-def]
    descriptor = os.open(AUTHORIZED_KEYS, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lines = change(file.read().splitlines())
        file.seek(0)
        file.truncate()
        file.write("".join(f"{line}\n" for line in lines))


@pytest.fixture
def remote(lab: Lab, account: str, add_kernel: AddKernel, tmp_path: Path) -> Iterator[Remote]:
    """An alias with a port, a key that the laptop has authorized, and no known host key yet."""
    port = free_port()
    settings = ["HostName localhost", f"Port {port}", f"User {USER}", "ServerAliveInterval 1"]
    config = "\\n ".join(["Host laptop", *settings])
    lab.remote.run(
        "ssh-keygen -q -t ed25519 -N '' -C test -f ~/.ssh/id_ed25519;"
        f"printf '{config}\\n' > ~/.ssh/config",
        user=account,
    )
    key = lab.remote.run("cat ~/.ssh/id_ed25519.pub", user=account).strip()
    with authorized(key), bench_to(lab, "remote", add_kernel, tmp_path, user=account) as bench:
        made = Remote(bench, account, port)
        yield made
        eventually(lambda: made.folder not in mounts(lab), "unmounting", timeout_s=30)
        eventually(lambda: not made.sshd_pids(), "the end of the private sshd")
        listens = f"ss -Hltn 'sport = :{port}' 2>/dev/null || cat /proc/net/tcp"
        eventually(lambda: f":{port}" not in made.run(listens), "the port to be free")


def line_to_add(remote: Remote, folder: Path) -> str:
    """Launch a kernel where the laptop's key is not known; return what the failure says to do."""
    options = remote.options(folder, f"{remote.folder}/first")
    launching = remote.bench.kernel(*options)
    with pytest.raises(Exception, match="MOUNT-ALIAS-HOST-KEY") as failure, launching:
        pass
    line = re.search(r"add this line to \S+ on the host: (.*)", str(failure.value))
    assert line is not None, str(failure.value)
    assert line[1].startswith(f"[localhost]:{remote.port} ssh-ed25519 ")
    return line[1]


def test_a_notebook_reads_and_writes_and_the_login_is_good_for_nothing_else(
    remote: Remote, tmp_path: Path
) -> None:
    code, data = tmp_path / "code", tmp_path / "data"
    for folder in (code, data):
        folder.mkdir()
    remote.trust(line_to_add(remote, code))
    (data / "table.csv").write_text("a,b\n1,2\n")
    options = remote.options(code, f"{remote.folder}/code")
    options += remote.options(data, f"{remote.folder}/data", "ro")
    name = remote.bench.add(*options)
    with started(remote.bench.lab, name, cwd=str(code)) as kernel:
        assert kernel.run("import os; os.getcwd()").result == repr(f"{remote.folder}/code")
        assert kernel.run("open('../data/table.csv').read()").result == repr("a,b\n1,2\n")
        kernel.run("open('result.txt', 'w').write('from the remote')")
        assert (code / "result.txt").read_text() == "from the remote"
        refused = kernel.run("open('../data/new', 'w')").reply["content"]
        assert refused["ename"] == "OSError"

        # Whoever has the account there has its key, and may say what they like.
        assert "only SFTP is served here" in remote.run("ssh -T laptop </dev/null")
        assert "only SFTP is served here" in remote.run("ssh laptop id </dev/null")
        assert "forwarding failed" in remote.run(
            "ssh -o ExitOnForwardFailure=yes -NR 0:localhost:22 laptop"
        )
        assert "prohibited" in remote.run("ssh -W localhost:22 laptop </dev/null")
        remote.run("echo x > ~/mine")
        put = f"put mine {data}/taken\\nput mine {tmp_path}/out\\nget {data}/../code/result.txt\\nls /"
        said = remote.run(f"printf '{put}' | sed 's/^/-/' | sftp -b - laptop 2>&1")
        assert f'dest open "{data}/taken": Permission denied' in said
        assert f'dest open "{tmp_path}/out": No such file' in said
        assert 'result.txt" not found' in said
        assert 'readdir("/"): No such file' in said
        assert sorted(os.listdir(data)) == ["table.csv"]
        assert not (tmp_path / "out").exists()


def test_an_outage_in_the_middle_and_then_the_hub_is_killed(remote: Remote, tmp_path: Path) -> None:
    """10 s, though the alias would give up after 3 without an answer; the next hub mounts again."""
    folder = tmp_path / "code"
    folder.mkdir()
    content = os.urandom(16 << 20)
    (folder / "big").write_bytes(content)
    remote.run("echo ' StrictHostKeyChecking accept-new' >> ~/.ssh/config", check=True)
    proxy, hub = remote.bench.proxy, remote.bench.hub
    path = f"{remote.folder}/code/big"
    with remote.bench.kernel(*remote.options(folder, f"{remote.folder}/code")) as kernel:
        proxy.rate(4e6)
        before = proxy.passed_bytes(UP)
        copying = kernel.client.execute(
            f"data = open({path!r}, 'rb').read(); open({path + '.copy'!r}, 'wb').write(data)"
        )
        eventually(lambda: proxy.passed_bytes(UP) > before + (2 << 20), "the read's beginning")
        proxy.pause(10)
        proxy.rate(0)
        collect(kernel.client, copying, timeout_s=120)
        assert (folder / "big.copy").read_bytes() == content

        dead, orphans = hub.pid, remote.sshd_pids()
        assert orphans
        remote.bench.lab.laptop.kill(dead, "KILL")
        eventually(lambda: hub.hub_pids() not in ([], [dead]), "another hub")
        eventually(lambda: not orphans & remote.sshd_pids(), "the end of the dead hub's sshd")
        look = f"import os; os.path.exists({path!r})"
        eventually(lambda: kernel.run(look).result == "True", "the mount", timeout_s=60)
