"""The mounts that a command keeps, for use without a kernel: the hub's side of ``sshpyk mount``.

Such a mount outlives outages and the agent's death, and the host's reboot: it is made again on the
next link. It ends with :meth:`HeldMounts.close`, and with an error when somebody ends it on the host.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Any

from sshpyk.errors import SshpykError
from sshpyk.hub.host import HostLink
from sshpyk.hub.kernels import Kernels
from sshpyk.hub.mount_request import MountRequest
from sshpyk.hub.mounts import Mounts
from sshpyk.servers.keeping import both, link_record, revive

log = logging.getLogger(__name__)


class HeldMount:
    """One mount of a command's. ``on_closed`` is called once, with the reason if it ended by itself."""

    def __init__(self, request: MountRequest, python: str, again: str = "") -> None:
        self.mount_id = again or "m" + secrets.token_hex(2)
        self.request = request
        self.python = python
        self.error = ""  # why it is not there now
        self.closed = False
        self.on_closed: Callable[[SshpykError | None], None] = lambda error: None

    @property
    def user(self) -> str:
        """Who we are among the users of a mount."""
        return f"command {self.mount_id}"

    def summary(self) -> dict[str, Any]:
        """Describe it."""
        return {
            "id": self.mount_id,
            "local": self.request.local,
            "remote": self.request.remote,
            "options": list(self.request.options),
            "error": self.error,
        }


class HeldMounts:
    """See the module. Made once per hub; takes part in what happens to the host's link."""

    def __init__(self, host: HostLink, mounts: Mounts, kernels: Kernels) -> None:
        self._host = host
        self._mounts = mounts
        self._kernels = kernels
        self._held: dict[str, HeldMount] = {}
        self._reviving: asyncio.Future[None] | None = None
        mounts.on_ended = self._on_ended
        host.on_lost_link = both(host.on_lost_link, self._on_lost_link)

    async def open_from(self, record: dict[str, Any]) -> HeldMount:
        """Mount, and bring the link up if need be. Raises SshpykError; nothing stays behind then."""
        request = MountRequest.from_record(record.get("mount"))
        python, again = record.get("python"), record.get("again", "")
        if not isinstance(python, str) or not isinstance(again, str):
            raise TypeError("a malformed request for a mount")
        held = HeldMount(request, python, again)
        self._held[held.mount_id] = held
        try:
            if again and self._host.took_over:
                self._host.keep_up(python)
                await self._mounts.hold_patiently(held.user, request)
            else:
                await self._host.bring_up(python)
                await self._mounts.hold(held.user, [request])
        except BaseException as error:
            self.close(held)
            if isinstance(error, SshpykError):
                error.host = error.host or self._host.target.host
            raise
        log.info("%s holds %s", held.user, request)
        return held

    def find(self, kept_id: str) -> HeldMount | None:
        """Return a mount by its id."""
        return self._held.get(kept_id)

    def close(self, kept: HeldMount) -> None:
        """Let go of a mount; it goes unless a kernel uses it. Idempotent."""
        self._close(kept, None)

    def _close(self, held: HeldMount, error: SshpykError | None) -> None:
        if not held.closed:
            held.closed = True
            self._held.pop(held.mount_id, None)
            self._mounts.release(held.user, linger_s=0)
            held.on_closed(error)

    def close_all(self) -> None:
        """Let go of all; called when the hub leaves."""
        if self._reviving is not None:
            self._reviving.cancel()
        for held in list(self._held.values()):
            self.close(held)

    def summaries(self) -> list[dict[str, Any]]:
        """Describe every mount of the hub: who keeps it, which commands (their ids) and kernels."""
        found = [self._with_users(summary) for summary in self._mounts.summaries()]
        seen = {held for one in found for held in one["commands"]}
        waiting = [one.summary() for one in self._held.values() if one.mount_id not in seen]
        return [
            *found,
            *(
                {**one, "commands": [one["id"]], "kernels": [], "state": "waiting"}
                for one in waiting
            ),
        ]

    def _with_users(self, summary: dict[str, Any]) -> dict[str, Any]:
        users = summary.pop("users")
        held = [one for one in self._held.values() if one.user in users]
        kernels = []
        for user in users:
            kernel = self._kernels.find(kernel_id=user)
            if kernel is not None:
                name, session = kernel.request.kernel_name, kernel.request.session
                kernels.append({"kernel_id": user, "name": name, "session": session})
            elif not user.startswith("command "):
                kernels.append({"kernel_id": user, "name": "", "session": ""})  # it is starting
        return {
            **summary,
            "commands": [one.mount_id for one in held],
            "error": "".join(one.error for one in held[:1]),
            "kernels": kernels,
        }

    def state(self) -> dict[str, Any]:
        """Describe the link."""
        return link_record(self._host)

    def _on_ended(self, user: str, error: SshpykError) -> None:
        for held in list(self._held.values()):
            if held.user == user:
                self._close(held, error)

    def _on_lost_link(self, error: SshpykError) -> None:
        """The host was rebooted, or the agent ended: say so, and mount again."""
        for held in self._held.values():
            held.error = error.what
        if self._held:
            self._reviving = asyncio.ensure_future(self._revive())

    async def _revive(self) -> None:
        def python() -> str:
            return next((held.python for held in self._held.values()), "")

        def note(what: str) -> None:
            for held in self._held.values():
                held.error = what

        await revive(self._host, python, self._hold_all, note)

    async def _hold_all(self) -> None:
        for held in list(self._held.values()):
            try:
                await self._mounts.hold_patiently(held.user, held.request)
                held.error = ""
            except SshpykError as error:
                self._close(held, error)
