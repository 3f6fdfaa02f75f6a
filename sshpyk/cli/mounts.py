"""``sshpyk mounts``: which folders of ours are on hosts, on all links of this machine."""

from __future__ import annotations

from typing import Any

import click

import sshpyk.cli.render_mounts  # noqa: F401  # how its result is shown
from sshpyk.cli.complete import hosts
from sshpyk.cli.results import MountListing
from sshpyk.cli.tunnels import ask_all


@click.command()
@click.argument("host", required=False, shell_complete=hosts)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def mounts(host: str | None, *, as_json: bool) -> MountListing:
    """Show the folders of this machine that are mounted on hosts, who uses them, and the link's state.

    Those of kernels too: such a mount goes with the last of them.

    \b
    Examples:
      sshpyk mounts
      sshpyk mounts gpu1 --json
    """
    return MountListing(tuple(mounted_on(host)), as_json)


def mounted_on(host: str | None) -> list[dict[str, Any]]:
    """Return what each hub says of its mounts; only those that have any."""
    return [
        answer
        for answer in ask_all("mounts")
        if answer.get("mounts") and host in (None, answer["link"]["host"])
    ]
