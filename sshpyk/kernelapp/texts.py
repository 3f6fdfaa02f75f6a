"""What a person is told about a kernel."""

from __future__ import annotations

import os
import signal
from typing import Any

from sshpyk.kernelapp.wish import Wish

KEYS = r"Ctrl+C interrupt, Ctrl+D menu, Ctrl+\ leave (the kernel runs on)"


def kernel_text(ticket: dict[str, Any], host: str, wish: Wish, keys: str) -> str:
    """Return what there is to know about a kernel that runs; ``keys`` is "" where there are none."""
    file, name = wish.connection_file, f"{wish.kernel} " if wish.kernel else ""
    kept = "kept when this ends" if wish.persistent else "ends with this process"
    if not keys:
        me = os.getpid()
        keys = f"kill -INT {me} interrupts, -USR1 restarts, -QUIT leaves"
    return "\n".join(
        (
            f"kernel   {name}on {host}, pid {ticket['pid']}, {kept}",
            f"id       {ticket['kernel_id']}",
            f"file     {file}",
            f"connect  jupyter console --existing {_for_console(file)}",
            f"keys     {keys}",
        )
    )


def way_back(kernel_id: str, host: str, kernel: str) -> str:
    """Return how one comes back to a kernel that was left, from here and from another machine."""
    name = f"--kernel {kernel}" if kernel else f"--host {host}"
    return (
        f"left: the kernel runs on on {host}. Back to it, and to what it prints meanwhile:\n"
        f"  sshpyk-kernel --existing {kernel_id[:8]}\n"
        f"  sshpyk-kernel --existing {kernel_id} {name}    (from another machine)"
    )


def how_it_ended(status: int) -> str:
    """Return an exit status, as ``subprocess`` has it, in words."""
    if status >= 0:
        return f"the kernel has ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"the kernel was ended by {name}"


def _for_console(file: str) -> str:
    """Return how ``jupyter console --existing`` finds the file: in Jupyter's folder by its name."""
    from jupyter_core.paths import jupyter_runtime_dir

    return os.path.basename(file) if os.path.dirname(file) == jupyter_runtime_dir() else file
