"""Two sets of modes: what the agent makes is private, what it starts makes files as the login does."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator

_PRIVATE = 0o077
_of_login: int | None = None


def be_private() -> None:
    """Let nobody else read what this process makes; called once, by the agent."""
    global _of_login  # a process has one umask
    _of_login = os.umask(_PRIVATE)


@contextlib.contextmanager
def as_the_login() -> Iterator[None]:
    """Start a process or make a folder in here, and the modes are those that the user is used to.

    Popen's own ``umask`` needs Python 3.9. What another thread of ours makes in this moment is in a
    folder that is private itself.
    """
    if _of_login is None:
        yield
        return
    os.umask(_of_login)
    try:
        yield
    finally:
        os.umask(_PRIVATE)  # not what was before: two threads may be in here
