"""Connection files: read where Jupyter wrote one, written where we attach to a kernel.

A kernel that runs has its key; the file that leads to it from here has the same, and ports of its own.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from typing import Any

from sshpyk.errors import HubError, KernelError

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


def read(path: str) -> dict[str, Any]:
    """Return what a connection file says. Raises HubError or KernelError where it is none."""
    try:
        with open(path, encoding="utf-8") as file:
            info = json.load(file)
    except (OSError, ValueError) as error:
        raise HubError(f"cannot read the connection file {path}: {error}") from error
    if not isinstance(info, dict) or "shell_port" not in info:
        raise KernelError(f"{path} is not a connection file")
    return info


def for_attaching(path: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return what the connection file at ``path`` is to say for a kernel that the agent described.

    A file that is there already and leads to the same kernel keeps its ports. Raises KernelError
    where another file is in the way.
    """
    known = {"key": found["key"], "signature_scheme": found["signature_scheme"]}
    if os.path.lexists(path):
        info = read(path)
        if all(info.get(name) == value for name, value in known.items()):
            return info
        raise KernelError(
            f"{path} is in the way: it is the connection file of another kernel",
            phase="attaching to the kernel",
            advice="name another file, or remove it",
        )
    ports = dict(zip((f"{name}_port" for name in CHANNELS), _free_ports(), strict=True))
    kernel_name = found.get("kernel_name", "")
    return {"transport": "tcp", "ip": "127.0.0.1", **ports, **known, "kernel_name": kernel_name}


def _free_ports() -> list[int]:
    holders = [socket.socket() for _ in CHANNELS]
    try:
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()


def write(path: str, info: dict[str, Any]) -> None:
    """Write a connection file, private and as a whole. Raises HubError."""
    temporary = ""
    try:
        # Made 0600: it holds the key.
        fd, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".sshpyk-")
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(info, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise HubError(
            f"cannot write the connection file {path}: {error.strerror}",
            phase="attaching to the kernel",
        ) from error
