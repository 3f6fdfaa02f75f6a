"""``sshpyk stop``: end kernels on a host, whoever carries them."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import click

from sshpyk.cli.asking import Host, each, host_flags, the_kernel
from sshpyk.cli.results import Stopped
from sshpyk.errors import InvalidInput, SshpykError

_GRACE_S = 5.0
_MORE_S = 10.0  # what the ladder takes behind the grace


@click.command()
@click.argument("host")
@click.argument("kernels", metavar="[KERNEL]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="All of your kernels there.")
@click.option("--yes", is_flag=True, help="Do not ask before --all.")
@click.option("--grace", default=_GRACE_S, help="Seconds for a polite end (5); 0 kills at once.")
@host_flags
def stop(**given: Any) -> Stopped:
    """End kernels on a host: politely first, then by force.

    KERNEL is the beginning of its id (see `sshpyk ps HOST`), or its name where that is one kernel's.
    It need not be a kernel that this machine started.

    \b
    Examples:
      sshpyk stop gpu1 3f2a
      sshpyk stop gpu1 3f2a 77b0 --grace 30
      sshpyk stop gpu1 --all
    """
    named, all_, grace_s = given["kernels"], given["all_"], float(given["grace"])
    if bool(named) == all_:
        raise InvalidInput("name the kernels, or give --all")
    if grace_s < 0:
        raise InvalidInput("--grace must not be below 0")
    host = Host.named(given["host"], given["ssh"], given["ssh_config"], given["timeout"])
    found = host.kernels()
    name = host.target.host
    meant = found if all_ else [the_kernel(found, text, name) for text in named]
    if all_ and meant and not given["yes"]:
        _confirm(meant, name)
    patient = dataclasses.replace(host, timeout_s=max(host.timeout_s, grace_s + _MORE_S))
    unique = {one["kernel_id"]: one for one in meant}

    def end(kernel_id: str) -> dict[str, Any]:
        return patient.ask("stop", kernel_id=kernel_id, grace_s=grace_s)

    for answer in each(list(unique), end):
        if isinstance(answer, SshpykError):
            raise answer
    return Stopped(name, tuple(unique.values()))


def _confirm(meant: list[dict[str, Any]], host: str) -> None:
    """Ask before everything goes; where nobody can be asked, --yes is needed."""
    if not sys.stdin.isatty():
        raise InvalidInput("--all needs --yes where nobody can be asked")
    click.confirm(f"End {len(meant)} kernel(s) on {host}?", abort=True, err=True)
