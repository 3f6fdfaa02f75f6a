"""``sshpyk forward``: ports and unix sockets of a host here, or ours there."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import click

from sshpyk.cli.hosts import ssh_flags, target_and_python
from sshpyk.cli.keeping import go_on_in_background, keep_in_sight
from sshpyk.cli.render import render
from sshpyk.cli.render_tunnels import tunnel_traffic
from sshpyk.cli.results import Forwarded, TunnelsClosed
from sshpyk.errors import InvalidInput
from sshpyk.servers.owner import TunnelOwner, open_all
from sshpyk.servers.tunnels import TunnelRequest
from sshpyk.wire.endpoint import LOOPBACK, Endpoint

_ADDRESS = re.compile(
    r"\[(?P<v6>[0-9A-Fa-f:.]+(?:%\w+)?)\]:(?P<port>\d+)|(?P<name>[\w.-]+):(?P<port2>\d+)"
)
_LISTEN = re.compile(r"(?P<listen>\d+|[/~][^:]*):(?P<target>.+)")


@click.command()
@click.argument("host")
@click.argument("tunnels", metavar="[LOCAL:]REMOTE...", nargs=-1, required=True)
@click.option(
    "-R", "--reverse", is_flag=True, help="The host listens: [REMOTE:]LOCAL instead, see above."
)
@click.option("--bind", metavar="ADDRESS", help="Listen there instead of on loopback only.")
@click.option("--background", is_flag=True, help="Go on without this terminal.")
@ssh_flags
def forward(host: str, tunnels: tuple[str, ...], **given: Any) -> Forwarded | TunnelsClosed:
    """Reach ports and unix sockets of a host at local ones, through the link.

    LOCAL is a port (0: a free one) or the path of a unix socket; without it, the remote port's number or
    else a free one. REMOTE is a port, HOST:PORT as the host sees it, or the path of a unix socket. With
    -R the host listens and this machine is reached: [REMOTE:]LOCAL.

    Connections survive a lost network: they stall and go on. Ctrl+C closes the tunnels.

    \b
    Examples:
      sshpyk forward gpu1 8888
      sshpyk forward gpu1 9999:8888 5432:db.inside:5432
      sshpyk forward gpu1 0:/run/user/1000/app.sock --background
      sshpyk forward gpu1 -R 9000:8000
    """
    target, python = target_and_python(host, given["ssh"], given["ssh_config"])
    requests = [
        request_for(text, python, reverse=given["reverse"], bind=given["bind"]) for text in tunnels
    ]
    if given["bind"] and given["bind"] not in (*LOOPBACK, "localhost"):
        what = f"everyone who reaches {given['bind']} can use the tunnel"
        click.echo(f"sshpyk: warning: {what}", err=True)
    owners = open_all(TunnelOwner(target, request) for request in requests)
    opened = Forwarded(tuple((host, owner.tunnel) for owner in owners), given["background"])
    if given["background"]:
        go_on_in_background(owners)
        return opened
    with contextlib.suppress(KeyboardInterrupt):
        render(opened)
        sys.stdout.flush()
        keep_in_sight(owners, lambda: _status(owners))
    for owner in owners:
        owner.close()
    return TunnelsClosed(tuple((host, owner.tunnel) for owner in owners))


def request_for(text: str, python: str, *, reverse: bool, bind: str | None) -> TunnelRequest:
    """Read ``[LISTEN:]TARGET``. Raises InvalidInput."""
    match = _LISTEN.fullmatch(text)
    target = _endpoint(match["target"] if match else text, text)
    listen = match["listen"] if match else str(target.port)
    address = bind or "localhost"
    if listen.isdigit():
        begins = Endpoint(address, _port(listen, text))
    elif bind:
        raise InvalidInput("--bind is for ports, not for unix sockets")
    else:
        begins = Endpoint(path=listen if reverse else os.path.abspath(os.path.expanduser(listen)))
    if reverse and target.path:
        target = Endpoint(path=os.path.abspath(os.path.expanduser(target.path)))
    return TunnelRequest(begins, target, python, reverse=reverse, any_port=match is None)


def _endpoint(text: str, whole: str) -> Endpoint:
    if text.isdigit():
        return Endpoint("localhost", _port(text, whole, least=1))
    if text.startswith(("/", "~/")):
        return Endpoint(path=text)
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise InvalidInput(
            f"{whole!r} is no tunnel",
            advice="write a port, HOST:PORT or /a/socket, with LOCAL: in front of it if you like",
        )
    port = _port(match["port"] or match["port2"], whole, least=1)
    return Endpoint(match["v6"] or match["name"], port)


def _port(digits: str, whole: str, least: int = 0) -> int:
    if len(digits) > 5 or not least <= int(digits) < 65536:
        raise InvalidInput(f"{whole!r}: {digits[:20]} is no port")
    return int(digits)


def _status(owners: Sequence[TunnelOwner]) -> str:
    sums = dict(owners[0].tunnel)
    for owner in owners[1:]:
        for name in ("open", "connections", "sent_bytes", "received_bytes"):
            sums[name] += owner.tunnel[name]
        sums["error"] = sums["error"] or owner.tunnel["error"]
    return f"{tunnel_traffic(sums)}; Ctrl+C closes"
