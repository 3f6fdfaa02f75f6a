"""Turns what a verb returned into text or JSON: the one place where the CLI prints results."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from functools import singledispatch

import click

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
    Mark,
    Processes,
)
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


@render.register
def _added(result: Added) -> None:
    verb = "Replaced" if result.replaced else "Added"
    click.echo(f"{verb} kernel {result.name!r} ({result.display_name}): {result.path}")


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
def _listing(result: Listing) -> None:
    if result.as_json:
        click.echo(json.dumps({"kernels": [_plain(kernel) for kernel in result.kernels]}, indent=2))
    elif not result.kernels:
        click.echo("No kernels available")
    else:
        _print_lines(_lines(result))


@render.register
def _processes(result: Processes) -> None:
    if result.as_json:
        click.echo(json.dumps({"hosts": result.hubs}, indent=2))
    elif not result.hubs:
        click.echo("No links: no kernel runs on a host")
    for hub in [] if result.as_json else result.hubs:
        away = "" if hub["away_s"] is None else f" for {hub['away_s']:.0f} s"
        reason = f" ({_safe(hub['away_reason'])})" if hub["away_reason"] else ""
        click.echo(f"{hub['host']}: link {hub['link']}{away}{reason}")
        kernels = {kernel["kernel_id"]: kernel for kernel in hub["kernels"]}
        for kernel in hub.get("on_host", ()):
            elsewhere = {**kernel, "state": "alive", "session": "another machine's"}
            kernels.setdefault(kernel["kernel_id"], elsewhere)
        for kernel in kernels.values():
            words = (kernel["kernel_id"][:8], kernel["state"], f"pid {kernel['pid']}")
            text = f"  {words[0]}  {words[1]:<11}  {words[2]:<11}  {kernel['name']}"
            session = f"  {kernel['session']}" if kernel["session"] else ""
            click.echo(_safe(text + session))
        if not kernels:
            click.echo("  no kernels")


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
        cause = result.cause
        code = f" [{cause.code}]" if cause and cause.code else ""
        verdict = f"stopped at: {cause.label}{code}" if cause else "all is well"
        click.echo(f"{result.subject}: {verdict}")
        if code:
            click.echo("docs/errors.md explains the code.")
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


def _safe(text: str) -> str:
    """Show control characters instead of obeying them: a host chose part of the text."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


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
