"""The hub's kernels over a link to a fake agent in the same process, for the tests of both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sshpyk.hub.kernels import Kernels
from sshpyk.hub.requests import LaunchRequest
from tests.unit.hub.fakes import FakeAgent, FakeHost, ipc_info, write_info
from tests.unit.wire.harness import Joined, until


class Bench:
    def __init__(self, joined: Joined, folder: Path) -> None:
        self.joined = joined
        self.agent = FakeAgent(joined)
        self.host = FakeHost(joined)
        self.kernels = Kernels(self.host)  # type: ignore[arg-type]
        self.folder = folder
        self.info = ipc_info(folder)

    def request(self, **changes: Any) -> LaunchRequest:
        request = LaunchRequest(write_info(self.folder, self.info), "python3", "python3", 10.0)
        return replace(request, **changes)

    def nothing_is_left(self) -> bool:
        return not self.kernels.busy and not self.kernels._pool._context._sockets

    async def stopped_at_the_agent(self) -> None:
        await until(lambda: self.agent.ops[-1:] == ["stop"])
        await until(lambda: all(not kernel.alive for kernel in self.agent.kernels.values()))


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    async with Joined() as joined:
        made = Bench(joined, folder)
        try:
            yield made
        finally:
            made.kernels.close()
