"""Runs a short sh script for the hub, where a plain ``ssh`` of its own would have to ask a person.

The agent is the user's own and the link is the user's own login, so this gives nobody anything that ssh
would not. Both the time and what is read of the output are bounded; nothing outlives the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time

from sshpyk.agent.inherited import as_the_login
from sshpyk.errors import HostError
from sshpyk.wire.rpc import Params

MAX_SCRIPT_BYTES = 256 * 1024
MAX_OUTPUT_BYTES = 1024 * 1024  # of each stream
LONGEST_S = 3600.0
_REAP_S = 2.0
_PHASE = "running a script"


async def run_script(params: Params) -> Params:
    """Run ``script`` with sh for at most ``timeout_s`` (an operation of :class:`..service.Service`).

    Answers ``stdout`` and ``stderr`` (text, cut at :data:`MAX_OUTPUT_BYTES`) and the exit ``status``,
    which is None when the script was ended for its time or its output, or does not end at all.
    """
    script, timeout_s = params.get("script"), params.get("timeout_s")
    if not (isinstance(script, str) and len(script) <= MAX_SCRIPT_BYTES):
        raise HostError("a malformed request for a script", phase=_PHASE)
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)):
        raise HostError("a request for a script without a time", phase=_PHASE)
    process = _start(script)
    loop = asyncio.get_running_loop()
    try:
        bound_s = min(max(0.0, timeout_s), LONGEST_S)
        out, err, ended = await loop.run_in_executor(None, _read, process, bound_s)
    finally:  # also when the link is given up meanwhile: the pipes close, and the thread ends
        _kill(process)
        # Apart: a child that waits for a file server which is gone does not die before that is back.
        reaping = loop.run_in_executor(None, _reap, process)
    status = await reaping
    return {
        "stdout": out.decode("utf-8", "replace"),
        "stderr": err.decode("utf-8", "replace"),
        "status": status if ended else None,
    }


def _start(script: str) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if key != "JPY_PARENT_PID"}
    with tempfile.TemporaryFile() as file:  # no name, and no pipe that might be too small
        file.write(script.encode("utf-8", "surrogateescape"))
        file.seek(0)
        try:
            with as_the_login():
                return subprocess.Popen(
                    ["/bin/sh"],
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=os.path.expanduser("~"),
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise HostError(f"cannot run sh: {error.strerror}", phase=_PHASE) from error


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the shell, and what it left in its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _reap(process: subprocess.Popen[bytes]) -> int | None:
    """Return the status of the killed shell, None where that does not end it; blocks, for a thread."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(_REAP_S)
    return None


def _read(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[bytes, bytes, bool]:
    """Read both streams to the end (True), or to a bound (False); blocks, for a thread."""
    assert process.stdout
    assert process.stderr
    out, err = process.stdout.fileno(), process.stderr.fileno()
    said = {out: b"", err: b""}
    deadline_s = time.monotonic() + timeout_s
    ended = False
    with process.stdout, process.stderr, selectors.DefaultSelector() as selector:
        for descriptor in said:
            selector.register(descriptor, selectors.EVENT_READ)
        while not ended and time.monotonic() < deadline_s:
            for key, _ in selector.select(min(0.5, max(0.0, deadline_s - time.monotonic()))):
                chunk = os.read(key.fd, 65536)
                said[key.fd] += chunk
                if not chunk:
                    selector.unregister(key.fd)
            if max(map(len, said.values())) > MAX_OUTPUT_BYTES:
                break
            ended = not selector.get_map() or _is_over(process, selector)
    return said[out], said[err], ended


def _is_over(process: subprocess.Popen[bytes], selector: selectors.BaseSelector) -> bool:
    """Whether sh has ended and nothing more is there: a child that lives on may hold the pipes."""
    return process.poll() is not None and not selector.select(0)
