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
    hubs = all_hubs()
    try:
        found = [answer for hub in hubs if (answer := ask(hub, "tunnels")).get("tunnels")]
    finally:
        for hub in hubs:
            hub.close()
    return TunnelListing(tuple(found), as_json)


def ask(hub: HubClient, op: str, **params: Any) -> dict[str, Any]:
    """Return a hub's answer; empty from one that leaves just now."""
    try:
        hub.say(op, **params)
        return hub.hear() or {}
    except OSError:
        return {}
