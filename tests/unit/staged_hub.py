"""A hub that a test plays on a unix socket, and stand-ins in front of it."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE_S = 15.0
TICKET = {"kernel_id": "k", "streams": [1, 3]}
# The real program, but the hub is the test's.
PROGRAM = """
import socket, sys
from sshpyk import standin
from sshpyk.hub import client
from sshpyk.hub.client import HubClient

def reach_hub(target, python=""):
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(PATH)
    return HubClient(connected)

client.reach_hub = standin.reach_hub = reach_hub
standin.main()
"""
RECORD = {
    "target": {"host": "gpu1", "ssh": "/usr/bin/ssh", "ssh_config": None},
    "shutdown_timeout_s": 7.5,
    "launch": {
        "connection_file": "/tmp/c.json",
        "python": "python3",
        "kernel_name": "python3",
        "launch_timeout_s": 60,
        "env": {"A": "1"},
        "cwd": "",
    },
}


class Hub:
    """The other end of one conversation."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(PATIENCE_S)
        self._listener.bind(str(path))
        self._listener.listen()
        self._connection: socket.socket | None = None

    def accept(self) -> None:
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(PATIENCE_S)
        self._lines = self._connection.makefile("rb")

    def hear(self) -> dict[str, Any] | None:
        try:
            line = self._lines.readline()
        except ConnectionResetError:  # it went with something unread
            return None
        return json.loads(line) if line else None

    def has_more(self, patience_s: float) -> bool:
        """Whether something was said; not to be asked behind a part of it."""
        return bool(select.select([self._connection], [], [], patience_s)[0])

    def say(self, **record: Any) -> None:
        assert self._connection is not None
        self._connection.sendall(json.dumps(record).encode() + b"\n")

    def opening(self) -> dict[str, Any]:
        """Take the next conversation that is about a kernel; return what it begins with."""
        while True:
            self.go()  # what there was is over, as it is for the hub
            self.accept()
            record = self.hear()
            if record is not None and record["op"] != "status":
                return record

    def launch(self) -> dict[str, Any]:
        """Take the launch and return its request."""
        record = self.opening()
        assert record["op"] == "launch"
        request: dict[str, Any] = record["request"]
        return request

    def go(self) -> None:
        if self._connection is not None:
            self._lines.close()
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        self.go()
        self._listener.close()


class Stage:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub = Hub(folder / "hub.sock")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.sockets: list[socket.socket] = []

    @property
    def program(self) -> str:
        return PROGRAM.replace("PATH", repr(str(self.folder / "hub.sock")))

    @property
    def hangs(self) -> str:
        """The program with a hub that never comes up."""
        return self.program.replace(
            "    connected = ", "    import time; time.sleep(60)\n    connected = ", 1
        )

    def start(self, *words: str, **more: Any) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if key != "JPY_PARENT_PID"}
        environment.update(more.pop("env", {}))
        process = subprocess.Popen(
            [sys.executable, "-c", self.program, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            **more,
        )
        self.processes.append(process)
        return process

    def provisioned(
        self, *, logs_notices: bool = False, record: dict[str, Any] | None = None, **more: Any
    ) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Start it as the provisioner does; return the process and our end of the report."""
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE_S)
        record = {**RECORD, "logs_notices": logs_notices, **(record or {})}
        ours.sendall(json.dumps(record).encode() + b"\n")
        words = ["--provisioner-fd", str(theirs.fileno()), "--kernel", "My Kernel (on gpu1)"]
        process = self.start(*words, pass_fds=[theirs.fileno()], **more)
        theirs.close()
        self.sockets.append(ours)
        return process, ours

    def ready(self, **more: Any) -> subprocess.Popen[bytes]:
        """Start it and play the hub until the kernel is ready."""
        process, report = self.provisioned(**more)
        self.hub.launch()
        self.hub.say(event="ready", ticket=TICKET)
        assert json.loads(report.recv(65536)) == {"ready": True}
        return process

    def close(self) -> None:
        self.hub.close()
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for made in self.sockets:
            made.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    folder = Path(tempfile.mkdtemp(prefix="sp", dir="/tmp"))
    made = Stage(folder)
    yield made
    made.close()
    shutil.rmtree(folder)
