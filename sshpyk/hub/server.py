"""What local processes may ask of the hub: JSON lines on its unix socket.

One connection, one conversation. A stand-in's goes on for the life of its kernel::

    -> {"op": "launch", "request": {"connection_file": …, "python": …, "kernel_name": …, …}}
    <- {"event": "ready", "ticket": {…}}       or  {"event": "failed", "error": {…}}
    -> {"op": "interrupt"} | {"op": "stop", "grace_s": 5} | {"op": "signal", "signal": 10}
    <- {"event": "notice", "text": "gpu1: the connection is down …"}
    <- {"event": "exited", "status": 0}        or  {"event": "failed", "error": {…}}

``attach`` with a ``kernel_id`` takes the place of ``launch`` for a kernel that runs already; the hub
writes the connection file then. Two more ways how it ends::

    -> {"op": "leave"}
    <- {"event": "left", "told": true}         told: the host knows; else it will when the link is back
    <- {"event": "taken", "by": "ann@laptop"}  somebody attached to the kernel from elsewhere

If it ends before ``exited``, its kernel is killed, or left if it is persistent. When the *hub* was
killed, the stand-in starts another and says ``{"op": "reattach", "request": …, "ticket": …}`` instead.

``{"op": "status"}`` answers one record at once, ``{"op": "survey", "python": …}`` adds what the host
says, ``{"op": "ask", "what": "gc", …}`` passes a question to the agent, ``leave`` and ``end`` do that to
a kernel whose stand-in is another process, and ``{"op": "quit"}`` makes the hub leave. ``login`` is
told in :mod:`.login`; those about tunnels, mounts and servers in :mod:`sshpyk.servers.conversation`.
``{"op": "script", "script": …, "timeout_s": …}`` runs sh on the host over a link that is up, and answers
what it said.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from functools import partial
from typing import Any

from sshpyk.errors import HubError, KernelError, SshpykError, Unreachable
from sshpyk.hub.host import HostLink
from sshpyk.hub.kernels import Kernels
from sshpyk.hub.linkstate import LinkState
from sshpyk.hub.login import serve_login
from sshpyk.hub.requests import HubKernel, LaunchRequest, Left, Outcome, Taken, Ticket, owner
from sshpyk.servers.conversation import MOUNT, TUNNEL, Conversation, Keeper, Kind
from sshpyk.servers.jupyter import Servers
from sshpyk.servers.mounts import HeldMounts
from sshpyk.servers.shown import SERVER, ShownServers
from sshpyk.servers.tunnels import Tunnels

_Orders = asyncio.Future[dict[str, Any] | None]
_Answer = Callable[[dict[str, Any]], Awaitable[None]]

_ASKED_OF_HOST = ("list", "gc", "stop", "logs", "read_log", "servers", "open_server", "stop_server")
_LONGEST_WAIT_S = 3600.0
_LINE_LIMIT_BYTES = 16 * 1024 * 1024
_SCRIPT_GRACE_S = 5.0

log = logging.getLogger(__name__)


class Server:
    """See the module."""

    def __init__(self, host: HostLink, kernels: Kernels) -> None:
        self.quit = asyncio.Event()
        self._host = host
        self._kernels = kernels
        self.tunnels = Tunnels(host)
        self.mounts = HeldMounts(host, kernels.mounts, kernels)
        self.servers = Servers(host)
        self._conversations: set[asyncio.Task[None]] = set()
        self.owners: set[_Conversation] = set()
        host.on_notice = self._notify

    @property
    def busy(self) -> bool:
        """Whether anybody is connected or anything lives."""
        mine = self._kernels, self._kernels.mounts, self.tunnels
        return bool(self._conversations) or any(one.busy for one in mine)

    async def listen(self, path: str) -> asyncio.AbstractServer:
        """Begin to accept conversations."""
        return await asyncio.start_unix_server(self._accept, path, limit=_LINE_LIMIT_BYTES)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        try:
            await _Conversation(self, reader, writer).run()
        except asyncio.CancelledError:
            pass  # the hub leaves
        except (ConnectionError, LookupError, TypeError, ValueError, RecursionError) as error:
            log.warning("a conversation ended: %s: %.200s", type(error).__name__, error)
        finally:
            self._conversations.discard(task)
            writer.close()

    def status(self) -> dict[str, Any]:
        """Return the state of the link with the latest reason and, apart from it, each kernel's."""
        target, outage, reason = self._host.target, self._host.outage, self._host.reason
        return {
            "pid": os.getpid(),
            "host": target.host,
            "ssh_config": target.ssh_config,
            # A connection that has fallen silent is up for the dialling, not for people.
            "link": LinkState.DIALING.value if self._host.is_silent else self._host.state.value,
            "phase": self._host.phase,
            "reason": None if reason is None else reason.to_record(),
            "away_reason": outage.reason,
            "away_s": outage.duration_s,
            "kernels": self._kernels.summaries(),
        }

    async def survey(self, python: str) -> dict[str, Any]:
        """Return the status with all kernels of this user on the host. Raises what a dial met."""
        await self._host.bring_up(python)
        listed = await self._host.rpc.call("list", owner=owner())
        return {**self.status(), "on_host": listed["kernels"]}

    async def ask_host(self, record: dict[str, Any]) -> dict[str, Any]:
        """Ask the agent something about kernels, for the command line. Raises what a dial met."""
        host, timeout_s = self._host, min(float(record["timeout_s"]), _LONGEST_WAIT_S)
        if record["what"] not in _ASKED_OF_HOST:
            raise HubError(f"the hub asks no host for {record['what']}")
        try:
            return {"answer": await asyncio.wait_for(self._ask_host(record), timeout_s)}
        except asyncio.TimeoutError:
            raise Unreachable(
                f"no answer within {timeout_s:g} s",
                host=host.target.host,
                phase=host.phase if not host.is_up else "waiting for the host's answer",
                advice="see sshpyk ps: it says how the link is",
            ) from None

    async def _ask_host(self, record: dict[str, Any]) -> dict[str, Any]:
        await self._host.bring_up(str(record["python"]))
        if record["what"] == "stop":
            kernel = self._kernels.find(kernel_id=record["params"]["kernel_id"])
            if kernel is not None:
                kernel.endpoints.end_hold()  # its end comes behind its output
        params = {**record.get("params", {}), "owner": owner()}
        return await self._host.rpc.call(record["what"], **params)

    def end(self, path: str, grace_s: float) -> dict[str, Any]:
        """End the kernel of a local connection file, persistent or not."""
        kernel = self._kernels.find(connection_file=path)
        if kernel is not None:
            self._kernels.stop(kernel, grace_s)
        return {"event": "ending", "found": kernel is not None}

    def leave(self, kernel_id: str) -> dict[str, Any]:
        """Leave a kernel; its stand-in is told."""
        kernel = self._kernels.find(kernel_id=kernel_id)
        if kernel is not None:
            self._kernels.leave(kernel)
        return {"event": "leaving", "found": kernel is not None}

    async def script(self, script: str, timeout_s: float) -> dict[str, Any]:
        """Run a script on the host; raises :class:`HubError` at once where the link is not up."""
        if not self._host.is_up or self._host.is_silent:
            raise HubError("the link is not up", host=self._host.target.host)
        call = self._host.rpc.call("script", script=script, timeout_s=timeout_s)
        try:
            answer = await asyncio.wait_for(call, timeout_s + _SCRIPT_GRACE_S)
        except asyncio.TimeoutError:
            what = f"no answer within {timeout_s:g} s"
            raise Unreachable(what, host=self._host.target.host, phase="running a script") from None
        return {"event": "done", **answer}

    def _notify(self, text: str) -> None:
        log.warning("%s", text)
        for conversation in self.owners:
            conversation.notify(text)

    @property
    def host(self) -> HostLink:
        """The link to the host."""
        return self._host

    @property
    def kernels(self) -> Kernels:
        """The kernels in this hub's care."""
        return self._kernels


class _Conversation:
    """One connection of a local process."""

    def __init__(
        self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._over = asyncio.Event()
        self._answers: dict[str, _Answer] = {
            "status": self._status,
            "survey": self._survey,
            "ask": self._ask,
            "script": self._script,
            "leave": self._leave,
            "end": self._end,
            "quit": self._quit,
            **self._keeping(TUNNEL, server.tunnels),
            **self._keeping(MOUNT, server.mounts),
            **self._keeping(SERVER, ShownServers(server.servers, server.tunnels, self._say)),
        }

    async def run(self) -> None:
        """Answer until the other end goes or its kernel has ended."""
        while True:
            record = await self._read()
            if record is None:
                return
            if record["op"] in ("launch", "attach", "reattach"):
                await self._own(self._get_kernel(record), runs=record["op"] == "reattach")
                return
            if record["op"] == "login":
                await self._log_in(record)
                return
            answer = self._answers.get(record["op"])
            if answer is None:
                error = HubError(f"the hub does not know the operation {record['op']}")
                self._say(event="failed", error=error.to_record())
            else:
                await answer(record)

    def _get_kernel(self, record: dict[str, Any]) -> Coroutine[Any, Any, HubKernel]:
        kernels, request = self._server.kernels, LaunchRequest(**record["request"])
        if record["op"] == "launch":
            return kernels.launch(request)
        if record["op"] == "attach":
            return kernels.attach(str(record["kernel_id"]), request)
        return kernels.reattach(request, Ticket(**record["ticket"]))

    async def _status(self, _record: dict[str, Any]) -> None:
        self._say(**self._server.status())

    async def _survey(self, record: dict[str, Any]) -> None:
        await self._answer(self._server.survey(record["python"]))

    async def _ask(self, record: dict[str, Any]) -> None:
        await self._answer(self._server.ask_host(record))

    async def _script(self, record: dict[str, Any]) -> None:
        timeout_s = float(record["timeout_s"])
        await self._answer(self._server.script(str(record["script"]), timeout_s))

    async def _end(self, record: dict[str, Any]) -> None:
        self._say(**self._server.end(record["connection_file"], float(record["grace_s"])))

    async def _leave(self, record: dict[str, Any]) -> None:
        self._say(**self._server.leave(record["kernel_id"]))

    def _keeping(self, kind: Kind, keeper: Keeper[Any]) -> dict[str, _Answer]:
        conversation = Conversation(self._read_order, self._say)
        return dict.fromkeys(kind.operations, partial(conversation.serve, kind, keeper))

    async def _quit(self, _record: dict[str, Any]) -> None:
        self._server.quit.set()
        self._say(event="leaving")

    async def _answer(self, asking: Coroutine[Any, Any, dict[str, Any]]) -> None:
        try:
            self._say(**await asking)
        except SshpykError as error:
            self._say(event="failed", error=error.to_record())

    def notify(self, text: str) -> None:
        """Tell the owner something that a person should know."""
        self._say(event="notice", text=text)

    async def _log_in(self, record: dict[str, Any]) -> None:
        server = self._server
        await serve_login(
            server.host, lambda: server.kernels.count, record, self._reader, self._writer
        )

    async def _read(self) -> dict[str, Any] | None:
        line = await self._reader.readline()
        return json.loads(line) if line else None

    async def _read_order(self) -> dict[str, Any] | None:
        """Return the owner's next order; None when it has gone, or makes no sense any more."""
        try:
            record = await self._read()
        except (ConnectionError, ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) and "op" in record else None

    def _say(self, **record: Any) -> None:
        self._writer.write(json.dumps(record).encode() + b"\n")

    async def _own(self, getting: Coroutine[Any, Any, HubKernel], *, runs: bool) -> None:
        """Get a kernel and do as its owner says; ``runs``: it is the owner's already."""
        launching = asyncio.ensure_future(getting)
        orders: _Orders = asyncio.ensure_future(self._read_order())
        try:
            orders = await self._listen_during_launch(launching, orders, runs=runs)
            kernel = launching.result()
        except SshpykError as error:
            orders.cancel()
            self._say(event="failed", error=error.to_record())
            return
        self._say(event="ready", ticket=asdict(kernel.ticket), notice=kernel.notice)
        if kernel.notice:
            self.notify(f"{self._server.host.target.host}: {kernel.notice}")
        kernel.watch(self._ended)
        self._server.owners.add(self)
        try:
            await self._obey(kernel, orders)
        finally:
            self._server.owners.discard(self)

    async def _listen_during_launch(
        self, launching: asyncio.Task[HubKernel], orders: _Orders, *, runs: bool
    ) -> _Orders:
        """Wait for the launch; give it up when the owner goes or wants the kernel stopped.

        An order for a kernel that runs waits; it is what the hub before us did not live to hear.
        """
        while not launching.done():
            waits: list[asyncio.Future[Any]] = [launching, orders]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if orders.done() and not launching.done():
                record = orders.result()
                if record is not None and runs:
                    await asyncio.wait({launching})
                    break
                if record is None or record["op"] in ("stop", "leave"):
                    launching.cancel()
                    await asyncio.wait({launching})
                    raise KernelError("stopped while it was starting")
                orders = asyncio.ensure_future(
                    self._read_order()
                )  # there is nothing to interrupt yet
        return orders

    async def _obey(self, kernel: HubKernel, orders: _Orders) -> None:
        """Carry out the owner's orders until the kernel has ended or the owner is gone."""
        over = asyncio.ensure_future(self._over.wait())
        while True:
            waits: list[asyncio.Future[Any]] = [orders, over]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                orders.cancel()
                await self._writer.drain()
                return
            record = orders.result()
            if record is None:
                over.cancel()
                kernel.watch(lambda outcome: None)
                log.info("the owner of kernel %s has gone", kernel.kernel_id)
                self._server.kernels.abandon(kernel)
                return
            try:
                self._carry_out(kernel, record)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                log.warning("ignored the order %.200s: %r", record, error)
            orders = asyncio.ensure_future(self._read_order())

    def _carry_out(self, kernel: HubKernel, record: dict[str, Any]) -> None:
        kernels = self._server.kernels
        if record["op"] == "interrupt":
            kernels.interrupt(kernel)
        elif record["op"] == "stop":
            kernels.stop(kernel, float(record["grace_s"]))
        elif record["op"] == "leave":
            kernels.leave(kernel)
        elif record["op"] == "signal":
            kernels.signal(kernel, int(record["signal"]))

    def _ended(self, outcome: Outcome) -> None:
        if isinstance(outcome, Left):
            self._say(event="left", told=outcome.told)
        elif isinstance(outcome, Taken):
            self._say(event="taken", by=outcome.by)
        elif isinstance(outcome, SshpykError):
            self._say(event="failed", error=outcome.to_record())
        else:
            self._say(event="exited", status=outcome)
        self._over.set()
