"""Prints what ``sshpyk add`` did, as text or as JSON; called by ``render``."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import click

from sshpyk.cli.offers_table import as_records, print_table
from sshpyk.cli.results import Added, AddedKernel, FailedKernel
from sshpyk.errors import KernelDied, error_from_record

_SAID_LINES = 6  # of a kernel that ended: the end of its traceback is the reason


def show_added(result: Added) -> None:
    """Print the record: what was found or done on stdout, what went wrong on stderr."""
    if result.as_json:
        click.echo(json.dumps(_record(result), indent=2))
    else:
        _show(result)
    if result.problem is not None:
        text = str(result.problem)
        if result.problem.exit_code == 2:
            text = " ".join(line.strip() for line in text.splitlines())
        click.echo(f"sshpyk: {text}", err=True)


def _show(result: Added) -> None:
    if result.rows:
        print_table(result.rows, result.notes)
    for kernel in result.kernels:
        verb = "Replaced" if kernel.replaced else "Added"
        took = "" if kernel.checked_s is None else f", checked in {kernel.checked_s:.1f} s"
        click.echo(f"{verb} kernel {kernel.name!r} ({kernel.display_name}){took}: {kernel.path}")
    for name, label in result.already:
        click.echo(f"Kernel {name!r} ({label}) was added before; --replace writes it anew")
    for failure in result.failed:
        click.echo(_told(failure), err=True)
    if result.kernels and sys.stdout.isatty():
        name = result.kernels[0].name
        click.echo(f"Choose it in JupyterLab, or: jupyter console --kernel {name}")


def _told(failure: FailedKernel) -> str:
    """Return why a kernel was not added; the host stands in its name already."""
    record = {**failure.error.to_record(), "host": ""}
    if isinstance(failure.error, KernelDied):
        record["said"] = "\n".join(record["said"].splitlines()[-_SAID_LINES:])
    error = error_from_record(record)
    fate = "does not pass its check and is kept" if failure.kept else "is not added"
    return f"{failure.display_name} {fate}: {error}"


def _record(result: Added) -> dict[str, Any]:
    return {
        "host": result.host,
        "found": as_records(result.rows),
        "notes": list(result.notes),
        "added": [_kernel(kernel) for kernel in result.kernels],
        "already": [{"name": name, "label": label} for name, label in result.already],
        "failed": [
            {"name": item.name, "kept": item.kept, "error": item.error.to_record()}
            for item in result.failed
        ],
    }


def _kernel(kernel: AddedKernel) -> dict[str, Any]:
    return {**dataclasses.asdict(kernel), "path": str(kernel.path)}
