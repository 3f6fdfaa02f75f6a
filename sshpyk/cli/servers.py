"""``sshpyk servers``: the Jupyter servers on hosts; and how other verbs find and name one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

import sshpyk.cli.render_servers  # noqa: F401  # how its result is shown
from sshpyk.cli.asking import Host, each, host_flags
from sshpyk.cli.complete import hosts as offered_hosts
from sshpyk.cli.results import ServerListing
from sshpyk.cli.tunnels import ask
from sshpyk.errors import InvalidInput, SshpykError
from sshpyk.hub.client import HubClient, all_hubs
from sshpyk.servers.lab import server_url

_QUICK_S = 10.0

Record = dict[str, Any]


@click.command()
@click.argument("hosts", metavar="[HOST]...", nargs=-1, shell_complete=offered_hosts)
@click.option("--token", "with_token", is_flag=True, help="Show addresses with their tokens.")
@host_flags
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def servers(*, hosts: tuple[str, ...], with_token: bool, **given: Any) -> ServerListing:
    """Show the Jupyter servers that run on hosts, and where they can be reached here.

    Without HOST: those behind the links that this machine keeps now. With HOST: connect if need be. Those
    that were started by hand are shown too (their ids begin with p).

    \b
    Examples:
      sshpyk servers
      sshpyk servers gpu1 gpu2
      sshpyk servers gpu1 --token
    """
    as_json = given.pop("as_json")
    if not hosts:
        if given["ssh"] or given["ssh_config"] or given["timeout"]:
            raise click.UsageError("--ssh, --ssh-config and --timeout need a HOST")
        return ServerListing(tuple(_behind_all_links(with_token=with_token)), as_json)
    asked = [
        Host.named(host, given["ssh"], given["ssh_config"], given["timeout"]) for host in hosts
    ]
    answers = each(asked, lambda host: _on_host(host, with_token=with_token))
    failures = tuple(answer for answer in answers if isinstance(answer, SshpykError))
    if failures and len(hosts) == 1:
        raise failures[0]
    found = tuple(answer for answer in answers if not isinstance(answer, SshpykError))
    return ServerListing(found, as_json, failures)


def _on_host(host: Host, *, with_token: bool) -> Record:
    listed = host.ask("servers")["servers"]
    if with_token:
        listed = [_opened(host, server) for server in listed]
    return _entry(host.converse("tunnels"), listed, with_token=with_token)


def _opened(host: Host, server: Record) -> Record:
    if server["target"] is None:
        return server
    return host.ask("open_server", server_id=server["server_id"])


def _behind_all_links(*, with_token: bool) -> list[Record]:
    found = []
    for hub in all_hubs():
        try:
            tunnels = ask(hub, "tunnels")
            if tunnels:
                listed = (
                    _listed(hub, with_token=with_token) if tunnels["link"]["link"] == "up" else []
                )
                found.append(_entry(tunnels, listed, with_token=with_token))
        finally:
            hub.close()
    return found


def _listed(hub: HubClient, *, with_token: bool) -> list[Record]:
    def answer(what: str, **params: Any) -> Record:
        said = ask(hub, "ask", what=what, params=params, python="python3", timeout_s=_QUICK_S)
        result: Record = said.get("answer") or {}
        return result

    listed: list[Record] = answer("servers").get("servers", [])
    if not with_token:
        return listed
    return [answer("open_server", server_id=one["server_id"]) or one for one in listed]


def _entry(tunnels: Record, listed: Sequence[Record], *, with_token: bool) -> Record:
    link = tunnels["link"]
    shown = []
    for server in listed:
        tunnel = tunnel_to(server, tunnels["tunnels"])
        port = tunnel["listens"]["port"] if tunnel else 0
        url = server_url(server, port, with_token=with_token) if port else None
        plain = {name: value for name, value in server.items() if name != "token" or with_token}
        shown.append({**plain, "url": url, "tunnel": tunnel["id"] if tunnel else None})
    about = {name: link[name] for name in ("host", "link", "away_s", "reason")}
    return {**about, "servers": shown}


def tunnel_to(server: Record, tunnels: Sequence[Record]) -> Record | None:
    """Return the tunnel that leads to a server, if one is open."""
    for tunnel in tunnels:
        begins_at_port = not tunnel["reverse"] and tunnel["listens"]["port"]
        if begins_at_port and server["target"] and tunnel["target"] == server["target"]:
            return tunnel
    return None


def the_server(found: Sequence[Record], named: str, host: str) -> Record:
    """Return the one server that is meant: by the beginning of its id, or by its port there.

    Raises InvalidInput when that is none, or several.
    """
    meant = [one for one in found if named and one["server_id"].startswith(named)]
    if not meant:
        meant = [one for one in found if str((one["target"] or {}).get("port") or "") == named]
    if len(meant) == 1:
        return meant[0]
    ids = ", ".join(f"{one['server_id']} ({one['folder']})" for one in meant or found)
    if meant:
        raise InvalidInput(f"{named!r} may be any of these servers on {host}: {ids}")
    raise InvalidInput(f"no server {named!r} on {host}; there are: {ids or 'none'}")
