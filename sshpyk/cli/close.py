"""``sshpyk close``: end tunnels."""

from __future__ import annotations

from typing import Any

import click

import sshpyk.cli.render_tunnels  # noqa: F401  # how its result is shown
from sshpyk.cli.results import TunnelsClosed
from sshpyk.cli.tunnels import ask
from sshpyk.errors import InvalidInput
from sshpyk.hub.client import all_hubs


@click.command()
@click.argument("which", metavar="ID|PORT", required=False)
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Close all tunnels of this machine, those of `sshpyk lab` too.",
)
def close(*, which: str | None, every: bool) -> TunnelsClosed:
    """Close a tunnel with its connections, and the `sshpyk forward` or `sshpyk lab` that opened it.

    The tunnel is named by its id, or by the port or path where it listens; see sshpyk tunnels. A Jupyter
    server that `sshpyk lab` started ends with its tunnel, unless it was started with --keep; mounts that
    log in through a tunnel end with it.

    \b
    Examples:
      sshpyk close t3f2a
      sshpyk close 8888
      sshpyk close --all
    """
    if (which is None) is not every:
        raise click.UsageError("name one tunnel, or --all")
    hubs = all_hubs()
    try:
        answers = [(hub, ask(hub, "tunnels")) for hub in hubs]
        found = [
            (hub, answer["link"]["host"], tunnel)
            for hub, answer in answers
            for tunnel in answer.get("tunnels", ())
            if every or _is_meant(tunnel, which or "")
        ]
        if not found and not every:
            raise InvalidInput(f"no tunnel is {which}", advice="see sshpyk tunnels")
        if len(found) > 1 and not every:
            ids = ", ".join(f"{tunnel['id']} ({host})" for _, host, tunnel in found)
            raise InvalidInput(f"{which} may be {ids}", advice="name one by its id")
        for hub, _, tunnel in found:
            ask(hub, "close_tunnel", id=tunnel["id"])
    finally:
        for hub in hubs:
            hub.close()
    return TunnelsClosed(tuple((host, tunnel) for _, host, tunnel in found))


def _is_meant(tunnel: dict[str, Any], word: str) -> bool:
    listens = tunnel["listens"]
    return word == tunnel["id"] or (bool(word) and word in (str(listens["port"]), listens["path"]))
