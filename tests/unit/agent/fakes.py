"""The sockets of a kernel as real libzmq ones, in the test's own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zmq

from sshpyk.wire import kernel_messages
from sshpyk.wire.kernel_messages import EXITED
from tests.unit.wire.harness import Inbox, until

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


def ipc_info(folder: Path) -> dict[str, Any]:
    info: dict[str, Any] = {"transport": "ipc", "ip": str(folder / "s"), "key": "k"}
    info["signature_scheme"] = "hmac-sha256"
    return {**info, **{f"{name}_port": port for port, name in enumerate(CHANNELS, 1)}}


class KernelSockets:
    """ROUTERs for shell, stdin and control, an XPUB for iopub; used without holding up the loop."""

    def __init__(self, info: dict[str, Any], *, receive_hwm: int = 0) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.info = info
        self.receive_hwm = receive_hwm
        self.sockets: dict[str, zmq.Socket[bytes]] = {}

    def bind(self, *names: str) -> KernelSockets:
        for name in names or ("iopub", "shell", "stdin", "control"):
            bound: zmq.Socket[bytes] = self.context.socket(
                zmq.XPUB if name == "iopub" else zmq.ROUTER
            )
            bound.linger = 0
            bound.sndhwm = 0
            bound.rcvhwm = self.receive_hwm
            bound.bind(f"ipc://{self.info['ip']}-{self.info[name + '_port']}")
            self.sockets[name] = bound
        return self

    async def receive(self, name: str) -> list[bytes]:
        await until(lambda: self.sockets[name].poll(0), f"a message on {name}")
        return self.sockets[name].recv_multipart()

    def send(self, name: str, *parts: bytes) -> None:
        self.sockets[name].send_multipart(parts)

    async def subscribed(self) -> None:
        assert await self.receive("iopub") == [b"\x01"]

    def close(self) -> None:
        self.context.destroy(linger=0)


class KernelInbox(Inbox):
    """What came on a kernel's stream, unpacked."""

    @property
    def unpacked(self) -> list[tuple[int, list[bytes]]]:
        found = [kernel_messages.unpack(payload) for payload in self.payloads]
        return [(channel, [bytes(part) for part in parts]) for channel, parts in found]

    def of(self, channel: int) -> list[list[bytes]]:
        return [parts for number, parts in self.unpacked if number == channel]

    @property
    def status(self) -> int | None:
        return next((int(parts[0]) for parts in self.of(EXITED)), None)
