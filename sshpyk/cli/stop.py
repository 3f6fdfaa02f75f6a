"""``sshpyk stop``: end kernels and Jupyter servers on a host, whoever carries them."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
from typing import Any

import click

from sshpyk.cli.asking import Host, each, host_flags, the_kernel
from sshpyk.cli.results import Stopped
from sshpyk.cli.servers import the_server
from sshpyk.errors import InvalidInput, SshpykError

_GRACE_S = 5.0
_SERVER_GRACE_S = 20.0  # it shuts its kernels down first
_MORE_S = 10.0  # what the ladder takes behind the grace
_SERVER = re.compile("[sp][0-9a-f]+")


@click.command()
@click.argument("host")
@click.argument("kernels", metavar="[KERNEL|SERVER]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="All of your kernels and servers there.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before --all.")
@click.option(
    "--grace", type=float, help="Seconds for a polite end (5, a server 20); 0 kills at once."
)
@host_flags
def stop(**given: Any) -> Stopped:
    """End kernels and Jupyter servers on a host: politely first, then by force.

    KERNEL is the beginning of its id, or the kernelspec's name on the host (often python3) or the
    notebook's, as the last column of `sshpyk ps HOST` shows them, if only one kernel there has it.
    SERVER is the beginning of its id (see `sshpyk servers HOST`). They need not be what this machine
    started; a server that was started by hand is never meant by --all.

    \b
    Examples:
      sshpyk stop gpu1 3f2a
      sshpyk stop gpu1 3f2a 77b0 --grace 30
      sshpyk stop gpu1 s1c9e
      sshpyk stop gpu1 --all
    """
    named, all_, grace = given["kernels"], given["all_"], given["grace"]
    grace_s, server_grace_s = (_GRACE_S, _SERVER_GRACE_S) if grace is None else (grace, grace)
    if bool(named) == all_:
        raise InvalidInput("name the kernels, or give --all")
    if grace_s < 0:
        raise InvalidInput("--grace must not be below 0")
    host = Host.named(given["host"], given["ssh"], given["ssh_config"], given["timeout"])
    kernels, servers = _meant(host, named, all_=all_)
    if all_ and (kernels or servers) and not given["yes"]:
        _confirm([*kernels.values(), *servers.values()], host.target.host)
    patient = dataclasses.replace(host, timeout_s=max(host.timeout_s, server_grace_s + _MORE_S))
    orders = [("stop", {"kernel_id": one, "grace_s": grace_s}) for one in kernels]
    orders += [("stop_server", {"server_id": one, "grace_s": server_grace_s}) for one in servers]

    def end(order: tuple[str, dict[str, Any]]) -> dict[str, Any]:
        return patient.ask(order[0], **order[1])

    for answer in each(orders, end):
        if isinstance(answer, SshpykError):
            raise answer
    return Stopped(host.target.host, tuple(kernels.values()), tuple(servers.values()))


_ById = dict[str, dict[str, Any]]


def _meant(host: Host, named: tuple[str, ...], *, all_: bool) -> tuple[_ById, _ById]:
    """Return the kernels and the servers that are meant. Raises InvalidInput."""
    servers: list[dict[str, Any]] = []
    if all_ or any(map(_SERVER.fullmatch, named)):
        with contextlib.suppress(SshpykError):  # an agent of an older sshpyk has none
            servers = host.ask("servers")["servers"]
    if all_:
        ours = [one for one in servers if not one["by_hand"]]
        return _by_id(host.kernels(), "kernel_id"), _by_id(ours, "server_id")
    ids = tuple(one["server_id"] for one in servers)
    of_servers = [text for text in named if _SERVER.fullmatch(text) and _begins(ids, text)]
    rest = [text for text in named if text not in of_servers]
    name, found = host.target.host, host.kernels() if rest else []
    return (
        _by_id([the_kernel(found, text, name) for text in rest], "kernel_id"),
        _by_id([the_server(servers, text, name) for text in of_servers], "server_id"),
    )


def _begins(ids: tuple[str, ...], text: str) -> bool:
    return any(one.startswith(text) for one in ids)


def _by_id(found: list[dict[str, Any]], name: str) -> _ById:
    return {one[name]: one for one in found}


def _confirm(meant: list[dict[str, Any]], host: str) -> None:
    """Ask before everything goes; where nobody can be asked, --yes is needed."""
    if not sys.stdin.isatty():
        raise InvalidInput("--all needs --yes where nobody can be asked")
    click.confirm(f"End {len(meant)} kernel(s) and server(s) on {host}?", abort=True, err=True)
