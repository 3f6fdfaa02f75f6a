"""The server behind a real ``sshfs -o passive``, as it will be on a host."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("sshfs") or not os.access("/dev/fuse", os.W_OK),
    reason="no sshfs, or no right to mount, here",
)
_UNMOUNT = shutil.which("fusermount3") or "fusermount"


@pytest.fixture
def mounted(root: Path, tmp_path: Path) -> Iterator[Path]:
    """``root`` as a host sees it, through fuse."""
    mount_point = tmp_path / "mounted"
    mount_point.mkdir()
    ours, theirs = socket.socketpair()
    server = subprocess.Popen(
        [sys.executable, "-m", "sshpyk.mounts.server", str(root)], stdin=ours, stdout=ours
    )
    sshfs = subprocess.Popen(
        ["sshfs", "-f", "-o", "passive", ":/", str(mount_point)], stdin=theirs, stdout=theirs
    )
    ours.close()
    theirs.close()
    try:
        deadline_s = time.monotonic() + 20
        while not os.path.ismount(mount_point):
            if sshfs.poll() is not None:
                pytest.skip("sshfs may not mount here")
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        yield mount_point
    finally:
        subprocess.run([_UNMOUNT, "-u", "-z", str(mount_point)], check=False)
        assert sshfs.wait(20) is not None
        assert server.wait(20) is not None


def run(*argv: str, cwd: Path) -> str:
    return subprocess.run(argv, cwd=cwd, check=True, capture_output=True, text=True).stdout


def test_a_day_in_the_folder(mounted: Path, root: Path) -> None:
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost")
    run(*git, "init", "-q", ".", cwd=mounted)
    for number in range(30):
        (mounted / f"file {number}.py").write_text(f"number = {number}\n" * 100)
    run(*git, "add", ".", cwd=mounted)
    run(*git, "commit", "-q", "-m", "first", cwd=mounted)
    (mounted / "file 3.py").write_text("changed")
    os.replace(mounted / "file 4.py", mounted / "file 5.py")
    status = run(*git, "status", "--porcelain", cwd=mounted)
    assert status.splitlines() == [' M "file 3.py"', ' D "file 4.py"', ' M "file 5.py"']
    assert run(*git, "status", "--porcelain", cwd=root) == status  # the laptop's git agrees
    run("tar", "cf", "../all.tar", ".git", cwd=root)
    (mounted / "unpacked").mkdir()
    run("tar", "xf", str(root.parent / "all.tar"), cwd=mounted / "unpacked")
    assert run("diff", "-r", ".git", "unpacked/.git", cwd=root) == ""
    shutil.rmtree(mounted / "unpacked")
    assert not (root / "unpacked").exists()


def test_odd_names_and_a_file_beyond_four_gigabytes(mounted: Path, root: Path) -> None:
    names = [b"new\nline", b"back\\slash", "grün 東京".encode(), b"\xff\xfe", b"..."]
    for name in names:
        with open(bytes(mounted) + b"/" + name, "wb") as file:
            file.write(name)
    assert sorted(os.listdir(bytes(root))) == sorted(os.listdir(bytes(mounted))) == sorted(names)
    far = 5 << 30
    with (mounted / "sparse").open("wb") as file:
        file.seek(far)
        file.write(b"the end")
    assert (root / "sparse").stat().st_size == (mounted / "sparse").stat().st_size == far + 7
    with (mounted / "sparse").open("rb") as file:
        file.seek(far - 1)
        assert file.read() == b"\0the end"


def test_links_are_links_on_both_sides(mounted: Path, root: Path) -> None:
    (root / "file").write_text("content")
    (root / "here").symlink_to("file")
    (mounted / "there").symlink_to("file")
    assert (mounted / "here").read_text() == (root / "there").read_text() == "content"
    os.link(mounted / "file", mounted / "second")
    assert (root / "second").samefile(root / "file")


def test_the_folder_is_removed_underneath(mounted: Path, root: Path) -> None:
    (mounted / "file").write_text("x")
    shutil.rmtree(root)
    for attempt in (lambda: (mounted / "new").touch(), lambda: os.mkdir(mounted / "folder")):
        with pytest.raises(FileNotFoundError):
            attempt()
    assert os.path.ismount(mounted)
