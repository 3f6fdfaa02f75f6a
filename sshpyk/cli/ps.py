"""``sshpyk ps``: the links of this machine, and apart from them the kernels behind each."""

from __future__ import annotations

import click

from sshpyk import kernelspecs
from sshpyk.cli.results import Processes
from sshpyk.errors import SshpykError, error_from_record
from sshpyk.hub.client import all_hubs, reach_hub
from sshpyk.ssh.command import SshTarget


@click.command()
@click.argument("host", required=False)
@click.option("--ssh-config", help="A file for `ssh -F`, as the kernel was added with.")
@click.option("--ssh", help="The ssh to run, as the kernel was added with.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ps(*, host: str | None, ssh_config: str | None, ssh: str | None, as_json: bool) -> Processes:
    """Show the links to hosts and the kernels behind them.

    Without HOST: the links that this machine keeps now, and their kernels; no host is asked. A link is
    up, dialing or down. A kernel is alive, or unreachable while its link is not up: nobody knows then,
    and nothing is lost.

    With HOST: connect if need be, and show every kernel of sshpyk's that you have there, also from other
    machines.

    \b
    Examples:
      sshpyk ps
      sshpyk ps gpu1
      sshpyk ps --json
    """
    if host is None:
        if ssh or ssh_config:
            raise click.UsageError("--ssh and --ssh-config need a HOST")
        return Processes(tuple(_statuses()), as_json)
    target = SshTarget.parse(host, ssh=ssh, ssh_config=ssh_config)
    client = reach_hub(target)
    try:
        client.say("survey", python=_python_for(target))
        answer = client.hear()
    finally:
        client.close()
    if answer is None:
        raise SshpykError("the local hub process went away", host=host, phase="asking for kernels")
    if answer.get("event") == "failed":
        raise error_from_record(answer["error"])
    return Processes((answer,), as_json)


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


def _python_for(target: SshTarget) -> str:
    """Return the interpreter that a kernel of this host is known to have."""
    remotes = [remote for _, remote in kernelspecs.ssh_kernels()]
    pythons = [remote.python for remote in remotes if remote.ssh_host_alias == target.host]
    return [*pythons, "python3"][0]
