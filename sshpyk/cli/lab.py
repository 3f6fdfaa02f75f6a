"""``sshpyk lab``: Jupyter on a host, in the browser here."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

import sshpyk.cli.render_servers  # noqa: F401  # how its result is shown
from sshpyk.agent.jupyter_app import APPS
from sshpyk.cli.add_host import progress
from sshpyk.cli.asking import Host
from sshpyk.cli.browser import show_page
from sshpyk.cli.complete import hosts as offered_hosts
from sshpyk.cli.keeping import go_on_in_background, keep_in_sight
from sshpyk.cli.lab_end import asked_at_the_end
from sshpyk.cli.lab_wish import Wish, elsewhere
from sshpyk.cli.render import render
from sshpyk.cli.render_tunnels import tunnel_traffic
from sshpyk.cli.results import ServerClosed, ServerListing, ServerOpened
from sshpyk.cli.servers import the_server, tunnel_to
from sshpyk.errors import (
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyRejected,
    ServerError,
    SshpykError,
)
from sshpyk.servers.lab import ServerOwner, remove_page, server_url, write_page

_TIMEOUT_S = 120.0

Record = dict[str, Any]


@click.command()
@click.argument("host", shell_complete=offered_hosts)
@click.argument("args", metavar="[-- ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--dir",
    "--remote-cwd",
    "folder",
    metavar="DIR",
    help="The host's folder to show (your home there); quote '~/x'.",
)
@click.option(
    "--python",
    "--remote-python",
    metavar="PATH",
    help="An interpreter on the host that has Jupyter.",
)
@click.option(
    "--prefix",
    "--remote-python-prefix",
    metavar="PATH",
    help="Its environment instead: PATH/bin/python.",
)
@click.option("--activate", metavar="LINES", help="Shell lines before it: 'conda activate ml'.")
@click.option("--app", type=click.Choice(list(APPS)), default="lab", help="Which one (lab).")
@click.option("--port", type=click.IntRange(0, 65535), help="The local port (0: any free one).")
@click.option("--no-browser", is_flag=True, help="Open no browser; print the address only.")
@click.option("--keep", is_flag=True, help="Let it run on when this command or machine goes.")
@click.option("--background", is_flag=True, help="Go on without this terminal.")
@click.option("--new", is_flag=True, help="Start another one, even if one runs there already.")
@click.option(
    "--existing",
    is_flag=False,
    flag_value="",
    metavar="[ID]",
    help="Open one that runs, started by whomever; list them if there are several.",
)
@click.option("--timeout", type=float, help=f"Seconds until a start is given up ({_TIMEOUT_S:g}).")
@click.option("--ssh", help="The ssh to run, the same as in `sshpyk add`.")
@click.option("--ssh-config", help="A file for `ssh -F`, the same as in `sshpyk add`.")
def lab(**given: Any) -> ServerOpened | ServerClosed | ServerListing:
    """Start Jupyter on a host and open it in the browser here; or open the one that runs there.

    It listens on a unix socket in a private folder there, and its local address leads to it over the
    link: a lost network stalls the page and costs nothing. The same command again opens the same server
    (same host, application and folder). It ends with this command (Ctrl+C), unless it is to be kept.

    What is behind -- goes to Jupyter as it stands.

    \b
    Examples:
      sshpyk lab gpu1
      sshpyk lab gpu1 --dir '~/project' --prefix /opt/conda/envs/ml --keep
      sshpyk lab hpc --activate 'module load cuda; conda activate ml'
      sshpyk lab gpu1 --existing
      sshpyk lab gpu1 --app notebook --port 9999 -- --ServerApp.terminals_enabled=False
    """
    host = Host.named(
        given["host"], given["ssh"], given["ssh_config"], given["timeout"] or _TIMEOUT_S
    )
    wish = Wish.from_options(given, host.python)
    name = host.target.host
    listed = _logged_in(host, lambda: _look(host, wish))
    found = _running(wish, listed, name)
    if wish.existing is not None and found is None:
        tunnels = host.converse("tunnels")
        about = {key: tunnels["link"][key] for key in ("host", "link", "away_s", "reason")}
        plain = [{**one, "url": None, "tunnel": None} for one in listed["servers"]]
        return ServerListing(({**about, "servers": plain},))
    if found is not None and (shown := _open_already(host, wish, found)) is not None:
        return shown
    owner = _open(host, wish, found, listed["folder"])
    page = write_page(owner.tunnel["id"], server_url(owner.server, owner.port, with_token=True))
    opened = ServerOpened(
        name,
        owner.server,
        owner.port,
        "found" if found else "started",
        _lasting(wish, owner),
        wish.browser and show_page(page),
    )
    if wish.background:
        go_on_in_background([owner], lambda: remove_page(owner.tunnel["id"]))
        return opened
    with _ending(owner):
        render(opened)
        return _until_closed(host, owner)


def _look(host: Host, wish: Wish) -> Record:
    """Return the servers that run there, and our folder's real path."""
    with progress(f"{host.target.host}: connecting …"):
        return host.ask("servers", folder=wish.folder)


def _logged_in(host: Host, act: Callable[[], Record]) -> Record:
    """Do something on the host; where ssh has to ask a person who is there, let it, and go on."""
    try:
        return act()
    except (AuthenticationFailed, HostKeyRejected) as error:
        if isinstance(error, HostKeyChanged) or not sys.stdin.isatty():
            raise
        from sshpyk.cli.login import open_link

        name = host.target.host
        click.echo(f"{name}: {error.what}. ssh asks you now; sshpyk sees no answer.", err=True)
        open_link(host.target, host.python)
    return act()


def _running(wish: Wish, listed: Record, host: str) -> Record | None:
    """Return the server that is meant, of those that run; None for none, or for a list."""
    servers = [one for one in listed["servers"] if one["target"] is not None]
    if wish.existing:
        return the_server(servers, wish.existing, host)
    if wish.existing is not None:
        return servers[0] if len(servers) == 1 else None
    if wish.new:
        return None
    same = [one for one in servers if one["app"] == wish.app and one["folder"] == listed["folder"]]
    others = [one for one in servers if one["app"] == wish.app and one not in same]
    if others and not same:
        ids = ", ".join(f"{one['server_id']} in {one['folder']}" for one in others)
        click.echo(f"{host}: others run there: {ids} (--existing ID opens one)", err=True)
    return same[0] if same else None


def _open_already(host: Host, wish: Wish, server: Record) -> ServerOpened | None:
    """Show the page of a server that a tunnel from here leads to already, at that address."""
    tunnel = tunnel_to(server, host.converse("tunnels")["tunnels"])
    if tunnel is None or wish.port not in (None, tunnel["listens"]["port"]):
        return None
    server = host.ask("open_server", server_id=server["server_id"], keep=wish.keep)
    port, name = tunnel["listens"]["port"], tunnel["id"]
    page = write_page(name, server_url(server, port, with_token=True))
    lasting = f"Its tunnel is {name}: sshpyk close {name} ends that."
    shown = wish.browser and show_page(page)
    return ServerOpened(host.target.host, server, port, "open", lasting, shown)


def _open(host: Host, wish: Wish, found: Record | None, folder: str) -> ServerOwner:
    """Start a server, or open the one that runs. Raises SshpykError."""
    for attempt in elsewhere(host, wish, found, folder):
        owner = ServerOwner(host.target, attempt)
        try:
            _open_one(owner)
        except SshpykError as error:
            attempt["failure"] = error
        else:
            return owner
    raise AssertionError("the last attempt raises")


def _open_one(owner: ServerOwner) -> None:
    name = owner.target.host
    try:
        with progress(f"{name}: starting …") as tell:

            def show(text: str) -> None:
                tell(f"{name}: {text}")

            owner.open_server(show)
    except BaseException:
        owner.close()
        raise


def _lasting(wish: Wish, owner: ServerOwner) -> str:
    """Return what ends the server, in words."""
    server, port = owner.server, owner.port
    name = f"{owner.target.host} {server['server_id']}"
    if server["by_hand"]:
        return "It was started by hand, and runs on when this command ends."
    if server["keep"]:
        return f"It is kept: sshpyk lab finds it again, sshpyk stop {name} ends it."
    if not server["mine"]:
        return f"It ends with the sshpyk lab of {server['owner'] or 'another machine'} that started it."
    with_what = f"sshpyk close {port}" if wish.background else "this command (Ctrl+C)"
    return f"It ends with {with_what}; --keep lets it run on."


class _Ended(BaseException):
    """A signal wants us to end."""


@contextlib.contextmanager
def _ending(owner: ServerOwner) -> Iterator[None]:
    """Close the tunnel and remove what lies here, however we end, if we can."""

    def end(number: int, frame: object) -> None:
        raise _Ended

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        yield
    except _Ended:
        raise click.exceptions.Exit(1) from None
    finally:
        remove_page(owner.tunnel["id"])
        owner.close()


def _until_closed(host: Host, owner: ServerOwner) -> ServerClosed:
    """Show how things are until the server or its tunnel ends, or Ctrl+C; say what becomes of it."""
    name, server = host.target.host, owner.server
    while True:
        try:
            keep_in_sight([owner], lambda: f"{tunnel_traffic(owner.tunnel)}; Ctrl+C ends")
            break
        except ServerError as error:
            if error.code != "SERVER-ENDED":
                raise
            return ServerClosed(name, server, "has ended, by Shut Down or a signal")
        except KeyboardInterrupt:
            if asked_at_the_end(host, owner):
                break
    if owner.closed:
        return ServerClosed(name, server, "its tunnel was closed")
    if owner.server["keep"] or not owner.server["mine"]:
        again = f"sshpyk lab {name} --existing {server['server_id']}"
        return ServerClosed(name, server, f"runs on; {again} opens it again")
    if owner.link["link"] != "up":
        return ServerClosed(name, server, "ends when the host can be reached again, or by lease")
    return ServerClosed(name, server, "ends now, with its kernels")
