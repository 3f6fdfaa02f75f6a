"""``sshpyk leave``: let a kernel go on without this machine."""

from __future__ import annotations

from typing import Any

import click

from sshpyk.cli.asking import Host, host_flags, the_kernel
from sshpyk.cli.results import LeftKernel
from sshpyk.errors import InvalidInput


@click.command()
@click.argument("host")
@click.argument("kernel")
@host_flags
def leave(**given: Any) -> LeftKernel:
    """Leave a kernel that this machine carries: it goes on, and its output waits on the host.

    For a kernel that `sshpyk attach` brought here, and for any other: the program that started it sees
    it end. `sshpyk attach` brings it back, here or elsewhere. Folders of this machine that it sees go.

    KERNEL is the beginning of its id, or the kernelspec's name on the host (often python3) or the
    notebook's, as the last column of `sshpyk ps HOST` shows them, if only one kernel there has it.

    \b
    Examples:
      sshpyk leave gpu1 3f2a
    """
    host = Host.named(given["host"], given["ssh"], given["ssh_config"], given["timeout"])
    carried = host.converse("status")["kernels"]
    kernel = the_kernel(carried, given["kernel"], f"{host.target.host} that this machine carries")
    places = [
        mount["remote"]
        for mount in host.converse("mounts")["mounts"]
        if kernel["kernel_id"] in [one["kernel_id"] for one in mount["kernels"]]
    ]
    answer = host.converse("leave", kernel_id=kernel["kernel_id"])
    if not answer["found"]:
        raise InvalidInput(f"kernel {kernel['kernel_id'][:8]} has ended in this moment")
    return LeftKernel(host.target.host, kernel["kernel_id"], tuple(places))
