"""The owner of tunnels: a local process that keeps them with the hub, or with the next one."""

from __future__ import annotations

import contextlib
import dataclasses
import select
import time
from collections.abc import Callable, Sequence
from typing import Any

from sshpyk.errors import HubError, TunnelError, error_from_record
from sshpyk.hub.client import HubClient, reach_hub
from sshpyk.servers.tunnels import TunnelRequest
from sshpyk.ssh.command import SshTarget

_TRIES = 5
_FORGET_S = 10.0
_PAUSE_S = 0.2  # a killed process may still hold its sockets for a moment

Record = dict[str, Any]


class TunnelOwner:
    """One tunnel and the conversation with the hub that keeps it; see ``conversation``.

    ``tunnel`` and ``link`` are what the hub said last.
    """

    def __init__(self, target: SshTarget, request: TunnelRequest) -> None:
        self.target = target
        self.closed = False
        self.reason = ""  # why, where that is not ours
        self.tunnel: Record = {}
        self.link: Record = {}
        self._request = request
        self._server_id = ""  # what hangs on the tunnel
        self._hub: HubClient | None = None
        self._tries = 0
        self._tried_s = 0.0

    def open(self) -> None:
        """Open the tunnel. Raises what the hub answers, or that there is none."""
        self._say_forward()
        record = self._conversation.hear()
        if record is None:
            raise HubError("the local hub process went away", host=self.target.host)
        self._note(record)

    @property
    def _conversation(self) -> HubClient:
        assert self._hub is not None
        return self._hub

    def fileno(self) -> int:
        """Return what becomes readable when the hub has said something (for select)."""
        return self._conversation.socket.fileno()

    def _say_forward(self) -> None:
        self._hub = reach_hub(self.target)
        with contextlib.suppress(OSError):  # it has gone: heard as its silence
            request = dataclasses.asdict(self._request) | self._ends()
            self._hub.say("forward", request=request, server=self._server_id)

    def _ends(self) -> Record:
        return {end: getattr(self._request, end).to_record() for end in ("listen", "target")}

    def look(self) -> None:
        """Ask how the tunnel is; the answer is :meth:`heard <hear>`."""
        with contextlib.suppress(OSError):
            self._conversation.say("look")

    def hear(self) -> None:
        """Take what the hub has said. Raises when the tunnel cannot be kept."""
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
            self.closed, self.reason = True, record.get("reason", "")
        else:
            self.tunnel, self.link = record["tunnel"], record["link"]

    def _open_again(self) -> None:
        """The hub was killed: another one gets the tunnel, with the address that it had."""
        if time.monotonic() - self._tried_s > _FORGET_S:
            self._tries = 0
        self._tries += 1
        self._tried_s = time.monotonic()
        if self._tries > _TRIES:
            raise HubError("the local hub process goes away again and again", host=self.target.host)
        self.close()
        time.sleep(_PAUSE_S)
        record = self.tunnel["listens"]
        listen = self._request.listen._replace(**record)
        self._request = dataclasses.replace(
            self._request, listen=listen, any_port=False, again=self.tunnel["id"]
        )
        self._say_forward()

    def close(self) -> None:
        """End the conversation, and so the tunnel."""
        if self._hub is not None:
            self._hub.close()


def open_all(target: SshTarget, requests: Sequence[TunnelRequest]) -> list[TunnelOwner]:
    """Open tunnels, or none of them. Raises what the first failure was."""
    owners: list[TunnelOwner] = []
    try:
        for request in requests:
            owners.append(TunnelOwner(target, request))
            owners[-1].open()
    except BaseException:
        for owner in owners:
            owner.close()
        raise
    return owners


def keep(
    owners: Sequence[TunnelOwner], look_every_s: float | None, show: Callable[[], None]
) -> None:
    """Return when all tunnels are closed; ``show`` is called whenever more is known of one.

    Without ``look_every_s`` the hub is not asked. Raises TunnelError when a tunnel cannot be kept.
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


__all__ = ["TunnelError", "TunnelOwner", "keep", "open_all"]
