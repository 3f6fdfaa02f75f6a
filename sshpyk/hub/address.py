"""Where the hub of a host listens, and where it logs.

One socket per host, ssh configuration and protocol version.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sshpyk.errors import HubError
from sshpyk.ssh.command import SshTarget
from sshpyk.wire.private import HUB_FOLDER, NoPrivateFolder, private_folder

if TYPE_CHECKING:
    from pathlib import Path

# What ``server`` understands; a hub of another version goes on serving its own kernels.
HUB_PROTOCOL = 1


def hub_name(target: SshTarget) -> str:
    """Return the file name of the hub's socket."""
    return f"{target.identity}-{HUB_PROTOCOL}.sock"


def hub_socket(target: SshTarget) -> str:
    """Return the path of the hub's socket; its folder exists. Raises HubError where none can."""
    try:
        folder = private_folder(HUB_FOLDER)
    except NoPrivateFolder as error:
        raise HubError(str(error), phase="reaching the hub") from error
    return os.path.join(folder, hub_name(target))


def journal_of(socket_path: str) -> str:
    """Return where the hub of a socket notes what it has handed over; one that leaves removes it."""
    return socket_path + ".journal"


def hub_log_of(target: SshTarget) -> Path:
    """Return the hub's log; its folder exists."""
    from sshpyk.paths import hub_log  # here: a stand-in needs the socket only

    return hub_log(f"{target.host}-{target.identity[:6]}")
