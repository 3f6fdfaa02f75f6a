"""What is compared: a kernelspec, and the Python whose jupyter_client starts it, in a probe."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.places import Host, Way, jupyter_folders, mastered
from sshpyk import kernelspecs
from sshpyk.hub.client import stop_hub
from sshpyk.kernelconfig import RemoteKernel
from sshpyk.ssh.command import SshTarget

LOCAL, OURS, OTHER, BEFORE = "local", "sshpyk", "sshpyk 1.25", "before"
_COMPILE = """
import compileall, pathlib, sys, sshpyk
sys.exit(not compileall.compile_dir(pathlib.Path(sshpyk.__file__).parent, quiet=1))
"""
_HERE = Path(__file__).resolve().parent
_AGENT_LEAVES_S = 0.3  # after its last hub; a cold launch begins with none
_PATIENCE_S = 240.0


class SubjectFailed(Exception):
    """A subject could not do what was asked; the message is its own."""


class Probe:
    """A running ``benchmarks/probe`` in a Python, and what it is asked."""

    def __init__(self, python: str, environment: Mapping[str, str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._said = (folder / "probe.log").open("a")
        self._process = subprocess.Popen(
            [python, "-m", "probe"],
            cwd=_HERE,
            env={**environment, "BENCH_FOLDER": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )

    def begin(self, what: str, **arguments: Any) -> None:
        """Ask something; :meth:`outcome` tells what came of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._process.stdin.flush()

    def outcome(self, patience_s: float = _PATIENCE_S) -> dict[str, Any]:
        """Return the answer to what was asked. Raises SubjectFailed."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], patience_s)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            reason = "ended" if ready else f"gave no answer within {patience_s:.0f} s"
            raise SubjectFailed(f"the probe {reason}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SubjectFailed(answer["error"])
        return answer

    def ask(self, what: str, patience_s: float = _PATIENCE_S, **arguments: Any) -> dict[str, Any]:
        """Ask and return the answer."""
        self.begin(what, **arguments)
        return self.outcome(patience_s)

    def end(self) -> None:
        """End it, with its kernel."""
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            self._process.communicate(timeout=20)
        self._process.kill()
        self._process.wait()
        self._said.close()


@dataclass
class Subject:
    """One that is compared. ``kernels`` has a kernelspec's name for each way to the host."""

    title: str
    python: str
    folder: Path
    ways: dict[str, Way] = field(default_factory=dict)

    def kernel(self, way: str) -> str:
        """Return the kernelspec's name for this way."""
        return f"bench_{way}" if self.ways else "python3"

    @contextlib.contextmanager
    def probe(self, extra: Mapping[str, str] | None = None) -> Iterator[Probe]:
        """Run a probe; what it starts here carries our mark."""
        environment = {**os.environ, **self.environment(), **(extra or {})}
        probe = Probe(self.python, environment, self.folder)
        try:
            yield probe
        finally:
            probe.end()

    @property
    def mark(self) -> str:
        """What the environment of each local process of this subject contains."""
        return f"BENCH_SUBJECT={self.folder}"

    def environment(self) -> dict[str, str]:
        """Return what Jupyter finds set: folders of this subject's own, and the mark."""
        name, _, value = self.mark.partition("=")
        state = str(self.folder / "state")
        return {**jupyter_folders(self.folder), "XDG_STATE_HOME": state, name: value}

    def forget(self) -> None:
        """End connections, and what waits behind them: the next launch is a cold one."""

    def _write(self, name: str, document: dict[str, Any]) -> None:
        kernels = Path(self.environment()["JUPYTER_DATA_DIR"]) / "kernels"
        kernelspecs.write_kernelspec(name, kernels / name, document)


class Ours(Subject):
    """A working tree."""

    def compile(self) -> None:
        """Do what pip does with what it installs, whatever the environment says of that."""
        subprocess.run([self.python, "-c", _COMPILE], check=True)

    def add(self, name: str, way: Way) -> None:
        """Add a kernel on the host; the configuration's path makes a hub of this subject's own."""
        config = self.folder / f"{name}_config"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(Path(way.ssh_config).read_text())
        way = self.ways[name] = Way(way.host, str(config), way.line)
        remote = remote_kernel(way.host, way.ssh_config)
        kernel = self.kernel(name)
        document = kernelspecs.render_kernel_json(kernel, kernel, "python", remote)
        self._write(kernel, document)

    def forget(self) -> None:
        """Stop the hubs, and so the agent, unless it serves somebody else."""
        left = [
            stop_hub(SshTarget.parse(way.host.alias, ssh_config=way.ssh_config))
            for way in self.ways.values()
        ]
        if any(left):
            time.sleep(_AGENT_LEAVES_S)


class Other(Subject):
    """``sshpyk==1.25`` in a virtual environment of its own."""

    def add(self, name: str, way: Way) -> None:
        """Add a kernel on the host, as its README says, and the folder that it does not make."""
        Path(self.environment()["JUPYTER_RUNTIME_DIR"]).mkdir(parents=True, exist_ok=True)
        way = self.ways[name] = mastered(way, self.folder / name)
        kernel = self.kernel(name)
        config = {
            "ssh_host_alias": way.host.alias,
            "ssh_config": way.ssh_config,
            "remote_python": way.host.python,
            "remote_kernel_name": "python3",
        }
        document = {
            "argv": [self.python, "-m", "sshpyk.kernelapp", "{connection_file}"],
            "display_name": kernel,
            "language": "python",
            "interrupt_mode": "message",
            "metadata": {
                "kernel_provisioner": {"provisioner_name": "sshpyk-provisioner", "config": config}
            },
        }
        self._write(kernel, document)

    def forget(self) -> None:
        """End the ControlMasters."""
        for way in self.ways.values():
            words = ["ssh", "-F", way.ssh_config, "-O", "exit", way.host.alias]
            subprocess.run(words, capture_output=True, timeout=20, check=False)


def remote_kernel(host: Host, ssh_config: str) -> RemoteKernel:
    """Return the record of a Python kernel on the host."""
    return RemoteKernel.from_config(
        {
            "ssh_host_alias": host.alias,
            "ssh_config": ssh_config,
            "remote_python": host.python,
            "remote_kernel_name": "python3",
        }
    )


def make_subjects(
    other_python: str | None, before_python: str | None, folder: Path
) -> list[Subject]:
    """Return those that can be measured, without a way to the host as yet."""
    found = [Subject(LOCAL, sys.executable, folder / "local")]
    ours = [Ours(OURS, sys.executable, folder / "ours")]
    if before_python is not None:
        ours.append(Ours(BEFORE, before_python, folder / "before"))
    for subject in ours:
        subject.compile()
    found += ours
    if other_python is not None:
        found.append(Other(OTHER, other_python, folder / "other"))
    return found


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a short-named folder that goes with the run: sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="sb-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
