"""Mounts: what is read and written through them is exact, and no fault leaves one that hangs.

Most use ``sshpyk mount``; its mounts are those of kernels, without the kernel.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from tests.integration.faults.bench import Bench, account, bench_to
from tests.integration.faults.test_attach import Laptop, laptops, result
from tests.integration.kernels import PATIENCE_S, SSHPYK, AddKernel, eventually
from tests.integration.lifecycle_helpers import OwnHub, the_agent
from tests.integration.machines import USER, Lab

MB = 1024 * 1024
GB = 1024 * MB


@dataclass
class Mounted:
    """A running ``sshpyk mount``, and the two ends of the folder."""

    lab: Lab
    process: subprocess.Popen[str]
    local: Path
    remote: str
    user: str = USER

    def there(self, code: str, *words: str) -> str:
        """Run Python on the remote in the mounted folder."""
        enter = f"import os, sys, time; os.chdir({self.remote!r})\n"
        return self.lab.remote.run(["python3", "-c", enter + code, *words], user=self.user)

    def is_there(self) -> bool:
        """Whether it is mounted."""
        return self.remote in self.lab.remote.snapshot().mounts

    def end(self) -> str:
        """Press Ctrl+C; return what is said."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=PATIENCE_S)[0]


@contextlib.contextmanager
def mounted(lab: Lab, hub: OwnHub, local: Path, *words: str, user: str = USER) -> Iterator[Mounted]:
    """Mount a folder where none is; afterwards none is there again."""
    remote = f"/tmp/mv-{uuid.uuid4().hex[:8]}"
    place = f"{hub.host}:{remote}"
    process = subprocess.Popen(
        [SSHPYK, "mount", str(local), place, *hub.options, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    made = Mounted(lab, process, local, remote, user)
    try:
        said = process.stdout.readline()
        assert said.startswith(f"Mounted {local} -> {place}"), said + process.stdout.read()
        yield made
    finally:
        if process.poll() is None:
            made.end()
        process.stdout.close()
        eventually(lambda: not made.is_there(), "unmounting", timeout_s=PATIENCE_S)
        eventually(lambda: not lab.remote.files(remote), "removal of the mount point")


@pytest.fixture
def bench(lab: Lab, add_kernel: AddKernel, tmp_path: Path) -> Iterator[Bench]:
    """A proxy and a hub of this test's own."""
    with bench_to(lab, "remote", add_kernel, tmp_path) as made:
        yield made


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """The folder to mount."""
    folder = tmp_path / "local"
    folder.mkdir()
    return folder


# Reads one file and writes another at the same time, slowly enough for a fault in the middle.
BUSY = """
import hashlib, threading
block = bytes(range(256)) * 4096
def read():
    found = hashlib.sha256()
    with open("big", "rb") as file:
        while data := file.read(1 << 20):
            found.update(data)
            time.sleep(0.03)
    print("read", found.hexdigest())
def write():
    with open("copy", "wb") as file:
        for number in range(64):
            file.write(bytes([number]) + block[1:])
            time.sleep(0.03)
    print("written")
threads = [threading.Thread(target=work) for work in (read, write)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
COPY = b"".join(bytes([number]) + (bytes(range(256)) * 4096)[1:] for number in range(64))


@pytest.mark.parametrize("hole_s", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_an_outage_in_the_middle_of_a_read_and_of_a_write(
    bench: Bench, lab: Lab, local: Path, hole_s: int
) -> None:
    content = os.urandom(64 * MB)
    (local / "big").write_bytes(content)
    copy = local / "copy"
    with mounted(lab, bench.hub, local) as made, ThreadPoolExecutor(1) as pool:
        working = pool.submit(made.there, BUSY)
        eventually(lambda: copy.exists() and copy.stat().st_size > 4 * MB, "some of the copy")
        bench.proxy.pause(hole_s)
        sleep(3)
        stalled_at = copy.stat().st_size
        sleep(hole_s - 5)
        assert copy.stat().st_size == stalled_at < 60 * MB
        assert not working.done()
        assert made.is_there()
        said = working.result(timeout=PATIENCE_S + 60)
    assert f"read {hashlib.sha256(content).hexdigest()}" in said
    assert "written" in said
    assert copy.read_bytes() == COPY


# Says what becomes of files and a working folder while something is done to the mount.
HOLDS = """
held, out = os.fdopen(os.open("held", os.O_RDONLY | os.O_DIRECT), "rb"), open("out", "w")
out.write("before"); out.flush()
print("ready", flush=True)
def tried(act):
    try:
        return act() or "ok"
    except OSError as error:
        return error.strerror
end_s = time.monotonic() + 60
while time.monotonic() < end_s:
    time.sleep(0.3)
    if tried(lambda: open("new").read()) == "again":  # in the working folder
        break
print(tried(lambda: os.pread(held.fileno(), 9, 1)), "|", tried(lambda: os.write(out.fileno(), b"x")))
print(tried(lambda: open("held").read()), "|", tried(lambda: open("out2", "w").write("after") and None))
print(tried(os.getcwd))
sys.stdout.flush()
os._exit(0)
"""


def check_what_is_held(made: Mounted, kill: Any) -> None:
    """Kill something; the folder is as good as before, files that were open say a clear error."""
    (made.local / "held").write_text("kept")
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(made.there, HOLDS, made.remote)
        eventually(lambda: (made.local / "out").exists(), "the open files")
        kill()
        (made.local / "new").write_text("again")
        said = working.result(timeout=PATIENCE_S + 60)
    _, before, after, folder = said.splitlines()
    assert before == "Input/output error | Input/output error", said
    assert after == "kept | ok", said
    assert folder == made.remote
    assert (made.local / "out2").read_text() == "after"
    assert (made.local / "out").read_text() == "before"


def test_the_hub_is_killed_and_the_mount_waits_for_the_next(
    bench: Bench, lab: Lab, local: Path
) -> None:
    with mounted(lab, bench.hub, local) as made:
        check_what_is_held(made, lambda: os.kill(bench.hub.pid, signal.SIGKILL))
        assert "mounted; sshpyk mount" in sshpyk("mounts").stdout
        assert "Unmounted" in made.end()


def test_the_agent_is_killed_and_the_mount_waits_for_the_next(
    lab: Lab, account: str, add_kernel: AddKernel, tmp_path: Path, local: Path
) -> None:
    with (
        bench_to(lab, "remote", add_kernel, tmp_path, user=account) as bench,
        mounted(lab, bench.hub, local, user=account) as made,
    ):
        check_what_is_held(made, lambda: lab.remote.kill(the_agent(lab, user=account).pid))


def sshpyk(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SSHPYK, *words], capture_output=True, text=True, timeout=PATIENCE_S)


def test_the_local_folder_is_deleted_underneath(bench: Bench, lab: Lab, local: Path) -> None:
    with mounted(lab, bench.hub, local) as made:
        shutil.rmtree(local)
        said = made.there(
            "for act in (lambda: open('new', 'w'), lambda: os.mkdir('d'), lambda: open('old')):\n"
            "    try: act()\n"
            "    except OSError as error: print(error.strerror)\n"
            "print(os.listdir('.'))"
        )
        assert said.splitlines() == ["No such file or directory"] * 3 + ["[]"]
        unmounted = sshpyk("unmount", f"{bench.hub.host}:{made.remote}")
        assert unmounted.stdout.startswith("Unmounted"), unmounted
        assert made.process.wait(PATIENCE_S) == 0
        again = sshpyk("mount", str(local), f"remote:{made.remote}", *bench.hub.options)
        assert again.returncode == 2
        assert f"there is no folder {local} here" in again.stderr


def test_what_the_host_unmounts_ends_the_command(bench: Bench, lab: Lab, local: Path) -> None:
    with mounted(lab, bench.hub, local) as made:
        lab.remote.run(["fusermount3", "-u", made.remote])
        assert made.process.wait(PATIENCE_S) == 1
        assert made.process.stdout is not None
        assert "unmounted on the host" in made.process.stdout.read()
        assert made.remote not in sshpyk("mounts", bench.hub.host).stdout


def test_a_killed_kernel_takes_its_mount_along(bench: Bench, lab: Lab, local: Path) -> None:
    remote = f"/tmp/mv-{uuid.uuid4().hex[:8]}"
    with bench.kernel("--mount-local-on-remote", f"{local}:{remote}") as kernel:
        kernel.run(f"import os; os.chdir({remote!r}); open('open', 'w').write('x')")
        listed = sshpyk("mounts").stdout
        assert f"{local} -> {bench.hub.host}:{remote}" in listed
        assert "kernel " in listed
        assert sshpyk("unmount", f"{bench.hub.host}:{remote}").returncode == 2
        lab.remote.kill(kernel.remote_pid())
        eventually(lambda: not kernel.manager.is_alive(), "the end of the kernel")
    eventually(lambda: remote not in lab.remote.snapshot().mounts, "unmounting")
    eventually(lambda: not lab.remote.files(remote), "removal of the mount point")


NAMES = (
    "new\nline", "quo'te\"s", "-rf", " blank ", "trailing ", "back\\slash", "tab\t", "ü", "u\u0308",
    "日本語", "🐍", "a:b", "$HOME", "*", "x" * 255, "\udcff\udcfe", "~", "#", "%s", "..x", "|;&",
)  # fmt: skip


def test_odd_names_are_the_same_at_both_ends(bench: Bench, lab: Lab, local: Path) -> None:
    folder = local / "dir\nwith 'odd' \udcff name"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(os.fsencode(name))
    with mounted(lab, bench.hub, local) as made:
        said = made.there(
            "(folder,) = os.listdir('.')\n"
            "os.chdir(folder)\n"
            "names = os.listdir('.')\n"
            "assert all(open(name, 'rb').read() == os.fsencode(name) for name in names)\n"
            "for name in names:\n"
            "    open(name[:-4] + '.new' if len(name) > 250 else name + '.new', 'x').close()\n"
            "    os.rename(name, 'was ' + name if len(name) < 250 else 'long')\n"
            "os.symlink('-rf', ' link\\n')\n"
            "print(len(names), ascii(os.readlink(' link\\n')))"
        )
        assert said.strip() == f"{len(NAMES)} '-rf'"
    names = {("was " + name if len(name) < 250 else "long"): name for name in NAMES}
    assert {name for name in os.listdir(folder) if not name.endswith(".new")} == {
        *names,
        " link\n",
    }
    assert all((folder / is_).read_bytes() == os.fsencode(was) for is_, was in names.items())
    assert len([name for name in os.listdir(folder) if name.endswith(".new")]) == len(NAMES)


def test_a_sparse_file_beyond_4_gb(bench: Bench, lab: Lab, local: Path) -> None:
    with mounted(lab, bench.hub, local) as made:
        code = (
            "at = int(sys.argv[1])\n"
            "with open('sparse', 'w+b') as file:\n"
            "    file.seek(at); file.write(b'the end'); file.flush(); os.fsync(file.fileno())\n"
            "    file.seek(at - 5); print(file.read(12), os.stat('sparse').st_size)\n"
            "with open('sparse', 'rb') as file:\n"
            "    file.seek(at - 2); print(file.read())\n"
            "os.truncate('sparse', at + 3)"
        )
        said = made.there(code, str(5 * GB)).splitlines()
        assert said == [repr(bytes(5) + b"the end") + f" {5 * GB + 7}", repr(bytes(2) + b"the end")]
        with (local / "sparse").open("rb") as file:
            assert file.seek(0, os.SEEK_END) == 5 * GB + 3
            file.seek(5 * GB - 1)
            assert file.read() == b"\0the"
        assert (local / "sparse").stat().st_blocks * 512 < MB


# Leaves what sshfs leaves when it is killed.
STALE = """
import os, socket, subprocess, sys, time
os.mkdir(sys.argv[1])
ours, theirs = socket.socketpair()
words = ["sshfs", "-f", "-o", "passive", ":/", sys.argv[1]]
sshfs = subprocess.Popen(words, stdin=theirs, stdout=theirs)
ours.recv(9)
ours.sendall(bytes([0, 0, 0, 5, 2, 0, 0, 0, 3]))
while sys.argv[1] not in open("/proc/mounts").read():
    time.sleep(0.05)
sshfs.kill()
sshfs.wait()
"""


def test_a_stale_mount_is_cleared_and_an_occupied_folder_refused(
    bench: Bench, lab: Lab, local: Path
) -> None:
    (local / "file").touch()
    with mounted(lab, bench.hub, local) as made:
        place = f"{bench.hub.host}:{made.remote}"
        nested = sshpyk("mount", "/", place, *bench.hub.options)
        assert nested.returncode == 1
        assert "is mounted there" in nested.stderr
        # As a host has it where somebody has killed sshfs.
        (sshfs,) = lab.remote.processes(containing=f"sshpyk:/ {made.remote}")
        lab.remote.kill(sshfs.pid)
        assert made.process.wait(PATIENCE_S) == 1
    stale = f"/tmp/mv-{uuid.uuid4().hex[:8]}"
    lab.remote.run(["python3", "-c", STALE, stale])
    try:
        assert "not connected" in lab.remote.run(["ls", stale], check=False)
        one = sshpyk(
            "mount", str(local), f"{bench.hub.host}:{stale}", "--background", *bench.hub.options
        )
        assert one.returncode == 0, one
        assert lab.remote.run(["ls", stale]).strip() == "file"
        assert sshpyk("unmount", f"{bench.hub.host}:{stale}").returncode == 0
    finally:
        lab.remote.run(f"fusermount3 -uz {stale}; rmdir {stale}", check=False)
    full = f"/tmp/mv-{uuid.uuid4().hex[:8]}"
    lab.remote.run(f"mkdir {full}; touch {full}/precious")
    refused = sshpyk("mount", str(local), f"{bench.hub.host}:{full}", *bench.hub.options)
    assert refused.returncode == 1
    assert f"{full} is not empty" in refused.stderr
    assert lab.remote.files(f"{full}/*") == [f"{full}/precious"]
    lab.remote.run(["rm", "-r", full])


def test_a_kernel_that_is_attached_to_gets_its_folders_again(
    laptops: tuple[Laptop, Laptop], lab: Lab, local: Path, tmp_path: Path
) -> None:
    """Left and attached to, then taken over from another laptop while it is in use."""
    one, two = laptops
    remote = f"/tmp/mv-{uuid.uuid4().hex[:8]}"
    (local / "data").write_text("here")
    name = one.add("--persistent", "--mount-local-on-remote", f"{local}:{remote}")
    subprocess.run([f"{SSHPYK}-kernel", "--kernel", name, "--leave"], check=True, timeout=90)
    eventually(lambda: remote not in lab.remote.snapshot().mounts, "unmounting")
    kernel = one.kernels()[0]["kernel_id"]
    look = f"open({remote + '/data'!r}).read()"
    with one.attached(kernel) as client:
        assert result(client, look) == "'here'"
        assert f"{remote} goes" in one.sshpyk("leave", kernel[:8])
    with one.attached(kernel):
        pass
    with two.attached(kernel, "--takeover", "-f", str(tmp_path / "two.json")) as client:
        assert result(client, look) == "'here'"
    two.sshpyk("stop", kernel[:8])
    eventually(lambda: remote not in lab.remote.snapshot().mounts, "unmounting")
    eventually(lambda: not lab.remote.files(remote), "removal of the mount point")
