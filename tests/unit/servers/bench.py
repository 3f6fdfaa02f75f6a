"""Both ends of tunnels over a link in memory, with real sockets at the outside."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sshpyk.agent.forward import Forwards
from sshpyk.servers.tunnels import Tunnel, TunnelRequest, Tunnels
from sshpyk.wire.endpoint import Endpoint
from sshpyk.wire.rpc import Rpc
from tests.unit.hub.fakes import FakeHost
from tests.unit.wire.harness import Joined


class EchoServer:
    """Answers in capitals, and ends its way when the other has ended."""

    def __init__(self) -> None:
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while data := await reader.read(65536):
                writer.write(data.upper())
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


class TunnelBench:
    def __init__(self, joined: Joined) -> None:
        self.joined = joined
        self.host = FakeHost(joined)
        self.tunnels = Tunnels(self.host)  # type: ignore[arg-type]
        self.echo = EchoServer()
        self.servers: list[asyncio.AbstractServer] = []
        self.new_agent()

    def new_agent(self) -> None:
        """Put a service at the agent's end, as a process that has just begun."""
        self.forwards = Forwards(
            self.joined.agent, lambda op, **params: self.agent_rpc.call(op, **params)
        )
        self.agent_rpc = Rpc(self.joined.agent, self.forwards.operations)

    async def listen(self, path: str = "") -> Endpoint:
        """Start the echo server; return where it is."""
        if path:
            self.servers.append(await asyncio.start_unix_server(self.echo.serve, path))
            return Endpoint(path=path)
        server = await asyncio.start_server(self.echo.serve, "127.0.0.1", 0)
        self.servers.append(server)
        return Endpoint("localhost", server.sockets[0].getsockname()[1])

    async def open(self, **changes: Any) -> Tunnel:
        params: dict[str, Any] = {"listen": Endpoint("localhost", 0), "python": "python3"}
        if "target" not in changes:
            params["target"] = await self.listen()
        return await self.tunnels.open(TunnelRequest(**{**params, **changes}))


async def ask(endpoint: Endpoint, data: bytes) -> bytes:
    """Say something, end our way, and return all that is answered."""
    if endpoint.path:
        reader, writer = await asyncio.open_unix_connection(endpoint.path)
    else:
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


@asynccontextmanager
async def tunnel_bench() -> AsyncIterator[TunnelBench]:
    async with Joined() as joined:
        made = TunnelBench(joined)
        try:
            yield made
        finally:
            made.tunnels.close_all()
            await asyncio.sleep(0)
            for server in made.servers:
                server.close()
            await asyncio.get_running_loop().shutdown_default_executor()


def is_free(endpoint: Endpoint) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", endpoint.port)) != 0
