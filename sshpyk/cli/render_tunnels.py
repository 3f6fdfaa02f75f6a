"""What verbs about tunnels returned, as text or JSON; importing it adds this to ``render``."""

from __future__ import annotations

import json
from typing import Any

import click

from sshpyk.cli.render import render
from sshpyk.cli.results import Forwarded, TunnelListing, TunnelsClosed
from sshpyk.cli.text import link_line, safe
from sshpyk.hub.outage import readable_size
from sshpyk.wire.endpoint import Endpoint


@render.register
def _forwarded(result: Forwarded) -> None:
    for host, tunnel in result.tunnels:
        click.echo(safe(f"{tunnel['id']}  {tunnel_route(host, tunnel)}"))
    if result.background:
        click.echo("in the background; see sshpyk tunnels, end with sshpyk close")


@render.register
def _tunnel_listing(result: TunnelListing) -> None:
    if result.as_json:
        click.echo(json.dumps({"hosts": result.hubs}, indent=2))
    elif not any(hub["tunnels"] for hub in result.hubs):
        click.echo("No tunnels are open")
    for hub in [] if result.as_json else result.hubs:
        if hub["tunnels"]:
            click.echo(link_line(hub["link"]))
        for tunnel in hub["tunnels"]:
            click.echo(safe(f"  {tunnel['id']}  {tunnel_route(hub['link']['host'], tunnel)}"))
            click.echo(safe(f"         {tunnel_traffic(tunnel)}"))


@render.register
def _tunnels_closed(result: TunnelsClosed) -> None:
    for host, tunnel in result.tunnels:
        route, traffic = tunnel_route(host, tunnel), tunnel_traffic(tunnel)
        click.echo(safe(f"Closed {tunnel['id']}  {route}  {traffic}"))


def tunnel_route(host: str, tunnel: dict[str, Any]) -> str:
    """Return where a tunnel begins and leads to: ``localhost:9999 -> gpu1: localhost:8888``."""
    listens, target = (str(Endpoint(**tunnel[end])) for end in ("listens", "target"))
    return (
        f"{host}: {listens} -> {target}" if tunnel["reverse"] else f"{listens} -> {host}: {target}"
    )


def tunnel_traffic(tunnel: dict[str, Any]) -> str:
    """Return what went through a tunnel, and what is wrong with it."""
    sent, received = (readable_size(tunnel[way]) for way in ("sent_bytes", "received_bytes"))
    error = f"; latest failure: {tunnel['error']}" if tunnel["error"] else ""
    opened = f"{tunnel['open']} open of {tunnel['connections']}"
    return f"{opened}, {sent} to the host, {received} from it{error}"
