"""What a person is shown: a progress line, what there is to know, and notices with the time of day.

What there is to know goes to standard output, the rest to standard error. A terminal that has been
closed is no reason to fail: the kernel still has to be shut down.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TextIO

_ERASE_LINE = "\r\x1b[K"


class Screen:
    """Where the session speaks. ``is_silent``: a program started us, and its person reads elsewhere."""

    def __init__(self, *, is_silent: bool = False) -> None:
        self._is_silent = is_silent
        self._moves = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._shown = ""  # the progress line

    def progress(self, text: str) -> None:
        """Show what is being done now, on a line that goes away again; only on a terminal."""
        if self._is_silent or not self._moves:
            return
        columns = _columns(sys.stderr)
        self._shown = text[: columns - 1]
        _write(sys.stderr, _ERASE_LINE + self._shown)

    def tell(self, text: str) -> None:
        """Say what there is to know."""
        if not self._is_silent:
            self._clear()
            _write(sys.stdout, f"{text}\n")

    def ask(self, text: str) -> None:
        """Show a question; what is typed stands behind it."""
        self._clear()
        _write(sys.stdout, text)

    def note(self, text: str) -> None:
        """Say what happened just now."""
        if not self._is_silent:
            self._clear()
            _write(sys.stderr, f"{time.strftime('%H:%M:%S')} {text}\n")

    def log(self, line: str) -> None:
        """Show a line of a log; only when it was asked for."""
        self._clear()
        _write(sys.stderr, f"  | {line}\n")

    def warn(self, text: str) -> None:
        """Say what whoever started us should know, silent or not."""
        if self._is_silent:
            _write(sys.stderr, f"sshpyk: {text}\n")
        else:
            self.note(text)

    def _clear(self) -> None:
        if self._shown:
            _write(sys.stderr, _ERASE_LINE)
            self._shown = ""

    def close(self) -> None:
        """Take the progress line away."""
        self._clear()


def _columns(stream: TextIO) -> int:
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


def _write(stream: TextIO, text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        stream.write(text)
        stream.flush()
