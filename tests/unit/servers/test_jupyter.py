"""What the hub does for a server: start it, lead a tunnel there, end it; the agent is one in a script."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sshpyk.errors import AgentReplaced, LinkLost, ServerError, SshpykError, Unreachable
from sshpyk.hub.linkstate import LinkState
from sshpyk.servers import jupyter as jupyter_module
from sshpyk.servers.conversation import Conversation
from sshpyk.servers.jupyter import Servers
from sshpyk.servers.shown import SERVER, ShownServers
from sshpyk.wire.rpc import Params, Rpc
from tests.unit.servers.bench import TunnelBench, ask, is_free, tunnel_bench
from tests.unit.wire.harness import in_loop, until

GONE = ServerError("there is no such server", code="SERVER-GONE")


class ServerBench:
    """A hub with servers, and an agent whose only server is the bench's echo server."""

    def __init__(self, tunnels: TunnelBench, target: dict[str, Any]) -> None:
        self.tunnels = tunnels
        self.servers = Servers(tunnels.host)  # type: ignore[arg-type]
        self.target = target
        self.asked: list[Params] = []
        self.listed: list[dict[str, Any]] = []
        self.looks_until_ready = 1
        self.failure: SshpykError | None = None
        operations = dict.fromkeys(
            ("serve", "release_server", "stop_server", "open_server"), self._noted
        )
        operations["server_progress"] = self._progress
        operations["servers"] = self._list
        self.agent = Rpc(tunnels.joined.agent, {**tunnels.forwards.operations, **operations})
        self.said: list[dict[str, Any]] = []
        self.owner_goes = asyncio.Event()

    @property
    def ops(self) -> list[str]:
        return [params["op"] for params in self.asked]

    async def _noted(self, params: Params) -> Params:
        self.asked.append(params)
        if self.failure is not None:
            raise self.failure
        return {"server_id": params["server_id"], "target": self.target, "token": "t"}

    async def _list(self, params: Params) -> Params:
        return {"servers": self.listed}

    async def _progress(self, params: Params) -> Params:
        if self.failure is not None:
            raise self.failure
        self.looks_until_ready -= 1
        return {"ready": self.looks_until_ready <= 0, "said": ["loading"]}

    async def converse(self, **changes: Any) -> None:
        """Be a conversation until its owner goes."""
        request = {"server_id": "s1", "agent_python": "python3", "port": 0, "timeout_s": 20}
        record = {"op": "serve", "request": {**request, **changes}}

        async def read() -> None:
            await self.owner_goes.wait()

        def say(**words: Any) -> None:
            self.said.append(words)

        keeper = ShownServers(self.servers, self.tunnels.tunnels, say)
        await Conversation(read, say).serve(SERVER, keeper, record)

    def heard(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.said if one["event"] == event]


@asynccontextmanager
async def server_bench() -> AsyncIterator[ServerBench]:
    async with tunnel_bench() as tunnels:
        yield ServerBench(tunnels, (await tunnels.listen()).to_record())


@in_loop
async def test_a_server_is_started_and_used_and_released_when_its_owner_goes():
    async with server_bench() as bench:
        bench.looks_until_ready = 2
        talk = asyncio.ensure_future(bench.converse(start=True, app="lab", keep=False))
        await until(lambda: bench.heard("open"))
        assert [one["text"] for one in bench.heard("progress")] == ["starting the server: loading"]
        assert bench.heard("serving")[0]["server"]["token"] == "t"
        (tunnel,) = bench.tunnels.tunnels._tunnels.values()
        assert await ask(tunnel.listens, b"hello") == b"HELLO"
        started = bench.asked[0]
        assert (started["app"], started["activate_s"]) == ("lab", 20)
        assert "@" in started["owner"]
        bench.owner_goes.set()
        await talk
        await until(lambda: "release_server" in bench.ops)
        assert is_free(tunnel.listens)


@in_loop
async def test_the_last_one_who_shows_it_releases_it():
    async with server_bench() as bench:
        first = asyncio.ensure_future(bench.converse())
        second = asyncio.ensure_future(bench.converse())
        await until(lambda: len(bench.heard("open")) == 2)
        first.cancel()
        await asyncio.wait({first})
        await asyncio.sleep(0.05)
        assert "release_server" not in bench.ops
        bench.owner_goes.set()
        await second
        await until(lambda: "release_server" in bench.ops)


@in_loop
async def test_a_start_that_fails_or_is_given_up_is_stopped():
    async with server_bench() as bench:
        bench.failure = ServerError("it ended with status 1")
        await bench.converse(start=True)
        assert bench.said[-1]["error"]["what"] == "it ended with status 1"
        assert bench.said[-1]["error"]["host"] == "gpu1"
        await until(lambda: bench.ops[-1] == "stop_server")
        bench.failure, bench.looks_until_ready = None, 10**9
        talk = asyncio.ensure_future(bench.converse(start=True))
        await until(lambda: bench.heard("progress"))
        bench.owner_goes.set()  # Ctrl+C
        await talk
        await until(lambda: bench.ops[-1] == "stop_server")


@in_loop
async def test_one_that_never_listens_is_given_up_in_time():
    async with server_bench() as bench:
        bench.looks_until_ready = 10**9
        await bench.converse(start=True, timeout_s=0.2)
        assert bench.said[-1]["error"]["code"] == "SERVER-SLOW"
        assert bench.said[-1]["error"]["said"] == "loading"


@in_loop
async def test_no_host_within_the_time_is_told():
    async with server_bench() as bench:
        bench.tunnels.host.may_come_up.clear()
        await bench.converse(start=True, timeout_s=0.05)
        assert bench.said[-1]["error"]["kind"] == Unreachable.__name__
        assert not bench.asked


@in_loop
async def test_a_local_port_that_is_taken_is_told_before_anything_is_started():
    async with server_bench() as bench:
        await bench.converse(start=True, port=bench.target["port"])
        assert "is taken by" in bench.said[-1]["error"]["what"]
        assert not bench.asked
        talk = asyncio.ensure_future(bench.converse(port=bench.target["port"], any_port=True))
        await until(lambda: bench.heard("open"))
        bench.owner_goes.set()
        await talk


@pytest.mark.parametrize(
    ("status", "code", "how"),
    [(0, "SERVER-ENDED", "status 0"), (-9, "SERVER-FAILED", "signal 9"), (3, "SERVER-FAILED", "3")],
)
@in_loop
async def test_whoever_shows_it_is_told_of_its_end(status: int, code: str, how: str):
    async with server_bench() as bench:
        talk = asyncio.ensure_future(bench.converse())
        await until(lambda: bench.heard("open"))
        bench.agent.notify("server_ended", server_id="other", status=1)
        bench.agent.notify("server_ended", server_id="s1", status=status)
        await talk
        assert bench.said[-1]["error"]["code"] == code
        assert how in bench.said[-1]["error"]["what"]
        assert not bench.tunnels.tunnels.busy


@in_loop
async def test_a_tunnel_that_is_closed_releases_its_server():
    async with server_bench() as bench:
        talk = asyncio.ensure_future(bench.converse())
        await until(lambda: bench.heard("open"))
        (tunnel,) = bench.tunnels.tunnels._tunnels.values()
        bench.tunnels.tunnels.close(tunnel)
        await talk
        assert bench.said[-1]["event"] == "closed"
        await until(lambda: "release_server" in bench.ops)


@in_loop
async def test_a_hub_that_took_over_releases_what_nobody_shows_any_more():
    async with server_bench() as bench:
        talk = asyncio.ensure_future(bench.converse())
        await until(lambda: bench.heard("open"))
        others = {"mine": False, "server_id": "s3"}
        bench.listed = [{"mine": True, "server_id": name} for name in ("s1", "s2")] + [others]
        bench.servers.release_orphans()
        await until(lambda: "release_server" in bench.ops)
        released = [one["server_id"] for one in bench.asked if one["op"] == "release_server"]
        assert released == ["s2"]
        bench.owner_goes.set()
        await talk


@in_loop
async def test_the_next_hub_gets_the_tunnel_as_it_was_and_waits_for_its_port():
    async with server_bench() as bench:
        with socket.create_server(("127.0.0.1", 0)) as before:
            listens = {"host": "localhost", "port": before.getsockname()[1], "path": ""}
            tunnel = {"listen": listens, "target": bench.target, "python": "x", "again": "t1"}
            talk = asyncio.ensure_future(bench.converse(tunnel=tunnel))
            await asyncio.sleep(0.3)
            assert not bench.said
        await until(lambda: bench.heard("open"))
        opened = bench.heard("open")[0]["server"]
        assert (opened["tunnel"]["id"], opened["tunnel"]["listens"]) == ("t1", listens)
        assert bench.ops == []
        bench.owner_goes.set()
        await talk
        await until(lambda: bench.ops == ["release_server"])


@pytest.mark.parametrize("rebooted", [False, True])
@in_loop
async def test_what_did_not_survive_agent_or_host_is_told(
    rebooted: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jupyter_module, "_LOOK_S", 0.02)
    async with server_bench() as bench:
        host = bench.tunnels.host
        talk = asyncio.ensure_future(bench.converse())
        await until(lambda: bench.heard("open"))
        host.on_agent_replaced()  # and the server lives
        await until(lambda: bench.ops.count("open_server") == 2)
        assert not talk.done()
        bench.failure = GONE
        if rebooted:
            host.state = LinkState.DOWN
            host.on_lost_link(LinkLost("the host was rebooted"))
            await asyncio.sleep(0.1)
            assert not talk.done()  # nobody knows yet
            host.state = LinkState.UP
        else:
            host.rpc.ask_again(AgentReplaced("killed"))
            host.on_agent_replaced()
        await talk
        what = bench.said[-1]["error"]["what"]
        why = "the host was rebooted" if rebooted else "there is no such server"
        assert what == f"{why}; the server there is gone"
