"""``sshpyk unmount``: end what ``sshpyk mount`` began."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import click

import sshpyk.cli.render_mounts  # noqa: F401  # how its result is shown
from sshpyk.cli.complete import open_mounts
from sshpyk.cli.mounts import mounted_on
from sshpyk.cli.results import Unmounted
from sshpyk.cli.tunnels import ask
from sshpyk.errors import InvalidInput
from sshpyk.hub.client import all_hubs

_PATIENCE_S = 10.0
_LOOK_S = 0.1

Record = dict[str, Any]


@click.command()
@click.argument("which", metavar="HOST:REMOTE|LOCAL", required=False, shell_complete=open_mounts)
@click.option("--all", "every", is_flag=True, help="All that sshpyk mount has mounted.")
def unmount(*, which: str | None, every: bool) -> Unmounted:
    """Unmount a folder, and end the `sshpyk mount` that keeps it.

    It is named by its place on the host, or by the local folder; see sshpyk mounts. What kernels use
    stays until the last of them has ended.

    \b
    Examples:
      sshpyk unmount gpu1:~/code
      sshpyk unmount ~/data
      sshpyk unmount --all
    """
    if (which is None) is not every:
        raise click.UsageError("name one mount, or --all")
    hubs = all_hubs()
    try:
        found = [
            (hub, answer["link"]["host"], mount)
            for hub in hubs
            for answer in [ask(hub, "mounts")]
            for mount in answer.get("mounts", ())
            if every or _is_meant(answer["link"]["host"], mount, which or "")
        ]
        _check(which, [(host, mount) for _, host, mount in found])
        ended = [one for one in found if one[2]["commands"]]
        for hub, _, mount in ended:
            for command in mount["commands"]:
                ask(hub, "close_mount", id=command)
    finally:
        for hub in hubs:
            hub.close()
    return Unmounted(
        tuple(await_unmounted(host, mount, mount["commands"]) for _, host, mount in ended)
    )


def _check(which: str | None, found: list[tuple[str, Record]]) -> None:
    if which is None:
        return
    if not found:
        raise InvalidInput(f"{which} is not mounted", advice="see sshpyk mounts")
    if len(found) > 1:
        places = ", ".join(f"{host}:{mount['remote']}" for host, mount in found)
        raise InvalidInput(f"{which} is mounted at {places}", advice="name one of these")
    if not found[0][1]["commands"]:
        raise InvalidInput(f"{which} is a kernel's: it goes with the last kernel that uses it")


def _is_meant(host: str, mount: Record, which: str) -> bool:
    place = f"{host}:{_plain(mount['remote'])}"
    return _plain(which) == place or _absolute(which) == mount["local"]


def _plain(path: str) -> str:
    return path.rstrip("/") or "/"


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def await_unmounted(host: str, mount: Record, ended: Sequence[str]) -> tuple[str, Record, str]:
    """Wait a while until a mount has gone that the commands ``ended`` have let go of.

    Return it with its state: "" when it has gone.
    """
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        left = [
            one
            for answer in mounted_on(host)
            for one in answer["mounts"]
            if (one["local"], one["remote"]) == (mount["local"], mount["remote"])
        ]
        if not left:
            return host, mount, ""
        others = set(left[0]["commands"]) - set(ended)  # the hub may not have heard of the end yet
        if left[0]["kernels"] or others or time.monotonic() > deadline_s:
            left[0]["commands"] = sorted(others)
            return host, left[0], left[0]["state"]
        time.sleep(_LOOK_S)
