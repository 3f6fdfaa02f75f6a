"""The Jupyter servers of this user on this host, and what a hub may ask about them.

A server belongs to the link that started it, or that opened a kept one last. One that is not kept
ends when its hub releases it or gives up the link, and by lease when that is not heard of; one that is
kept ends by lease only. A hub opens it by its address and token, which :meth:`Serving._open` tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
from dataclasses import replace
from typing import Any

from sshpyk.agent.environment import Setting
from sshpyk.agent.jupyter import (
    STARTING,
    JupyterServer,
    ServerState,
    await_listening,
    new_server,
    refresh,
    server_argv,
    server_folder,
)
from sshpyk.agent.jupyter_app import APPS, launcher
from sshpyk.agent.jupyter_files import ServerInfo, started_by_hand
from sshpyk.agent.kernelspecs import RemoteKernelspec
from sshpyk.agent.logs import KernelLogs
from sshpyk.agent.record import KernelRecord
from sshpyk.agent.servers import Servers, Tell
from sshpyk.errors import ServerError, SshpykError
from sshpyk.wire.clock import now_s
from sshpyk.wire.driver import LinkDriver
from sshpyk.wire.rpc import Operation, Params

_LONGEST_WAIT_S = 5.0
_ID = re.compile("s[0-9a-f]{4,16}")
_BY_HAND = "p"
_LONGEST_LABEL = 200

log = logging.getLogger(__name__)


class Serving:
    """The operations of one link."""

    def __init__(
        self,
        driver: LinkDriver,
        servers: Servers,
        places: tuple[str, str],
        logs: KernelLogs,
        tell: Tell,
    ) -> None:
        self._link = driver.link
        self._servers = servers
        self._sockets, _ = places
        self._logs = logs
        self._starting: set[str] = set()  # asked for, and not stopped since
        servers.tell[self._link.link_id] = tell
        servers.on_ended = logs.end
        driver.when_left.append(self._leave)
        self.operations: dict[str, Operation] = {
            "serve": self._serve,
            "server_progress": self._progress,
            "servers": self._list,
            "open_server": self._open,
            "release_server": self._release,
            "stop_server": self._stop,
        }

    def _leave(self) -> None:
        self._servers.tell.pop(self._link.link_id, None)

    async def _serve(self, params: Params) -> Params:
        """Start a server; answer when it is a process. See ``server_progress`` for the rest."""
        server_id = _checked(params)
        if server_id in self._servers.alive:
            raise ServerError("that server has been started already", phase=STARTING)
        self._starting.add(server_id)
        app, setting = APPS[params["app"]], Setting.from_params(params)
        loop = asyncio.get_running_loop()
        root = await loop.run_in_executor(None, _folder, params["folder"])
        known = list(params.get("known", ()))
        launch = await loop.run_in_executor(
            None, launcher, app, params["python"], setting.activate, known
        )
        if server_id not in self._starting:
            raise ServerError("stopped before it was started", phase=STARTING)
        self._starting.discard(server_id)
        folder = server_folder(self._sockets, server_id)
        owner = str(params.get("owner", ""))[:_LONGEST_LABEL]
        log_path = self._logs.begin(server_id, name=app.command, owner=owner, session=root)
        info = {"app": params["app"], "folder": root, "program": launch.program}
        spec = RemoteKernelspec([], "")
        link_id, boot = self._link.link_id, self._link.boot_id
        record = KernelRecord(server_id, link_id, (0, 0), info, spec, log_path, boot)
        record = replace(record, persistent=params.get("keep") is True, owner=owner)
        argv = server_argv(launch, folder, root if params["folder"] else "", params["args"])
        server = new_server(record, launch, folder, argv)
        self._servers.add(server)
        try:
            server.start(launch, root, setting)
        except OSError as error:
            self._servers.alive.pop(server_id, None)
            server.remove_files()
            raise _cannot_run(argv[0], error) from error
        log.info("server %s is process %d: %s", server_id, server.process.pid, app.command)
        return {"pid": server.process.pid, "program": launch.program}

    async def _progress(self, params: Params) -> Params:
        """Wait for a server that starts, for ``wait_s`` at most; say how far it is.

        Raises why it ended, if it has.
        """
        server = self._find(params)
        await await_listening(server, min(float(params["wait_s"]), _LONGEST_WAIT_S))
        lines = server.process.log_tail().splitlines()
        return {"ready": server.state is ServerState.READY, "said": lines[-1:]}

    def _find(self, params: Params) -> JupyterServer:
        server_id = str(params["server_id"])
        server = self._servers.alive.get(server_id)
        if server is None:
            raise self._servers.failures.get(server_id) or gone()
        return server

    async def _list(self, params: Params) -> Params:
        """Describe every server that listens; an owner that asks is heard of. No tokens here."""
        owner = str(params.get("owner", ""))
        found = []
        for server in list(self._servers.alive.values()):
            if owner and server.record.owner == owner:
                server.note(heard_s=now_s())
            found.append(await self._describe(server))
        by_hand = [_described_by_hand(info) for info in await self._by_hand()]
        folder = await asyncio.get_running_loop().run_in_executor(None, _asked, params)
        return {"servers": found + by_hand, "folder": folder}

    async def _by_hand(self) -> list[ServerInfo]:
        ours = {server.process.pid for server in self._servers.alive.values()}
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, started_by_hand, ours)
        return [info for info in found if _session(info.pid) not in ours]

    async def _describe(self, server: JupyterServer) -> dict[str, Any]:
        if server.info is None:  # adopted, or still starting
            await refresh(server)
        record = server.record
        return {
            "server_id": server.server_id,
            "app": record.info["app"],
            "folder": record.info["folder"],
            "program": record.info["program"],
            "pid": server.process.pid,
            "state": server.state.value,
            "owner": record.owner,
            "keep": record.persistent,
            "mine": record.link_id == self._link.link_id,
            "by_hand": False,
            **_address(server.info),
        }

    async def _open(self, params: Params) -> Params:
        """Tell where a server listens, and its token. ``keep``: from now on it is to be kept."""
        server_id = str(params["server_id"])
        if server_id.startswith(_BY_HAND):
            for info in await self._by_hand():
                if server_id == f"{_BY_HAND}{info.pid}":
                    return {**_described_by_hand(info), "token": info.token}
            raise gone()
        server = self._find(params)
        if params.get("keep") and not server.record.persistent:
            server.note(persistent=True)
        if server.record.persistent and server.record.link_id not in self._servers.tell:
            server.note(link_id=self._link.link_id)
        described = await self._describe(server)
        if server.info is None:
            raise ServerError("the server does not listen", phase="opening the server")
        return {**described, "token": server.info.token}

    async def _release(self, params: Params) -> Params:
        """The hub shows a server no more: it ends, unless it is kept or another link's."""
        server = self._servers.alive.get(str(params["server_id"]))
        if server is None:
            return {"kept": False}
        mine = server.record.link_id == self._link.link_id
        if mine and not server.record.persistent:
            self._servers.stop(server)
        return {"kept": server.record.persistent}

    async def _stop(self, params: Params) -> Params:
        """End a server, also one that was started by hand; one that has ended is no error."""
        server_id, grace_s = str(params["server_id"]), float(params["grace_s"])
        self._starting.discard(server_id)
        server = self._servers.alive.get(server_id)
        if server is not None:
            await server.stop(grace_s)
        for info in await self._by_hand() if server_id.startswith(_BY_HAND) else []:
            if server_id == f"{_BY_HAND}{info.pid}":
                await _stop_by_hand(info, grace_s)
        return {}


async def _stop_by_hand(info: ServerInfo, grace_s: float) -> None:
    """End a server that somebody started: SIGTERM, and only where a kill was asked for, SIGKILL."""
    deadline_s = now_s() + grace_s
    with contextlib.suppress(ProcessLookupError):
        os.kill(info.pid, signal.SIGTERM if grace_s > 0 else signal.SIGKILL)
        while now_s() < deadline_s:
            os.kill(info.pid, 0)
            await asyncio.sleep(0.1)
        if grace_s > 0:
            what = f"it did not end within {grace_s:g} s"
            raise ServerError(what, phase="ending the server", advice="--grace 0 kills it")


def gone() -> SshpykError:
    """Return the error for a server that is no more."""
    return ServerError(
        "there is no such server on the host any more",
        phase="looking for the server",
        advice="see sshpyk servers HOST; start one: sshpyk lab HOST",
        code="SERVER-GONE",
    )


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _address(info: ServerInfo | None) -> dict[str, Any]:
    if info is None:
        return {"target": None}
    return {
        "target": info.endpoint.to_record(),
        "base_url": info.base_url,
        "secure": info.secure,
        "password": info.password,
        "version": info.version,
    }


def _described_by_hand(info: ServerInfo) -> dict[str, Any]:
    return {
        "server_id": f"{_BY_HAND}{info.pid}",
        "app": "",
        "folder": info.folder,
        "program": "",
        "pid": info.pid,
        "state": ServerState.READY.value,
        "owner": "",
        "keep": True,
        "mine": False,
        "by_hand": True,
        **_address(info),
    }


def _asked(params: Params) -> str:
    """Return the real path of the folder that a client means; as it is where there is none."""
    return os.path.realpath(os.path.expanduser(str(params.get("folder") or "~")))


def _folder(named: str) -> str:
    """Return the folder that a server is to show. Raises ServerError where there is none."""
    folder = os.path.realpath(os.path.expanduser(named or "~"))
    if not os.path.isdir(folder):
        raise ServerError(
            f"there is no folder {folder}",
            phase=STARTING,
            advice="create it on the host, or name another one with --dir",
            code="SERVER-NO-FOLDER",
        )
    return folder


def _checked(params: Params) -> str:
    """Return the id of a request that makes sense. Raises ServerError."""
    server_id, args = params.get("server_id"), params.get("args")
    known = params.get("known", [])
    texts = [params.get("python"), params.get("folder")]
    well_formed = (
        isinstance(server_id, str)
        and _ID.fullmatch(server_id)  # names a folder and a log
        and params.get("app") in APPS
        and isinstance(args, list)
        and isinstance(known, list)
        and all(isinstance(text, str) and "\0" not in text for text in [*texts, *args, *known])
    )
    try:
        Setting.from_params(params)
    except ValueError:
        well_formed = False
    if not well_formed:
        raise ServerError("a malformed request for a server", phase=STARTING)
    return str(server_id)


def _cannot_run(program: str, error: OSError) -> SshpykError:
    return ServerError(
        f"cannot run {program}: {error.strerror or error}",
        phase=STARTING,
        advice="name another interpreter of the host with --python or --prefix",
        code="SERVER-NO-PROGRAM",
    )
