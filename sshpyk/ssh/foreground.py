"""Run ssh in the foreground of the user's terminal, and let it live on without.

As a shell does it: ssh leads a process group of its own, to which the terminal belongs while it may ask.
So Ctrl+C at its prompt is for ssh alone, and once the terminal is taken back neither a Ctrl+C nor the end
of the terminal reaches it. It does not lead a session: it would lose ``/dev/tty``, where it asks.
Source: tcsetpgrp(3), setpgid(2), ssh's ``readpassphrase``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import termios
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from sshpyk.ssh.command import batch_environment


class Terminal:
    """The terminal that this process is in the foreground of; ``with`` takes it back in the end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        # What a process in the background gets for tcsetpgrp, and under `stty tostop` for each word.
        self._on_background = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        self._settings: list[Any] = termios.tcgetattr(fd)

    @classmethod
    def ours(cls) -> Terminal | None:
        """Return it; None where there is none, or where another job has it."""
        try:
            fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        except OSError:
            return None
        if os.tcgetpgrp(fd) == os.getpgrp():
            return cls(fd)
        os.close(fd)
        return None

    def start(self, argv: Sequence[str], stdio: Sequence[int]) -> subprocess.Popen[bytes]:
        """Start ssh in the foreground. Raises OSError, SubprocessError when the terminal has gone."""
        return _start(argv, stdio, dict(os.environ), self._lend_to_this_process)

    def _lend_to_this_process(self) -> None:
        os.setpgid(0, 0)
        os.tcsetpgrp(self._fd, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        # Ctrl+Z at a prompt would stop ssh alone, and nobody could continue it.
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Be in the foreground again, with echo as it was: ssh may have died at a prompt."""
        with contextlib.suppress(OSError, termios.error):  # the terminal was closed
            os.tcsetpgrp(self._fd, os.getpgrp())
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._settings)
        os.close(self._fd)
        signal.signal(signal.SIGTTOU, self._on_background)


def start_unseen(argv: Sequence[str], stdio: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start ssh where nobody can be asked. Raises OSError."""
    return _start(argv, stdio, batch_environment(os.environ), os.setsid)


def _start(
    argv: Sequence[str], stdio: Sequence[int], environment: dict[str, str], prepare: Any
) -> subprocess.Popen[bytes]:
    stdin, stdout, stderr = stdio
    return subprocess.Popen(
        argv,
        cwd="/",  # it outlives us, and must not hold a folder
        env=environment,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        preexec_fn=prepare,  # this process has no threads
    )
