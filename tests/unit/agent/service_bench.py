"""An agent's service over an in-memory link, with kernelspecs of the test's own beside the real one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from jupyter_client.session import Session

from sshpyk.agent.book import Book
from sshpyk.agent.service import Places, Service
from sshpyk.wire import kernel_messages
from sshpyk.wire.kernel_messages import CONTROL, SHELL
from sshpyk.wire.rpc import Rpc
from tests.unit.agent.fakes import KernelInbox
from tests.unit.wire.harness import Joined, until

KEY = "0123456789abcdef"
KERNEL_ID = "ab" * 16


def write_kernelspec(folder: Path, name: str, argv: list[str], **more: Any) -> None:
    """Write a kernelspec below ``folder``, a part of JUPYTER_PATH."""
    target = folder / "kernels" / name
    target.mkdir(parents=True)
    (target / "kernel.json").write_text(json.dumps({"argv": argv, **more}))


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


class ServiceBench:
    def __init__(self, joined: Joined, folder: Path) -> None:
        self.joined = joined
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.book = Book()
        self.service = Service(joined.agent, self.book, Places(str(folder), str(self.logs)))
        self.rpc = Rpc(joined.hub, {})
        self.main, self.control = KernelInbox(), KernelInbox()
        self.session = Session(key=KEY.encode())
        self._next_stream = 1

    async def start(self, **changes: Any) -> dict[str, Any]:
        """Start a kernel on the next two streams and claim them."""
        streams = [self._next_stream, self._next_stream + 2]
        self._next_stream += 4
        self.main, self.control = KernelInbox(), KernelInbox()
        self.joined.hub.claim(streams[0], self.main)
        self.joined.hub.claim(streams[1], self.control, urgent=True)
        self.streams = streams
        params = {
            "kernel_id": KERNEL_ID,
            "python": sys.executable,
            "kernel_name": "python3",
            "key": KEY,
            "signature_scheme": "hmac-sha256",
            "cwd": "",
            "streams": streams,
            **changes,
            # ipykernel's debugger talks on iopub otherwise.
            "env": {"PYDEVD_DISABLE_FILE_VALIDATION": "1", **changes.get("env", {})},
        }
        return await self.rpc.call("start", **params)

    def ask(
        self,
        msg_type: str,
        content: dict[str, Any],
        channel: int = SHELL,
        *,
        seen: int | None = None,
    ) -> str:
        message = self.session.msg(msg_type, content)
        stream = self.streams[1] if channel == CONTROL else self.streams[0]
        parts = [b"client", *self.session.serialize(message)]
        payload = kernel_messages.pack(channel, parts)
        self.joined.hub.send(stream, payload, seen=self.seen if seen is None else seen)
        return str(message["header"]["msg_id"])

    @property
    def seen(self) -> int:
        """How much of the main stream we have been handed."""
        return self.joined.hub.link.consumed_seq(self.streams[0])

    def execute(self, code: str, *, stop_on_error: bool = False, seen: int | None = None) -> str:
        content = {"code": code, "silent": False, "store_history": True}
        # What follows an error within milliseconds would be aborted with it, locally as well.
        more = {"user_expressions": {}, "allow_stdin": True, "stop_on_error": stop_on_error}
        return self.ask("execute_request", {**content, **more}, seen=seen)

    def heard(self, channel: int, msg_type: str) -> list[dict[str, Any]]:
        """Return the contents of the messages of one type that came on a channel."""
        inbox = self.control if channel == CONTROL else self.main
        found = []
        for parts in inbox.of(channel):
            _, frames = self.session.feed_identities(parts)
            header, content = json.loads(frames[1]), json.loads(frames[4])
            if header["msg_type"] == msg_type:
                found.append(content)
        return found

    async def hear(self, channel: int, msg_type: str) -> dict[str, Any]:
        await until(lambda: self.heard(channel, msg_type), msg_type)
        return self.heard(channel, msg_type)[-1]

    async def ended(self) -> int:
        """Wait for the exit status and the end of both streams."""
        await until(lambda: self.main.ended and self.control.ended, "the end of the kernel")
        assert self.main.status is not None
        return self.main.status

    def close_streams(self) -> None:
        for stream in self.streams:
            self.joined.hub.abandon(stream)

    def nothing_is_left(self) -> bool:
        """Whether no kernel, folder or unfinished stream is left at the agent."""
        folders = [name for name in os.listdir(self.folder) if name.startswith("k")]
        streams = set(self.joined.agent.link._streams) - {0}
        return not (self.book.kernels or folders or streams)


@asynccontextmanager
async def service_bench(folder: Path) -> AsyncIterator[ServiceBench]:
    loop = asyncio.get_running_loop()
    private = folder / "a"
    private.mkdir(mode=0o700)
    async with Joined() as joined:
        made = ServiceBench(joined, private)
        loop.add_signal_handler(signal.SIGCHLD, made.book.check_all)
        try:
            yield made
        finally:
            pids = [kernel.process.pid for kernel in made.book.kernels.values()]
            for kernel in list(made.book.kernels.values()):
                kernel.process.signal(signal.SIGKILL)
            await until(lambda: not made.book.kernels, "the end of every kernel")
            loop.remove_signal_handler(signal.SIGCHLD)
            assert not any(map(alive, pids))
            await loop.shutdown_default_executor()
    shutil.rmtree(private)
