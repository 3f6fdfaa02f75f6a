"""``sshpyk tunnels``: what is open, on all links of this machine."""

from __future__ import annotations

from typing import Any

import click

import sshpyk.cli.render_tunnels  # noqa: F401  # how its result is shown
from sshpyk.cli.results import TunnelListing
from sshpyk.hub.client import HubClient, all_hubs


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def tunnels(*, as_json: bool) -> TunnelListing:
    """Show the tunnels that are open, with the bytes each way, connections, and state of the link.

    \b
    Examples:
      sshpyk tunnels
      sshpyk tunnels --json
    """
    found = [answer for answer in ask_all("tunnels") if answer.get("tunnels")]
    return TunnelListing(tuple(found), as_json)


def ask_all(op: str) -> list[dict[str, Any]]:
    """Return what every hub of this user answers."""
    hubs = all_hubs()
    try:
        return [ask(hub, op) for hub in hubs]
    finally:
        for hub in hubs:
            hub.close()


def ask(hub: HubClient, op: str, **params: Any) -> dict[str, Any]:
    """Return a hub's answer; empty from one that leaves just now."""
    try:
        hub.say(op, **params)
        return hub.hear() or {}
    except OSError:
        return {}
