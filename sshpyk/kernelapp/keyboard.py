"""The keys of whoever sits at the terminal.

Ctrl+C, Ctrl+\\ and Ctrl+Z are signals, which the terminal sends by itself; Ctrl+D is the end of input,
which opens the menu. The terminal stays in its line mode and is never set otherwise: there is nothing to
restore, not even after a ``kill -9``.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass

from sshpyk.standin import Action

_MOST_BYTES = 4096


@dataclass(frozen=True)
class Choice:
    """One line of the menu. ``action`` is None for what only shows something."""

    key: str
    words: str
    action: Action | None


MENU = (
    Choice("i", "interrupt the running cell", Action.INTERRUPT),
    Choice("r", "restart the kernel", Action.RESTART),
    Choice("s", "shut the kernel down", Action.END),
    Choice("l", "leave: the kernel runs on without this terminal", Action.LEAVE),
    Choice("?", "show kernel and connection file again", None),
    Choice("", "Enter or Ctrl+D: resume", None),
)


def menu_text() -> str:
    """Return the menu as it is shown."""
    lines = [f"  {choice.key:1}  {choice.words}" for choice in MENU]
    return "\n".join([*lines, "and Enter: "])


def choice_for(line: str) -> Choice | None:
    """Return what a person chose by its key or its first word; None for neither."""
    typed = line.strip().lower()
    for choice in MENU:
        if typed in (choice.key, choice.words.split()[0].rstrip(":")):
            return choice
    return None


class Keyboard:
    """Standard input, while it is our terminal and we are its foreground job."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.is_open = True

    @classmethod
    def of_terminal(cls) -> Keyboard | None:
        """Return the keyboard; None when standard input is not the terminal that controls us."""
        try:
            fd = sys.stdin.fileno()
            os.tcgetpgrp(fd)
        except (
            AttributeError,
            OSError,
            ValueError,
        ):  # closed, replaced, a file, another's terminal
            return None
        signal.signal(
            signal.SIGTTIN, signal.SIG_IGN
        )  # a read in the background fails, and stops nobody
        return cls(fd)

    def fileno(self) -> int:
        """Return what ``select`` waits for."""
        return self._fd

    @property
    def is_ours(self) -> bool:
        """Whether what is typed now is meant for us."""
        try:
            return self.is_open and os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:  # the terminal has gone
            self.is_open = False
            return False

    def read(self) -> str | None:
        """Return what was typed up to Enter; None for Ctrl+D, also behind half a line.

        Called when ``select`` says that there is something.
        """
        try:
            data = os.read(self._fd, _MOST_BYTES)
        except OSError:  # in the background by now
            return ""
        if not data and not self.is_ours:  # the terminal was closed: no key, but an endless end
            self.is_open = False
            return ""
        return data.decode("utf-8", "replace") if data.endswith(b"\n") else None
