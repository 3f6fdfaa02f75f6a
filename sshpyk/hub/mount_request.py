"""Which folder is to be mounted where; and a mount in the hub's care, with who uses it."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from dataclasses import dataclass, field
from typing import Any

from sshpyk.wire.bytestream import ByteStream


@dataclass(frozen=True)
class MountRequest:
    """A local folder, where the host is to have it, sshfs's options, and an odd path of its program.

    With an ``alias`` of the host's ssh config, sshfs logs in by that (:mod:`.ways_back`), to ``sshd``.
    """

    local: str
    remote: str
    options: tuple[str, ...] = ()
    sshfs: str = ""
    alias: str = ""
    sshd: str = ""

    @classmethod
    def from_record(cls, record: Any) -> MountRequest:
        """Read a request that came over the hub's socket. Raises TypeError."""
        if not isinstance(record, dict) or not isinstance(record.get("options"), list):
            raise TypeError("a malformed request for a mount")
        texts = [record.get(name) for name in ("local", "remote", "sshfs")]
        texts += [record.get(name, "") for name in ("alias", "sshd")]
        if not all(isinstance(text, str) for text in (*texts, *record["options"])):
            raise TypeError("a malformed request for a mount")
        return cls(str(texts[0]), str(texts[1]), tuple(record["options"]), *map(str, texts[2:]))

    @property
    def way_back(self) -> tuple[str, str]:
        """What the way back is known by."""
        return self.alias, self.sshd

    def __str__(self) -> str:
        return f"{self.local}:{self.remote}"


@dataclass
class Mounted:
    """A mount, who uses it, and what it is made of."""

    request: MountRequest
    takeover: bool = False
    mount_id: str = field(default_factory=lambda: secrets.token_hex(8))
    users: set[str] = field(default_factory=set)
    coming_up: asyncio.Future[None] | None = None
    server: subprocess.Popen[bytes] | None = None
    stream: ByteStream | None = None
    gone: bool = False
    ending: bool = False  # by us
    leaving: bool = False  # nobody uses it any more

    def summary(self) -> dict[str, Any]:
        """Describe it, and who uses it."""
        return {
            "local": self.request.local,
            "remote": self.request.remote,
            "options": list(self.request.options),
            "users": sorted(self.users),
            "state": self._state,
        }

    @property
    def _state(self) -> str:
        if self.gone or self.leaving:
            return "gone" if self.gone else "unmounting"
        return "mounted" if self.coming_up is not None and self.coming_up.done() else "mounting"
