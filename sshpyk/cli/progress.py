"""What a person sees while hosts are asked: on stderr, only where that is a terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Collection, Iterator

from sshpyk.doctor.hosts import Progress
from sshpyk.ssh.command import SshTarget

_SHOWN_HOSTS = 4


@contextlib.contextmanager
def checking(targets: Collection[SshTarget], *, quiet: bool) -> Iterator[Progress]:
    """Show which hosts are still awaited; yield what the threads that ask them call."""
    if quiet or not targets or not sys.stderr.isatty():
        yield lambda _target, _step: None
        return
    # Imported here, where a person is looking: 80 ms.
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    waiting = _Waiting(len(targets))
    with console.status(waiting.text()) as status:

        def tell(target: SshTarget, step: str) -> None:
            status.update(waiting.text(target, step))

        yield tell


class _Waiting:
    """The hosts that are being asked; called from many threads."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._steps: dict[SshTarget, str] = {}
        self._lock = threading.Lock()

    def text(self, target: SshTarget | None = None, step: str = "") -> str:
        """Note where ``target`` is ("" is done), and return the line to show."""
        with self._lock:
            if target is not None and step:
                self._steps[target] = step
            elif target is not None:
                self._steps.pop(target, None)
                self._done += 1
            names = [f"{one.host} ({doing})" for one, doing in self._steps.items()]
        more = f" and {len(names) - _SHOWN_HOSTS} more" if len(names) > _SHOWN_HOSTS else ""
        awaited = ", ".join(names[:_SHOWN_HOSTS]) + more
        return f"{self._done} of {self._total} hosts checked; {awaited}".rstrip("; ")


@contextlib.contextmanager
def working(title: str) -> Iterator[None]:
    """Show what is being done, on stderr, only where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False, markup=False).status(f"{title} …"):
        yield
