"""Which ssh client this is."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ClientVersion:
    """What ``ssh -V`` said; ``number`` is None for a client that is not OpenSSH or said nothing."""

    text: str
    number: tuple[int, int] | None


def client_version(ssh: str) -> ClientVersion:
    """Ask the client at the path ``ssh``; a client that cannot be asked has no number."""
    try:
        done = subprocess.run(
            [ssh, "-V"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return ClientVersion(f"{ssh} -V: {error}", None)
    return parse_version((done.stderr + done.stdout).decode(errors="replace"))


def parse_version(said: str) -> ClientVersion:
    """Read what ``ssh -V`` printed: ``OpenSSH_9.2p1 Debian-2, OpenSSL 3.0``."""
    line = next((line.strip() for line in said.splitlines() if line.strip()), "")[:200]
    match = re.match(r"OpenSSH_(\d+)\.(\d+)", line)
    return ClientVersion(line, (int(match[1]), int(match[2])) if match else None)
