"""The kernels in the hub's care: launch, interrupt, stop, and the end of each.

A kernel has an owner, the stand-in that asked for it; when the owner goes without a word the kernel
is killed, as a local one would be. The local sockets outlive the kernel for a while, so that a restart
finds its clients still connected.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zmq

from sshpyk.errors import HubError, KernelError, LaunchTimeout, SshpykError
from sshpyk.hub.dial import silence_advice
from sshpyk.hub.endpoints import Endpoints
from sshpyk.hub.host import HostLink
from sshpyk.hub.mounts import MountRequest, Mounts
from sshpyk.hub.replay import IopubLimits

SUBSCRIPTION_PATIENCE_S = 3.0  # a client needs 0.1 s or more to come back to its endpoints
_MOST_MOUNTS = 100
_LONGEST_S = 1e7  # far beyond any launch, and what an event loop can wait for
ENDPOINTS_LINGER_S = 6.0  # Jupyter's restarter looks every 3 s

log = logging.getLogger(__name__)

Outcome = int | SshpykError


@dataclass(frozen=True)
class LaunchRequest:
    """What a stand-in asks for. ``env`` is what is added to the host's own environment.

    ``iopub_limits``: those of the Jupyter server that the kernel is for, as :class:`IopubLimits`.
    """

    connection_file: str
    python: str
    kernel_name: str
    launch_timeout_s: float
    env: dict[str, str] = field(default_factory=dict)
    cwd: str = ""
    iopub_limits: dict[str, float] | None = None
    mounts: list[dict[str, Any]] = field(
        default_factory=list
    )  # as MountRequest.from_record reads them

    @property
    def folders(self) -> list[MountRequest]:
        """The local folders that the kernel is to see. Raises TypeError."""
        return [MountRequest.from_record(record) for record in self.mounts]

    @property
    def limits(self) -> IopubLimits | None:
        """The limits as a record."""
        return IopubLimits(**self.iopub_limits) if self.iopub_limits else None

    def __post_init__(self) -> None:
        """Raise TypeError for a request that could not be carried out: it came over a socket."""
        given: dict[str, Any] = vars(self)
        texts = [given[name] for name in ("connection_file", "python", "kernel_name", "cwd")]
        timeout_s, env = given["launch_timeout_s"], given["env"]
        well_formed = (
            isinstance(timeout_s, int | float)
            and 0 <= timeout_s < _LONGEST_S
            and isinstance(env, dict)
            and all(isinstance(text, str) for text in (*texts, *env.values()))
        )
        if not (
            well_formed and isinstance(given["mounts"], list) and len(self.folders) < _MOST_MOUNTS
        ):
            raise TypeError("a launch request with values of the wrong type")


@dataclass(frozen=True)
class Ticket:
    """What a stand-in keeps to find its kernel again when the hub has been replaced."""

    kernel_id: str
    streams: list[int]  # main, control
    pid: int  # on the host


class HubKernel:
    """A launched kernel; whoever watches it is told how it ended."""

    def __init__(self, ticket: Ticket, request: LaunchRequest, endpoints: Endpoints) -> None:
        self.ticket = ticket
        self.request = request
        self.kernel_id = ticket.kernel_id
        self.endpoints = endpoints
        self._outcome: Outcome | None = None
        self._on_end: Callable[[Outcome], None] = lambda outcome: None

    def watch(self, on_end: Callable[[Outcome], None]) -> None:
        """Tell ``on_end`` how the kernel ended, after its last output; now, if it has already."""
        self._on_end = on_end
        if self._outcome is not None:
            on_end(self._outcome)

    def end(self, outcome: Outcome) -> None:
        """Note the exit status, or what else ended it."""
        self._outcome = outcome
        self._on_end(outcome)


class Kernels:
    """All kernels of one hub, by id, and the local sockets that wait for a restart."""

    def __init__(self, host: HostLink, mounts: Mounts | None = None) -> None:
        self._host = host
        self._mounts = mounts or Mounts(host)
        self._context: zmq.Context[Any] = zmq.Context()
        self._kernels: dict[str, HubKernel] = {}
        self._waiting: dict[str, tuple[Endpoints, asyncio.TimerHandle]] = {}
        self._welcoming: set[str] = set()
        self._launching: set[str] = set()
        self._stopping: dict[str, float] = {}  # with what grace
        self._stand_ins_may_come = host.took_over
        self._ending_orphans: asyncio.Task[None] | None = None
        host.on_lost_link = self._fail_all
        host.on_agent_replaced = self._agent_replaced
        host.on_kernel_welcomes = self._welcomes

    @property
    def busy(self) -> bool:
        """Whether any kernel lives or any local socket is bound."""
        return bool(self._kernels or self._waiting)

    @property
    def count(self) -> int:
        """How many kernels live."""
        return len(self._kernels)

    def summaries(self) -> list[dict[str, Any]]:
        """Describe each kernel for ``sshpyk ps``. Without the link nobody knows how it is."""
        return [
            {
                "kernel_id": kernel.kernel_id,
                "name": kernel.request.kernel_name,
                "pid": kernel.ticket.pid,
                "session": kernel.request.env.get("JPY_SESSION_NAME", ""),
                "state": "alive"
                if self._host.is_up and not self._host.is_silent
                else "unreachable",
            }
            for kernel in self._kernels.values()
        ]

    async def launch(self, request: LaunchRequest) -> HubKernel:
        """Start a kernel and join it to its local sockets; nothing stays behind if that fails.

        Raises what went wrong: a HostError, a KernelError (LaunchTimeout among them), a HubError.
        """
        kernel_id = secrets.token_hex(16)
        starting = asyncio.ensure_future(self._launch(kernel_id, request))
        try:
            done, _ = await asyncio.wait({starting}, timeout=request.launch_timeout_s)
            if done:
                return starting.result()
        except asyncio.CancelledError:
            if starting.done() and not starting.cancelled() and not starting.exception():
                self.abandon(starting.result())  # it came up in the moment that it was given up
            raise
        finally:
            starting.cancel()
        raise self._timed_out(request)

    def _timed_out(self, request: LaunchRequest) -> LaunchTimeout:
        """Return the error for a launch that took too long; an outage is not the kernel's slowness."""
        away_s = self._host.outage.duration_s
        phase = self._host.phase
        advice = "raise launch_timeout: sshpyk edit --kernel-name … --launch-timeout SECONDS"
        if away_s is None and self._host.is_connecting:
            advice = f"{silence_advice(self._host.target)}; or {advice}"
        if away_s is not None:
            phase = f"waiting for the connection, which has been down for {away_s:.0f} s"
            advice = "sshpyk goes on connecting; start or restart the kernel when it is back"
        return LaunchTimeout(
            f"the kernel was not ready within {request.launch_timeout_s:g} s",
            host=self._host.target.host,
            phase=phase,
            advice=advice,
        )

    async def _launch(self, kernel_id: str, request: LaunchRequest) -> HubKernel:
        bringing_up = asyncio.ensure_future(self._host.bring_up(request.python))
        endpoints: Endpoints | None = None
        try:
            endpoints = self._take_endpoints(_read_connection_file(request.connection_file))
            await bringing_up
            await self._mounts.hold(kernel_id, request.folders)
            return await self._start(kernel_id, request, endpoints)
        except BaseException as error:
            bringing_up.cancel()
            self._mounts.release(kernel_id)
            if endpoints is not None:
                endpoints.close()
            if isinstance(error, SshpykError) and not error.host:
                error.host = self._host.target.host
            raise

    async def _start(
        self, kernel_id: str, request: LaunchRequest, endpoints: Endpoints
    ) -> HubKernel:
        # What this begins with: a link that is lost meanwhile is replaced by another.
        driver, rpc = self._host.driver, self._host.rpc
        main, control = self._host.new_streams(2)
        self._host.phase = "starting the kernel"
        self._launching.add(kernel_id)
        try:
            started = await rpc.call(
                "start",
                kernel_id=kernel_id,
                python=request.python,
                kernel_name=request.kernel_name,
                key=endpoints.info.get("key", ""),
                signature_scheme=endpoints.info.get("signature_scheme", "hmac-sha256"),
                env=request.env,
                cwd=request.cwd,
                streams=[main, control],
            )
        except BaseException:
            # Also when we only gave up waiting: the request may be on its way, and this follows it.
            rpc.notify("stop", kernel_id=kernel_id, grace_s=0, streams=[main, control])
            for stream in (main, control):
                driver.abandon(stream)
            raise
        finally:
            self._launching.discard(kernel_id)
        kernel = HubKernel(Ticket(kernel_id, [main, control], started["pid"]), request, endpoints)
        self._join(kernel)
        if started["welcomes"] or kernel_id in self._welcoming:
            endpoints.greet_subscribers()
        return kernel

    def _join(self, kernel: HubKernel) -> None:
        self._kernels[kernel.kernel_id] = kernel
        main, control = kernel.ticket.streams
        kernel.endpoints.attach(
            self._host.driver,
            (main, control),
            lambda status: self._ended(kernel, status),
            kernel.request.limits,
        )

    async def reattach(self, request: LaunchRequest, ticket: Ticket) -> HubKernel:
        """Take a kernel over from a hub that was killed; its clients find the same endpoints.

        Raises a HubError when this hub knows nothing of the link that the kernel was on.
        """
        if not self._host.took_over:
            raise HubError(
                "the hub that was killed left no notes; the kernel cannot be found again",
                host=self._host.target.host,
                phase="taking the kernel over",
            )
        kernel = HubKernel(
            ticket, request, self._take_endpoints(_read_connection_file(request.connection_file))
        )
        self._kernels[kernel.kernel_id] = kernel
        self._host.keep_up(request.python)
        await kernel.endpoints.wait_resubscribed(SUBSCRIPTION_PATIENCE_S)
        self._join(kernel)
        self._host.rpc.notify("welcomes", kernel_id=kernel.kernel_id)
        return kernel

    async def end_orphans(self) -> None:
        """End the kernels of a killed hub whose stand-ins did not come back.

        After the agent was replaced: those that it had been asked to end.
        """
        self._stand_ins_may_come = False
        try:
            listed = await self._host.rpc.call("list")
        except SshpykError as error:
            log.warning("kernels without an owner were not looked for: %s", error)
            return
        ours = self._kernels.keys() | self._launching
        for found in listed["kernels"]:
            if found["mine"] and found["kernel_id"] not in ours:
                log.warning("ending kernel %s: its stand-in has gone", found["kernel_id"])
                self._host.rpc.notify("stop", kernel_id=found["kernel_id"], grace_s=0)

    def _welcomes(self, kernel_id: str) -> None:
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            self._welcoming.add(kernel_id)  # its launch is about to end
        else:
            kernel.endpoints.greet_subscribers()

    # What may be asked of a kernel

    def interrupt(self, kernel: HubKernel) -> None:
        """Interrupt the running cell, in the way that the host's kernelspec asks for."""
        seen = kernel.endpoints.delivered
        self._host.rpc.notify("interrupt", kernel_id=kernel.kernel_id, seen=seen)

    def signal(self, kernel: HubKernel, number: int) -> None:
        """Send a signal to the kernel's process group."""
        self._host.rpc.notify("signal", kernel_id=kernel.kernel_id, signal=number)

    def stop(self, kernel: HubKernel, grace_s: float) -> None:
        """End a kernel: politely if there is grace, then by force. Its exit is told as any other."""
        self._stopping[kernel.kernel_id] = grace_s
        self._host.rpc.notify("stop", kernel_id=kernel.kernel_id, grace_s=grace_s)

    def _agent_replaced(self) -> None:
        """Ask anew for what the dead agent had not brought to its end."""
        for kernel_id in self._kernels.keys() & self._stopping.keys():
            self._host.rpc.notify("stop", kernel_id=kernel_id, grace_s=self._stopping[kernel_id])
        if not self._stand_ins_may_come:
            self._ending_orphans = asyncio.ensure_future(self.end_orphans())

    def abandon(self, kernel: HubKernel) -> None:
        """End a kernel whose owner has gone; its sockets are there for the next one at once."""
        self.stop(kernel, grace_s=0)
        if kernel.kernel_id in self._kernels:
            self._let_go(kernel)

    async def stop_all(self) -> None:
        """End every kernel that an owner has left behind; called when the hub leaves."""
        for kernel_id in list(self._kernels):
            await self._host.rpc.call("stop", kernel_id=kernel_id, grace_s=0)

    # Ends

    def _ended(self, kernel: HubKernel, status: int) -> None:
        log.info("kernel %s ended with status %d", kernel.kernel_id, status)
        self._let_go(kernel)
        kernel.end(status)

    def _fail_all(self, error: SshpykError) -> None:
        for kernel in list(self._kernels.values()):
            self._let_go(kernel)
            kernel.end(error)

    def _let_go(self, kernel: HubKernel) -> None:
        """Keep the local sockets for the kernel that a restart will put behind them."""
        self._kernels.pop(kernel.kernel_id, None)
        self._mounts.release(kernel.kernel_id)
        self._stopping.pop(kernel.kernel_id, None)
        self._welcoming.discard(kernel.kernel_id)
        kernel.endpoints.detach()
        urls = _urls(kernel.endpoints.info)
        timer = asyncio.get_running_loop().call_later(ENDPOINTS_LINGER_S, self._unbind, urls)
        self._waiting[urls] = (kernel.endpoints, timer)

    def _take_endpoints(self, info: dict[str, Any]) -> Endpoints:
        """Return sockets for a connection file: those that wait for it, or new ones."""
        urls = _urls(info)
        waiting = self._waiting.pop(urls, None)
        if waiting is not None:
            endpoints, timer = waiting
            timer.cancel()
            if endpoints.info == info and endpoints.reachable:
                return endpoints
            endpoints.close()
        return Endpoints(self._context, info, lambda: self._host.outage.duration_s is not None)

    def _unbind(self, urls: str) -> None:
        endpoints, _ = self._waiting.pop(urls)
        endpoints.close()

    def close(self) -> None:
        """Unbind everything."""
        for endpoints, timer in self._waiting.values():
            timer.cancel()
            endpoints.close()
        for kernel in self._kernels.values():
            kernel.endpoints.close()
        self._context.destroy(linger=500)


def _urls(info: dict[str, Any]) -> str:
    ports = [info.get(f"{name}_port") for name in ("shell", "iopub", "stdin", "control", "hb")]
    return f"{info.get('transport')} {info.get('ip')} {ports}"


def _read_connection_file(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            info = json.load(file)
    except (OSError, ValueError) as error:
        raise HubError(f"cannot read the connection file {path}: {error}") from error
    if not isinstance(info, dict) or "shell_port" not in info:
        raise KernelError(f"{path} is not a connection file")
    return info
