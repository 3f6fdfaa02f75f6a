"""``sshpyk attach``: bring a kernel that runs on a host here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from sshpyk.cli.asking import Host, host_flags, the_kernel
from sshpyk.cli.attach_mounts import folders_for
from sshpyk.cli.results import Attached, Mounting
from sshpyk.errors import HubError, InvalidInput, error_from_record

_GRACE_S = 10.0
_SHUTDOWN_TIMEOUT_S = 10.0


@click.command()
@click.argument("host")
@click.argument("kernel")
@click.option("--takeover", is_flag=True, help="Also if another machine or program has it.")
@click.option("--connection-file", "-f", help="Where to write the connection file.")
@click.option(
    "--mount-local-on-remote",
    "mounts",
    multiple=True,
    metavar="LOCAL:REMOTE[:OPTIONS]",
    help="A local folder for the kernel to see, instead of those it had (repeatable).",
)
@host_flags
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def attach(**given: Any) -> Attached:
    """Bring a kernel that runs on a host here, and print how to connect to it.

    KERNEL is the beginning of its id, or the kernelspec's name on the host (often python3) or the
    notebook's, as the last column of `sshpyk ps HOST` shows them, if only one kernel there has it.
    A process in the background holds the kernel here until it ends or `sshpyk leave` lets it go; this
    terminal may be closed. The first client gets all that the kernel said while nobody was there.

    Folders that the kernel saw when it was launched are mounted again: for each place on the host, the
    local folder that an SSH kernel of this machine mounts there. --mount-local-on-remote names others.

    A kernel that another machine has is only taken with --takeover: it goes on here, and there it ends.

    \b
    Examples:
      sshpyk attach gpu1 3f2a
      sshpyk attach gpu1 analysis.ipynb --takeover
    """
    host = Host.named(given["host"], given["ssh"], given["ssh_config"], given["timeout"])
    kernel = the_kernel(host.kernels(), given["kernel"], host.target.host)
    folders = folders_for(host.target.host, kernel, given["mounts"])
    path = _connection_file(given["connection_file"], host.target.host, kernel["kernel_id"])
    link = None if given["connection_file"] else _external(path)
    record = {
        "target": {
            "host": host.target.host,
            "ssh": host.target.ssh,
            "ssh_config": host.target.ssh_config,
        },
        "shutdown_timeout_s": _SHUTDOWN_TIMEOUT_S,
        "attach_to": kernel["kernel_id"],
        "links": [str(link)] if link else [],
        "launch": {
            "connection_file": str(path),
            "python": host.python,
            "launch_timeout_s": host.timeout_s,
            "persistent": True,
            "takeover": given["takeover"],
            "mounts": folders.mounts,
        },
    }
    pid, notice = _start_stand_in(record, f"{host.target.host}: {kernel['name']}", host.timeout_s)
    if link is not None:
        _make_link(link, path)
    mounted = Mounting(tuple(folders.mounts), tuple(folders.unknown), notice)
    return Attached(host.target.host, kernel, path, pid, mounted, given["as_json"])


def _connection_file(named: str | None, host: str, kernel_id: str) -> Path:
    if named is not None:
        path = Path(named).expanduser().absolute()
        if not path.parent.is_dir():
            raise InvalidInput(f"no folder {path.parent} for the connection file")
        return path
    from jupyter_core.paths import jupyter_runtime_dir  # here: it costs 0.1 s

    folder = Path(jupyter_runtime_dir())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", host)
    # "kernel-": jupyter console --existing looks for these.
    return folder / f"kernel-{plain}-{kernel_id[:8]}.json"


def _external(path: Path) -> Path:
    """Return where a Jupyter server looks for kernels that others started (allow_external_kernels)."""
    return path.parent / "external_kernels" / path.name


def _make_link(link: Path, path: Path) -> None:
    with contextlib.suppress(OSError):  # a courtesy: the kernel is here without it
        link.parent.mkdir(mode=0o700, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(path)


def _start_stand_in(record: dict[str, Any], label: str, timeout_s: float) -> tuple[int, str]:
    """Start the process that holds the kernel here; return its id when the kernel is here.

    And what a person should know of that.
    """
    ours, theirs = socket.socketpair()
    words = ["--provisioner-fd", str(theirs.fileno()), "--kernel", label.replace("\n", " ")]
    environment = {key: value for key, value in os.environ.items() if key != "JPY_PARENT_PID"}
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "sshpyk.standin", *words],
            cwd="/",
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        try:
            outcome = _await_outcome(ours, record, timeout_s + _GRACE_S)
        except BaseException:
            process.kill()
            process.wait()
            raise
    if "error" in outcome:
        process.wait()
        raise error_from_record(outcome["error"])
    process.returncode = 0  # it is to outlive us: nobody here waits for it
    return process.pid, str(outcome.get("notice", ""))


def _await_outcome(
    ours: socket.socket, record: dict[str, Any], patience_s: float
) -> dict[str, Any]:
    host = record["target"]["host"]
    ours.settimeout(patience_s)
    try:
        ours.sendall(json.dumps(record).encode() + b"\n")
        with ours.makefile("rb") as lines:
            line = lines.readline()
    except TimeoutError:
        raise HubError(f"the stand-in gave no answer within {patience_s:g} s", host=host) from None
    except OSError as error:
        raise HubError(f"the stand-in ended without a word: {error}", host=host) from None
    if not line:
        raise HubError("the stand-in ended without a word", host=host)
    outcome: dict[str, Any] = json.loads(line)
    return outcome
