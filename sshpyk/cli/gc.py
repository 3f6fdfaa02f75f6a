"""``sshpyk gc``: end the kernels that nobody needs any more."""

from __future__ import annotations

from typing import Any

import click

from sshpyk.cli.asking import Host, each, host_flags
from sshpyk.cli.results import Collected
from sshpyk.errors import InvalidInput, SshpykError


@click.command()
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@click.option("--idle", type=float, metavar="HOURS", help="Also those that were idle for so long.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@host_flags
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def gc(**given: Any) -> Collected:
    """End kernels on hosts that nobody needs any more, and remove what dead ones left behind.

    Without --idle: ended kernels whose last output nobody read, and those whose lease is over. With
    --idle: also idle ones that no connection carries (left, or a laptop that is away).
    A kernel that is busy, or in use over a connection, is never touched.

    \b
    Examples:
      sshpyk gc gpu1 --dry-run
      sshpyk gc gpu1 gpu2 --idle 48
    """
    idle_h = given["idle"]
    if idle_h is not None and idle_h < 0:
        raise InvalidInput("--idle must not be below 0")
    hosts = [
        Host.named(host, given["ssh"], given["ssh_config"], given["timeout"])
        for host in given["hosts"]
    ]
    idle_s = None if idle_h is None else idle_h * 3600
    dry_run = given["dry_run"]
    answers = each(hosts, lambda host: host.ask("gc", idle_s=idle_s, dry_run=dry_run))
    failures = [answer for answer in answers if isinstance(answer, SshpykError)]
    if failures and len(hosts) == 1:
        raise failures[0]
    done = {
        host.target.host: answer
        for host, answer in zip(hosts, answers, strict=True)
        if not isinstance(answer, SshpykError)
    }
    return Collected(done, dry_run, given["as_json"], tuple(failures))
