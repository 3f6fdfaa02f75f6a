"""What Ctrl+C means for a server that would end with the command: nobody loses kernels by one key."""

from __future__ import annotations

import sys

import click

from sshpyk.cli.asking import Host
from sshpyk.errors import SshpykError
from sshpyk.servers.lab import ServerOwner

_QUESTION = "End it with its kernels (y), keep it running there (k), or go on (Enter)?"


def asked_at_the_end(host: Host, owner: ServerOwner) -> bool:
    """Return whether the command is to end; ``k`` keeps the server first.

    Nobody is asked where nothing is lost, or where nobody can be; another Ctrl+C means yes.
    """
    server = owner.server
    if server["keep"] or not server["mine"] or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    try:
        answer = click.prompt(_QUESTION, default="", show_default=False, err=True).strip().lower()
    except (click.Abort, EOFError):
        click.echo(err=True)
        return True
    if answer.startswith("k"):
        try:
            owner.server = host.ask("open_server", server_id=server["server_id"], keep=True)
        except SshpykError as error:
            click.echo(f"sshpyk: {error}", err=True)
            return False
        return True
    return answer.startswith("y")
