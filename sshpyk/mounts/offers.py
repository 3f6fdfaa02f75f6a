"""Several folders behind one login, of which a client gets one: the one that its first path names.

Each is seen under a name of its own, an absolute path. What the first path is in, is chosen: from then
on everything else is missing, and the kernel keeps the process in that folder (:mod:`.landlock`). A
client that wants another folder logs in again, and has that one's rights.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from .confined import Folder, Rights
from .walk import Place, components, refusal

# What the private sshd calls its subsystem: then the forced command knows that SFTP was asked for.
SUBSYSTEM = "sshpyk-mounts"

_TOP = os.stat_result((stat.S_IFDIR | 0o500, 0, 0, 1, os.getuid(), os.getgid(), 0, 0, 0, 0))


@dataclass(frozen=True)
class Offer:
    """A folder, what it is called, and what a client may do in it."""

    name: str
    folder: str
    read_only: bool = False
    follow_symlinks: bool = False

    @property
    def steps(self) -> list[bytes]:
        """The name, step by step from the root."""
        return components(os.fsencode(self.name))


def write_offers(offers: Iterable[Offer]) -> str:
    """Return the text that :func:`read_offers` reads."""
    return json.dumps([asdict(offer) for offer in offers])


def read_offers(path: str) -> list[Offer]:
    """Read a file that the hub keeps. Raises OSError or ValueError."""
    with open(path, encoding="utf-8") as file:
        records = json.load(file)
    try:
        return [Offer(**record) for record in records]
    except TypeError as error:
        raise ValueError(f"{path} lists no folders") from error


class OfferedFolder(Folder):
    """The folder that the client's first path chooses; until then nothing is open.

    ``on_chosen`` is told, once, before the client is answered.
    """

    def __init__(self, offers: Sequence[Offer], on_chosen: Callable[[Folder], None]) -> None:
        self.rights = Rights(read_only=True)
        self._offers = offers
        self._on_chosen = on_chosen
        self._steps: list[bytes] | None = None

    def close(self) -> None:
        """Let go of the root, if one was chosen."""
        if self._steps is not None:
            super().close()

    def status(self, path: bytes, *, follow: bool) -> os.stat_result:
        """Return what is at ``path``; at the top is a folder of this user's, with nothing in it.

        sshfs looks there before all else, to learn whose files these are.
        """
        if not components(path) and self._is_missing([]):
            return _TOP
        return super().status(path, follow=follow)

    def _place(self, path: bytes, *, follow: bool) -> Place:
        return super()._place(self._inside(path), follow=follow)

    def _may_write(self, path: bytes) -> None:
        self._inside(path)
        super()._may_write(path)

    def _inside(self, path: bytes) -> bytes:
        """Return ``path`` as it counts from the chosen folder, which this may choose."""
        names = components(path)
        steps = self._choose(names) if self._steps is None else self._steps
        if names[: len(steps)] != steps:
            raise refusal(errno.ENOENT)
        return b"/".join(names[len(steps) :])

    def _is_missing(self, names: list[bytes]) -> bool:
        if self._steps is not None:
            return names[: len(self._steps)] != self._steps
        return all(names[: len(offer.steps)] != offer.steps for offer in self._offers)

    def _choose(self, names: list[bytes]) -> list[bytes]:
        fitting = [offer for offer in self._offers if names[: len(offer.steps)] == offer.steps]
        if not fitting:
            raise refusal(errno.ENOENT)
        chosen = max(fitting, key=lambda offer: len(offer.steps))
        rights = Rights(read_only=chosen.read_only, follow_symlinks=chosen.follow_symlinks)
        super().__init__(chosen.folder, rights)
        self._steps = chosen.steps
        self._on_chosen(self)
        return self._steps
