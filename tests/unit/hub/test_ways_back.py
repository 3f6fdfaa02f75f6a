"""Mounts that log in by themselves: a real sshfs, ssh and private sshd, and a link between them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sshpyk.agent import mount as agent_mount
from sshpyk.agent.forward import Forwards
from sshpyk.agent.script import run_script
from sshpyk.errors import MountError
from sshpyk.hub import mounts
from sshpyk.hub.alias import Route, explain_login, read_route
from sshpyk.hub.mounts import MountRequest, Mounts
from sshpyk.hub.private_sshd import HostKey, PrivateSshd, Settings, config_text, find_sshd
from sshpyk.hub.ways_back import WaysBack
from sshpyk.mounts import landlock
from sshpyk.servers.tunnels import Tunnels
from sshpyk.ssh.config import read_resolved
from sshpyk.wire.endpoint import Endpoint
from sshpyk.wire.rpc import Rpc
from tests.unit.hub.fakes import FakeHost
from tests.unit.hub.test_mounts import apart
from tests.unit.mounts.sshd import HAS_SSHD, Account, make_account
from tests.unit.wire.harness import Joined, in_loop, until

LOGIN_SHELLS = [
    shell for shell in ("bash", "dash", "zsh", "ksh", "fish", "csh", "tcsh") if shutil.which(shell)
]
needs_all = pytest.mark.skipif(
    sys.platform != "linux"
    or not HAS_SSHD
    or not shutil.which("sshfs")
    or not os.access("/dev/fuse", os.W_OK),
    reason="no sshfs, no sshd, or no right to mount, here",
)


class Bench:
    """The host is this machine; its ``ssh`` reads the test's config."""

    def __init__(self, joined: Joined, folder: Path, account: Account) -> None:
        self.joined = joined
        self.folder = folder
        self.account = account
        self.host = FakeHost(joined)
        self.tunnels = Tunnels(self.host)  # type: ignore[arg-type]
        self.mounts = Mounts(self.host)  # type: ignore[arg-type]
        self.mounts.ways_back = WaysBack(self.host, self.tunnels)  # type: ignore[arg-type]
        self.agent_mounts = agent_mount.Mounts(joined.agent)
        self.serve_host()

    def serve_host(self) -> None:
        """Be the host's end, with no tunnel yet."""
        joined = self.joined
        self.forwards = Forwards(joined.agent, lambda op, **params: self.rpc.call(op, **params))
        operations = {**self.agent_mounts.operations, **self.forwards.operations}
        self.rpc = Rpc(joined.agent, {**operations, "script": run_script})

    def request(self, name: str = "code", *options: str, alias: str = "laptop") -> MountRequest:
        (self.folder / "local" / name).mkdir(parents=True, exist_ok=True)
        return MountRequest(
            str(self.folder / "local" / name),
            str(self.folder / "remote" / name),
            options,
            alias=alias,
        )

    def local(self, name: str) -> Path:
        return self.folder / "local" / name

    def remote(self, name: str) -> Path:
        return self.folder / "remote" / name

    @property
    def is_mounted(self) -> bool:
        return any(str(self.folder) in path for path in agent_mount.mount_points())


@asynccontextmanager
async def bench(folder: Path, account: Account) -> AsyncIterator[Bench]:
    async with Joined() as joined:
        made = Bench(joined, folder, account)
        try:
            yield made
        finally:
            await made.mounts.close()
            await until(lambda: not made.agent_mounts.busy)
            assert not made.is_mounted
            assert not made.tunnels.busy
            await until(lambda: not made.forwards.busy)
            left = {path.name for path in (account.folder / "state" / "mounts").glob("*")}
            assert left <= {"host_key"}
            await asyncio.get_running_loop().shutdown_default_executor()


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "LINGER_S", 0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    return make_account(tmp_path, monkeypatch)


@needs_all
@in_loop
async def test_two_folders_over_one_login_each_with_its_own_rights(
    tmp_path: Path, account: Account
) -> None:
    async with bench(tmp_path, account) as made:
        requests = [made.request("code"), made.request("data", "ro")]
        (made.local("data") / "table").write_text("1,2")
        await made.mounts.hold("kernel", requests)
        assert len(made.tunnels.summaries()) == 1
        await apart(lambda: (made.remote("code") / "there").write_bytes(b"x" * 3_000_000))
        assert (made.local("code") / "there").read_bytes() == b"x" * 3_000_000
        assert (made.local("code") / "there").stat().st_mode & 0o777 == 0o644
        assert await apart((made.remote("data") / "table").read_text) == "1,2"
        with pytest.raises(OSError, match="Read-only"):
            await apart((made.remote("data") / "new").touch)


def servers(account: Account) -> list[Path]:
    """Return the processes that serve those who have logged in."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"sshpyk.mounts.server" in words and bytes(account.authorized) in words:
                found.append(process)
    return found


@needs_all
@pytest.mark.skipif(landlock.abi() < 2, reason="this kernel has no Landlock (or too old)")
@in_loop
async def test_the_kernel_keeps_each_login_in_its_folder(tmp_path: Path, account: Account) -> None:
    async with bench(tmp_path, account) as made:
        await made.mounts.hold("kernel", [made.request("code"), made.request("data")])
        found = [
            process for process in servers(account) if "bash" not in os.readlink(process / "exe")
        ]
        assert len(found) == 2
        for process in found:
            assert "NoNewPrivs:\t1\n" in (process / "status").read_text()
            opened = {os.readlink(fd) for fd in (process / "fd").iterdir()}
            assert len(opened & {str(made.local(name)) for name in ("code", "data")}) == 1


@needs_all
@pytest.mark.parametrize("way", ["read", "write"])
@in_loop
async def test_an_outage_is_a_stall_though_the_alias_would_give_up(
    way: str, tmp_path: Path, account: Account
) -> None:
    """The alias asks for an answer each second, three times."""
    async with bench(tmp_path, account) as made:
        content = os.urandom(24_000_000)
        request = made.request("code")
        (made.local("code") / "big").write_bytes(content)
        await made.mounts.hold("kernel", [request])
        big, copy = made.remote("code") / "big", made.remote("code") / "copy"
        work = big.read_bytes if way == "read" else lambda: copy.write_bytes(content)
        working = asyncio.ensure_future(apart(work))
        (tunnel,) = made.tunnels._tunnels.values()
        await until(lambda: sum(sum(s.values()) for s in traffic(tunnel)) > 2_000_000)
        await made.joined.cut_and_noticed()
        await asyncio.sleep(5)
        stalled = not working.done() and made.is_mounted
        made.joined.connect()
        assert await working == (content if way == "read" else len(content))
        assert stalled
        assert way == "read" or (made.local("code") / "copy").read_bytes() == content


def traffic(tunnel: Any) -> list[dict[str, int]]:
    found = tunnel.summary()
    return [{key: found[key] for key in ("sent_bytes", "received_bytes")}]


@needs_all
@in_loop
async def test_a_port_of_the_alias_is_kept_and_the_key_is_the_same_each_time(
    tmp_path: Path, account: Account
) -> None:
    async with bench(tmp_path, account) as made:
        port = free_port()
        account.alias("fixed", "HostName 127.0.0.1", f"Port {port}")
        await made.mounts.hold("kernel", [made.request(alias="fixed")])
        known = account.known_hosts.read_text()
        assert known.startswith(f"[127.0.0.1]:{port} ssh-ed25519 ")
        made.mounts.release("kernel")
        await until(lambda: not made.mounts.busy)
        account.alias("strict", "HostName 127.0.0.1", f"Port {port}", known=True)
        await made.mounts.hold("kernel", [made.request(alias="strict")])
        assert account.known_hosts.read_text() == known


@needs_all
@in_loop
async def test_files_of_the_sshd_are_private(tmp_path: Path, account: Account) -> None:
    async with bench(tmp_path, account) as made:
        await made.mounts.hold("kernel", [made.request()])
        folder = account.folder / "state" / "mounts"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        files = list(folder.iterdir())
        assert {path.suffix for path in files} == {"", ".conf", ".folders", ".log"}
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@needs_all
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-tt", "laptop"], "PTY allocation request failed"),
        (["laptop"], "only SFTP is served here"),
        (["laptop", "id"], "only SFTP is served here"),
    ],
)
@in_loop
async def test_a_login_gets_no_shell_and_no_command(
    words: list[str], said: str, tmp_path: Path, account: Account
) -> None:
    async with bench(tmp_path, account) as made:
        await made.mounts.hold("kernel", [made.request()])
        ran = await apart(lambda: login(made, *words))
        assert said in ran.stderr
        assert ran.stdout == ""
        assert ran.returncode != 0


@needs_all
@pytest.mark.parametrize("way", ["-W", "-R"])
@in_loop
async def test_a_login_forwards_nothing(way: str, tmp_path: Path, account: Account) -> None:
    async with bench(tmp_path, account) as made:
        await made.mounts.hold("kernel", [made.request()])
        (tunnel,) = made.tunnels._tunnels.values()
        target = f"127.0.0.1:{tunnel.listens.port}"
        what = {"-W": [target], "-R": [f"{free_port()}:{target}", "-N"]}[way]
        ran = await apart(
            lambda: login(made, "-o", "ExitOnForwardFailure=yes", way, *what, "laptop")
        )
        assert ran.returncode != 0
        assert "prohibited" in ran.stderr or "remote port forwarding failed" in ran.stderr


def login(made: Bench, *words: str) -> subprocess.CompletedProcess[str]:
    """Log in as sshfs does, and ask for something else."""
    (tunnel,) = made.tunnels._tunnels.values()
    argv = ["ssh", "-o", "BatchMode=yes", "-p", str(tunnel.listens.port), *words]
    return subprocess.run(argv, input="", capture_output=True, text=True, timeout=20, check=False)


async def refusal(made: Bench, request: MountRequest) -> MountError:
    with pytest.raises(MountError) as refused:
        await made.mounts.hold("kernel", [request])
    assert refused.value.host == "gpu1"
    assert not made.mounts.busy
    assert not made.is_mounted
    await until(lambda: not made.tunnels.busy)
    return refused.value


@needs_all
@in_loop
async def test_a_key_that_is_not_authorized_is_named(tmp_path: Path, account: Account) -> None:
    account.authorized.write_text("")
    async with bench(tmp_path, account) as made:
        error = await refusal(made, made.request())
        assert error.code == "MOUNT-ALIAS-KEY", str(error)
        assert f"{account.folder}/id.pub" in error.advice
        assert "sshd here: " in error.said
        assert "Permission denied (publickey)" in error.said


@needs_all
@in_loop
async def test_a_key_that_was_given_away_for_a_command_gets_no_files(
    tmp_path: Path, account: Account
) -> None:
    account.authorized.write_text(f'no-pty,command="backup a, b" {account.public_key}\n')
    async with bench(tmp_path, account) as made:
        error = await refusal(made, made.request())
        assert error.code == "MOUNT-ALIAS-KEY", str(error)
        assert "limited to a command" in error.said


@needs_all
@in_loop
async def test_a_host_key_that_is_not_known_is_shown_as_the_line_to_add(
    tmp_path: Path, account: Account
) -> None:
    account.alias("strict", "HostName localhost", known=True)
    async with bench(tmp_path, account) as made:
        error = await refusal(made, made.request(alias="strict"))
        assert error.code == "MOUNT-ALIAS-HOST-KEY", str(error)
        line = error.advice.partition(" on the host: ")[2]
        account.known_hosts.write_text(line + "\n")
        await made.mounts.hold("kernel", [made.request(alias="strict")])


@needs_all
@in_loop
async def test_a_host_key_that_has_changed_is_refused(tmp_path: Path, account: Account) -> None:
    account.known_hosts.write_text(f"sshpyk-laptop {account.public_key}\n")
    async with bench(tmp_path, account) as made:
        error = await refusal(made, made.request())
        assert error.code == "MOUNT-ALIAS-HOST-KEY", str(error)
        assert "ssh-keygen -R 'sshpyk-laptop'" in error.advice


@needs_all
@in_loop
async def test_a_port_that_is_taken_is_told_with_who_has_it(
    tmp_path: Path, account: Account
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        account.alias("fixed", "HostName 127.0.0.1", f"Port {port}")
        async with bench(tmp_path, account) as made:
            error = await refusal(made, made.request(alias="fixed"))
            assert error.code == "MOUNT-ALIAS-PORT", str(error)
            assert f"127.0.0.1:{port}" in error.what
            assert str(os.getpid()) in error.said or not shutil.which("ss")


@needs_all
@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["Port 2222"], "MOUNT-NO-ALIAS"),
        (["HostName 192.0.2.1"], "MOUNT-ALIAS-NOT-LOOPBACK"),
        (["HostName localhost", "ProxyJump bastion"], "MOUNT-ALIAS-NOT-LOOPBACK"),
    ],
)
@in_loop
async def test_an_alias_that_leads_elsewhere_is_refused(
    lines: list[str], code: str, tmp_path: Path, account: Account
) -> None:
    account.alias("odd", *lines)
    async with bench(tmp_path, account) as made:
        assert (await refusal(made, made.request(alias="odd"))).code == code


@needs_all
@in_loop
async def test_a_machine_without_sshd_says_what_to_do(tmp_path: Path, account: Account) -> None:
    async with bench(tmp_path, account) as made:
        request = dataclasses.replace(made.request(), sshd="/no/such/sshd")
        error = await refusal(made, request)
        assert error.code == "MOUNT-NO-SSHD", str(error)
        assert "/no/such/sshd" in error.what


@needs_all
@in_loop
async def test_an_sshd_that_cannot_run_is_told(tmp_path: Path, account: Account) -> None:
    program = tmp_path / "sshd"
    program.write_text("#!/bin/sh\necho 'no entropy today' >&2; exit 3\n")
    program.chmod(0o755)
    async with bench(tmp_path, account) as made:
        error = await refusal(made, dataclasses.replace(made.request(), sshd=str(program)))
        assert error.code == "MOUNT-SSHD-FAILED", str(error)
        assert error.said == "no entropy today"


@needs_all
@in_loop
async def test_the_tunnel_is_closed_by_hand_and_the_next_kernel_mounts_anew(
    tmp_path: Path, account: Account
) -> None:
    async with bench(tmp_path, account) as made:
        await made.mounts.hold("kernel", [made.request()])
        (tunnel,) = made.tunnels._tunnels.values()
        assert "private sshd" in str(tunnel.summary()["target"])
        made.tunnels.close(tunnel)
        await until(lambda: not made.is_mounted)
        await until(lambda: all(one.gone for one in made.mounts._mounted.values()))
        made.mounts.release("kernel")
        await made.mounts.hold("other", [made.request()])
        assert made.is_mounted


@needs_all
@in_loop
async def test_the_hub_is_killed_and_the_next_one_mounts_again(
    tmp_path: Path, account: Account
) -> None:
    async with bench(tmp_path, account) as made:
        await made.mounts.hold("kernel", [made.request()])
        (tunnel,) = made.tunnels._tunnels.values()
        (mounted,) = made.mounts._mounted.values()
        mounted.ending = True  # a dead hub does nothing more
        for stream in list(tunnel.streams):
            stream.abort()
        made.host.took_over = True
        made.mounts._mounted.clear()
        dead = made.mounts.ways_back
        assert dead is not None
        made.tunnels = Tunnels(made.host)  # type: ignore[arg-type]
        made.mounts = Mounts(made.host)  # type: ignore[arg-type]
        made.mounts.ways_back = WaysBack(made.host, made.tunnels)  # type: ignore[arg-type]
        (made.local("code") / "file").touch()
        made.mounts.hold_again("kernel", [made.request()])
        await until(lambda: not made.mounts._tasks)
        assert await apart(lambda: os.listdir(made.remote("code"))) == ["file"]
        (left,) = dead._ways.values()
        await left.sshd.close()


@needs_all
@in_loop
async def test_the_agent_is_killed_and_the_next_one_mounts_again(
    tmp_path: Path, account: Account
) -> None:
    async with bench(tmp_path, account) as made:
        port = free_port()
        account.alias("fixed", "HostName 127.0.0.1", f"Port {port}")
        await made.mounts.hold("kernel", [made.request(alias="fixed")])
        (dead,) = made.agent_mounts._mounts.values()
        assert dead.process is not None
        dead.process.kill()
        dead.process.wait()
        made.agent_mounts._mounts.clear()  # nobody is left to unmount it
        made.forwards._close_all()
        made.agent_mounts = agent_mount.Mounts(made.joined.agent)
        made.serve_host()
        (made.local("code") / "file").touch()
        made.mounts.agent_replaced()
        made.host.on_agent_replaced()
        await until(lambda: not made.mounts._tasks)
        assert await apart(lambda: os.listdir(made.remote("code"))) == ["file"]
        (tunnel,) = made.tunnels._tunnels.values()
        assert tunnel.listens.port == port
        agent_mount._clean(dead)


@needs_all
@in_loop
async def test_what_a_killed_hub_has_left_is_removed(tmp_path: Path, account: Account) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    folder = account.folder / "state" / "mounts"
    folder.mkdir(mode=0o700)
    async with bench(tmp_path, account) as made:
        left = [f"{made.host.target.identity}-{gone.pid}-ab.{kind}" for kind in ("conf", "log")]
        for name in left:
            (folder / name).touch()
        await made.mounts.hold("kernel", [made.request()])
        assert not set(left) & {path.name for path in folder.iterdir()}


@needs_all
@in_loop
async def test_the_link_is_lost_for_good_and_nothing_stays(
    tmp_path: Path, account: Account
) -> None:
    async with bench(tmp_path, account) as made:
        await made.mounts.hold("kernel", [made.request()])
        made.joined.agent.leave("")
        made.joined.hub.leave("")
        made.host.on_lost_link(MountError("lost"))
        assert not made.tunnels.busy
        await until(lambda: not made.agent_mounts.busy and not made.is_mounted)
        made.mounts.release("kernel")
        await until(lambda: not made.mounts.busy)


# What is pure


def resolved(**fields: str) -> Any:
    usual = {"hostname": "localhost", "user": "me", "port": "22", **fields}
    return read_resolved("laptop", "\n".join(f"{key} {value}" for key, value in usual.items()))


def test_an_alias_as_1_x_asked_for_gets_a_free_port_and_a_name_for_its_key() -> None:
    route = read_route("laptop", resolved(), "me")
    assert route.listen == Endpoint("localhost", 0)
    assert "port=4711" in route.words(4711)
    assert "HostKeyAlias=sshpyk-laptop" in route.words(4711)


def test_an_alias_with_a_port_is_left_as_it_is() -> None:
    route = read_route("laptop", resolved(hostname="::1", port="2222"), "me")
    assert route.listen == Endpoint("::1", 2222)
    assert route.known_as == "[::1]:2222"
    assert not [word for word in route.words(2222) if word.startswith(("port=", "HostKeyAlias="))]


def test_a_name_of_the_users_for_the_key_is_kept() -> None:
    for port in ("22", "2222"):
        fields = {"port": port, "hostkeyalias": "mine"}
        assert read_route("laptop", resolved(**fields), "me").known_as == "mine"


def test_an_alias_for_somebody_else_is_refused() -> None:
    with pytest.raises(MountError, match="logs in as root, and only me") as refused:
        read_route("laptop", resolved(user="root"), "me")
    assert refused.value.code == "MOUNT-ALIAS-USER"


def test_words_that_are_no_login_s_are_left_to_others() -> None:
    route = Route("laptop", Endpoint("localhost", 1), "x")
    assert explain_login(route, HostKey("", "ssh-ed25519 AAAA"), "fuse: device not found") is None


def test_the_config_allows_nothing_but_what_is_forced() -> None:
    text = config_text(Settings("/a b/key", "me@corp", "cd /; exec x"))
    assert 'HostKey "/a b/key"' in text
    assert "AllowUsers me?corp\n" in text
    for line in ("ForceCommand cd /; exec x", "DisableForwarding yes", "PermitTTY no"):
        assert line in text.splitlines()


@pytest.mark.skipif(not HAS_SSHD, reason="no sshd here")
@pytest.mark.parametrize("shell", LOGIN_SHELLS)
def test_every_login_shell_runs_what_is_forced(
    shell: str, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_ORIGINAL_COMMAND", raising=False)
    command = PrivateSshd("", "test", 0o022)._command()
    ran = subprocess.run([shell, "-c", command], input="", capture_output=True, text=True)
    assert ran.stderr.strip() == "sshpyk.mounts.server: only SFTP is served here"
    assert (ran.stdout, ran.returncode) == ("", 2)


def test_sshd_is_found_where_systems_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    if HAS_SSHD:
        assert find_sshd().endswith("/sshd")
    with pytest.raises(MountError) as refused:
        find_sshd("/no/such/sshd")
    assert refused.value.code == "MOUNT-NO-SSHD"
