"""Turns what a verb returned into text or JSON: the one place where the CLI prints results."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from functools import singledispatch

import click

from sshpyk.cli.render_kernels import RENDERERS
from sshpyk.cli.results import (
    Added,
    CompletionScript,
    Deleted,
    Diagnosis,
    Edited,
    Item,
    KernelReport,
    Listing,
    LoggedIn,
    LoggedOut,
    Mark,
)
from sshpyk.cli.text import safe as _safe
from sshpyk.doctor.finding import plain

_FINDING_WIDTH = 22

_HEADERS = {"local": "Local Kernel", "ssh": "SSH Kernel", "broken": "Broken Kernel"}
_STYLES = {
    Mark.OK: "green",
    Mark.BROKEN: "bold red",
    Mark.ADVICE: "yellow",
    Mark.UNCHECKED: "dim",
    Mark.INFO: "",
}
_KIND_STYLES = {"local": "magenta", "ssh": "cyan", "broken": "red"}


@singledispatch
def render(result: object) -> None:
    """Print the record that a verb returned. Called once, by ``main``."""
    raise TypeError(f"nothing renders {result!r}")


for _kind, _renderer in RENDERERS.items():
    render.register(_kind, _renderer)


@render.register
def _added(result: Added) -> None:
    from sshpyk.cli.render_add import show_added  # what it shows is wanted by this verb alone

    show_added(result)


@render.register
def _completion(result: CompletionScript) -> None:
    click.echo(result.text)


@render.register
def _edited(result: Edited) -> None:
    if not result.changes:
        click.echo(f"Kernel {result.name!r} is already so: {result.path}")
        return
    click.echo(f"Changed kernel {result.name!r}: {result.path}")
    for key, before, after in result.changes:
        old, new = (json.dumps(value) if value is not None else "-" for value in (before, after))
        click.echo(f"  {key}: {old} -> {new}")


@render.register
def _deleted(result: Deleted) -> None:
    click.echo(f"Deleted kernel {result.name!r}: {result.folder}")


@render.register
def _logged_in(result: LoggedIn) -> None:
    kernels = {0: "no kernel yet", 1: "1 kernel goes on"}
    state = "is up already" if result.was_up else "is up"
    line = f"The link to {result.host} {state}: "
    click.echo(line + kernels.get(result.kernels, f"{result.kernels} kernels go on") + ".")
    if result.kept_h:
        click.echo(
            f"Without kernels it is kept for {result.kept_h} h; this terminal may be closed."
        )


@render.register
def _logged_out(result: LoggedOut) -> None:
    if not result.was_open:
        click.echo(f"There is no link to {result.host}.")
        return
    ended = f"; {result.ended} kernel(s) ended with it" if result.ended else ""
    left = f"; {result.left} persistent kernel(s) run on there" if result.left else ""
    click.echo(f"The link to {result.host} is closed{ended}{left}.")


@render.register
def _listing(result: Listing) -> None:
    if result.as_json:
        click.echo(json.dumps({"kernels": [_plain(kernel) for kernel in result.kernels]}, indent=2))
    elif not result.kernels:
        click.echo("No kernels available")
    else:
        _print_lines(_lines(result))


def _verdict(result: Diagnosis) -> Iterator[str]:
    from sshpyk.doctor.catalogue import why  # with all that ssh can say: only here

    cause = result.cause
    if cause is None:
        advice = any(item.mark is Mark.ADVICE for item in result.items)
        yield f"{result.subject}: {'works; there is advice above' if advice else 'all is well'}"
        return
    code = f" [{cause.code}]" if cause.code else ""
    yield f"{result.subject}: stopped at: {cause.label}{code}"
    if why(cause.code):
        yield f"  why: {why(cause.code)}"
    if result.meant and cause.code == "SSH-UNKNOWN-HOST":
        yield f"  did you mean the kernel {' or '.join(result.meant)}?"


def _plain(report: KernelReport) -> object:
    """Return what JSON can hold."""
    return {
        "kind": report.kind,
        "name": report.name,
        "items": [plain(item) for item in report.items],
    }


def show_finding(item: Item) -> None:
    """Print one finding of ``doctor`` as soon as it is made."""
    _print_lines(_item_lines(item, _FINDING_WIDTH, "ssh"))


@render.register
def _diagnosis(result: Diagnosis) -> None:
    if result.as_json:
        click.echo(json.dumps(result.report, indent=2))
    else:
        for line in _verdict(result):
            click.echo(_safe(line))
    if result.written is not None:
        click.echo(f"Report without secrets, to attach to a bug: {result.written}", err=True)


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line of the listing and what to colour in it."""

    text: str
    kind: str
    label: str = ""
    mark: Mark | None = None


def _lines(listing: Listing) -> Iterator[_Line]:
    width = max(len(item.label) for kernel in listing.kernels for item in kernel.items) + 1
    for kernel in listing.kernels:
        yield _Line(f" {_HEADERS[kernel.kind]} ".center(width, "-"), kernel.kind)
        for item in kernel.items:
            yield from _item_lines(item, width, kernel.kind)
        yield _Line("", kernel.kind)


def _item_lines(item: Item, width: int, kind: str) -> Iterator[_Line]:
    label = f"{item.label}:".ljust(width)
    text = f"{label} {_marked(item)}".rstrip()
    yield _Line(text, kind, label, item.mark)
    for part in item.parts:
        text = f"{' ' * width}    {_marked(part, prefix=f'{part.label}: ')}"
        yield _Line(text, kind, "", part.mark)


def _marked(item: Item, prefix: str = "") -> str:
    mark = f"{item.mark.value} " if item.mark else ""
    return f"{mark}{_safe(prefix + item.value)}"


def _print_lines(lines: Iterable[_Line]) -> None:
    if sys.stdout.isatty():
        _print_coloured(lines)
    else:
        for line in lines:
            click.echo(line.text)


def _print_coloured(lines: Iterable[_Line]) -> None:
    # Imported here, where a person is looking: 80 ms.
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        text = Text(line.text)
        if not line.label and not line.mark:
            text.stylize(f"bold {_KIND_STYLES[line.kind]}")
        text.stylize(_KIND_STYLES[line.kind], 0, len(line.label))
        if line.mark:
            start = line.text.index(line.mark.value)
            text.stylize(_STYLES[line.mark], start, start + len(line.mark.value))
        console.print(text)
