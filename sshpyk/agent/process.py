"""A kernel process: the agent is its parent, so only the agent's waitpid may call it dead."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from typing import Any, Callable, Mapping

from sshpyk.agent.environment import PLAIN, Activation, KernelCommand, Setting, wrapped
from sshpyk.agent.inherited import as_the_login, give_back_limit
from sshpyk.agent.kernelspecs import RemoteKernelspec, command
from sshpyk.agent.mount import mounted_by_us
from sshpyk.agent.record import KernelRecord, started_at
from sshpyk.wire.kernel_messages import UNKNOWN_STATUS

CHANNEL_NAMES = ("shell", "iopub", "stdin", "control", "hb")
LOG_TAIL_BYTES = 4000
# What belongs to the ssh session that happened to start the agent, or to another kernel's parent.
_NOT_INHERITED = ("SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "SSH_AUTH_SOCK", "JPY_PARENT_PID")


def connection_info(spec: RemoteKernelspec, folder: str, key: str, scheme: str) -> dict[str, Any]:
    """Return the content of the kernel's connection file: unix sockets, or loopback TCP."""
    info: dict[str, Any] = {"key": key, "signature_scheme": scheme, "kernel_name": ""}
    if spec.speaks_ipc:
        ports: list[int] = list(range(1, 6))
        info.update(transport="ipc", ip=os.path.join(folder, "s"))
    else:
        ports = _free_ports()
        info.update(transport="tcp", ip="127.0.0.1")
    info.update({f"{name}_port": port for name, port in zip(CHANNEL_NAMES, ports)})
    return info


def _free_ports() -> list[int]:
    holders = [socket.socket() for _ in CHANNEL_NAMES]
    try:
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()


class AdoptedProcess:
    """A kernel whose parent, the agent before us, is dead: nobody tells us its exit status."""

    def __init__(self, record: KernelRecord) -> None:
        self.pid = record.pid
        self._started = record.started
        self._status = record.status
        self._killed = False

    @property
    def number_is_taken(self) -> bool:
        """Whether another process has this process id by now."""
        return started_at(self.pid) not in ("", self._started)

    def killed(self) -> None:
        """We are about to send SIGKILL."""
        self._killed = self._status is None

    def poll(self) -> int | None:
        """Return the status, as far as it can be known, once the process has ended."""
        if self._status is None and not (self._started and started_at(self.pid) == self._started):
            self._status = -signal.SIGKILL if self._killed else UNKNOWN_STATUS
        return self._status

    def watch(self, on_end: Callable[[], None]) -> None:
        """Call ``on_end`` when the process ends, where the system can tell; elsewhere poll."""
        try:
            fd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            return
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(fd)
            os.close(fd)
            on_end()

        loop.add_reader(fd, ended)


class KernelProcess:
    """A running kernel, its private folder and its log."""

    def __init__(
        self, spec: RemoteKernelspec, info: dict[str, Any], folder: str, log_path: str
    ) -> None:
        self.spec = spec
        self.info = info
        self.log_path = log_path
        self.killed_by_us = False  # SIGKILL was asked for
        self.folder = folder
        self.activation: Activation | None = None
        self._process: subprocess.Popen[bytes] | AdoptedProcess | None = None

    @classmethod
    def adopt(cls, record: KernelRecord, folder: str) -> KernelProcess:
        """Take care of a kernel that another agent started."""
        process = cls(record.spec, record.info, folder, record.log_path)
        process._process = AdoptedProcess(record)
        return process

    def watch(self, on_end: Callable[[], None]) -> None:
        """Call ``on_end`` when an adopted process ends; of a child's end the system tells its parent."""
        if isinstance(self._process, AdoptedProcess) and self._process.poll() is None:
            self._process.watch(on_end)

    def start(
        self, python: str, env: Mapping[str, str], cwd: str, setting: Setting = PLAIN
    ) -> None:
        """Start the process in a session of its own. Raises OSError when there is no such program."""
        connection_file = os.path.join(self.folder, "connection.json")
        _write_private(connection_file, json.dumps(self.info))
        argv = wrapped(setting.wrapper, command(self.spec, python, connection_file))
        if setting.activate:
            self.activation = Activation(setting.activate, self.folder, setting.patience_s)
            # What the host's kernelspec takes from variables was taken before the lines ran.
            fixed = {key: value for key, value in self.spec.env.items() if "$" not in value}
            folder = os.path.dirname(os.path.abspath(python)) if os.sep in python else ""
            argv = self.activation.prepare(KernelCommand(argv, cwd, folder, {**fixed, **env}))
        # A folder whose files come through this agent: Python waits, and lets no thread run, until the
        # child has entered it. So a shell enters it instead.
        apart = mounted_by_us(cwd) or mounted_by_us(python)
        if apart:
            argv = ["/bin/sh", "-c", 'cd -- "$0" && exec "$@"', cwd, *argv]
        with open(
            # It appends: the agent cuts a log that has grown.
            os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600),
            "ab",
        ) as log, as_the_login():
            self._process = subprocess.Popen(
                argv,
                cwd="/" if apart else cwd,
                env=self._environment(python, env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        give_back_limit(self._process.pid)

    def _environment(self, python: str, env: Mapping[str, str]) -> dict[str, str]:
        """The agent's environment, then the host's kernelspec, then what the client asked for.

        The interpreter's own folder leads PATH, so that ``!pip`` in a notebook is the kernel's pip.
        """
        merged = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
        if os.sep in python:  # else it is for the activation to bring
            folder = os.path.dirname(os.path.abspath(python))
            merged["PATH"] = folder + os.pathsep + merged.get("PATH", os.defpath)
        for key, value in self.spec.env.items():
            merged[key] = os.path.expandvars(value)
        merged.update(env)
        return merged

    @property
    def pid(self) -> int:
        """The process id, which is also its group's and its session's; 0 before the start."""
        return self._process.pid if self._process else 0

    def poll(self) -> int | None:
        """Return the exit status once there is one: a code, or minus a signal's number."""
        return self._process.poll() if self._process else None

    def signal(self, number: int) -> None:
        """Send a signal to the kernel and its children, as a local Jupyter does."""
        if self.poll() is None:
            self.killed_by_us = self.killed_by_us or number == signal.SIGKILL
            self._signal_group(number)

    def give_up_activation(self) -> None:
        """Kill what is to become the kernel, if it has not yet: its time is over."""
        if self.activation is not None and not self.activation.over and self.poll() is None:
            self.activation.given_up = True
            self._signal_group(signal.SIGKILL)

    def end_children(self) -> None:
        """Kill what the kernel left running in its process group. Call right after its death."""
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        if self.pid and not self._taken_by_another():  # group 0 would be our own
            if number == signal.SIGKILL and isinstance(self._process, AdoptedProcess):
                self._process.killed()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _taken_by_another(self) -> bool:
        """Whether the number belongs to a younger process: an adopted kernel may be long dead."""
        return isinstance(self._process, AdoptedProcess) and self._process.number_is_taken

    def log_tail(self) -> str:
        """Return the last lines of what the kernel wrote to its stdout and stderr."""
        try:
            with open(self.log_path, "rb") as log:
                log.seek(max(0, os.path.getsize(self.log_path) - LOG_TAIL_BYTES))
                return log.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def remove_files(self) -> None:
        """Remove the private folder with the sockets and the key, and an empty log."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            if os.path.getsize(self.log_path) == 0:
                os.unlink(self.log_path)


def _write_private(path: str, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
