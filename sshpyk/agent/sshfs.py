"""The program that mounts: where it is on the host, its arguments, and what to do about its words."""

from __future__ import annotations

import os
import re
import shutil
import sys
from typing import Any

from sshpyk.agent.mount_line import SSH_COMMAND
from sshpyk.agent.mount_point import PHASE, SOURCE
from sshpyk.errors import MountError

_FUSE = "/dev/fuse"
_MORE_FOLDERS = ("/usr/bin", "/usr/local/bin", "/bin", "/opt/homebrew/bin", "/opt/local/bin")
_NO_SSHFS = (
    "install sshfs on the host (Debian, Ubuntu: apt install sshfs; Fedora: dnf install fuse-sshfs), "
    "or name it: sshpyk edit … --remote-sshfs PATH"
)
# What sshfs or fusermount say, and what to do.
_ADVICE = (
    ("user_allow_other", "leave out the option allow_other, or let /etc/fuse.conf allow it"),
    ("fusermount", "the host lacks fusermount: install its fuse package (fuse3)"),
    (
        "Operation not permitted",
        "the account may not mount with fuse: ask the host's administrator",
    ),
    ("Permission denied", "the account may not mount with fuse: ask the host's administrator"),
    ("unknown option", "the host's sshfs does not know that option: leave it out"),
)


def find_sshfs(named: str) -> str:
    """Return the program's path. Raises MountError where there is none, or no fuse."""
    places = os.pathsep.join([*os.get_exec_path(), *_MORE_FOLDERS])
    found = shutil.which(os.path.expanduser(named or "sshfs"), path=places)
    if found is None:
        raise MountError(
            f"the host has no {named or 'sshfs'}",
            phase=PHASE,
            advice=_NO_SSHFS,
            code="MOUNT-NO-SSHFS",
        )
    if sys.platform == "linux" and not os.access(_FUSE, os.R_OK | os.W_OK):
        reason = "the account may not use" if os.path.exists(_FUSE) else "the host has no"
        raise MountError(
            f"{reason} {_FUSE}",
            phase=PHASE,
            advice="ask the host's administrator; a container needs the device and CAP_SYS_ADMIN",
            code="MOUNT-NO-FUSE",
        )
    return found


def arguments(options: Any, source: str, path: str) -> list[str]:
    """Return sshfs's arguments; options were looked through by the hub and are words here."""
    if (
        not isinstance(options, list)
        or not all(
            isinstance(option, str) and re.fullmatch(r"[A-Za-z_]+(=[^,\\]*)?", option)
            for option in options
        )
        or not re.fullmatch(r"(\w[\w.@+-]*:/[^\0]*)?", source)
    ):
        raise MountError("malformed options of a mount", phase=PHASE)
    over_link = [] if source else ["reconnect", SSH_COMMAND, "fsname=sshpyk"]
    return ["-f", "-o", ",".join([*over_link, *options]), source or SOURCE, path]


def advice_on(said: str) -> str:
    """Return what to do about the words of sshfs or fusermount; empty where that is not known."""
    return next((advice for words, advice in _ADVICE if words in said), "")
