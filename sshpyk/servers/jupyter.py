"""Jupyter servers of the host as the hub knows them: started, opened, held by those who show them.

A server that is not kept ends when the last local process that shows it goes (:meth:`Servers.release`).
When the host says that a server has ended, whoever holds it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any

from sshpyk.errors import LaunchTimeout, ServerError, SshpykError, Unreachable
from sshpyk.hub.host import HostLink
from sshpyk.hub.requests import owner
from sshpyk.wire.rpc import Params

STARTING = "starting the server"
_LOOK_S = 1.0
_TELL_S = 0.2
_STOP_GRACE_S = 5.0
_LOG_HEAD = re.compile(r"^\[\w [^\]]*\] ")  # [I 2026-11-21 14:00:00.000 ServerApp]
_SHOWN = 60  # characters of its latest line
# What the one who starts a server may say of it; the rest of a request is for the hub.
_ASKED = ("server_id", "app", "folder", "python", "known", "args", "activate", "wrapper", "keep")

Record = dict[str, Any]
Told = Callable[[SshpykError], None]  # why it is no more
Tell = Callable[[str], None]

log = logging.getLogger(__name__)


class Servers:
    """See the module. Made once per hub; takes part in what happens to the host's link."""

    def __init__(self, host: HostLink) -> None:
        self._host = host
        self._held: dict[str, list[Told]] = {}
        self._starting: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        host.operations["server_ended"] = self._ended
        lost, replaced = host.on_lost_link, host.on_agent_replaced

        def on_lost_link(error: SshpykError) -> None:
            lost(error)
            self._doubt(error)

        def on_agent_replaced() -> None:
            replaced()
            self._doubt(None)

        host.on_lost_link, host.on_agent_replaced = on_lost_link, on_agent_replaced

    async def obtain(self, request: Record, tell: Tell) -> Record:
        """Start a server, or open one that runs; return its address, token and description.

        ``tell`` gets what is being done, in words. Raises SshpykError; what was started is stopped then.
        """
        deadline_s = time.monotonic() + float(request["timeout_s"])
        telling = asyncio.ensure_future(self._tell_phases(tell))
        try:
            await self._bring_up(request)
        finally:
            telling.cancel()
        if not request.get("start"):
            keep = bool(request.get("keep"))
            return await self._call("open_server", server_id=request["server_id"], keep=keep)
        self._starting.add(request["server_id"])
        try:
            asked = {name: request[name] for name in _ASKED if name in request}
            activate_s = request["timeout_s"]
            await self._call("serve", **asked, owner=owner(), activate_s=activate_s)
            await self._await_ready(request, deadline_s, tell)
            return await self._call("open_server", server_id=request["server_id"])
        except BaseException:
            self._stop(request["server_id"])
            raise
        finally:
            self._starting.discard(request["server_id"])

    async def _call(self, op: str, **params: Any) -> Params:
        try:
            return await self._host.rpc.call(op, **params)
        except SshpykError as error:
            error.host = error.host or self._host.target.host
            raise

    async def _bring_up(self, request: Record) -> None:
        timeout_s = float(request["timeout_s"])
        try:
            await asyncio.wait_for(self._host.bring_up(str(request["agent_python"])), timeout_s)
        except asyncio.TimeoutError:
            raise Unreachable(
                f"no answer within {timeout_s:g} s",
                host=self._host.target.host,
                phase=self._host.phase,
                advice="see sshpyk ps: it says how the link is",
            ) from None

    async def _tell_phases(self, tell: Tell) -> None:
        said = ""
        while True:
            if self._host.phase and self._host.phase != said and not self._host.is_up:
                said = self._host.phase
                tell(said)
            await asyncio.sleep(_TELL_S)

    async def _await_ready(self, request: Record, deadline_s: float, tell: Tell) -> None:
        while True:
            answer = await self._call(
                "server_progress", server_id=request["server_id"], wait_s=_LOOK_S
            )
            said = _LOG_HEAD.sub("", "".join(answer["said"]))[:_SHOWN]
            if answer["ready"]:
                return
            tell(f"{STARTING}: {said}" if said else STARTING)
            if time.monotonic() > deadline_s:
                raise LaunchTimeout(
                    f"the server does not listen after {request['timeout_s']:g} s",
                    host=self._host.target.host,
                    phase=STARTING,
                    said=said,
                    advice="it was stopped again; if it is merely slow: --timeout SECONDS",
                    code="SERVER-SLOW",
                )

    def _stop(self, server_id: str) -> None:
        self._host.rpc.notify("stop_server", server_id=server_id, grace_s=_STOP_GRACE_S)

    def hold(self, server_id: str, told: Told) -> None:
        """A local process shows a server; ``told`` is called when that has ended."""
        self._held.setdefault(server_id, []).append(told)

    def release(self, server_id: str, told: Told) -> None:
        """It does no more. The last one's going ends a server that is not kept."""
        holders = self._held.get(server_id, [])
        if told in holders:
            holders.remove(told)
            if not holders:
                del self._held[server_id]
                self._host.rpc.notify("release_server", server_id=server_id)

    def release_orphans(self) -> None:
        """Release what the hub before us showed, and whose commands were killed with it."""
        self._spawn(self._release_orphans())

    async def _release_orphans(self) -> None:
        with contextlib.suppress(SshpykError):  # nobody can be asked: the lease ends them
            listed = await self._call("servers", owner=owner())
            for server in listed["servers"]:
                server_id = server["server_id"]
                if server["mine"] and server_id not in {*self._held, *self._starting}:
                    self._host.rpc.notify("release_server", server_id=server_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ended(self, params: Params) -> Params:
        status, server_id = params.get("status"), str(params["server_id"])
        how = f"with status {status}"
        if status is not None and status < 0:
            how = f"by signal {-status}"
        error = ServerError(
            f"the server has ended, {how}",
            host=self._host.target.host,
            advice=f"its own words: sshpyk logs HOST {server_id}",
            code="SERVER-ENDED" if status == 0 else "",
        )
        self._tell_end(server_id, error)
        return {}

    def _tell_end(self, server_id: str, error: SshpykError) -> None:
        for told in self._held.pop(server_id, []):
            told(error)

    def _doubt(self, error: SshpykError | None) -> None:
        """The agent was replaced or the host rebooted: see which servers are still there."""
        if self._held:
            self._spawn(self._see_what_is_left(error))

    async def _see_what_is_left(self, error: SshpykError | None) -> None:
        while not self._host.is_up:  # the tunnels to them see to it
            await asyncio.sleep(_LOOK_S)
        for server_id in list(self._held):
            try:
                await self._call("open_server", server_id=server_id)
            except SshpykError as failure:
                log.info("server %s: %s", server_id, failure.what)
                if failure.code == "SERVER-GONE":
                    self._tell_gone(server_id, error or failure)

    def _tell_gone(self, server_id: str, reason: SshpykError) -> None:
        gone = ServerError(
            f"{reason.what}; the server there is gone",
            host=self._host.target.host,
            advice="start it again: sshpyk lab HOST",
            code="SERVER-GONE",
        )
        self._tell_end(server_id, gone)
