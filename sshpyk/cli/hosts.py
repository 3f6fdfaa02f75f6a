"""What verbs about a host have in common: its name becomes a target, and a Python to start there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from sshpyk import kernelspecs
from sshpyk.kernelspecs import LocalKernelspec
from sshpyk.ssh.command import SshTarget

_Function = TypeVar("_Function", bound=Callable[..., Any])


def ssh_flags(function: _Function) -> _Function:
    """Give a verb the flags that say which ssh reaches the host (a decorator)."""
    function = click.option("--ssh", help="The ssh to run, the same as in `sshpyk add`.")(function)
    return click.option("--ssh-config", help="A file for `ssh -F`, the same as in `sshpyk add`.")(
        function
    )


def target_and_python(host: str, ssh: str | None, ssh_config: str | None) -> tuple[SshTarget, str]:
    """Return the host as ssh reaches it, and an interpreter that its kernels use.

    Raises InvalidInput.
    """
    target = SshTarget.parse(host, ssh=ssh, ssh_config=ssh_config)
    for spec in kernelspecs.load_all():
        remote = spec.remote if isinstance(spec, LocalKernelspec) else None
        if remote is not None and remote.ssh_host_alias == host:
            return target, remote.python
    return target, "python3"
