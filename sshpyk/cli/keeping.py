"""How ``forward`` and ``mount`` keep what they opened: in sight, or in the background."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence

import click

from sshpyk.servers.owner import Owner, keep

_LOOK_S = 1.0


def keep_in_sight(owners: Sequence[Owner], status: Callable[[], str]) -> None:
    """Show how the link is, and ``status``, until all is closed. Raises what ended one of them."""
    if not sys.stderr.isatty():
        shown = ["up"]

        def say_changes() -> None:
            link = owners[0].link
            if link["link"] != shown[-1]:
                shown.append(link["link"])
                line = f"{link['host']}: link {link['link']} {link['reason']}"
                click.echo(line.strip(), err=True)

        keep(owners, 5 * _LOOK_S, say_changes)
        return
    # Imported here, where a person is looking: 80 ms.
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    with console.status("") as shown_status:

        def show() -> None:
            shown_status.update(Text(f"{_link_text(owners[0])}; {status()}"))

        show()
        keep(owners, _LOOK_S, show)


def _link_text(owner: Owner) -> str:
    link = owner.link
    away = "" if link["away_s"] is None else f" for {link['away_s']:.0f} s ({link['reason']})"
    return f"{link['host']}: link {link['link']}{away}"


def go_on_in_background(owners: Sequence[Owner], at_end: Callable[[], None] = lambda: None) -> None:
    """Let a child of ours keep them, without the terminal; return in the parent."""
    if os.fork():
        return
    status = 1
    try:
        os.setsid()
        os.chdir("/")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        keep(owners, None, lambda: None)
        status = 0
    finally:
        with contextlib.suppress(OSError):
            at_end()
        os._exit(status)
