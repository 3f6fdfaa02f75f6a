"""The owner of tunnels and mounts: a local process that keeps them with the hub, or with the next one."""

from __future__ import annotations

import contextlib
import dataclasses
import select
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar

from sshpyk.errors import HubError, error_from_record
from sshpyk.hub.client import HubClient, reach_hub
from sshpyk.hub.mount_request import MountRequest
from sshpyk.servers.conversation import MOUNT, TUNNEL, Kind
from sshpyk.servers.tunnels import TunnelRequest
from sshpyk.ssh.command import SshTarget

_TRIES = 5
_FORGET_S = 10.0
_PAUSE_S = 0.2  # a killed process may still hold its sockets for a moment

Record = dict[str, Any]


class Owner:
    """One thing that a hub keeps, and the conversation which keeps it there; see ``conversation``.

    ``kept`` and ``link`` are what the hub said last.
    """

    kind: ClassVar[Kind]

    def __init__(self, target: SshTarget) -> None:
        self.target = target
        self.closed = False
        self.kept: Record = {}
        self.link: Record = {}
        self._hub: HubClient | None = None
        self._tries = 0
        self._tried_s = 0.0

    def open(self) -> None:
        """Open it. Raises what the hub answers, or that there is none."""
        self._ask()
        record = self._conversation.hear()
        if record is None:
            raise HubError("the local hub process went away", host=self.target.host)
        self._note(record)

    def request(self) -> Record:
        """Return what to ask the hub for: of one that has taken the place of another, the same again."""
        raise NotImplementedError

    @property
    def _conversation(self) -> HubClient:
        assert self._hub is not None
        return self._hub

    def fileno(self) -> int:
        """Return what becomes readable when the hub has said something (for select)."""
        return self._conversation.socket.fileno()

    def _ask(self) -> None:
        self._hub = reach_hub(self.target)
        with contextlib.suppress(OSError):  # it has gone: heard as its silence
            self._hub.say(self.kind.opening, request=self.request())

    def look(self) -> None:
        """Ask how it is; the answer is :meth:`heard <hear>`."""
        with contextlib.suppress(OSError):
            self._conversation.say("look")

    def hear(self) -> None:
        """Take what the hub has said. Raises when the thing cannot be kept."""
        record = self._conversation.hear()
        if record is None:
            self._open_again()
        else:
            self._note(record)
        if self._conversation.has_more:
            self.hear()

    def _note(self, record: Record) -> None:
        if record["event"] == "failed":
            raise error_from_record(record["error"])
        if record["event"] == "closed":
            self.closed = True
        else:
            self.kept, self.link = record[self.kind.key], record["link"]

    def _open_again(self) -> None:
        """The hub was killed: another one gets what it kept."""
        if time.monotonic() - self._tried_s > _FORGET_S:
            self._tries = 0
        self._tries += 1
        self._tried_s = time.monotonic()
        if self._tries > _TRIES:
            raise HubError("the local hub process goes away again and again", host=self.target.host)
        self.close()
        time.sleep(_PAUSE_S)
        self._ask()

    def close(self) -> None:
        """End the conversation, and so what it kept."""
        if self._hub is not None:
            self._hub.close()


class TunnelOwner(Owner):
    """A tunnel's. Of the next hub it gets the address that it had."""

    kind = TUNNEL

    def __init__(self, target: SshTarget, request: TunnelRequest) -> None:
        super().__init__(target)
        self._request = request

    @property
    def tunnel(self) -> Record:
        """What the hub said last of the tunnel."""
        return self.kept

    def request(self) -> Record:
        """Return the request as a record."""
        request = self._request
        if self.kept:
            listen = request.listen._replace(**self.kept["listens"])
            request = dataclasses.replace(
                request, listen=listen, any_port=False, again=self.kept["id"]
            )
        ends = {"listen": request.listen.to_record(), "target": request.target.to_record()}
        return dataclasses.asdict(request) | ends


class MountOwner(Owner):
    """A mount's."""

    kind = MOUNT

    def __init__(self, target: SshTarget, mount: MountRequest, python: str) -> None:
        super().__init__(target)
        self._mount = mount
        self._python = python

    def request(self) -> Record:
        """Return the request as a record."""
        mount, again = dataclasses.asdict(self._mount), self.kept.get("id", "")
        return {"mount": mount, "python": self._python, "again": again}


_O = TypeVar("_O", bound=Owner)


def open_all(made: Iterable[_O]) -> list[_O]:
    """Open what owners are made for, or none of it. Raises what the first failure was."""
    owners: list[_O] = []
    try:
        for owner in made:
            owners.append(owner)
            owner.open()
    except BaseException:
        for owner in owners:
            owner.close()
        raise
    return owners


def keep(owners: Sequence[Owner], look_every_s: float | None, show: Callable[[], None]) -> None:
    """Return when all is closed; ``show`` is called whenever more is known of one.

    Without ``look_every_s`` the hub is not asked. Raises SshpykError when one cannot be kept.
    """
    while living := [owner for owner in owners if not owner.closed]:
        readable = select.select(living, [], [], look_every_s)[0]
        for owner in readable:
            owner.hear()
        if readable:
            show()
        else:
            for owner in living:
                owner.look()
