"""The records that verbs return; ``render`` turns them into text or JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sshpyk.doctor.finding import Item, Mark

__all__ = [
    "Added",
    "CompletionScript",
    "Deleted",
    "Diagnosis",
    "Edited",
    "Item",
    "KernelReport",
    "Listing",
    "LoggedIn",
    "Mark",
    "Processes",
]


@dataclass(frozen=True)
class Added:
    """``add`` wrote this kernel.json."""

    name: str
    display_name: str
    path: Path
    replaced: bool


@dataclass(frozen=True)
class CompletionScript:
    """``completion`` made these lines for a shell."""

    text: str


@dataclass(frozen=True)
class Edited:
    """``edit`` changed these settings: (name, before, after), as JSON values or None."""

    name: str
    path: Path
    changes: tuple[tuple[str, object, object], ...]


@dataclass(frozen=True)
class Deleted:
    """``delete`` removed this folder."""

    name: str
    folder: Path


@dataclass(frozen=True)
class LoggedIn:
    """``login`` opened the link of a host, unless it ``was_up`` already; ``kernels`` run behind it.

    ``kept_h``: for how many hours without a kernel it is kept; 0 for a link that needs no person.
    """

    host: str
    was_up: bool
    kernels: int
    kept_h: int


@dataclass(frozen=True)
class KernelReport:
    """What ``list`` says about one kernel; ``kind`` is local, ssh or broken."""

    kind: str
    name: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Processes:
    """What ``ps`` found: what each hub answered to ``status`` or ``survey``."""

    hubs: tuple[dict[str, Any], ...]
    as_json: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """What ``doctor`` found out about its subject; the findings were shown as they were made.

    ``report`` is what JSON holds, without secrets; ``written`` where it was put.
    """

    subject: str
    items: tuple[Item, ...]
    report: dict[str, Any]
    written: Path | None = None
    as_json: bool = False

    @property
    def cause(self) -> Item | None:
        """The finding that everything after it would fail of."""
        return next((item for item in self.items if item.is_broken), None)

    @property
    def exit_code(self) -> int:
        """1 when something is broken."""
        return 1 if self.cause else 0


@dataclass(frozen=True)
class Listing:
    """What ``list`` found."""

    kernels: tuple[KernelReport, ...]
    as_json: bool = False


@dataclass(frozen=True)
class Forwarded:
    """``forward`` opened these: (host, what the hub says of the tunnel)."""

    tunnels: tuple[tuple[str, dict[str, Any]], ...]
    background: bool


@dataclass(frozen=True)
class TunnelListing:
    """What ``tunnels`` found: what each hub answered."""

    hubs: tuple[dict[str, Any], ...]
    as_json: bool = False


@dataclass(frozen=True)
class TunnelsClosed:
    """``close``, or the end of ``forward``, closed these: (host, what the hub said of the tunnel)."""

    tunnels: tuple[tuple[str, dict[str, Any]], ...]
