"""What verbs about mounts returned, as text or JSON; importing it adds this to ``render``."""

from __future__ import annotations

import json
from typing import Any

import click

from sshpyk.cli.render import render
from sshpyk.cli.results import Mounted, MountListing, Unmounted
from sshpyk.cli.text import link_line, safe

Record = dict[str, Any]


@render.register
def _mounted(result: Mounted) -> None:
    click.echo(safe(f"Mounted {mount_route(result.host, result.mount)}"))
    if result.background:
        click.echo("in the background; see sshpyk mounts, end with sshpyk unmount")


@render.register
def _mount_listing(result: MountListing) -> None:
    if result.as_json:
        click.echo(json.dumps({"hosts": result.hubs}, indent=2))
        return
    if not result.hubs:
        click.echo("Nothing is mounted")
    for hub in result.hubs:
        click.echo(link_line(hub["link"]))
        for mount in hub["mounts"]:
            click.echo(safe(f"  {mount_route(hub['link']['host'], mount)}"))
            error = f": {mount['error']}" if mount["error"] else ""
            click.echo(safe(f"         {mount['state']}{error}; {_users(mount)}"))


@render.register
def _unmounted(result: Unmounted) -> None:
    for host, mount, state in result.mounts:
        route = mount_route(host, mount)
        if not state:
            line = f"Unmounted {route}"
        elif mount["kernels"] or mount["commands"]:
            line = f"Let go of {route}: it stays for {_users(mount)}"
        else:
            line = f"{route} goes as soon as {host} can be reached"
        click.echo(safe(line))


def mount_route(host: str, mount: Record) -> str:
    """Return what is mounted where: ``/home/me/code -> gpu1:/home/me/code (ro)``."""
    options = f" ({','.join(mount['options'])})" if mount["options"] else ""
    return f"{mount['local']} -> {host}:{mount['remote']}{options}"


def _users(mount: Record) -> str:
    kernels = [
        " ".join(filter(None, ("kernel", one["kernel_id"][:8], one["session"] or one["name"])))
        for one in mount["kernels"]
    ]
    commands = ["sshpyk mount"] if mount["commands"] else []
    return ", ".join([*commands, *kernels]) or "nobody"
