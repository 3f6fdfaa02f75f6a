"""What tests of asyncio code share: a loop that forgives nothing, and two link ends in one process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sshpyk.link.connection import Connection, Event, HelloReceived
from sshpyk.link.link import Link
from sshpyk.link.stream import Message
from sshpyk.wire.carrier import Carrier
from sshpyk.wire.driver import LinkDriver

PATIENCE_S = 20.0
_TEST_S = 90.0  # some start several kernels, on a machine that has other things to do


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="sp", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def open_fds() -> set[str]:
    """Return the open descriptors of this process with what they are."""
    found = set()
    for fd in os.listdir("/dev/fd"):
        try:
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except OSError:  # the one that listed the folder; or not Linux
            continue
    return {entry for entry in found if "/proc/" not in entry and "/dev/urandom" not in entry}


@functools.cache
def _freeze() -> None:
    """Keep the collector from going through everything that was imported after each test."""
    gc.collect()
    gc.freeze()


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a coroutine as a test: within a time limit, no callback fails, no descriptor stays open."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        complaints: list[Any] = []

        async def body() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            await asyncio.wait_for(test(*args, **kwargs), _TEST_S)

        _freeze()
        before = open_fds()
        asyncio.run(body())
        gc.collect()  # a task or future whose failure nobody saw complains now
        assert not complaints, complaints
        left = open_fds() - before
        assert not left, f"left open: {left}"

    return run


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait for something that no event tells of."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"never happened: {what or condition}"
        await asyncio.sleep(0.001)


class Inbox:
    """A consumer that keeps what it gets; ``takes`` says whether it takes it at once."""

    def __init__(self, *, takes: bool = True) -> None:
        self.messages: list[Message] = []
        self.takes = takes

    def __call__(self, message: Message) -> bool:
        self.messages.append(message)
        return self.takes

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages if not message.end]

    @property
    def ended(self) -> bool:
        return any(message.end for message in self.messages)


class Joined:
    """A hub's driver and an agent's, joined by a socket pair that can be cut and made anew."""

    def __init__(self, agent_link: Link | None = None) -> None:
        self.hub = LinkDriver(Link("ab" * 16))
        self.agent = LinkDriver(agent_link or Link("ab" * 16))
        self.epoch = 0
        self.lost: list[str] = []
        self.resumed: list[bool] = []
        self._wires: list[socket.socket] = []
        self.hub.on_lost = lambda carrier, reason: self.lost.append(reason)
        self.hub.on_resumed = lambda carrier, event: self.resumed.append(event.known)

    def connect(self, wires: tuple[socket.socket, socket.socket] | None = None) -> None:
        """Join the two by a new connection; the one before, if it lives, is fenced by it.

        ``wires``: the hub's end and the agent's, where something is to be between them.
        """
        self.epoch += 1
        wires = wires or socket.socketpair()
        self._wires += wires
        never_carried = self.hub.link.epoch == 0
        connection = Connection.initiate(self.hub.link, self.epoch)
        ours = Carrier(connection, *_twice(wires[0]))
        self.hub.adopt(ours)
        if never_carried:
            self.hub.carry_by(ours)
        theirs = Carrier(Connection.accept(), *_twice(wires[1]))
        theirs.on_event = self._on_first_event
        theirs.on_lost = lambda carrier, reason: None
        ours.start()
        theirs.start()

    async def up(self) -> None:
        """Wait until the newest connection carries the link at both ends."""
        await until(lambda: self.hub.link.epoch == self.agent.link.epoch == self.epoch)
        await until(lambda: len(self.resumed) > 0 and self.hub.carrier is not None)

    def _on_first_event(self, carrier: Carrier, event: Event) -> None:
        assert isinstance(event, HelloReceived)
        events = carrier.connection.answer(self.agent.link, event.hello)
        self.agent.carry_by(carrier)
        for later in events:
            carrier.on_event(carrier, later)

    def cut(self) -> None:
        """End every connection under the carriers, as a killed ssh does."""
        for wire in self._wires:
            wire.close()
        self._wires = []

    async def cut_and_noticed(self) -> None:
        for wire in self._wires:
            wire.shutdown(socket.SHUT_RDWR)
        self.cut()
        await until(lambda: self.hub.carrier is None and self.agent.carrier is None)

    def close(self) -> None:
        self.cut()
        self.hub.leave("")
        self.agent.leave("")

    async def __aenter__(self) -> Joined:
        self.connect()
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class CutWire:
    """Two socket pairs and what moves bytes between them: so many one way, then it is cut."""

    def __init__(self, towards: str, room: int) -> None:
        ours, theirs = socket.socketpair(), socket.socketpair()
        self.ends = ours[0], theirs[0]
        self.passed = {"hub": 0, "agent": 0}
        self.cut = asyncio.Event()
        self._towards, self._room = towards, room
        self._inner = {"agent": ours[1], "hub": theirs[1]}  # where what goes there comes from
        for name, source in self._inner.items():
            source.setblocking(False)
            asyncio.get_running_loop().add_reader(source, self._move, name)

    def _move(self, towards: str) -> None:
        try:
            data = self._inner[towards].recv(65536)
        except OSError:
            data = b""
        over = not data
        if towards == self._towards and self.passed[towards] + len(data) >= self._room:
            data, over = data[: self._room - self.passed[towards]], True
        self.passed[towards] += len(data)
        other = self._inner["hub" if towards == "agent" else "agent"]
        with contextlib.suppress(OSError):
            other.sendall(data)
        if over:
            self.close()

    def close(self) -> None:
        for source in [] if self.cut.is_set() else self._inner.values():
            asyncio.get_running_loop().remove_reader(source)
            source.close()
        self.cut.set()


def _twice(wire: socket.socket) -> tuple[int, int]:
    return os.dup(wire.fileno()), os.dup(wire.fileno())
