"""What the login gave to the agent, which changes it for itself and gives it to what it starts.

Its umask, so that what a kernel makes is for others what the user's own files are; and how many
descriptors may be held, for programs that close as many as there may be.
"""

from __future__ import annotations

import contextlib
import os
import resource
from typing import Iterator

from sshpyk.wire.descriptors import raise_limit

_PRIVATE = 0o077
_umask: int | None = None
_descriptors: int | None = None


def change_for_the_agent() -> None:
    """Let nobody read what this process makes, and let it hold many descriptors; called once."""
    global _umask, _descriptors  # a process has one of each
    _umask = os.umask(_PRIVATE)
    _descriptors = raise_limit()


@contextlib.contextmanager
def as_the_login() -> Iterator[None]:
    """Start a process in here, and its files have the modes that the user is used to.

    In the loop's thread only: a process has one umask. (Popen's own ``umask`` needs Python 3.9.) What
    another thread of ours makes in this moment is in a folder that is private itself.
    """
    if _umask is None:
        yield
        return
    os.umask(_umask)
    try:
        yield
    finally:
        os.umask(_PRIVATE)


def make_folder(path: str) -> None:
    """Make a folder of the user's, with the mode that it would have had; from any thread."""
    os.mkdir(path)
    if _umask is not None:
        os.chmod(path, 0o777 & ~_umask)


def give_back_limit(pid: int) -> None:
    """Give a process that was just started the login's number of descriptors, where that can be done."""
    prlimit = getattr(resource, "prlimit", None)  # Linux has it
    if prlimit is None or _descriptors is None:
        return
    with contextlib.suppress(OSError, ValueError):  # it has ended already
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        prlimit(pid, resource.RLIMIT_NOFILE, (_descriptors, hard))
