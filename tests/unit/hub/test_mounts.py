"""A mount over a link: hub's end and agent's end in one process, with a real sshfs between them."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sshpyk.agent import mount as agent_mount
from sshpyk.agent.kernelspecs import RemoteKernelspec
from sshpyk.agent.process import KernelProcess
from sshpyk.errors import MountError
from sshpyk.hub import mounts
from sshpyk.hub.mount_request import MountRequest
from sshpyk.hub.mounts import Mounts
from sshpyk.wire.rpc import Rpc
from tests.unit.hub.fakes import FakeHost
from tests.unit.wire.harness import Joined, in_loop, until

needs_fuse = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("sshfs") or not os.access("/dev/fuse", os.W_OK),
    reason="no sshfs, or no right to mount, here",
)


class Bench:
    def __init__(self, joined: Joined, folder: Path) -> None:
        self.joined = joined
        self.host = FakeHost(joined)
        self.mounts = Mounts(self.host)  # type: ignore[arg-type]
        self.agent_mounts = agent_mount.Mounts(joined.agent, str(folder))
        self.rpc = Rpc(joined.agent, self.agent_mounts.operations)
        self.local = folder / "local"
        self.remote = folder / "remote" / "code"
        self.local.mkdir()

    def request(self, *options: str) -> MountRequest:
        return MountRequest(str(self.local), str(self.remote), options)

    def is_mounted(self) -> bool:
        return str(self.remote) in agent_mount.mount_points()


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    async with Joined() as joined:
        made = Bench(joined, folder)
        try:
            yield made
        finally:
            await made.mounts.close()
            await until(lambda: not made.agent_mounts.busy)
            assert not made.is_mounted()
            await asyncio.get_running_loop().shutdown_default_executor()


async def apart(work: Callable[[], Any]) -> Any:
    """Do what goes through the mount in a thread: this loop is what answers it."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "LINGER_S", 0.05)


@needs_fuse
@in_loop
async def test_a_folder_is_seen_written_and_let_go(tmp_path: Path):
    async with bench(tmp_path) as made:
        (made.local / "here").write_text("local")
        await made.mounts.hold("kernel", [made.request()])
        assert await apart((made.remote / "here").read_text) == "local"
        await apart(lambda: (made.remote / "there").write_bytes(b"x" * 3_000_000))
        assert (made.local / "there").read_bytes() == b"x" * 3_000_000
        assert (made.local / "there").stat().st_mode & 0o777 == 0o644
        assert await apart((made.remote / "here").owner) == (made.local / "here").owner()
        made.mounts.release("kernel")
        await until(lambda: not made.mounts.busy)
        assert not made.is_mounted()
        assert not made.remote.parent.exists()  # made for it, and removed again


@needs_fuse
@pytest.mark.parametrize("way", ["read", "write"])
@in_loop
async def test_an_outage_in_the_middle_is_a_stall(way: str, tmp_path: Path):
    async with bench(tmp_path) as made:
        content = os.urandom(24_000_000)
        (made.local / "big").write_bytes(content)
        await made.mounts.hold("kernel", [made.request()])
        copy = made.remote / "copy"
        work = (
            (made.remote / "big").read_bytes if way == "read" else lambda: copy.write_bytes(content)
        )
        working = asyncio.ensure_future(apart(work))
        (mounted,) = made.mounts._mounted.values()
        stream = mounted.stream
        assert stream is not None
        await until(lambda: stream.sent_bytes + stream.received_bytes > 2_000_000)
        await made.joined.cut_and_noticed()
        await asyncio.sleep(1)
        stalled = not working.done() and made.is_mounted()
        made.joined.connect()
        assert await working == (content if way == "read" else len(content))
        assert stalled
        assert way == "read" or (made.local / "copy").read_bytes() == content


@needs_fuse
@in_loop
async def test_two_kernels_share_one_mount(tmp_path: Path):
    async with bench(tmp_path) as made:
        holds = [made.mounts.hold(user, [made.request()]) for user in ("one", "other")]
        await asyncio.gather(*holds)
        assert len(made.mounts._mounted) == 1
        made.mounts.release("one")
        await asyncio.sleep(0.3)
        assert made.is_mounted()
        made.mounts.release("other")
        await made.mounts.hold("third", [made.request()])  # as a restart does
        await asyncio.sleep(0.3)
        assert made.is_mounted()


@needs_fuse
@in_loop
async def test_read_only_is_read_only(tmp_path: Path):
    async with bench(tmp_path) as made:
        await made.mounts.hold("kernel", [made.request("ro", "compression=no", "attr_timeout=1")])
        with pytest.raises(OSError, match="Read-only"):
            await apart((made.remote / "new").touch)


@needs_fuse
@in_loop
async def test_the_link_is_lost_for_good_and_nothing_stays(tmp_path: Path):
    async with bench(tmp_path) as made:
        await made.mounts.hold("kernel", [made.request()])
        made.joined.agent.leave("")
        made.joined.hub.leave("")
        await until(lambda: not made.agent_mounts.busy and not made.is_mounted())
        await until(lambda: not made.remote.exists())


@needs_fuse
@in_loop
async def test_what_a_dead_sshfs_left_is_cleared(tmp_path: Path):
    async with bench(tmp_path) as made:
        made.remote.mkdir(parents=True)
        sshfs = subprocess.Popen(
            ["sshfs", "-f", "-o", "passive", ":/", str(made.remote)],
            stdin=(left := _server(made.local)).fileno(),
            stdout=left.fileno(),
        )
        await until(made.is_mounted)
        sshfs.kill()
        sshfs.wait()
        left.close()
        with pytest.raises(OSError, match="not connected"):
            made.remote.stat()
        (made.local / "file").touch()
        await made.mounts.hold("kernel", [made.request()])
        assert await apart(lambda: os.listdir(made.remote)) == ["file"]


def _server(folder: Path) -> Any:
    import socket

    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "sshpyk.mounts.server", str(folder)],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
        ).returncode = 0  # ends with the socket; nobody waits
    return ours


async def refusal(made: Bench, request: MountRequest) -> MountError:
    with pytest.raises(MountError) as refused:
        await made.mounts.hold("kernel", [request])
    assert refused.value.host == "gpu1"
    assert str(request) in refused.value.what
    assert not made.mounts.busy
    return refused.value


@needs_fuse
@in_loop
async def test_an_occupied_folder_is_refused_and_left_as_it_is(tmp_path: Path):
    async with bench(tmp_path) as made:
        made.remote.mkdir(parents=True)
        (made.remote / "precious").touch()
        assert "is not empty" in (await refusal(made, made.request())).what
        assert os.listdir(made.remote) == ["precious"]


@needs_fuse
@in_loop
async def test_a_path_that_cannot_be_is_refused(tmp_path: Path):
    async with bench(tmp_path) as made:
        (tmp_path / "file").touch()
        request = MountRequest(str(made.local), str(tmp_path / "file" / "x"))
        assert "Not a directory" in (await refusal(made, request)).what
        request = MountRequest(str(made.local), "relative/path")
        assert "no absolute path" in (await refusal(made, request)).what


@in_loop
async def test_a_missing_local_folder_is_named(tmp_path: Path):
    async with bench(tmp_path) as made:
        request = MountRequest(str(tmp_path / "nowhere"), str(made.remote))
        assert f"no folder {tmp_path / 'nowhere'} here" in (await refusal(made, request)).what


@in_loop
async def test_a_host_without_sshfs_says_what_to_install(tmp_path: Path):
    async with bench(tmp_path) as made:
        request = MountRequest(str(made.local), str(made.remote), sshfs="/opt/none/sshfs")
        error = await refusal(made, request)
        assert "the host has no /opt/none/sshfs" in error.what
        assert "apt install sshfs" in error.advice
        assert not made.remote.exists()


@needs_fuse
@in_loop
async def test_what_sshfs_says_is_passed_on(tmp_path: Path):
    async with bench(tmp_path) as made:
        program = tmp_path / "sshfs"
        program.write_text("#!/bin/sh\necho 'fuse: device is on strike' >&2; exit 1\n")
        program.chmod(0o755)
        error = await refusal(
            made, MountRequest(str(made.local), str(made.remote), sshfs=str(program))
        )
        assert error.said == "fuse: device is on strike"
        assert not made.remote.exists()


@in_loop
async def test_an_option_that_is_not_on_the_list_is_refused(tmp_path: Path):
    async with bench(tmp_path) as made:
        for option in ("ssh_command=sh", "sftp_server=x", "password_stdin", "fsname=x"):
            assert option.partition("=")[0] in (await refusal(made, made.request(option))).what


@needs_fuse
@in_loop
async def test_a_kernel_starts_in_a_mounted_folder_without_holding_up_the_loop(tmp_path: Path):
    """Its own loop answers what entering the folder asks: to wait for that would be for ever."""
    async with bench(tmp_path) as made:
        (made.local / "notebooks").mkdir()
        await made.mounts.hold("kernel", [made.request("attr_timeout=0", "entry_timeout=0")])
        cwd = str(made.remote / "notebooks")
        assert agent_mount.mounted_by_us(cwd)
        spec = RemoteKernelspec(["sh", "-c", "pwd > where"], "/nowhere")
        process = KernelProcess(spec, {}, str(tmp_path), str(tmp_path / "log"))
        process.start(sys.executable, {}, cwd)
        await until(lambda: process.poll() is not None)
        assert process.poll() == 0
        assert (made.local / "notebooks" / "where").read_text().strip() == cwd


_HOLD = """
import os, sys
os.chdir(sys.argv[1])
file = os.open("held", os.O_RDONLY)
print("ready", flush=True)
input()
try:
    print(os.pread(file, 9, 0))
except OSError as error:
    print(error.strerror)
print(open("held").read())
"""


class Held:
    """Another process in the mounted folder, with a file that is open.

    Of this process's own, any fork would wait for the loop that it stops.
    """

    def __init__(self, made: Bench) -> None:
        (made.local / "held").write_text("kept")
        words = [sys.executable, "-c", _HOLD, str(made.remote)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, cwd="/", stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def check(self) -> None:
        """The folder is as good as before; the file says that it is lost."""
        said, _ = self.process.communicate("\n", timeout=30)
        assert said.splitlines() == ["Input/output error", "kept"]


@needs_fuse
@in_loop
async def test_the_hub_is_killed_and_what_is_mounted_waits_for_the_next(tmp_path: Path):
    async with bench(tmp_path) as made:
        await made.mounts.hold("kernel", [made.request()])
        held = await apart(lambda: Held(made))
        (dead,) = made.mounts._mounted.values()
        assert dead.stream is not None
        assert dead.server is not None
        dead.stream._let_go(reset=True)  # without a word to the agent
        await apart(dead.server.wait)
        made.host.took_over = True
        made.mounts = Mounts(made.host)  # type: ignore[arg-type]
        await made.mounts.hold_again("kernel", [made.request()])
        assert made.is_mounted()
        await apart(held.check)


def listed_behind_the_break(folder: Path) -> list[str]:
    """Return what is in a folder; what sshfs had asked before it saw its line break is an EIO."""
    try:
        return os.listdir(folder)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return os.listdir(folder)


@needs_fuse
@in_loop
async def test_what_was_asked_of_a_killed_hub_waits_for_the_next(tmp_path: Path):
    async with bench(tmp_path) as made:
        await made.mounts.hold("kernel", [made.request()])
        (dead,) = made.mounts._mounted.values()
        assert dead.stream is not None
        assert dead.server is not None
        await made.agent_mounts._unmount_all({"streams": []})  # sshfs asks for another line now
        dead.stream.abort()
        asked = asyncio.ensure_future(apart(lambda: listed_behind_the_break(made.remote)))
        await asyncio.sleep(0.3)
        assert not asked.done()
        (made.local / "file").touch()
        made.mounts = Mounts(made.host)  # type: ignore[arg-type]
        await made.mounts.hold("kernel", [made.request()])
        assert await asked == ["file"]


@needs_fuse
@in_loop
async def test_what_no_hub_asks_for_again_is_unmounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(agent_mount, "_KEEP_S", 0.2)
    async with bench(tmp_path) as made:
        await made.mounts.hold("kernel", [made.request()])
        await made.agent_mounts._unmount_all({"streams": []})
        await until(lambda: not made.agent_mounts.busy and not made.is_mounted())
        await until(lambda: not made.remote.exists())


@needs_fuse
@in_loop
async def test_the_next_hub_asks_for_something_else_at_the_same_place(tmp_path: Path):
    async with bench(tmp_path) as made:
        await made.mounts.hold("kernel", [made.request()])
        await made.agent_mounts._unmount_all({"streams": []})
        made.mounts = Mounts(made.host)  # type: ignore[arg-type]
        await made.mounts.hold("kernel", [made.request("ro")])
        with pytest.raises(OSError, match="Read-only"):
            await apart((made.remote / "new").touch)


@needs_fuse
@in_loop
async def test_the_agent_is_killed_and_the_next_one_takes_the_mount(tmp_path: Path):
    async with bench(tmp_path) as made:
        await made.mounts.hold("kernel", [made.request()])
        held = await apart(lambda: Held(made))
        (dead,) = made.agent_mounts._mounts.values()
        assert dead.process is not None
        assert dead.stream is not None
        assert dead.lines is not None
        dead.stream._let_go(reset=True)
        dead.lines.close()
        made.agent_mounts._mounts.clear()
        agent_mount._served.clear()
        made.agent_mounts = agent_mount.Mounts(made.joined.agent, str(tmp_path))
        made.rpc = Rpc(made.joined.agent, made.agent_mounts.operations)
        made.mounts.agent_replaced()
        await until(lambda: not made.mounts._tasks)
        await apart(held.check)
        made.mounts.release("kernel")
        await until(lambda: not made.mounts.busy)
        await until(lambda: not made.remote.parent.exists())  # made by the one before
        dead.process.wait()
        dead.said.close()  # type: ignore[union-attr]
