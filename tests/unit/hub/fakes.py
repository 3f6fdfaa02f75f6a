"""A host without ssh: the hub's side of a link, and an agent in the same process that obeys."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.session import Session

from sshpyk.errors import SshpykError
from sshpyk.hub.linkstate import LinkState
from sshpyk.hub.outage import Outage
from sshpyk.ssh.command import SshTarget
from sshpyk.wire import kernel_messages
from sshpyk.wire.kernel_messages import CONTROL, ChannelMessage
from sshpyk.wire.rpc import Operation, Params, Rpc
from tests.unit.wire.harness import Joined, until

KEY = "0123456789abcdef"
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


def ipc_info(folder: Path) -> dict[str, Any]:
    """Return the content of a connection file for unix sockets in ``folder``."""
    info: dict[str, Any] = {"transport": "ipc", "ip": str(folder / "k"), "key": KEY}
    info["signature_scheme"] = "hmac-sha256"
    return {**info, **{f"{name}_port": port for port, name in enumerate(CHANNELS, 1)}}


def tcp_info() -> dict[str, Any]:
    """Return the content of a connection file for free ports on loopback."""
    holders = [socket.socket() for _ in CHANNELS]
    for holder in holders:
        holder.bind(("127.0.0.1", 0))
    ports = [holder.getsockname()[1] for holder in holders]
    for holder in holders:
        holder.close()
    info: dict[str, Any] = {"transport": "tcp", "ip": "127.0.0.1", "key": KEY}
    info["signature_scheme"] = "hmac-sha256"
    return {**info, **{f"{name}_port": port for port, name in zip(ports, CHANNELS, strict=True)}}


def curve_info() -> dict[str, Any]:
    """Return the content of a connection file with keys, as jupyter_client 8.9 writes it."""
    public, secret = zmq.curve_keypair()
    return {
        **tcp_info(),
        "curve_publickey": public.decode(),
        "curve_secretkey": secret.decode(),
    }


def write_info(folder: Path, info: dict[str, Any]) -> str:
    path = folder / f"{uuid.uuid4().hex[:8]}.json"
    path.write_text(json.dumps(info))
    return str(path)


class Client:
    """A Jupyter client's five sockets, read without holding up the loop."""

    def __init__(self, info: dict[str, Any], identity: bytes = b"client") -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.info = info
        self.identity = identity
        self.session = Session(key=info["key"].encode())
        self.sockets: dict[str, zmq.Socket[bytes]] = {}

    def open(self, name: str) -> zmq.Socket[bytes]:
        kind = {"iopub": zmq.SUB, "hb": zmq.REQ}.get(name, zmq.DEALER)
        opened: zmq.Socket[bytes] = self.context.socket(kind)
        opened.linger = 0
        if kind == zmq.DEALER and self.identity:
            opened.identity = self.identity
        if "curve_publickey" in self.info:
            opened.curve_serverkey = self.info["curve_publickey"].encode()
            opened.curve_publickey, opened.curve_secretkey = zmq.curve_keypair()
        if kind == zmq.SUB:
            opened.subscribe(b"")
        separator = "-" if self.info["transport"] == "ipc" else ":"
        port = self.info[f"{name}_port"]
        opened.connect(f"{self.info['transport']}://{self.info['ip']}{separator}{port}")
        self.sockets[name] = opened
        return opened

    async def receive(self, name: str) -> list[bytes]:
        await until(lambda: self.sockets[name].poll(0), f"a message on {name}")
        return self.sockets[name].recv_multipart()

    def close(self) -> None:
        self.context.destroy(linger=0)


class FakeAgent:
    """Answers the hub's requests; its kernels keep what they get and say what a test tells them."""

    def __init__(self, joined: Joined) -> None:
        self.driver = joined.agent
        self.asked: list[tuple[str, Params]] = []
        self.kernels: dict[str, FakeKernel] = {}
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.start_error: SshpykError | None = None
        self.welcomes = False
        self.dies_at_once = False
        self.ignores_stop = False  # as one that is killed in that moment
        self.script_answer: Params | None = None  # None: says nothing
        self.rpc = Rpc(
            self.driver,
            {
                "start": self._start,
                "stop": self._stop,
                "interrupt": self._noted("interrupt"),
                "signal": self._noted("signal"),
                "welcomes": self._noted("welcomes"),
                "leave": self._noted("leave"),
                "list": self._list,
                "script": self._script,
            },
        )

    @property
    def ops(self) -> list[str]:
        return [op for op, _ in self.asked]

    @property
    def kernel(self) -> FakeKernel:
        """The latest kernel."""
        return list(self.kernels.values())[-1]

    def _noted(self, op: str) -> Callable[[Params], Any]:
        async def note(params: Params) -> Params:
            self.asked.append((op, params))
            return {}

        return note

    async def _script(self, params: Params) -> Params:
        while self.script_answer is None:
            await asyncio.sleep(0.01)
        return self.script_answer

    async def _start(self, params: Params) -> Params:
        self.asked.append(("start", params))
        await self.may_start.wait()
        if self.start_error is not None:
            raise self.start_error
        kernel = FakeKernel(self, params)
        self.kernels[params["kernel_id"]] = kernel
        if self.dies_at_once:
            kernel.exit(1)
        return {"pid": 1, "welcomes": self.welcomes}

    async def _stop(self, params: Params) -> Params:
        self.asked.append(("stop", params))
        kernel = self.kernels.get(params["kernel_id"])
        if kernel is not None and not self.ignores_stop:
            kernel.exit(-9)
        return {}

    async def _list(self, params: Params) -> Params:
        alive = [kernel_id for kernel_id, kernel in self.kernels.items() if kernel.alive]
        return {"kernels": [{"kernel_id": kernel_id, "mine": True} for kernel_id in alive]}


class FakeKernel:
    def __init__(self, agent: FakeAgent, params: Params) -> None:
        self.params = params
        self.main, self.control = params["streams"]
        self.got: list[ChannelMessage] = []
        self.got_control: list[ChannelMessage] = []
        self.alive = True
        self._driver = agent.driver
        self._driver.claim(self.main, lambda message: self._keep(message, self.got))
        self._driver.claim(self.control, lambda message: self._keep(message, self.got_control))

    def _keep(self, message: Any, where: list[ChannelMessage]) -> bool:
        if not message.end:
            where.append(kernel_messages.unpack(message.payload))
        return True

    def say(self, channel: int, parts: list[bytes]) -> None:
        stream = self.control if channel == CONTROL else self.main
        self._driver.send(stream, kernel_messages.pack(channel, parts))

    def exit(self, status: int) -> None:
        if self.alive:
            self.alive = False
            self._driver.send(self.main, kernel_messages.pack_exit(status))
            self._driver.abandon(self.main)
            self._driver.abandon(self.control)


class FakeHost:
    """What ``Kernels`` and ``Server`` need of a HostLink."""

    def __init__(self, joined: Joined) -> None:
        self.joined = joined
        self.target = SshTarget("gpu1")
        self.state = LinkState.UP
        self.reason: SshpykError | None = None
        self.opened_by_person = False
        self.phase = ""
        self.on_notice: Callable[[str], None] = lambda text: None
        self.outage = Outage("gpu1", lambda text: self.on_notice(text))
        self.took_over = False
        self.on_agent_replaced: Callable[[], None] = lambda: None
        self.driver = joined.hub
        self.on_kernel_taken: Callable[[str, list[int], str], None] = lambda *_: None
        self.operations: dict[str, Operation] = {"taken": self._kernel_taken}
        self.rpc = Rpc(joined.hub, self.operations)
        self.on_lost_link: Callable[[SshpykError], None] = lambda error: None
        self.may_come_up = asyncio.Event()
        self.may_come_up.set()
        self.takes_requests = asyncio.Event()
        self.failure: SshpykError | None = None
        self.left = ""
        self._next_stream = 1

    async def _kernel_taken(self, params: Params) -> Params:
        self.on_kernel_taken(params["kernel_id"], params["streams"], params["by"])
        return {}

    def network_changed(self) -> None:
        pass

    def new_streams(self, count: int) -> list[int]:
        numbers = [self._next_stream + 2 * place for place in range(count)]
        self._next_stream += 2 * count
        return numbers

    @property
    def is_connecting(self) -> bool:
        return self.phase.startswith("connecting")

    @property
    def is_up(self) -> bool:
        return self.state is LinkState.UP

    @property
    def is_silent(self) -> bool:
        return self.is_up and self.outage.duration_s is not None

    async def bring_up(self, python: str) -> None:
        self.phase = "connecting with ssh: gpu1"
        await self.may_come_up.wait()
        if self.failure is not None:
            raise self.failure

    def keep_up(self, python: str) -> None:
        pass

    async def leave(self, reason: str) -> None:
        self.left = reason
        self.driver.leave(reason)
