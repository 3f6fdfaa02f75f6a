"""``sshpyk logout``: close the link to a host."""

from __future__ import annotations

import sys
from typing import Any

import click

from sshpyk.cli.complete import hosts
from sshpyk.cli.login import target_of
from sshpyk.cli.results import LoggedOut
from sshpyk.cli.tunnels import ask
from sshpyk.errors import InvalidInput
from sshpyk.hub.client import running_hub, stop_hub


@click.command()
@click.argument("host", shell_complete=hosts)
@click.option("--ssh-config", help="A file for `ssh -F`, the same as in `sshpyk add`.")
@click.option("--ssh", help="The ssh to run, the same as in `sshpyk add`.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask where kernels would end.")
def logout(host: str, *, yes: bool, **given: Any) -> LoggedOut:
    """Close the link to a host, which is otherwise kept for a while (after a login 8 hours).

    What this machine has there ends with it, as when Jupyter ends: kernels (persistent ones run on),
    tunnels, mounts, servers without --keep. A Jupyter that is still open here may start its kernels
    anew, and with them the link: end it first.

    \b
    Examples:
      sshpyk logout gpu1
      sshpyk logout gpu1 --yes
    """
    target, _ = target_of(host, given)
    hub = running_hub(target)
    if hub is None:
        return LoggedOut(target.host, was_open=False)
    try:
        kernels = ask(hub, "status")["kernels"]
    finally:
        hub.close()
    left = sum(bool(kernel["persistent"]) for kernel in kernels)
    ended = len(kernels) - left
    if ended and not yes:
        _confirm(ended, target.host)
    stop_hub(target)
    return LoggedOut(target.host, was_open=True, ended=ended, left=left)


def _confirm(count: int, host: str) -> None:
    """Ask before kernels end; where nobody can be asked, --yes is needed."""
    if not sys.stdin.isatty():
        raise InvalidInput(f"{count} kernel(s) would end: give --yes where nobody can be asked")
    click.confirm(f"{count} kernel(s) on {host} end with the link. Close it?", abort=True, err=True)
