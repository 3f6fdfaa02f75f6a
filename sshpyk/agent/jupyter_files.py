"""What running Jupyter servers say of themselves: ``jpserver-PID.json`` in Jupyter's runtime folder.

A server writes its file before it listens, and removes it when it ends in order; one that was killed
leaves it. With a unix socket, ``sock`` is its path and ``port`` 0. Whoever can read a file may use the
server: it holds the token. https://jupyter-server.readthedocs.io/en/latest/operators/multiple-extensions.html
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import signal
import socket
import sys
from typing import Any, Iterator, Mapping, NamedTuple

from sshpyk.wire.endpoint import Endpoint

_NAME = re.compile(r"(?:jpserver|nbserver)-(\d{1,10})\.json")
_CONNECTION_FILE = re.compile(r"kernel-[0-9a-f-]{36}\.json")
_EVERYWHERE = ("", "0.0.0.0", "::", "*")  # noqa: S104  # compared, not bound to
_MAX_BYTES = 64 * 1024
_MAX_CONFIG_BYTES = 1024 * 1024
_CONNECT_S = 2.0


class ServerInfo(NamedTuple):
    """A server as its file describes it; ``page`` is where its pages begin, ``/`` mostly."""

    file: str
    pid: int
    endpoint: Endpoint
    base_url: str
    token: str
    secure: bool
    password: bool
    folder: str
    version: str


def runtime_folder(environment: Mapping[str, str]) -> str:
    """Return Jupyter's runtime folder in an environment, as ``jupyter_core.paths`` does."""
    if environment.get("JUPYTER_RUNTIME_DIR"):
        return environment["JUPYTER_RUNTIME_DIR"]
    home = environment.get("HOME") or os.path.expanduser("~")
    data = environment.get("JUPYTER_DATA_DIR")
    if not data and sys.platform == "darwin":
        data = os.path.join(home, "Library", "Jupyter")
    share = environment.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    return os.path.join(data or os.path.join(share, "jupyter"), "runtime")


def configures(setting: str, program: str) -> bool:
    """Whether a config of Jupyter's names a setting, for a server of ``program``'s environment."""
    home, prefix = os.path.expanduser("~"), os.path.dirname(os.path.dirname(program))
    own = os.environ.get("JUPYTER_CONFIG_DIR") or os.path.join(home, ".jupyter")
    folders = os.environ.get("JUPYTER_CONFIG_PATH", "").split(os.pathsep)
    folders += [own, os.path.join(home, ".local", "etc", "jupyter")]
    folders += [os.path.join(place, "etc", "jupyter") for place in (prefix, "/usr/local", "/")]
    files = [path for folder in filter(None, folders) for path in _config_files(folder)]
    return any(setting in _text(path) for path in files)


def _config_files(folder: str) -> list[str]:
    found = glob.glob(os.path.join(glob.escape(folder), "jupyter_*config.*"))
    return found + glob.glob(os.path.join(glob.escape(folder), "jupyter_*config.d", "*.json"))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_CONFIG_BYTES)
    except OSError:
        return ""


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty where nobody may know it."""
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry)
    return {name: value for name, _, value in pairs}


def infos(*folders: str) -> Iterator[ServerInfo]:
    """Yield the servers whose files lie in any of these folders; they need not be alive."""
    for folder in dict.fromkeys(folders):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            if _NAME.fullmatch(name):
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                    yield _read(os.path.join(folder, name))


def _read(path: str) -> ServerInfo:
    with open(path, encoding="utf-8") as file:
        record = json.loads(file.read(_MAX_BYTES))
    host, port = str(record.get("hostname", "")), record["port"]
    where: dict[str, Any] = {"host": "localhost" if host in _EVERYWHERE else host, "port": port}
    if record.get("sock"):
        where = {"path": str(record["sock"])}
    endpoint = Endpoint.from_record(Endpoint(**where).to_record())
    return ServerInfo(
        path,
        int(record["pid"]),
        endpoint,
        str(record.get("base_url") or "/"),
        str(record.get("token") or ""),
        bool(record.get("secure")),
        bool(record.get("password")),
        str(record.get("root_dir") or record.get("notebook_dir") or ""),
        str(record.get("version") or ""),
    )


def listens(endpoint: Endpoint) -> bool:
    """Whether somebody accepts connections there; waits for a moment at most."""
    try:
        if endpoint.path:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(_CONNECT_S)
                probe.connect(endpoint.path)
        else:
            socket.create_connection((endpoint.host, endpoint.port), _CONNECT_S).close()
    except OSError:
        return False
    return True


def is_ours(pid: int) -> bool:
    """Whether a process lives and is this user's; a file of another machine may name any number."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    try:
        return os.stat("/proc/%d" % pid).st_uid == os.getuid()
    except OSError:
        return not os.path.isdir("/proc/self")


def started_by_hand(but: set[int]) -> list[ServerInfo]:
    """Return the servers that live and are not among the processes ``but``. Blocks for moments."""
    found = infos(runtime_folder(os.environ))
    return [
        info
        for info in found
        if info.pid not in but and is_ours(info.pid) and listens(info.endpoint)
    ]


def remove_files(info: ServerInfo) -> None:
    """Remove what a server that is dead has left: its file, and those that its browser was to open."""
    stem = info.file[: -len(".json")]
    for path in (info.file, f"{stem}-open.html", f"{stem}-open-to-run.html"):
        with contextlib.suppress(OSError):
            os.unlink(path)


def end_orphans(pid: int) -> None:
    """Kill the kernels of a server that is dead, and remove their connection files.

    Each has its server's process id from jupyter_client. What a kernel has started may have it too, and
    is no kernel: nothing in its arguments is a connection file.
    """
    with contextlib.suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            if environment_of(int(name)).get("JPY_PARENT_PID") == str(pid):
                with contextlib.suppress(OSError):
                    _end_kernel(int(name))


def _end_kernel(pid: int) -> None:
    with open("/proc/%d/cmdline" % pid, "rb") as file:
        words = [os.fsdecode(word) for word in file.read().split(b"\0")]
    files = [word for word in words if _CONNECTION_FILE.fullmatch(os.path.basename(word))]
    if files and os.getpgid(pid) == pid:  # a kernel leads a group of its own
        os.killpg(pid, signal.SIGKILL)
        for path in files:
            os.unlink(path)
