"""What verbs about Jupyter servers returned, as text or JSON; importing it adds this to ``render``.

A token is printed on a terminal only, or where it was asked for: what is piped ends in logs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from sshpyk.agent.jupyter_app import APPS
from sshpyk.cli.render import render
from sshpyk.cli.render_kernels import table
from sshpyk.cli.results import ServerClosed, ServerListing, ServerOpened
from sshpyk.cli.text import safe
from sshpyk.servers.lab import server_url

_COLUMNS = ("SERVER", "APP", "STATE", "PID", "KEPT", "OWNER", "URL", "FOLDER")


def title(server: dict[str, Any]) -> str:
    """Return the application's name for people."""
    app = APPS.get(server["app"])
    return app.title if app else "Jupyter"


@render.register
def _opened(result: ServerOpened) -> None:
    server = result.server
    on_terminal = sys.stdout.isatty()
    url = server_url(server, result.port, with_token=on_terminal)
    program = f" ({server['program']})" if server["program"] else ""
    how = {"started": "runs", "found": "runs already", "open": "is open already"}[result.how]
    where = f"on {result.host}, in {server['folder']}"
    click.echo(safe(f"{title(server)}{program} {how} {where}  [{server['server_id']}]"))
    click.echo(safe(f"  {url}"))
    if not on_terminal and server.get("token"):
        click.echo(f"  with its token: sshpyk servers {result.host} --token")
    if not result.shown:
        click.echo("  open this address in a browser", err=True)
    click.echo(safe(result.lasting))


@render.register
def _closed(result: ServerClosed) -> None:
    click.echo(safe(f"{title(result.server)} on {result.host}: {result.what}"))


@render.register
def _listing(result: ServerListing) -> None:
    if result.as_json:
        failures = [error.to_record() for error in result.failures]
        click.echo(json.dumps({"hosts": result.hosts, "failures": failures}, indent=2))
        return
    if not result.hosts and not result.failures:
        click.echo("No links: name a host, sshpyk servers HOST")
    for entry in result.hosts:
        away = "" if entry["away_s"] is None else f" for {entry['away_s']:.0f} s"
        reason = f" ({entry['reason']})" if entry["link"] != "up" and entry["reason"] else ""
        click.echo(safe(f"{entry['host']}: link {entry['link']}{away}{reason}"))
        if entry["servers"]:
            table([_COLUMNS, *map(_row, entry["servers"])])
        elif entry["link"] == "up":
            click.echo("  no servers")
    for error in result.failures:
        click.echo(f"sshpyk: {error}", err=True)


def _row(server: dict[str, Any]) -> Sequence[str]:
    kept = "by hand" if server["by_hand"] else "yes" if server["keep"] else "no"
    return (
        server["server_id"],
        server["app"] or "-",
        server["state"],
        str(server["pid"]),
        kept,
        server["owner"] or "-",
        server["url"] or "-",
        server["folder"],
    )
