"""What an owner hears of the thing that a hub keeps for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

from sshpyk.errors import HubError, SshpykError
from sshpyk.servers.conversation import TUNNEL, Conversation
from tests.unit.wire.harness import in_loop

OPEN = {"op": "forward", "request": {}}


class Kept:
    def __init__(self) -> None:
        self.closed = False
        self.on_closed: Callable[[SshpykError | None], None] = lambda error: None

    def end(self, error: SshpykError | None) -> None:
        if not self.closed:
            self.closed = True
            self.on_closed(error)

    def summary(self) -> dict[str, Any]:
        return {"id": "t12ab"}


class Keeper:
    def __init__(self) -> None:
        self.kept = Kept()

    async def open_from(self, record: dict[str, Any]) -> Kept:
        return self.kept

    def close(self, kept: Kept) -> None:
        kept.end(None)

    def find(self, kept_id: str) -> Kept | None:
        return self.kept if kept_id == "t12ab" else None

    def summaries(self) -> list[dict[str, Any]]:
        return [self.kept.summary()]

    def state(self) -> dict[str, Any]:
        return {"link": "up"}


class Owner:
    """The other end, which says what is put into ``orders`` and hears ``heard``."""

    def __init__(self) -> None:
        self.keeper = Keeper()
        self.heard: list[str] = []
        self.orders: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        say = lambda **record: self.heard.append(record["event"])  # noqa: E731
        self.conversation = Conversation(self.orders.get, say)


@asynccontextmanager
async def opened():
    owner = Owner()
    serving = asyncio.ensure_future(owner.conversation.serve(TUNNEL, owner.keeper, OPEN))
    try:
        while not owner.heard:
            await asyncio.sleep(0)
        yield owner, serving
    finally:
        serving.cancel()
        await asyncio.wait({serving})


@in_loop
async def test_the_owner_hears_of_a_close_even_if_the_hub_ends_in_that_moment():
    async with opened() as (owner, _):
        owner.keeper.close(owner.keeper.kept)
        assert owner.heard == ["open", "closed"]  # the loop had no turn


@in_loop
async def test_a_close_ends_the_conversation_and_is_told_once():
    async with opened() as (owner, serving):
        owner.keeper.close(owner.keeper.kept)
        await asyncio.wait_for(serving, 5)
        assert owner.heard == ["open", "closed"]


@in_loop
async def test_what_ends_by_itself_is_told_with_its_reason():
    async with opened() as (owner, serving):
        owner.keeper.kept.end(HubError("gone"))
        await asyncio.wait_for(serving, 5)
        assert owner.heard == ["open", "failed"]


@in_loop
async def test_it_is_closed_when_its_owner_goes():
    async with opened() as (owner, serving):
        owner.orders.put_nowait({"op": "look"})
        owner.orders.put_nowait(None)
        await asyncio.wait_for(serving, 5)
        assert owner.keeper.kept.closed
        assert owner.heard[:2] == ["open", "open"]
