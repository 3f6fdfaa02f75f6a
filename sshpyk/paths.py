"""Every local path that outlives a process, in one place.

Logs live in the platform's state folder (``$XDG_STATE_HOME/sshpyk``, ``~/.local/state/sshpyk``, on
macOS ``~/Library/Application Support/sshpyk``). Sockets do not live here: ``wire.private`` owns
their short folder. Where kernelspecs live is Jupyter's word: ``kernelspecs.kernel_dirs``.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

# No capitals: macOS would make one file of `Host` and `host`.
_PLAIN = re.compile(r"[a-z0-9_@+-][a-z0-9._@+-]{0,99}")


def state_path() -> Path:
    """Return where the folder of the logs is or will be; nothing is made."""
    # Imported here: most commands never need it, and `sshpyk --help` counts milliseconds.
    import platformdirs

    return Path(platformdirs.user_state_dir("sshpyk", appauthor=False))


def state_dir() -> Path:
    """Return the folder of the logs; it exists and is ours alone (0700).

    Called by the hub, the stand-in and the CLI. Raises OSError when it cannot be made.
    """
    folder = state_path()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = folder.stat().st_mode
    if mode & 0o077 and folder.stat().st_uid == os.getuid():
        folder.chmod(mode & 0o700)
    return folder


def hub_log(identity: str) -> Path:
    """Return the log of the hub that serves ``identity`` (any text: a host, a host with a config).

    Different identities never share a file: text that is no plain file name becomes a readable
    head and a digest.
    """
    if _PLAIN.fullmatch(identity):
        return state_dir() / f"hub-{identity}.log"
    head = re.sub(r"[^A-Za-z0-9]+", "_", identity)[:40]
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    # "~" occurs in no plain identity, so that the two forms cannot meet.
    return state_dir() / f"hub-{head}~{digest}.log"


def cli_log() -> Path:
    """Return where the CLI writes the traceback of a failure that is a defect of its own."""
    return state_dir() / "cli.log"
