"""``sshpyk mount``: a folder of ours on a host, without a kernel."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import Any

import click

from sshpyk.cli.complete import mount_places
from sshpyk.cli.hosts import ssh_flags, target_and_python
from sshpyk.cli.keeping import go_on_in_background, keep_in_sight
from sshpyk.cli.render import render
from sshpyk.cli.results import Mounted, Unmounted
from sshpyk.cli.unmount import await_unmounted
from sshpyk.errors import InvalidInput
from sshpyk.hub.mount_request import MountRequest
from sshpyk.kernelconfig import check_text
from sshpyk.mounts.options import sort_options
from sshpyk.servers.owner import MountOwner, open_all
from sshpyk.ssh.command import remote_path_word

# A host may have a port behind it: the path begins at the first colon that one can follow.
_PLACE = re.compile(r"(?P<host>.+?):(?P<remote>[/~].*)", re.DOTALL)


@click.command()
@click.argument("local", type=click.Path(file_okay=False))
@click.argument("place", metavar="HOST:REMOTE", shell_complete=mount_places)
@click.option(
    "-o",
    "--options",
    multiple=True,
    metavar="OPTIONS",
    help="sshfs's, separated by commas: ro, follow_symlinks, cache=no … (repeatable).",
)
@click.option("--background", is_flag=True, help="Go on without this terminal.")
@click.option("--remote-sshfs", help="The host's sshfs, instead of the one on PATH.")
@ssh_flags
def mount(local: str, place: str, **given: Any) -> Mounted | Unmounted:
    """Show a folder of this machine on a host, through the link.

    REMOTE is an absolute path there, or begins with ~/. It is made when it is missing, and removed
    again then. The host needs sshfs and fuse; here nothing is needed.

    An outage is a stall: what is read or written goes on when the line is back. Ctrl+C unmounts.

    \b
    Examples:
      sshpyk mount ~/code gpu1:~/code
      sshpyk mount . gpu1:/scratch/me/project -o ro,follow_symlinks
      sshpyk mount ~/data gpu1:/home/me/data --background
    """
    host, remote = host_and_remote(place)
    target, python = target_and_python(host, given["ssh"], given["ssh_config"])
    request = request_for(local, remote, given["options"], given["remote_sshfs"] or "")
    owners = open_all([MountOwner(target, request, python)])
    mounted = Mounted(host, owners[0].kept, given["background"])
    if given["background"]:
        go_on_in_background(owners)
        return mounted
    with contextlib.suppress(KeyboardInterrupt):
        render(mounted)
        sys.stdout.flush()
        keep_in_sight(owners, lambda: "Ctrl+C unmounts")
    owners[0].close()
    kept = owners[0].kept
    return Unmounted((await_unmounted(host, kept, [kept["id"]]),))


def host_and_remote(place: str) -> tuple[str, str]:
    """Split ``HOST:REMOTE``. Raises InvalidInput."""
    check_text("HOST:REMOTE", place)
    match = _PLACE.fullmatch(place)
    if match is None:
        advice = "a path on the host begins with / or ~/"
        raise InvalidInput(f"{place!r} is not HOST:REMOTE", advice=advice)
    return match["host"], match["remote"]


def request_for(local: str, remote: str, options: tuple[str, ...], sshfs: str) -> MountRequest:
    """Return what to ask the hub for. Raises InvalidInput."""
    remote_path_word(check_text("REMOTE", remote), what="mount point")
    folder = os.path.abspath(os.path.expanduser(check_text("LOCAL", local)))
    if not os.path.isdir(folder):
        raise InvalidInput(f"there is no folder {folder} here")
    words = tuple(word for text in options for word in text.split(",") if word)
    try:
        sort_options(words)
    except ValueError as error:
        raise InvalidInput(f"-o: {error}") from error
    return MountRequest(folder, remote, words, sshfs)
