"""How local processes reach the hub of a host; starts it where it is not running.

Blocking, and light to import: the stand-in's start-up time is part of every restart.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from sshpyk.errors import HubError
from sshpyk.hub.address import hub_name, hub_socket
from sshpyk.ssh.command import SshTarget
from sshpyk.wire.private import (
    HUB_FOLDER,
    candidates,
    folder_lock,
    is_private,
)

if TYPE_CHECKING:
    import subprocess

_START_PATIENCE_S = 15.0
_POLL_S = 0.01
_END_PATIENCE_S = 2.0
_MAX_DESCRIPTORS = 3


class HubClient:
    """One conversation with a hub, in JSON lines; see ``server`` for what may be said."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._received = b""
        self._descriptors: list[int] = []

    def say(self, op: str, **params: Any) -> None:
        """Send one request or order."""
        self.socket.sendall(json.dumps({**params, "op": op}).encode() + b"\n")

    def hear(self) -> dict[str, Any] | None:
        """Return the next record; None when the hub has gone."""
        while b"\n" not in self._received:
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 65536, _MAX_DESCRIPTORS)
            except ConnectionError:
                return None
            self._descriptors += fds
            if not data:
                return None
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        record: dict[str, Any] = json.loads(line)
        return record

    def take_descriptors(self) -> list[int]:
        """Return the descriptors that came with the last record; the caller closes them."""
        taken, self._descriptors = self._descriptors, []
        return taken

    @property
    def has_more(self) -> bool:
        """Whether :meth:`hear` would return without waiting."""
        return b"\n" in self._received

    def close(self) -> None:
        """End the conversation."""
        self.socket.close()


def _try_connect(path: str) -> HubClient | None:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.connect(path)
    except OSError:
        client.close()
        return None
    return HubClient(client)


def reach_hub(target: SshTarget, python: str = "") -> HubClient:
    """Return a conversation with the hub of ``target``, started if it was not running.

    ``python``: the interpreter on the host for which it will be asked to connect. Raises
    :class:`HubError` when it does not come up.
    """
    path = hub_socket(target)
    client = _try_connect(path)
    if client is not None:
        return client
    with folder_lock(
        os.path.dirname(path)
    ):  # one of several kernels that start at once starts the hub
        client = _try_connect(path)
        if client is not None:
            return client
        process = _spawn(target, python)
        deadline_s = time.monotonic() + _START_PATIENCE_S
        while time.monotonic() < deadline_s:
            client = _try_connect(path)
            if client is not None:
                return client
            if process.poll() not in (None, 0):
                break
            time.sleep(_POLL_S)
    raise HubError(
        f"the hub for {target.host} did not start",
        phase="starting the hub",
        said=_spawn_errors(process),
        advice="see what this machine lacks: sshpyk doctor",
    )


def _spawn(target: SshTarget, python: str) -> subprocess.Popen[bytes]:
    import subprocess  # here: mostly the hub runs already, and a restart would wait for this

    more = [target.ssh_config or "", python]
    words = [sys.executable, "-m", "sshpyk.hub.main", target.host, target.ssh, *more]
    environment = {key: value for key, value in os.environ.items() if key != "JPY_PARENT_PID"}
    return subprocess.Popen(
        words,
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _spawn_errors(process: subprocess.Popen[bytes]) -> str:
    if process.poll() is None or process.stderr is None:
        return ""
    return process.stderr.read().decode("utf-8", "replace")[-4000:]


def end_kernel(target: SshTarget, connection_file: str, grace_s: float) -> None:
    """Have the hub end the kernel of a connection file, persistent or not; no hub, no kernel."""
    client = _try_connect(hub_socket(target))
    if client is None:
        return
    client.socket.settimeout(_END_PATIENCE_S)
    with contextlib.suppress(OSError):
        client.say("end", connection_file=connection_file, grace_s=grace_s)
        client.hear()
    client.close()


def running_hub(target: SshTarget) -> HubClient | None:
    """Return a conversation with the hub of ``target`` if there is one; start none."""
    name = hub_name(target)
    clients = (_try_connect(path) for path in _hub_sockets() if os.path.basename(path) == name)
    return next((client for client in clients if client is not None), None)


def all_hubs() -> list[HubClient]:
    """Return a conversation with every hub of this user that runs."""
    return [client for client in map(_try_connect, _hub_sockets()) if client is not None]


def stop_all_hubs(timeout_s: float = 10) -> int:
    """Make every hub of this user leave, with the kernels that it still has; return how many left."""
    return _make_leave(_hub_sockets(), timeout_s)


def stop_hub(target: SshTarget, timeout_s: float = 10) -> bool:
    """Make the hub of ``target`` leave, with the kernels that it still has; return whether it ran."""
    ours = [path for path in _hub_sockets() if os.path.basename(path).startswith(target.identity)]
    return _make_leave(ours, timeout_s) > 0


def _hub_sockets() -> list[str]:
    folders = filter(is_private, candidates(HUB_FOLDER))
    paths = (
        os.path.join(folder, name) for folder in folders for name in sorted(os.listdir(folder))
    )
    return [path for path in paths if path.endswith(".sock")]


def _make_leave(sockets: list[str], timeout_s: float) -> int:
    leaving = [client for client in map(_try_connect, sockets) if client is not None]
    for client in leaving:
        client.socket.settimeout(timeout_s)
        with contextlib.suppress(OSError):
            client.say("quit")
    for client in leaving:
        with contextlib.suppress(OSError):  # it ends the conversation last of all
            while client.hear() is not None:
                pass
        client.close()
    return len(leaving)
