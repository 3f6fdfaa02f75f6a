"""``sshpyk ps``: the links of this machine, and apart from them the kernels behind each."""

from __future__ import annotations

from typing import Any

import click

from sshpyk.cli.asking import Host, each, host_flags
from sshpyk.cli.results import Processes
from sshpyk.errors import SshpykError
from sshpyk.hub.client import all_hubs


@click.command()
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@host_flags
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ps(
    *,
    hosts: tuple[str, ...],
    ssh_config: str | None,
    ssh: str | None,
    timeout: float | None,
    as_json: bool,
) -> Processes:
    """Show the links to hosts and the kernels behind them.

    Without HOST: the links that this machine keeps now, and their kernels; no host is asked. A link is
    up, dialing, down, needs login (run `sshpyk login`) or host key changed. A kernel is alive, or
    unreachable while its link is not up: nobody knows then, and nothing is lost.

    With HOST: connect if need be, and show every kernel of sshpyk's that you have there, from whichever
    machine: what it does (starting, idle, busy, ended), whose it is, for how long nothing has passed,
    its memory, LEASE: for how long it is kept if its owner is not heard of (7 days at most), and CARRIED:
    which machine has it now (here, another one that is connected or away, or left).

    \b
    Examples:
      sshpyk ps
      sshpyk ps gpu1 gpu2
      sshpyk ps --json
    """
    if not hosts:
        if ssh or ssh_config or timeout:
            raise click.UsageError("--ssh, --ssh-config and --timeout need a HOST")
        return Processes(tuple(_statuses()), as_json)
    asked = [Host.named(host, ssh, ssh_config, timeout) for host in hosts]
    answers = each(asked, _survey)
    failures = [answer for answer in answers if isinstance(answer, SshpykError)]
    if failures and len(hosts) == 1:
        raise failures[0]
    found = tuple(answer for answer in answers if not isinstance(answer, SshpykError))
    return Processes(found, as_json, tuple(failures))


def _survey(host: Host) -> dict[str, Any]:
    return host.converse("survey", python=host.python)


def _statuses() -> list[dict[str, object]]:
    found = []
    for client in all_hubs():
        try:
            client.say("status")
            answer = client.hear()
        except OSError:  # it leaves just now
            answer = None
        finally:
            client.close()
        if answer is not None:
            found.append(answer)
    return found
