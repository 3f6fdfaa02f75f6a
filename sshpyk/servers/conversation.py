"""What local processes may ask of the hub about tunnels and mounts; the records are one JSON line each.

::

    -> {"op": "forward", "request": {"listen": {…}, "target": {…}, "python": "python3", …}}
    <- {"event": "open", "tunnel": {…}, "link": {…}}    or  {"event": "failed", "error": {…}}
    -> {"op": "look"}
    <- {"event": "open", "tunnel": {…}, "link": {…}}
    <- {"event": "closed"}          by somebody else, or because the hub leaves
    <- {"event": "failed", "error": {…}}    it has ended, and nobody asked for that

What was opened is closed when the conversation ends. ``{"op": "tunnels"}`` answers one record with all
of a hub, ``{"op": "close_tunnel", "id": "t12ab"}`` closes one. ``mount``, ``mounts`` and ``close_mount``
do the same for mounts; see :data:`TUNNEL` and :data:`MOUNT`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sshpyk.errors import SshpykError

Record = dict[str, Any]
Read = Callable[[], Awaitable[Record | None]]
Say = Callable[..., None]


@dataclass(frozen=True)
class Kind:
    """The words for one kind of thing that a hub keeps for others: three operations, and a key."""

    opening: str
    listing: str
    closing: str
    key: str

    @property
    def operations(self) -> tuple[str, str, str]:
        """What may be asked."""
        return self.opening, self.listing, self.closing


TUNNEL = Kind("forward", "tunnels", "close_tunnel", "tunnel")
MOUNT = Kind("mount", "mounts", "close_mount", "mount")


class Kept(Protocol):
    """Something open. ``on_closed`` is called once, with the reason where nobody wanted that."""

    closed: bool
    on_closed: Callable[[SshpykError | None], None]

    def summary(self) -> Record:
        """Describe it."""


_K = TypeVar("_K", bound=Kept)


class Keeper(Protocol[_K]):
    """Who has all of one kind."""

    async def open_from(self, record: Record) -> _K:
        """Open what a request asks for. Raises SshpykError; nothing stays behind then."""

    def close(self, kept: _K) -> None:
        """Close; idempotent."""

    def find(self, kept_id: str) -> _K | None:
        """Return the one of that id."""

    def summaries(self) -> list[Record]:
        """Describe all."""

    def state(self) -> Record:
        """Describe the link."""


@dataclass(frozen=True)
class Conversation:
    """One connection of a local process, as far as it is about things that are kept."""

    read: Read
    say: Say

    async def serve(self, kind: Kind, keeper: Keeper[_K], record: Record) -> None:
        """Do what a record asks for; an opening takes until the thing is closed."""
        if record["op"] == kind.opening:
            await self._open(kind, keeper, record)
        elif record["op"] == kind.closing:
            kept = keeper.find(str(record["id"]))
            if kept is not None:
                keeper.close(kept)
            self.say(event="closed", known=kept is not None)
        else:
            listed = {kind.listing: keeper.summaries()}
            self.say(event=kind.listing, link=keeper.state(), **listed)

    async def _open(self, kind: Kind, keeper: Keeper[_K], record: Record) -> None:
        """Open, and keep it for as long as its owner is there."""
        request = record["request"]
        if not isinstance(request, dict):
            raise TypeError("a request that is no record")
        opening = asyncio.ensure_future(keeper.open_from(request))
        order = asyncio.ensure_future(self.read())
        try:
            while True:
                await asyncio.wait({opening, order}, return_when=asyncio.FIRST_COMPLETED)
                if opening.done():
                    break
                asked = order.result()
                if asked is None or asked["op"] != "look":  # the owner has gone, or talks nonsense
                    return
                order = asyncio.ensure_future(self.read())  # answered by what we say in the end
            await self._keep(kind, keeper, opening.result(), order)
        except SshpykError as error:
            self.say(event="failed", error=error.to_record())
        finally:
            opening.cancel()
            order.cancel()
            await asyncio.wait({opening})
            if not opening.cancelled() and opening.exception() is None:
                keeper.close(opening.result())

    async def _keep(
        self, kind: Kind, keeper: Keeper[_K], kept: _K, order: asyncio.Future[Record | None]
    ) -> None:
        closed: asyncio.Future[SshpykError | None] = asyncio.get_running_loop().create_future()

        def tell(error: SshpykError | None) -> None:
            # A hub that leaves may give us no other turn; to its owner, silence is a killed hub.
            if error is None:
                self.say(event="closed")
            closed.set_result(error)

        self.say(event="open", link=keeper.state(), **{kind.key: kept.summary()})
        kept.on_closed = tell
        if kept.closed:  # in this moment
            tell(None)
        try:
            while True:
                waits: set[asyncio.Future[Any]] = {order, closed}
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if closed.done():
                    if (error := closed.result()) is not None:
                        raise error
                    return
                if order.result() is None:
                    return
                self.say(event="open", link=keeper.state(), **{kind.key: kept.summary()})
                order = asyncio.ensure_future(self.read())
        finally:
            order.cancel()
