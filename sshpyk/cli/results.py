"""The records that verbs return; ``render`` turns them into text or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sshpyk.discovery.offers import Offer
from sshpyk.doctor.finding import Item, Mark
from sshpyk.errors import SshpykError

__all__ = [
    "Added",
    "AddedKernel",
    "Attached",
    "Collected",
    "CompletionScript",
    "Deleted",
    "Diagnosis",
    "Edited",
    "FailedKernel",
    "Item",
    "KernelReport",
    "LeftKernel",
    "Listing",
    "LogList",
    "LogText",
    "LoggedIn",
    "LoggedOut",
    "Mark",
    "OfferRow",
    "Processes",
    "Stopped",
]


@dataclass(frozen=True)
class AddedKernel:
    """A kernel.json that ``add`` wrote; ``checked_s``: its kernel answered after so many seconds."""

    name: str
    display_name: str
    path: Path
    replaced: bool = False
    checked_s: float | None = None


@dataclass(frozen=True)
class FailedKernel:
    """A kernel that did not pass the check of ``add``; ``kept``: its kernel.json is there anyway."""

    name: str
    display_name: str
    error: SshpykError
    kept: bool


@dataclass(frozen=True)
class OfferRow:
    """A line of the table of what a host has; ``added_as`` are its kernels on this machine."""

    number: int
    offer: Offer
    added_as: tuple[str, ...] = ()


@dataclass(frozen=True)
class Added:
    """What ``add`` did; ``rows`` only where the user was not shown them before.

    ``problem``: why nothing at all was done; told after the rows.
    """

    host: str
    kernels: tuple[AddedKernel, ...] = ()
    failed: tuple[FailedKernel, ...] = ()
    already: tuple[tuple[str, str], ...] = ()
    rows: tuple[OfferRow, ...] = ()
    notes: tuple[str, ...] = ()
    as_json: bool = False
    problem: SshpykError | None = None

    @property
    def exit_code(self) -> int:
        """1 when a kernel was not added, 2 when the user has to say more."""
        return self.problem.exit_code if self.problem else int(bool(self.failed))


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
class LoggedOut:
    """``logout`` closed the link of a host if it ``was_open``: kernels ended, or were left there."""

    host: str
    was_open: bool
    ended: int = 0
    left: int = 0


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
    failures: tuple[SshpykError, ...] = ()

    @property
    def exit_code(self) -> int:
        """1 when some host gave no answer."""
        return 1 if self.failures else 0


@dataclass(frozen=True)
class Mounting:
    """Folders of this machine for a kernel that is here again: those asked for, places for which there
    is none, and what went wrong with others.
    """

    asked: tuple[dict[str, Any], ...] = ()
    unknown: tuple[str, ...] = ()
    notice: str = ""


@dataclass(frozen=True)
class Attached:
    """``attach`` brought a kernel here; the process ``pid`` holds it."""

    host: str
    kernel: dict[str, Any]
    connection_file: Path
    pid: int
    mounting: Mounting = Mounting()
    as_json: bool = False


@dataclass(frozen=True)
class LeftKernel:
    """``leave`` left this kernel; folders of this machine that were mounted at ``places`` go."""

    host: str
    kernel_id: str
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stopped:
    """``stop`` ended these kernels."""

    host: str
    kernels: tuple[dict[str, Any], ...]
    servers: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Collected:
    """``gc`` did this (``dry_run``: would do), by host: what the agent there answered."""

    hosts: dict[str, dict[str, Any]]
    dry_run: bool
    as_json: bool = False
    failures: tuple[SshpykError, ...] = ()

    @property
    def exit_code(self) -> int:
        """1 when some host gave no answer."""
        return 1 if self.failures else 0


@dataclass(frozen=True)
class LogList:
    """The logs that a host keeps, the latest first."""

    host: str
    logs: tuple[dict[str, Any], ...]
    as_json: bool = False


@dataclass(frozen=True)
class LogText:
    """A log, piece by piece, as it comes."""

    pieces: Iterator[str]


@dataclass(frozen=True)
class Diagnosis:
    """What ``doctor`` found out about its subject; the findings were shown as they were made.

    ``report`` is what JSON holds, without secrets; ``written`` where it was put; ``meant`` are kernels
    whose names are near that of a host which nobody knows.
    """

    subject: str
    items: tuple[Item, ...]
    report: dict[str, Any]
    written: Path | None = None
    as_json: bool = False
    meant: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class ServerOpened:
    """``lab`` shows this server: what the host says of it, with its token, and the local port.

    ``how``: started, found (it ran already) or open (a tunnel leads to it already). ``lasting``: what
    it ends with, in words. ``shown``: a browser was opened.
    """

    host: str
    server: dict[str, Any]
    port: int
    how: str
    lasting: str
    shown: bool


@dataclass(frozen=True)
class ServerClosed:
    """The end of ``lab``: the server, and what becomes of it, in words."""

    host: str
    server: dict[str, Any]
    what: str


@dataclass(frozen=True)
class ServerListing:
    """What ``servers`` found, by host: ``{"host", "link", "away_s", "reason", "servers"}``.

    A server's ``url`` is its local address where a tunnel leads to it, else None.
    """

    hosts: tuple[dict[str, Any], ...]
    as_json: bool = False
    failures: tuple[SshpykError, ...] = ()

    @property
    def exit_code(self) -> int:
        """1 when some host gave no answer."""
        return 1 if self.failures else 0


@dataclass(frozen=True)
class Mounted:
    """``mount`` mounted this: what the hub says of it."""

    host: str
    mount: dict[str, Any]
    background: bool


@dataclass(frozen=True)
class MountListing:
    """What ``mounts`` found: what each hub answered."""

    hubs: tuple[dict[str, Any], ...]
    as_json: bool = False


@dataclass(frozen=True)
class Unmounted:
    """``unmount``, or the end of ``mount``, let go of these: (host, mount, state; "" if gone)."""

    mounts: tuple[tuple[str, dict[str, Any], str], ...]
