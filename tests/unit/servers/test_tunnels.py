"""Tunnels from the listener to the target and back, and what happens to them."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from sshpyk.errors import AgentReplaced, LinkLost, TunnelError, Unreachable
from sshpyk.hub.linkstate import LinkState
from sshpyk.servers import keeping
from sshpyk.servers import tunnels as tunnels_module
from sshpyk.servers.tunnels import TunnelRequest
from sshpyk.wire.endpoint import Endpoint
from tests.unit.servers.bench import ask, is_free, tunnel_bench
from tests.unit.wire.harness import in_loop, until


@pytest.mark.parametrize("reverse", [False, True])
@in_loop
async def test_bytes_go_through_and_are_counted(reverse: bool):
    async with tunnel_bench() as bench:
        tunnel = await bench.open(reverse=reverse)
        assert tunnel.listens.port > 0
        assert await ask(tunnel.listens, b"hello" * 1000) == b"HELLO" * 1000
        await until(lambda: not tunnel.streams)
        summary = tunnel.summary()
        assert (summary["sent_bytes"], summary["received_bytes"]) == (5000, 5000)
        assert (summary["open"], summary["connections"]) == (0, 1)


@pytest.mark.parametrize("reverse", [False, True])
@in_loop
async def test_unix_sockets_at_both_ends_leave_no_file(reverse: bool, short_folder: Path):
    async with tunnel_bench() as bench:
        target = await bench.listen(str(short_folder / "target"))
        listen = Endpoint(path=str(short_folder / "listen"))
        tunnel = await bench.open(listen=listen, target=target, reverse=reverse)
        assert os.stat(listen.path).st_mode & 0o777 == 0o600
        assert await ask(listen, b"hello") == b"HELLO"
        bench.tunnels.close(tunnel)
        await until(lambda: not bench.forwards.busy)
        await until(lambda: not os.path.exists(listen.path))


@in_loop
async def test_a_dead_unix_socket_is_replaced_and_a_living_one_is_not(short_folder: Path):
    async with tunnel_bench() as bench:
        path = str(short_folder / "listen")
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        await bench.open(listen=Endpoint(path=path))
        with pytest.raises(TunnelError, match="cannot listen"):
            await bench.open(listen=Endpoint(path=path))


@in_loop
async def test_two_hundred_connections_at_once():
    async with tunnel_bench() as bench:
        tunnel = await bench.open()
        words = [b"word %d " % number * 200 for number in range(200)]
        answers = await asyncio.gather(*(ask(tunnel.listens, word) for word in words))
        assert answers == [word.upper() for word in words]
        await until(lambda: not tunnel.streams)
        assert bench.echo.connections == 200


@pytest.mark.parametrize("reverse", [False, True])
@in_loop
async def test_a_target_that_refuses_resets_the_connection_and_is_told(reverse: bool):
    async with tunnel_bench() as bench:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        tunnel = await bench.open(target=Endpoint("127.0.0.1", port), reverse=reverse)
        with pytest.raises(ConnectionError):
            await ask(tunnel.listens, b"hello")
        await until(lambda: tunnel.error)
        assert tunnel.error == f"127.0.0.1:{port}: Connection refused"


@in_loop
async def test_the_port_is_kept_by_name_or_another_is_taken():
    async with tunnel_bench() as bench:
        tunnel = await bench.open()
        with pytest.raises(TunnelError, match=rf"taken by pid {os.getpid()} "):
            await bench.open(listen=tunnel.listens, target=tunnel.listens)
        other = await bench.open(listen=tunnel.listens, target=tunnel.request.target, any_port=True)
        assert other.listens.port not in (0, tunnel.listens.port)


@pytest.mark.parametrize("reverse", [False, True])
@in_loop
async def test_closing_ends_connections_at_both_ends_and_frees_the_address(reverse: bool):
    async with tunnel_bench() as bench:
        tunnel = await bench.open(reverse=reverse)
        reader, writer = await asyncio.open_connection("localhost", tunnel.listens.port)
        writer.write(b"x")
        assert await reader.read(1) == b"X"
        bench.tunnels.close(tunnel)
        with pytest.raises(ConnectionError):
            assert await reader.read() == b"never in order"
        writer.close()
        await until(lambda: is_free(tunnel.listens))
        await until(lambda: not bench.forwards.busy)
        links = bench.joined.hub.link, bench.joined.agent.link
        await until(lambda: all(set(link._streams) == {0} for link in links))


@in_loop
async def test_an_outage_stalls_old_and_new_connections():
    async with tunnel_bench() as bench:
        tunnel = await bench.open()
        reader, writer = await asyncio.open_connection("localhost", tunnel.listens.port)
        writer.write(b"before ")
        assert await reader.readexactly(7) == b"BEFORE "
        await bench.joined.cut_and_noticed()
        writer.write(b"during")
        new = asyncio.ensure_future(ask(tunnel.listens, b"new"))
        await asyncio.sleep(0.1)
        bench.joined.connect()
        assert await reader.readexactly(6) == b"DURING"
        assert await new == b"NEW"
        writer.close()


@in_loop
async def test_a_killed_agent_resets_what_was_open_and_the_next_serves_the_tunnel():
    async with tunnel_bench() as bench:
        tunnel = await bench.open()
        reader, writer = await asyncio.open_connection("localhost", tunnel.listens.port)
        writer.write(b"x")
        assert await reader.read(1) == b"X"
        for stream in [s for one in bench.forwards._tunnels.values() for s in one.streams]:
            stream._let_go(reset=True)  # the process is gone: nothing is said
        bench.new_agent()
        bench.host.rpc.ask_again(AgentReplaced("killed"))
        bench.host.on_agent_replaced()
        with pytest.raises(ConnectionError):
            assert await reader.read() == b"never in order"
        writer.close()
        assert await ask(tunnel.listens, b"again") == b"AGAIN"
        links = bench.joined.hub.link, bench.joined.agent.link
        await until(lambda: all(set(link._streams) == {0} for link in links))


@in_loop
async def test_a_hub_that_took_over_ends_what_the_one_before_had_open():
    async with tunnel_bench() as bench:
        tunnel = await bench.open()
        reader, writer = await asyncio.open_connection("localhost", tunnel.listens.port)
        writer.write(b"x")
        assert await reader.read(1) == b"X"
        (lost,) = tunnel.streams
        lost._let_go(reset=True)  # the process is gone: nothing is said
        bench.host.took_over = True
        later = tunnels_module.Tunnels(bench.host)  # type: ignore[arg-type]
        await until(lambda: not bench.forwards.busy)
        links = bench.joined.hub.link, bench.joined.agent.link
        await until(lambda: all(set(link._streams) == {0} for link in links))
        writer.close()
        later.close_all()


@in_loop
async def test_a_lost_link_is_told_and_the_tunnel_opened_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keeping, "_PAUSES_S", (0.05,))
    async with tunnel_bench() as bench:
        tunnel = await bench.open()
        bench.new_agent()  # which knows nothing of it
        bench.host.failure = Unreachable("no route to host")
        bench.host.on_lost_link(LinkLost("the host was rebooted"))
        assert tunnel.summary()["error"] == "the host was rebooted"
        assert not tunnel.summary()["ready"]
        await until(lambda: tunnel.error == "no route to host")
        bench.host.failure = None
        await until(lambda: tunnel.registered)
        assert await ask(tunnel.listens, b"again") == b"AGAIN"


@in_loop
async def test_a_tunnel_that_cannot_be_opened_leaves_nothing():
    async with tunnel_bench() as bench:
        bench.host.failure = Unreachable("no route to host")
        with pytest.raises(Unreachable, match="no route"):
            await bench.open()
        assert not bench.tunnels.busy
        bench.host.failure = None
        tunnel = await bench.open()
        with pytest.raises(TunnelError, match=f"cannot listen on localhost:{tunnel.listens.port}"):
            await bench.open(reverse=True, listen=tunnel.listens, target=tunnel.listens)
        assert len(bench.tunnels.summaries()) == 1


@in_loop
async def test_newcomers_wait_while_there_are_too_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tunnels_module, "MAX_CONNECTIONS", 4)
    async with tunnel_bench() as bench:
        tunnel = await bench.open()
        holders = [
            await asyncio.open_connection("localhost", tunnel.listens.port) for _ in range(4)
        ]
        await until(lambda: len(tunnel.streams) == 4)
        waiting = asyncio.ensure_future(ask(tunnel.listens, b"late"))
        await asyncio.sleep(0.1)
        assert len(tunnel.streams) == 4
        for _, writer in holders:
            writer.close()
        assert await waiting == b"LATE"


@in_loop
async def test_the_state_says_how_the_link_is():
    async with tunnel_bench() as bench:
        assert bench.tunnels.state()["link"] == "up"
        bench.host.state = LinkState.DOWN
        bench.host.reason = LinkLost("the host was rebooted")
        assert bench.tunnels.state()["reason"] == "the host was rebooted"


@pytest.mark.parametrize(
    "record",
    [
        {"host": "localhost", "port": 70000, "path": ""},
        {"host": "", "port": 1, "path": ""},
        {"host": "a", "port": 1, "path": "/b"},
        {"host": 1, "port": 1, "path": ""},
        [],
    ],
)
def test_addresses_that_make_no_sense_are_refused(record: object):
    with pytest.raises(ValueError, match="no address"):
        Endpoint.from_record(record)
    with pytest.raises((ValueError, TypeError)):
        TunnelRequest.from_record({"listen": record, "target": record, "python": "python3"})
