"""The second fence: what the kernel refuses even when the walk has a hole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sshpyk.mounts import landlock

pytestmark = pytest.mark.skipif(
    landlock.abi() < 2, reason="this kernel has no Landlock (or too old)"
)

# Confines itself, then does what a hole in the walk would allow. Prints what was allowed.
_PROGRAM = """
import os, socket, sys
from sshpyk.mounts import landlock
root, outside, mode = sys.argv[1:]
root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
assert landlock.confine(root_fd, read_only=mode == "ro")
def listen():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
def create(path):
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
attempts = {
    "read outside": lambda: os.open(outside + "/secret", os.O_RDONLY),
    "write outside": lambda: os.open(outside + "/secret", os.O_WRONLY),
    "truncate outside": lambda: os.truncate(outside + "/secret", 0),
    "list outside": lambda: os.listdir(outside),
    "list the parent": lambda: os.listdir(root + "/.."),
    "create outside": lambda: create(outside + "/new"),
    "mkdir outside": lambda: os.mkdir(outside + "/new"),
    "remove outside": lambda: os.remove(outside + "/secret"),
    "symlink outside": lambda: os.symlink("x", outside + "/new"),
    "move out": lambda: os.rename(root + "/a/file", outside + "/file"),
    "move in": lambda: os.rename(outside + "/secret", root + "/secret"),
    "link in": lambda: os.link(outside + "/secret", root + "/secret"),
    "read a process": lambda: os.open("/proc/1/environ", os.O_RDONLY),
    "run": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "listen": listen,
    "fifo": lambda: os.mkfifo(root + "/fifo"),
    "read inside": lambda: os.open(root + "/a/file", os.O_RDONLY),
    "list inside": lambda: os.listdir(root + "/a"),
    "chmod inside": lambda: os.chmod(root + "/a/file", 0o640),
    "create inside": lambda: create(root + "/new"),
    "truncate inside": lambda: os.truncate(root + "/new", 0),
    "move across": lambda: os.rename(root + "/a/file", root + "/b/file"),
    "link across": lambda: os.link(root + "/b/file", root + "/a/file"),
    "mkdir inside": lambda: os.mkdir(root + "/folder"),
    "symlink inside": lambda: os.symlink("x", root + "/link"),
    "remove inside": lambda: (os.remove(root + "/link"), os.rmdir(root + "/folder")),
}
for what, attempt in attempts.items():
    try:
        attempt()
    except OSError:
        continue
    print(what)
"""
_LOOKING = {"read inside", "list inside", "chmod inside"}
_CHANGING = {f"{what} inside" for what in ("create", "truncate", "mkdir", "symlink", "remove")}
_CHANGING |= {"move across", "link across"}


@pytest.mark.parametrize(
    ("mode", "allowed"), [("rw", _LOOKING | _CHANGING), ("ro", _LOOKING)], ids=["rw", "ro"]
)
def test_only_what_is_inside_can_be_touched(
    root: Path, tmp_path: Path, mode: str, allowed: set[str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("CANARY")
    for name in "ab":
        (root / name).mkdir()
    (root / "a" / "file").touch()
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(root), str(outside), mode],
        check=True,
        capture_output=True,
        text=True,
    )
    unexpected = set(ran.stdout.splitlines()) ^ allowed
    if landlock.abi() < 4:  # no rules for the network yet
        unexpected -= {"listen"}
    assert not unexpected
    assert os.listdir(outside) == ["secret"]
