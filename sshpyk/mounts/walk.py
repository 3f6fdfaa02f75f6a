"""How a path of the client's becomes a name in an open folder, without ever leaving the root.

Every step opens one component below the folder before it (``openat``) and refuses a symbolic link
(``O_NOFOLLOW``), so whatever is swapped in between is either seen as what it is now or not entered.
An absolute path is never given to the kernel. Where Linux can walk like that in one call
(:mod:`.openat2`), it does for what is several folders deep. The client's own ``..`` are resolved in its
text, where the root's parent is the root; a link's by walking, where they may not pass the root.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from types import TracebackType

OpenFolder = Callable[[int, bytes], int]  # a root and a path below it; see openat2

_LONGEST_PATH_BYTES = 4096
_MOST_LINKS = 40  # as Linux has it
_MOST_STEPS = 8192  # a link may hold two thousand names, and each may be a link
_SELF = b"."
_PARENT = b".."

# O_PATH (Linux) enters a folder that may be searched but not read.
_ENTER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def refusal(number: int) -> OSError:
    """Return the error with this errno and the system's words for it."""
    return OSError(number, os.strerror(number))


def components(path: bytes) -> list[bytes]:
    """Return the names on the way from the root to ``path``, which counts from the root either way."""
    if len(path) > _LONGEST_PATH_BYTES:
        raise refusal(errno.ENAMETOOLONG)
    if b"\0" in path:
        raise refusal(errno.EINVAL)
    names: list[bytes] = []
    for name in path.split(b"/"):
        if name == _PARENT:
            del names[-1:]
        elif name not in (b"", _SELF):
            names.append(name)
    return names


def normalised(path: bytes) -> bytes:
    """Return ``path`` from the root, without slashes around it and with nothing to resolve."""
    if b"/." in path or b"//" in path or b"\0" in path or len(path) > _LONGEST_PATH_BYTES:
        return b"/".join(components(path))
    if path.startswith(b"."):
        return b"/".join(components(path))
    return path.strip(b"/")


class Place:
    """A name in an open folder. Use it in a ``with``, which closes the folder."""

    __slots__ = ("_owned", "folder_fd", "name")

    def __init__(self, folder_fd: int, name: bytes, *, owned: bool) -> None:
        self.folder_fd = folder_fd
        self.name = name
        self._owned = owned

    @property
    def is_root(self) -> bool:
        """Whether this is the root itself, which has no name that could be given away."""
        return self.name == _SELF

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._owned:
            os.close(self.folder_fd)


class Walker:
    """Finds places below one root. ``aliases`` are the root's absolute paths, for links that name it."""

    def __init__(
        self, root_fd: int, aliases: Iterable[bytes], *, openat2: OpenFolder | None = None
    ) -> None:
        self._root_fd = root_fd
        self._openat2 = openat2
        self._aliases = [[name for name in alias.split(b"/") if name] for alias in aliases]

    def place(self, path: bytes) -> Place:
        """Return where ``path`` is; no link on the way is followed."""
        folder, _, name = normalised(path).rpartition(b"/")
        if not folder:
            return Place(self._root_fd, name or _SELF, owned=False)
        if self._openat2 is not None and b"/" in folder:
            return Place(self._openat2(self._root_fd, folder), name, owned=True)
        fd = self._root_fd
        for step in folder.split(b"/"):
            fd = self._enter(fd, step)
        return Place(fd, name, owned=True)

    def place_following(self, path: bytes, *, last: bool) -> Place:
        """Return where ``path`` is once the links on the way are followed, and the ``last`` if asked.

        A link that leads outside is refused with EACCES, a circle with ELOOP.
        """
        names = components(path)
        steps = 0
        links = 0
        while True:
            walked, place = self._until_detour(names, last=last)
            if place is not None:
                return place
            steps += walked + 1
            if names[walked] == _PARENT:
                if not walked:
                    raise refusal(errno.EACCES)
                names = names[: walked - 1] + names[walked + 1 :]
            else:
                links += 1
                target = self._target(names[: walked + 1])
                names = self._from(names[:walked], target) + names[walked + 1 :]
            if links > _MOST_LINKS or steps > _MOST_STEPS or len(names) > _MOST_STEPS:
                raise refusal(errno.ELOOP)

    def _until_detour(self, names: list[bytes], *, last: bool) -> tuple[int, Place | None]:
        """Walk until a link or a ``..``: return its index, or the place when there was none."""
        fd = self._root_fd
        if not names:
            return 0, Place(fd, _SELF, owned=False)
        for index, name in enumerate(names):
            is_last = index == len(names) - 1
            detour = name == _PARENT
            try:
                detour = detour or ((last or not is_last) and _is_link(fd, name))
                if not detour and is_last:
                    return index, Place(fd, name, owned=fd != self._root_fd)
            except OSError:
                self._leave(fd)
                raise
            if detour:
                self._leave(fd)
                return index, None
            fd = self._enter(fd, name)
        raise AssertionError("the last name returns")

    def _target(self, names: list[bytes]) -> bytes:
        with self.place(b"/".join(names)) as place:
            return os.readlink(place.name, dir_fd=place.folder_fd)

    def _from(self, folder: list[bytes], target: bytes) -> list[bytes]:
        """Return where a link in ``folder`` leads: names from the root, with every ``..`` still there."""
        names = [name for name in target.split(b"/") if name not in (b"", _SELF)]
        if not target.startswith(b"/"):
            return folder + names
        for alias in self._aliases:
            if names[: len(alias)] == alias:
                return names[len(alias) :]
        raise refusal(errno.EACCES)

    def _enter(self, fd: int, name: bytes) -> int:
        try:
            return os.open(name, _ENTER, dir_fd=fd)
        finally:
            self._leave(fd)

    def _leave(self, fd: int) -> None:
        if fd != self._root_fd:
            os.close(fd)


def _is_link(folder_fd: int, name: bytes) -> bool:
    try:
        os.readlink(name, dir_fd=folder_fd)
    except OSError as error:
        # Not a link, or not there: whoever uses the name will say so.
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True
