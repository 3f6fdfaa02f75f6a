"""``sshpyk lab`` as a person runs it, and what it says, for the tests of servers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.kernels import PATIENCE_S, REMOTE_PREFIX, SSHPYK, eventually
from tests.integration.lifecycle_helpers import OwnHub
from tests.integration.machines import Machine

START_S = 120.0  # a first JupyterLab on a cold disk took 35 s
QUICK = ("--app", "server", "--prefix", REMOTE_PREFIX)  # starts in a second


@dataclass
class Shown:
    """A running ``sshpyk lab``; ``said`` is what it printed until the server was there."""

    hub: OwnHub
    process: subprocess.Popen[str]
    said: list[str]

    @property
    def server_id(self) -> str:
        return self.said[0].split("[")[1].split("]")[0]

    @property
    def port(self) -> int:
        return int(self.said[1].split("localhost:")[1].split("/")[0])

    @property
    def server(self) -> dict[str, Any]:
        """The server as the host describes it now, with its token."""
        (found,) = (one for one in listed(self.hub) if one["server_id"] == self.server_id)
        return found

    def interrupt(self) -> str:
        """Press Ctrl+C; return what is said at the end."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE_S) == 0
        assert self.process.stdout is not None
        return self.process.stdout.read()


def sshpyk(
    hub: OwnHub, verb: str, *words: str, timeout_s: float = START_S, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a verb about the hub's host."""
    return subprocess.run(
        [SSHPYK, verb, hub.host, *hub.options, *words],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def lab_of(hub: OwnHub, *words: str, **environment: str) -> Iterator[Shown]:
    """Run ``sshpyk lab`` in the foreground, and end it by Ctrl+C unless it has ended."""
    process = subprocess.Popen(
        [SSHPYK, "lab", hub.host, *hub.options, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        bufsize=1,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    try:
        said: list[str] = []
        while not said or not said[-1].startswith("It "):
            line = process.stdout.readline()
            assert line, said
            if said or line.rstrip().endswith("]"):
                said.append(line.rstrip())
        yield Shown(hub, process, said)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)
        process.stdout.close()


def listed(hub: OwnHub) -> list[dict[str, Any]]:
    """Return the servers of the hub's host, with their tokens."""
    answer = sshpyk(hub, "servers", "--json", "--token")
    assert answer.returncode == 0, answer.stderr
    found: list[dict[str, Any]] = json.loads(answer.stdout)["hosts"][0]["servers"]
    return found


def status_of(url: str, token: str) -> dict[str, Any]:
    """Ask a server for its status. Raises OSError."""
    request = urllib.request.Request(f"{url.partition('?')[0].rstrip('/')}/api/status")
    request.add_header("Authorization", f"token {token}")
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def answers(port: int, token: str) -> bool:
    """Whether a server can be used at a local port."""
    with contextlib.suppress(OSError, urllib.error.URLError):
        return "started" in status_of(f"http://localhost:{port}", token)
    return False


def traces(machine: Machine, *, user: str) -> list[str]:
    """Return the files that a server of an account must not leave there."""
    home = f"/home/{user}"
    look = f"ls -d {home}/.local/share/jupyter/runtime/jp* /tmp/sshpyk-$(id -u)/j* 2>/dev/null || :"
    return machine.run(look, user=user).split()


def await_end(machine: Machine, pid: int, *, user: str) -> None:
    """Wait until a server and everything of it has gone."""
    eventually(
        lambda: pid not in [one.pid for one in machine.processes(user=user)],
        "the end of the server",
        timeout_s=PATIENCE_S,
    )
    eventually(lambda: not traces(machine, user=user), "the end of its files")


def recording_browser(folder: Path) -> tuple[str, Path]:
    """Return a browser that writes down its arguments, and where."""
    program, seen = folder / "browser", folder / "browser-args"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{seen}.new && mv {seen}.new {seen}\n')
    program.chmod(0o755)
    return str(program), seen
