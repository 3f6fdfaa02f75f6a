"""The user's own ControlMasters on the way to a host, and a way around them that leaves them alone.

A live master is used as the user's config says. One that hangs (its machine slept, it was stopped)
hangs whoever asks it, and no question of ssh's finds that out. Options on the command line do not reach
jump hosts; a file given with ``-F`` does (measured on 9.2). Sources: ssh_config(5) ``ControlPath``,
``Include``.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator

from sshpyk.ssh.command import SshTarget
from sshpyk.ssh.config import resolve_chain

_DEFAULTS = ("~/.ssh/config", "/etc/ssh/ssh_config")  # in ssh's own order: the first value counts


def masters_on_the_way(target: SshTarget) -> list[str]:
    """Return the control sockets that ssh would use for the host and its jump hosts.

    Raises what ``resolve_chain`` does.
    """
    paths = [hop.controlpath for hop in resolve_chain(target)]
    return [path for path in paths if path and _is_socket(path)]


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


@contextlib.contextmanager
def around_masters(target: SshTarget, folder: str) -> Iterator[SshTarget]:
    """Lend a target whose config is the user's, but for masters: it makes and uses none.

    ``folder`` is private and its path without spaces: ssh hands the file's name to jump hosts' ssh
    through a shell. A ProxyCommand of the user's that runs ssh itself is not reached.
    """
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".conf") as file:
        file.write("Host *\n  ControlMaster no\n  ControlPath none\n")
        file.writelines(f'  Include "{path}"\n' for path in _files(target))
        file.flush()
        yield SshTarget(target.host, target.ssh, file.name)


def _files(target: SshTarget) -> tuple[str, ...]:
    if target.ssh_config is None:
        return _DEFAULTS
    return () if target.ssh_config.lower() == "none" else (target.ssh_config,)
