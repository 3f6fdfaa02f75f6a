"""Shows what a host has: the table of ``sshpyk add``, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from sshpyk.cli.results import OfferRow
from sshpyk.discovery.offers import Offer, State

_HEADINGS = ("#", "name", "language", "Python", "environment", "ipykernel")


def print_table(rows: Sequence[OfferRow], notes: Iterable[str]) -> None:
    """Print the table, and below it what cannot be used, and why."""
    # Here: 80 ms, for a command that has just connected to a host.
    from rich.console import Console
    from rich.table import Table

    shown = [row for row in rows if row.offer.state is not State.UNUSABLE]
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", header_style="bold")
    added = any(row.added_as for row in shown)
    for heading in (*_HEADINGS, *(("added as",) if added else ())):
        table.add_column(heading, justify="right" if heading == "#" else "left", overflow="fold")
    for row in shown:
        # Text, not markup: a host chose the names.
        table.add_row(*map(_plain, _cells(row, added=added)))
    # A pipe has no width: nothing is to be folded there.
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=1000)
    if shown:
        console.print(table, soft_wrap=not console.is_terminal)
    for row in rows:
        if row.offer.state is State.UNUSABLE:
            click.echo(f"Not usable: {_safe(row.offer.place)} ({row.offer.reason})")
    for note in notes:
        click.echo(f"Note: {note}")


def as_records(rows: Iterable[OfferRow]) -> list[dict[str, Any]]:
    """Return the rows as JSON objects."""
    return [
        {
            "number": row.number,
            "name": row.offer.label,
            "language": row.offer.language,
            "python_version": row.offer.version or None,
            "environment": row.offer.place,
            "python": row.offer.python,
            "remote_kernel_name": row.offer.kernel_name,
            "state": row.offer.state.name.lower(),
            "reason": row.offer.reason or None,
            "added_as": list(row.added_as),
        }
        for row in rows
    ]


def _cells(row: OfferRow, *, added: bool) -> list[str]:
    offer = row.offer
    cells = [str(row.number), offer.label, offer.language, offer.version or "-", offer.place]
    cells.append(_ipykernel(offer))
    return [*cells, ", ".join(row.added_as)] if added else cells


def _ipykernel(offer: Offer) -> str:
    if offer.language.lower() != "python":
        return "-"
    return "yes" if offer.state is State.READY else "no"


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(_safe(text))


def _safe(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
