"""Byte streams over a link of two ends in one process: sockets and pipes at either end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sshpyk.wire.bytestream import Allowance, ByteStream, Ends, SocketEnds
from tests.unit.wire.harness import CutWire, Inbox, Joined, in_loop, until

MB = 1024 * 1024


class Tunnel:
    """Streams between pairs of sockets; ``near`` is at the hub, ``far`` at the agent."""

    def __init__(self, joined: Joined) -> None:
        self.joined = joined
        self.hub_allowance = Allowance(joined.hub)
        self.agent_allowance = Allowance(joined.agent)
        self.streams: list[ByteStream] = []
        self.sockets: list[socket.socket] = []
        self._next = 1

    def open(self) -> tuple[socket.socket, socket.socket]:
        near, hub_end = socket.socketpair()
        far, agent_end = socket.socketpair()
        for end in (near, far):
            end.setblocking(False)
        self.sockets += [near, far]
        self.join(SocketEnds(hub_end), SocketEnds(agent_end))
        return near, far

    def join(self, hub_ends: Ends, agent_ends: Ends) -> None:
        number = self._next
        self._next += 2
        self.streams += [
            ByteStream(self.joined.hub, number, hub_ends, self.hub_allowance),
            ByteStream(self.joined.agent, number, agent_ends, self.agent_allowance),
        ]

    def nothing_is_left(self) -> bool:
        links = self.joined.hub.link, self.joined.agent.link
        return not any(link._streams for link in links)


@asynccontextmanager
async def tunnel() -> AsyncIterator[Tunnel]:
    async with Joined() as joined:
        made = Tunnel(joined)
        try:
            yield made
        finally:
            for end in made.sockets:
                end.close()
            for stream in made.streams:
                stream.abort()


async def read_all(end: socket.socket) -> bytes:
    pieces = []
    while piece := await asyncio.get_running_loop().sock_recv(end, MB):
        pieces.append(piece)
    return b"".join(pieces)


async def send(end: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(end, data)


async def is_reset(end: socket.socket) -> bool:
    """Whether the other end went without a word: what a unix socket shows as an end."""
    with contextlib.suppress(ConnectionError):
        return await asyncio.get_running_loop().sock_recv(end, 1) == b""
    return True


@in_loop
async def test_bytes_go_both_ways_and_each_way_closes_by_itself():
    async with tunnel() as bench:
        near, far = bench.open()
        question, answer = random.Random(1).randbytes(3 * MB), random.Random(2).randbytes(5 * MB)
        reading = asyncio.ensure_future(read_all(far))
        await send(near, question)
        near.shutdown(socket.SHUT_WR)
        assert await reading == question
        reading = asyncio.ensure_future(read_all(near))
        await send(far, answer)
        far.close()
        assert await reading == answer
        await until(bench.nothing_is_left)
        assert [stream.reset for stream in bench.streams] == [False, False]
        hub, agent = bench.streams
        assert (hub.sent_bytes, hub.received_bytes) == (3 * MB, 5 * MB)
        assert (agent.sent_bytes, agent.received_bytes) == (5 * MB, 3 * MB)


@in_loop
async def test_a_slow_reader_gets_all_of_what_a_peer_sent_that_is_long_gone():
    async with tunnel() as bench:
        near, far = bench.open()
        data = random.Random(3).randbytes(300_000)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        far.shutdown(socket.SHUT_WR)
        await send(near, data)
        near.close()
        await until(lambda: bench.streams[0].over)
        assert await read_all(far) == data
        await until(bench.nothing_is_left)


@in_loop
async def test_a_reader_that_reads_nothing_holds_the_writer_back():
    async with tunnel() as bench:
        near, far = bench.open()
        writing = asyncio.ensure_future(send(near, bytes(64 * MB)))
        hub, agent = bench.streams
        seen = -1
        while hub.sent_bytes != seen:  # until nothing moves any more
            seen = hub.sent_bytes
            await asyncio.sleep(0.2)
        assert not writing.done()
        held = bench.joined.hub.link.backlog_bytes(1)
        unwritten = sum(map(len, agent._unwritten))
        assert held <= 4 * MB + 256 * 1024
        assert unwritten <= held
        reading = asyncio.ensure_future(read_all(far))
        await writing
        near.close()
        assert len(await reading) == 64 * MB
        await until(lambda: bench.hub_allowance.used_bytes == 0)


@in_loop
async def test_many_slow_readers_together_hold_no_more_than_the_total():
    async with tunnel() as bench:
        writing = [asyncio.ensure_future(send(bench.open()[0], bytes(8 * MB))) for _ in range(60)]
        seen = -1
        while bench.hub_allowance.used_bytes != seen:
            seen = bench.hub_allowance.used_bytes
            await asyncio.sleep(0.3)
        assert seen <= 64 * MB + 60 * 320 * 1024
        for task in writing:
            task.cancel()
        await asyncio.wait(writing)


@in_loop
async def test_bytes_are_the_same_across_cuts_at_any_place():
    async with tunnel() as bench:
        near, far = bench.open()
        chance = random.Random(4)
        data = chance.randbytes(8 * MB)
        reading = asyncio.ensure_future(read_all(far))
        writing = asyncio.ensure_future(send(near, data))
        for _ in range(5):
            wire = CutWire("agent", chance.randrange(1000, MB))
            bench.joined.connect(wire.ends)
            await wire.cut.wait()
        bench.joined.connect()
        await writing
        near.close()
        assert await reading == data


@in_loop
async def test_a_connection_opened_and_closed_while_the_line_is_away_is_heard_of_afterwards():
    async with tunnel() as bench:
        await bench.joined.cut_and_noticed()
        near, far = bench.open()
        await send(near, b"hello")
        near.close()
        bench.joined.connect()
        assert await read_all(far) == b"hello"
        far.close()
        await until(bench.nothing_is_left)


@pytest.mark.parametrize("who", ["near", "far"])
@in_loop
async def test_reset_at_one_end_is_a_reset_at_the_other(who: str):
    async with tunnel() as bench:
        near, far = bench.open()
        await send(near, b"x")
        await send(far, b"y")
        await until(lambda: all(stream.received_bytes for stream in bench.streams))
        bench.streams[who == "far"].abort()
        await until(lambda: all(stream.over for stream in bench.streams))
        assert all(stream.reset for stream in bench.streams)
        await until(bench.nothing_is_left)


@in_loop
async def test_a_tcp_peer_sees_the_reset():
    async with tunnel() as bench:
        listener = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
        listener.close()
        far, agent_end = socket.socketpair()
        bench.join(SocketEnds(served), SocketEnds(agent_end))
        bench.sockets += [client, far]
        bench.streams[1].abort()
        client.setblocking(False)
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(client, 1)


@in_loop
async def test_an_endless_answer_ends_when_nobody_reads_it_any_more():
    async with tunnel() as bench:
        near, far = bench.open()
        near.shutdown(socket.SHUT_WR)  # the request is complete
        assert await read_all(far) == b""
        writing = asyncio.ensure_future(send(far, bytes(256 * MB)))
        await asyncio.get_running_loop().sock_recv(near, 1000)
        near.close()
        with pytest.raises(OSError):
            await writing
        await until(bench.nothing_is_left)


@in_loop
async def test_pipes_at_one_end_as_of_a_program():
    async with tunnel() as bench:
        far, agent_end = socket.socketpair()
        far.setblocking(False)
        bench.sockets.append(far)
        cat = await asyncio.create_subprocess_exec(
            "cat", stdin=(stdin := os.pipe())[0], stdout=(stdout := os.pipe())[1]
        )
        os.close(stdin[0])
        os.close(stdout[1])
        bench.join(Ends(stdout[0], stdin[1]), SocketEnds(agent_end))
        await send(far, b"through a program")
        far.shutdown(socket.SHUT_WR)
        assert await read_all(far) == b"through a program"
        assert await cat.wait() == 0
        await until(bench.nothing_is_left)


@in_loop
async def test_many_short_connections_leave_nothing_on_a_long_one(monkeypatch: Any):
    monkeypatch.setattr("sshpyk.link.connection.PING_OVER_S", 0.01)
    monkeypatch.setattr("sshpyk.wire.driver.TICK_S", 0.02)
    async with tunnel() as bench:
        for _ in range(20):
            pairs = [bench.open() for _ in range(100)]
            for near, far in pairs:
                near.send(b"ping")
                near.close()
                assert await read_all(far) == b"ping"
                far.close()
            bench.sockets.clear()
        links = bench.joined.hub.link, bench.joined.agent.link
        bench.joined.hub._tick()
        bench.joined.agent._tick()
        await until(lambda: not any(link._over or link._streams for link in links), "forgotten")
        await until(lambda: not (bench.joined.hub._watchers or bench.joined.agent._consumers))


@in_loop
async def test_links_end_closes_what_is_open():
    async with tunnel() as bench:
        near, _ = bench.open()
        bench.joined.hub.leave("")
        assert await is_reset(near)
        assert bench.streams[0].over


@in_loop
async def test_others_go_first_each_second_time():
    async with tunnel() as bench:
        link = bench.joined.hub.link
        for number in (1, 3, 5):
            link.open(number, bulk=True)
            link.send(number, bytes(200_000))
        link.open(7)
        link.send(7, bytes(200_000))
        order = []
        while len(order) < 8:
            chosen = link.next_chunk(10_000)
            assert chosen is not None
            order.append(chosen[0].stream)
        assert order.count(7) == 4
        bench.joined.agent.claim(7, Inbox())
