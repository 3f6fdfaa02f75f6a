"""Mounts that commands keep: who is told what when they end. The mounting itself is played here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import pytest

from sshpyk.errors import LinkLost, MountError, SshpykError
from sshpyk.hub import mounts as hub_mounts
from sshpyk.hub.kernels import Kernels
from sshpyk.hub.mount_request import MountRequest
from sshpyk.hub.mounts import Mounts
from sshpyk.servers import keeping
from sshpyk.servers.conversation import MOUNT, Conversation
from sshpyk.servers.mounts import HeldMount, HeldMounts
from sshpyk.wire.rpc import Params, Rpc
from tests.unit.hub.fakes import FakeHost
from tests.unit.wire.harness import Joined, in_loop, until

CODE = MountRequest("/", "/there/code", ("ro",))


class Bench:
    def __init__(self, joined: Joined) -> None:
        self.asked: list[str] = []
        self.error: SshpykError | None = None
        operations = {name: self._answer(name) for name in ("mount", "unmount")}
        self.agent_rpc = Rpc(joined.agent, operations)
        self.host = FakeHost(joined)
        self.notices: list[str] = []
        self.host.on_notice = self.notices.append
        self.mounts = Mounts(self.host)  # type: ignore[arg-type]
        self.kernels = Kernels(self.host, self.mounts)  # type: ignore[arg-type]
        self.held = HeldMounts(self.host, self.mounts, self.kernels)  # type: ignore[arg-type]

    def _answer(self, name: str) -> Any:
        async def answer(params: Params) -> Params:
            self.asked.append(name)
            if self.error is not None:
                raise self.error
            return {}

        return answer

    async def open(self, request: MountRequest = CODE, again: str = "") -> HeldMount:
        record = {"mount": asdict(request), "python": "python3", "again": again}
        record["mount"]["options"] = list(request.options)
        return await self.held.open_from(record)

    @property
    def stream(self) -> Any:
        (mounted,) = self.mounts._mounted.values()
        return mounted.stream


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with Joined() as joined:
        made = Bench(joined)
        try:
            yield made
        finally:
            made.held.close_all()
            await made.mounts.close()
            made.kernels.close()
            await asyncio.get_running_loop().shutdown_default_executor()


@in_loop
async def test_a_mount_is_listed_and_let_go():
    async with bench() as made:
        one, other = await made.open(), await made.open()
        (listed,) = made.held.summaries()
        assert listed["commands"] == [one.mount_id, other.mount_id]
        assert (listed["state"], listed["kernels"]) == ("mounted", [])
        made.held.close(one)
        await asyncio.sleep(0.05)
        assert made.asked == ["mount"]
        made.held.close(other)
        await until(lambda: not made.held.summaries())
        assert made.asked == ["mount", "unmount"]


@in_loop
async def test_one_that_ends_on_the_host_tells_its_owner():
    async with bench() as made:
        ends: list[SshpykError | None] = []
        held = await made.open()
        held.on_closed = ends.append
        made.stream.abort()
        await until(lambda: ends)
        assert "unmounted on the host" in str(ends[0])
        assert "files there cannot be reached" in made.notices[0]
        assert made.held.summaries() == []
        assert (await made.open()).mount_id != held.mount_id


@in_loop
async def test_a_lost_link_is_told_and_the_mount_made_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keeping, "_PAUSES_S", (0.05,))
    async with bench() as made:
        held = await made.open()
        made.host.driver.left = True  # as long as its streams are ended
        made.stream.abort()
        made.host.driver.left = False
        made.host.on_lost_link(LinkLost("the host was rebooted", host="gpu1"))
        assert made.held.summaries()[0]["error"] == "the host was rebooted"
        await until(lambda: not held.error)
        assert made.asked == ["mount", "mount"]


@in_loop
async def test_one_that_cannot_be_is_refused_and_forgotten():
    async with bench() as made:
        made.error = MountError("it is full")
        with pytest.raises(MountError, match="it is full"):
            await made.open()
        assert made.held.summaries() == []


@in_loop
async def test_the_next_hub_tries_again_while_the_old_mount_goes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub_mounts, "_PAUSE_S", 0.05)
    async with bench() as made:
        made.host.took_over = True
        made.host.keep_up = lambda python: None  # type: ignore[attr-defined]
        made.error = MountError("something is mounted there already")
        opening = asyncio.ensure_future(made.open(again="m1a2b"))
        await until(lambda: made.asked.count("mount") == 1)
        made.error = None
        assert (await opening).mount_id == "m1a2b"


@in_loop
async def test_another_mount_at_the_same_place_is_refused_while_it_is_used():
    async with bench() as made:
        held = await made.open()
        other = MountRequest("/", CODE.remote, ())
        with pytest.raises(MountError, match="with other options"):
            await made.open(other)
        made.held.close(held)
        await made.open(other)
        assert made.asked == ["mount", "unmount", "mount"]


@in_loop
async def test_a_mount_that_lingers_makes_room():
    """A kernel's options were edited, and it is restarted within the time that a mount lingers."""
    async with bench() as made:
        await made.mounts.hold("kernel", [CODE])
        made.mounts.release("kernel")
        await made.mounts.hold("kernel", [MountRequest("/", CODE.remote, ())])
        assert made.asked == ["mount", "unmount", "mount"]


@pytest.mark.parametrize("record", [{}, {"mount": {}}, {"mount": asdict(CODE), "python": 1}])
@in_loop
async def test_a_malformed_request_is_refused(record: dict[str, Any]):
    async with bench() as made:
        with pytest.raises(TypeError):
            await made.held.open_from(record)


@in_loop
async def test_an_owner_that_looks_while_its_mount_is_made_does_not_lose_it():
    """As one does whose hub was killed, on a slow host."""
    async with bench() as made:
        said: list[dict[str, Any]] = []
        orders: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        conversation = Conversation(orders.get, lambda **record: said.append(record))
        record = {"mount": {**asdict(CODE), "options": ["ro"]}, "python": "python3"}
        made.host.may_come_up.clear()
        serving = asyncio.ensure_future(
            conversation.serve(MOUNT, made.held, {"op": "mount", "request": record})
        )
        orders.put_nowait({"op": "look"})
        orders.put_nowait({"op": "look"})
        await asyncio.sleep(0.05)
        made.host.may_come_up.set()
        await until(lambda: said)
        assert said[0]["event"] == "open"
        orders.put_nowait(None)
        await serving
        assert made.held.summaries() == [] or made.held.summaries()[0]["commands"] == []
