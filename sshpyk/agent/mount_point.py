"""Where on the host a folder is mounted: the place is made, cleared of what is dead, and unmounted.

What is mounted is read from the system's table: whoever looks at the place itself may wait for ever.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import subprocess
import sys
from typing import Container

from sshpyk.agent.inherited import make_folder
from sshpyk.errors import MountError
from sshpyk.wire.rpc import Params

PHASE = "mounting"
SOURCE = "sshpyk:/"  # what our sshfs calls the client's folder
_TABLE = "/proc/self/mountinfo"

log = logging.getLogger(__name__)


class MountPoint:
    """A folder to mount at."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.names = {path}  # also as it was asked for, where that goes through a link
        self.made: list[str] = []  # folders that were made for it, the outermost first


def mount_points() -> set[str]:
    """Return every path that something is mounted at, without looking at any of them."""
    if os.path.exists(_TABLE):
        with open(_TABLE, encoding="utf-8", errors="surrogateescape") as table:
            return {_unescaped(line.split(" ")[4]) for line in table}
    listed = subprocess.run(["/sbin/mount"], stdout=subprocess.PIPE, check=False).stdout
    found = re.findall(r" on (/.*) \([^()]*\)$", os.fsdecode(listed), re.MULTILINE)
    return set(found)


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), path)


def prepare(params: Params, served: Container[str]) -> MountPoint:
    """Return an empty folder to mount at, made if missing; or one that sshfs has for us already.

    ``made`` is what an agent before us had made, ``served`` what sshfs processes of ours have. Raises
    MountError.
    """
    remote, made = str(params["remote"]), params.get("made")
    path = os.path.expanduser(remote)
    if not os.path.isabs(path) or "\0" in path:
        raise MountError(f"{remote} is no absolute path", phase=PHASE)
    folder, name = os.path.split(os.path.normpath(path))
    mount = MountPoint(os.path.join(os.path.realpath(folder), name))
    mount.names.add(os.path.join(folder, name))
    if isinstance(made, list):
        mount.made = [one for one in made if (mount.path + os.sep).startswith(str(one) + os.sep)]
    if _is_orphan(mount.path, served):
        if isinstance(made, list):
            return mount
        run_unmount(mount.path, lazily=True)
    if mount.path in mount_points():
        _clear_stale(mount.path)
    try:
        _make_folders(mount)
        if os.listdir(mount.path):
            raise MountError(
                f"{mount.path} is not empty",
                phase=PHASE,
                advice="mount at another folder of the host, or empty this one",
                code="MOUNT-POINT",
            )
    except OSError as error:
        raise MountError(
            f"cannot mount at {mount.path}: {error.strerror}",
            phase=PHASE,
            advice="name a folder that the account may make on the host",
            code="MOUNT-POINT",
        ) from error
    return mount


def _is_orphan(path: str, served: Container[str]) -> bool:
    """Whether an sshfs is there that an agent before us has started, and that waits for a line.

    It is looked for among the processes: a look at the folder would wait for that line, too.
    """
    if path in served or path not in mount_points() or not os.path.isdir("/proc/self"):
        return False
    wanted = [os.fsencode(SOURCE), os.fsencode(path)]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open("/proc/%s/cmdline" % pid, "rb") as file:
            if file.read().split(b"\0")[-3:-1] == wanted:
                return True
    return False


def _clear_stale(path: str) -> None:
    """Unmount what a dead sshfs has left. Raises MountError when it is alive, or stays."""
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.EIO, errno.ENXIO):
            log.warning("%s was mounted by a process that is gone", path)
            run_unmount(path, lazily=True)
    if path in mount_points():
        raise MountError(
            f"something is mounted at {path} already",
            phase=PHASE,
            advice="mount at another folder of the host, or unmount that: fusermount3 -u " + path,
        )


def _make_folders(mount: MountPoint) -> None:
    missing = []
    path = mount.path
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    for path in reversed(missing):
        make_folder(path)
        mount.made.append(path)


def run_unmount(path: str, *, lazily: bool) -> bool:
    """Unmount as this user; ``lazily`` also what is in use. Tell whether that was done."""
    if sys.platform == "darwin":
        commands = [["/sbin/umount", *(["-f"] if lazily else []), path]]
    else:
        how = "-uz" if lazily else "-u"
        commands = [["fusermount3", how, path], ["fusermount", how, path]]
    for command in commands:
        with contextlib.suppress(FileNotFoundError):
            ran = subprocess.run(
                command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
            )
            return ran.returncode == 0
    return False


def look_into(path: str) -> OSError | None:
    """Ask for a name that nobody can have remembered; return the error if nobody answers."""
    try:
        os.lstat(os.path.join(path, ".sshpyk-%s" % os.urandom(8).hex()))
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    return None
