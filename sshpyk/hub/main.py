"""A hub's first moments: ``python -m sshpyk.hub.main HOST SSH [CONFIG [PYTHON]]``, started by ``client``.

Where a launch waits for it, PYTHON is the interpreter on the host, and ssh is started at once.
What the hub imports takes as long as a login to a host nearby; so both are done at the same time.
"""

from __future__ import annotations

import contextlib
import os
import sys

from sshpyk.errors import SshpykError
from sshpyk.hub.address import hub_socket, journal_of
from sshpyk.hub.ssh_start import SshStart, start_ssh
from sshpyk.ssh.command import SshTarget


def main() -> None:
    """Be the hub for the target on the command line; whoever starts it holds the folder's lock."""
    host, ssh, config, python = (*sys.argv[1:], "", "")[:4]
    target = SshTarget(host, ssh, config or None)
    path = hub_socket(target)
    umask = os.umask(0o077)  # what appears in a mounted folder is as if the user had made it
    starts_agent = not os.path.exists(journal_of(path))  # a killed hub's: then the agent lives
    start = _head_start(target, python, starts_agent=starts_agent) if python else None
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    from sshpyk.hub.life import be_hub  # ssh connects meanwhile

    be_hub(target, path, umask=umask, start=start)


def _head_start(target: SshTarget, python: str, *, starts_agent: bool) -> SshStart | None:
    try:
        return start_ssh(target, python, starts_agent=starts_agent)
    except (OSError, SshpykError):  # the dial will meet it too, and tell who waits
        return None


if __name__ == "__main__":
    main()
