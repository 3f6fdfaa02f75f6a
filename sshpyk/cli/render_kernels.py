"""How kernels on hosts are shown: for ``ps``, ``attach``, ``leave``, ``logs``, ``stop`` and ``gc``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from sshpyk.cli.results import (
    Attached,
    Collected,
    LeftKernel,
    LogList,
    LogText,
    Mounting,
    Processes,
    Stopped,
)
from sshpyk.cli.text import duration, safe, safe_lines, size
from sshpyk.errors import SshpykError

_COLUMNS = ("KERNEL", "STATE", "OWNER", "IDLE", "MEMORY", "LEASE", "CARRIED", "NAME")


def _processes(result: Processes) -> None:
    if result.as_json:
        failures = [error.to_record() for error in result.failures]
        click.echo(json.dumps({"hosts": result.hubs, "failures": failures}, indent=2))
        return
    if not result.hubs and not result.failures:
        click.echo("No links: no kernel runs on a host")
    for hub in result.hubs:
        away = "" if hub["away_s"] is None else f" for {hub['away_s']:.0f} s"
        reason = f" ({safe(hub['away_reason'])})" if hub["away_reason"] else ""
        click.echo(f"{hub['host']}: link {hub['link']}{away}{reason}")
        if "on_host" in hub:
            table([_COLUMNS, *map(_row, hub["on_host"])] if hub["on_host"] else [])
        else:
            table([_known_here(kernel) for kernel in hub["kernels"]])
    _tell(result.failures)


def _known_here(kernel: dict[str, Any]) -> Sequence[str]:
    words = [kernel["kernel_id"][:8], kernel["state"].ljust(11), f"pid {kernel['pid']}".ljust(11)]
    return [*words, kernel["name"], kernel["session"]]


def _row(kernel: dict[str, Any]) -> Sequence[str]:
    """One kernel as a host described it; an agent of an older version says less."""
    carried = "here" if kernel.get("mine") else str(kernel.get("carried", ""))
    return (
        kernel["kernel_id"][:8],
        str(kernel["state"]),
        str(kernel.get("owner", "")),
        duration(kernel.get("idle_s", 0)),
        size(kernel.get("memory_bytes", 0)),
        duration(kernel.get("lease_s", 0)),
        carried,
        " ".join(filter(None, (str(kernel["name"]), str(kernel.get("session", ""))))),
    )


def table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns, indented; the first is their head."""
    cells = [[safe(cell) for cell in row] for row in rows]
    if not cells:
        click.echo("  no kernels")
        return
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(f"  {line}".rstrip())


def _tell(failures: Iterable[SshpykError]) -> None:
    for error in failures:
        click.echo(f"sshpyk: {error}", err=True)


def _attached(result: Attached) -> None:
    path = str(result.connection_file)
    if result.as_json:
        record = {"host": result.host, "kernel_id": result.kernel["kernel_id"], "pid": result.pid}
        record |= {"connection_file": path, "notice": result.mounting.notice}
        click.echo(json.dumps(record, indent=2))
        return
    short = result.kernel["kernel_id"][:8]
    waiting = result.kernel.get("waiting_bytes", 0)
    held = f"; {size(waiting)} wait for the first client" if waiting else ""
    click.echo(f"Kernel {short} ({safe(result.kernel['name'])}) on {result.host} is here{held}.")
    click.echo(f"  connection file: {path}")
    # Without the option a console hides what other clients' cells print, and so the backlog.
    console = "--ZMQTerminalInteractiveShell.include_other_output=True"
    click.echo(f"  jupyter console --existing {shlex.quote(path)} {console}")
    click.echo("  jupyter lab --ServerApp.allow_external_kernels=True")
    click.echo(f"  sshpyk leave {result.host} {short}")
    _mounting(result.host, result.mounting)


def _mounting(host: str, mounting: Mounting) -> None:
    """Tell which folders are there again, and what the kernel must do whose own folder had gone."""
    for mount in mounting.asked:
        if f"{mount['local']}:{mount['remote']}" not in mounting.notice:
            click.echo(safe(f"  {mount['local']} -> {host}:{mount['remote']}"))
    if mounting.notice:
        click.echo(safe(f"sshpyk: warning: {mounting.notice}"), err=True)
    if mounting.asked:
        click.echo(
            "  if the kernel worked in a mounted folder that went meanwhile: %cd there again"
        )
    for place in mounting.unknown:
        said = f"the kernel had a folder of the machine that launched it at {place}"
        click.echo(safe(f"sshpyk: warning: {said}: sshpyk mount LOCAL {host}:{place}"), err=True)


def _left(result: LeftKernel) -> None:
    short = result.kernel_id[:8]
    click.echo(f"Left kernel {short} on {result.host}: sshpyk attach {result.host} {short}")
    for place in result.places:
        click.echo(
            safe(f"  {place} goes, with files that it has open and its working folder there")
        )


def _stopped(result: Stopped) -> None:
    if not (result.kernels or result.servers):
        click.echo(f"No kernels on {result.host}")
    for server in result.servers:
        what = safe(f"server {server['server_id']} ({server['folder']})")
        click.echo(f"Stopped {what} on {result.host}")
    for kernel in result.kernels:
        name = safe(str(kernel["name"]))
        click.echo(f"Stopped kernel {kernel['kernel_id'][:8]} ({name}) on {result.host}")


def _collected(result: Collected) -> None:
    if result.as_json:
        failures = [error.to_record() for error in result.failures]
        click.echo(json.dumps({"hosts": result.hosts, "failures": failures}, indent=2))
        return
    would = "would be " if result.dry_run else ""
    for host, done in result.hosts.items():
        if not (done["ended"] or done["swept"]):
            click.echo(f"{host}: nothing to do")
        for kernel in done["ended"]:
            what = f"{kernel['state']}, nothing passed for {duration(kernel['idle_s'])}"
            name = safe(f"{kernel['kernel_id'][:8]} ({kernel['name']}, {kernel['owner']})")
            click.echo(f"{host}: kernel {name} {would}ended: {what}")
        for folder in done["swept"]:
            click.echo(f"{host}: stale folder {safe(folder)} {would}removed")
    _tell(result.failures)


def _log_list(result: LogList) -> None:
    if result.as_json:
        click.echo(json.dumps({"host": result.host, "logs": result.logs}, indent=2))
        return
    rows = [("KERNEL", "STATE", "OWNER", "SIZE", "NAME"), *map(_log_row, result.logs)]
    if result.logs:
        table(rows)
    else:
        click.echo(f"No logs on {result.host}: no kernel wrote anything")


def _log_row(one: dict[str, Any]) -> Sequence[str]:
    status = one.get("status")
    state = one["state"] if status is None else f"{one['state']} ({status})"
    name = " ".join(filter(None, (str(one.get("name", "")), str(one.get("session", "")))))
    return (one["kernel_id"][:8], state, str(one.get("owner", "")), size(one["size_bytes"]), name)


def _log_text(result: LogText) -> None:
    """Print pieces as they come: as they are into a file, but never obeyed by a terminal."""
    on_terminal = sys.stdout.isatty()
    for piece in result.pieces:
        if on_terminal:
            click.echo(safe_lines(piece), nl=False)
        else:
            click.echo(piece.encode("utf-8", "surrogateescape"), nl=False)


RENDERERS: dict[type, Callable[[Any], None]] = {
    Processes: _processes,
    Attached: _attached,
    LeftKernel: _left,
    Stopped: _stopped,
    Collected: _collected,
    LogList: _log_list,
    LogText: _log_text,
}
