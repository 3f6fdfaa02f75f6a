"""What goes on meanwhile: the hub's phase while a kernel is launched, and the hub's log for ``-v``."""

from __future__ import annotations

import contextlib
import os
from typing import Any, TextIO

from sshpyk.errors import SshpykError
from sshpyk.hub import client
from sshpyk.hub.address import hub_log_of
from sshpyk.hub.client import HubClient
from sshpyk.ssh.command import SshTarget

_PATIENCE_S = 1.0


class Progress:
    """Asks the hub, in a conversation of its own, what it is doing."""

    def __init__(self, target: SshTarget) -> None:
        self._target = target
        self._hub: HubClient | None = None

    def phase(self) -> str:
        """Return what a launch does just now, in words; "" when the hub does not say."""
        record = self._ask()
        phase = str(record.get("phase") or "").removesuffix(f": {self._target.host}")
        return self._away(record) or phase

    def away(self) -> str:
        """Return why the host cannot be reached; "" when it can."""
        return self._away(self._ask())

    def _away(self, record: dict[str, Any]) -> str:
        if record.get("away_s") is None:
            return ""
        return f"no connection yet: {record.get('away_reason')}"

    def _ask(self) -> dict[str, Any]:
        try:
            if self._hub is None:
                self._hub = client.reach_hub(self._target)
                self._hub.socket.settimeout(_PATIENCE_S)
            self._hub.say("status")
            return self._hub.hear() or {}
        except (OSError, SshpykError):
            self.close()
            return {}

    def close(self) -> None:
        """End the conversation; idempotent."""
        if self._hub is not None:
            self._hub.close()
            self._hub = None


class LogTail:
    """The lines that the hub's log gets from now on."""

    def __init__(self, target: SshTarget) -> None:
        self._path = hub_log_of(target)
        self._file: TextIO | None = None
        self._rest = ""
        with contextlib.suppress(FileNotFoundError):
            self._open().seek(0, os.SEEK_END)

    def lines(self) -> list[str]:
        """Return the lines that were written since the last call."""
        try:
            text = self._rest + self._open().read()
        except FileNotFoundError:  # not begun yet
            return []
        *lines, self._rest = text.split("\n")
        return lines

    def _open(self) -> TextIO:
        """Return the log's file: another one when the log was begun anew."""
        if self._file is not None and not os.path.samestat(
            os.fstat(self._file.fileno()), os.stat(self._path)
        ):
            self.close()
        if self._file is None:
            self._file = open(self._path, encoding="utf-8", errors="replace")  # noqa: SIM115
        return self._file

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None
