"""Jupyter servers in the agent's care: started detached, found by their own files, ended wholly.

States: STARTING -> READY -> ENDED; one that dies while it starts goes straight to ENDED.

A server's private folder holds its unix socket, the file with its token (``JUPYTER_TOKEN_FILE``, so that
neither its argv, its environment nor its log has it) and the record that another agent adopts it by. Its
address and token are what it writes into Jupyter's own runtime folder. Nothing else in the user's Jupyter
is touched: their config applies.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import re
import secrets
import signal
import time
from dataclasses import replace
from typing import Any, Callable, Iterator

from sshpyk.agent.environment import Setting
from sshpyk.agent.jupyter_app import APPS, Launcher
from sshpyk.agent.jupyter_files import (
    ServerInfo,
    configures,
    end_orphans,
    environment_of,
    infos,
    listens,
    remove_files,
    runtime_folder,
)
from sshpyk.agent.kernel import describe_status
from sshpyk.agent.kernelspecs import RemoteKernelspec
from sshpyk.agent.process import KernelProcess
from sshpyk.agent.record import KernelRecord, read_record
from sshpyk.errors import ServerError, SshpykError
from sshpyk.wire.clock import now_s

STARTING = "starting the server"
SOCKET = "s"  # in the server's folder
_TOKEN = "token"  # noqa: S105  # a file's name
_RUNTIME = "runtime"
_FOLDER_PREFIX = "j"
_POLL_S = 0.1
_KILL_POLL_S = 0.05
_SHOWN_LINES = 8  # of its log; the cause comes last
_DEFAULT_PORT = 8888  # Jupyter's: with any other one, it refuses a socket
_TORNADO = "tornado_settings"
_PONG_MS = 7 * 24 * 3600 * 1000
_ADDRESS = re.compile(r"--(?:port|ip|sock|(?:Server|Notebook)App\.(?:port|ip|sock))(?:=.*)?")

log = logging.getLogger(__name__)


class ServerState(enum.Enum):
    """Where a server is in its life."""

    STARTING = "starting"
    READY = "ready"
    ENDED = "ended"


def server_folder(sockets: str, server_id: str) -> str:
    """Return the private folder of a server."""
    return os.path.join(sockets, _FOLDER_PREFIX + server_id)


def server_records(sockets: str) -> Iterator[tuple[str, KernelRecord | None]]:
    """Yield each server's folder and what was written down there."""
    for name in sorted(os.listdir(sockets)):
        if re.fullmatch(_FOLDER_PREFIX + "s[0-9a-f]+", name):
            folder = os.path.join(sockets, name)
            yield folder, read_record(folder)


class JupyterServer:
    """One server. Its record is a kernel's, with what is its own in ``info``: app, folder, program."""

    def __init__(self, record: KernelRecord, process: KernelProcess) -> None:
        self.record = record
        self.process = process
        self.state = ServerState.READY if record.ready else ServerState.STARTING
        self.status: int | None = None
        self.info: ServerInfo | None = None
        self.ended = asyncio.Event()
        self.on_ended: Callable[[JupyterServer], None] = lambda server: None
        self.failure: SshpykError | None = None  # why it ended before it listened

    @property
    def server_id(self) -> str:
        """Its name: ``s`` and hexadecimal digits."""
        return self.record.kernel_id

    @property
    def title(self) -> str:
        """The application's name for people."""
        return APPS[self.record.info["app"]].title

    def start(self, launch: Launcher, cwd: str, setting: Setting) -> None:
        """Start the process. Raises OSError."""
        folder = self.process.folder
        token = os.path.join(folder, _TOKEN)
        with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(24))
        env = {"JUPYTER_TOKEN_FILE": token}
        runtime = runtime_folder(os.environ)
        try:
            os.makedirs(runtime, mode=0o700, exist_ok=True)
            usable = os.access(runtime, os.W_OK)
        except OSError:
            usable = False
        if not usable:  # a home folder that is read-only, or full
            env["JUPYTER_RUNTIME_DIR"] = os.path.join(folder, _RUNTIME)
        self.process.start(launch.program, env, cwd, setting)
        self.record = self.record.of_process(self.process.pid)
        self.note()

    def note(self, **changes: Any) -> None:
        """Write down what another agent will need to know."""
        self.record = replace(self.record, **changes)
        self.record.write(self.process.folder)

    def look(self) -> bool:
        """Look whether it listens by now, and remember where. Blocks for moments; called apart."""
        pid = self.process.pid
        environment = environment_of(pid) or dict(
            os.environ
        )  # the lines may have set other folders
        own = os.path.join(self.process.folder, _RUNTIME)
        for info in infos(own, runtime_folder(environment), runtime_folder(os.environ)):
            if self._is_ours(info) and listens(info.endpoint):
                self.info = info
                return True
        return False

    def _is_ours(self, info: ServerInfo) -> bool:
        if info.endpoint.path:
            return info.endpoint.path == os.path.join(self.process.folder, SOCKET)
        try:
            return os.getsid(info.pid) == self.process.pid  # also behind a wrapper
        except OSError:
            return False

    def poll(self) -> bool:
        """Notice its death, and clean up after it; return whether it lives."""
        if self.state is ServerState.ENDED:
            return False
        status = self.process.poll()
        if status is None:
            return True
        log.info("server %s ended with %s", self.server_id, describe_status(status))
        self.status = status
        if self.state is ServerState.STARTING:
            self.failure = self._why(status)  # from files that are about to go
        self.state = ServerState.ENDED
        self.process.end_children()
        end_orphans(self.process.pid)
        self.remove_files()
        self.ended.set()
        self.on_ended(self)
        return False

    def remove_files(self) -> None:
        """Remove what a dead server has left: Jupyter's files about it, and its folder."""
        file = self.record.info.get("file")
        folders = [os.path.dirname(file)] if file else [runtime_folder(os.environ)]
        for info in infos(*folders):
            if info.pid == self.process.pid or info.file == file:
                remove_files(info)
        self.process.remove_files()

    async def stop(self, grace_s: float) -> None:
        """End it: SIGTERM, on which Jupyter shuts its kernels down, then SIGKILL."""
        if grace_s > 0:
            self.process.signal(signal.SIGTERM)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._over(), grace_s)
        self.process.signal(signal.SIGKILL)
        await self._over()

    async def _over(self) -> None:
        while self.poll():  # of an adopted one no signal tells
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.ended.wait(), _KILL_POLL_S)

    def _why(self, number: int) -> SshpykError:
        status, said = describe_status(number), self.process.log_tail()
        activation = self.process.activation
        if activation is not None and not activation.over:
            error = activation.failure(status, said)
            error.phase = "preparing the server's environment"
            error.advice = "try the lines on the host, in a login shell; then change --activate"
            return error
        code, advice = _cause(said, self.record.info["app"])
        return ServerError(
            f"{self.title} ended with {status} before it listened",
            phase=STARTING,
            said="\n".join(said.splitlines()[-_SHOWN_LINES:]) or "(it printed nothing)",
            advice=advice,
            code=code,
        )


# What a server's last words mean: a code of docs/errors.md, and what to do.
_LAST_WORDS = (
    (
        r"No module named '?(?:jupyterlab|notebook|nbclassic|jupyter_server)\b",
        "SERVER-NOT-FOUND",
        "that environment does not have it: install it there (python -m pip install {module}), or name "
        "another one with --prefix, --python or --activate",
    ),
    (
        r"no available port could be found|port \d+ is (?:already in use|not available)",
        "SERVER-PORT-TAKEN",
        "leave the port to sshpyk: without --port or --ip behind -- the server has a unix socket",
    ),
    (
        r"Running as root is not recommended",
        "SERVER-ROOT",
        "log in as another user, or allow it: sshpyk lab HOST -- --allow-root",
    ),
    (
        r"Exception while loading config file|Failed loading config|TraitError|Bad config",
        "SERVER-CONFIG",
        "correct the option behind --, or Jupyter's config on the host (~/.jupyter)",
    ),
)


def _cause(said: str, app: str) -> tuple[str, str]:
    for pattern, code, advice in _LAST_WORDS:
        if re.search(pattern, said):
            return code, advice.format(module=APPS[app].module)
    return ServerError.code, "its own words are above; the command is what you would type there"


def server_argv(launch: Launcher, folder: str, root: str, args: list[str]) -> list[str]:
    """Return a server's command. It listens on a unix socket, unless ``args`` name an address."""
    own = ["--no-browser"]
    if not any(_ADDRESS.fullmatch(word) for word in args):
        # The port as it is by default: one in the user's config would exclude the socket.
        own += [f"--ServerApp.port={_DEFAULT_PORT}"]
        own += ["--ServerApp.sock=" + os.path.join(folder, SOCKET)]
    if not (any(_TORNADO in word for word in args) or configures(_TORNADO, launch.program)):
        # Else it closes a page's websocket 90 s after the network went, and drops what comes meanwhile.
        own.append('--ServerApp.%s={"ws_ping_timeout": %d}' % (_TORNADO, _PONG_MS))
    if root:
        own.append(f"--ServerApp.root_dir={root}")
    return [*launch.words, *own, *args]


def new_server(
    record: KernelRecord, launch: Launcher, folder: str, argv: list[str]
) -> JupyterServer:
    """Make a server that is not a process yet, with its private folder."""
    spec = RemoteKernelspec(argv, resource_dir="", language="python")
    os.mkdir(folder, 0o700)
    record = replace(record, spec=spec, born_s=time.time(), heard_s=now_s())
    return JupyterServer(record, KernelProcess(spec, record.info, folder, record.log_path))


async def refresh(server: JupyterServer) -> bool:
    """Look whether a server listens by now, and note it."""
    found = await asyncio.get_running_loop().run_in_executor(None, server.look)
    if not (found and server.poll()):
        return False
    assert server.info is not None
    if server.state is ServerState.STARTING:
        server.state = ServerState.READY
        server.note(ready=True, info={**server.record.info, "file": server.info.file})
        if server.process.activation is not None:
            server.process.activation.forget()
    return True


async def await_listening(server: JupyterServer, wait_s: float) -> None:
    """Return when the server listens, or after ``wait_s``. Raises why it has ended before."""
    deadline_s = now_s() + wait_s
    while server.state is ServerState.STARTING and now_s() < deadline_s:
        if await refresh(server):
            return
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(server.ended.wait(), _POLL_S)
    if server.failure is not None:
        raise server.failure
