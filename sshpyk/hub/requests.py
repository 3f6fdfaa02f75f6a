"""What a stand-in asks of the hub, what it is told, and a kernel in the hub's care."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from sshpyk.errors import SshpykError
from sshpyk.hub.endpoints import Endpoints
from sshpyk.hub.mount_request import MountRequest
from sshpyk.hub.replay import IopubLimits

_MOST_MOUNTS = 100
_LONGEST_S = 1e7  # far beyond any launch, and what an event loop can wait for


@dataclass(frozen=True)
class LaunchRequest:
    """What a stand-in asks for. ``env`` is what is added to the host's own environment.

    ``folders``: where on the host the notebook's folder may be, instead of ``cwd``. ``activate``: lines
    for a shell before the kernel. ``wrapper``: words in front of its command.
    ``persistent``: the kernel is left, not killed, when the stand-in goes without a word.
    ``iopub_limits``: those of the Jupyter server that the kernel is for, as :class:`IopubLimits`.
    ``mount_optional``: a mount that cannot be made does not fail the launch.
    To attach to a kernel takes no ``kernel_name``; ``takeover`` takes it from whoever has it.
    """

    connection_file: str
    python: str
    kernel_name: str = ""
    launch_timeout_s: float = 60.0
    env: dict[str, str] = field(default_factory=dict)
    cwd: str = ""
    folders: list[str] = field(default_factory=list)
    activate: str = ""
    wrapper: list[str] = field(default_factory=list)
    iopub_limits: dict[str, float] | None = None
    persistent: bool = False
    takeover: bool = False
    mounts: list[dict[str, Any]] = field(default_factory=list)  # see :attr:`mounted_folders`
    mount_optional: bool = False

    @property
    def mounted_folders(self) -> list[MountRequest]:
        """The local folders that the kernel is to see. Raises TypeError."""
        return [MountRequest.from_record(record) for record in self.mounts]

    def without_mounts(self, failed: Iterable[MountRequest]) -> LaunchRequest:
        """Return the request without what could not be mounted; a folder in there is only a wish."""
        remotes = [mount.remote.rstrip("/") for mount in failed]
        if any(self.cwd == remote or self.cwd.startswith(remote + "/") for remote in remotes):
            return replace(self, cwd="", folders=[self.cwd])
        return self

    @property
    def limits(self) -> IopubLimits | None:
        """The limits as a record."""
        return IopubLimits(**self.iopub_limits) if self.iopub_limits else None

    @property
    def session(self) -> str:
        """The name of the notebook that the kernel is for, where a Jupyter server said one."""
        return self.env.get("JPY_SESSION_NAME", "")

    def __post_init__(self) -> None:
        """Raise TypeError for a request that could not be carried out: it came over a socket."""
        given: dict[str, Any] = vars(self)
        names = ("connection_file", "python", "kernel_name", "cwd", "activate")
        flags = ("persistent", "takeover", "mount_optional")
        texts = [given[name] for name in names]
        timeout_s, env = given["launch_timeout_s"], given["env"]
        lists = [given["folders"], given["wrapper"]]
        well_formed = (
            isinstance(timeout_s, int | float)
            and 0 <= timeout_s < _LONGEST_S
            and isinstance(env, dict)
            and all(isinstance(words, list) for words in lists)
            and all(isinstance(text, str) for text in (*texts, *env.values(), *chain(*lists)))
            and all(isinstance(given[name], bool) for name in flags)
        )
        mounts = given["mounts"]
        if (
            not well_formed
            or not isinstance(mounts, list)
            or len(self.mounted_folders) > _MOST_MOUNTS
        ):
            raise TypeError("a launch request with values of the wrong type")


@dataclass(frozen=True)
class Ticket:
    """What a stand-in keeps to find its kernel again when the hub has been replaced."""

    kernel_id: str
    streams: list[int]  # main, control
    pid: int  # on the host


@dataclass(frozen=True)
class Left:
    """The kernel was left: it goes on without its stand-in.

    ``told`` is False where the host has not heard of it yet, because the link is down: the hub will tell.
    """

    told: bool


@dataclass(frozen=True)
class Taken:
    """Somebody attached to the kernel from elsewhere."""

    by: str


Outcome = int | SshpykError | Left | Taken


class HubKernel:
    """A kernel that this hub carries; whoever watches it is told how that ended."""

    def __init__(self, ticket: Ticket, request: LaunchRequest, endpoints: Endpoints) -> None:
        self.ticket = ticket
        self.request = request
        self.kernel_id = ticket.kernel_id
        self.endpoints = endpoints
        self.notice = ""  # what a person should know of its start
        self._outcome: Outcome | None = None
        self._on_end: Callable[[Outcome], None] = lambda outcome: None

    def watch(self, on_end: Callable[[Outcome], None]) -> None:
        """Tell ``on_end`` how the kernel ended, after its last output; now, if it has already."""
        self._on_end = on_end
        if self._outcome is not None:
            on_end(self._outcome)

    @property
    def has_ended(self) -> bool:
        """Whether :meth:`end` was called."""
        return self._outcome is not None

    def end(self, outcome: Outcome) -> None:
        """Note the exit status, or what else ended it; the first word counts."""
        if self._outcome is None:
            self._outcome = outcome
            self._on_end(outcome)


def owner() -> str:
    """Return who we are, for people who look at the kernels from elsewhere."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid without a name
        user = "?"
    return f"{user}@{socket.gethostname()}"
