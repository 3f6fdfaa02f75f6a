"""A host at hand: a private sshd of the current user on 127.0.0.1, with keys of its own.

Used by ``make demo``, by the benchmarks and by tests that need no containers. Everything it makes is in
one temporary folder; nothing of the user's ssh setup is read or written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

ALIAS = "loopback"

_SSHD_CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/user_key.pub
AuthenticationMethods publickey
StrictModes no
UsePAM no
MaxStartups 100
{extra}
"""

_SSH_CONFIG = """\
Host {alias}
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    StrictHostKeyChecking yes
"""


class NoSshd(Exception):
    """There is no sshd program on this machine."""


def find_sshd() -> str:
    """Return the path of sshd, which needs an absolute one. Raises NoSshd with what to install."""
    found = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise NoSshd("sshd is missing: install openssh-server (macOS has it in /usr/sbin)")
    return found


class LoopbackHost:
    """A running sshd; ``ssh_config`` is the file that knows it as :data:`ALIAS`."""

    def __init__(self, extra_sshd_config: str = "") -> None:
        sshd = find_sshd()
        self.folder = Path(tempfile.mkdtemp(prefix="sshpyk-loopback-"))
        self.port = _free_port()
        self.ssh_config = self.folder / "ssh_config"
        for name in ("host_key", "user_key"):
            self._keygen(self.folder / name)
        values: dict[str, Any] = {
            "port": self.port,
            "folder": self.folder,
            "alias": ALIAS,
            "user": os.environ.get("USER") or _user_name(),
            "extra": extra_sshd_config,
        }
        (self.folder / "sshd_config").write_text(_SSHD_CONFIG.format(**values))
        self.ssh_config.write_text(_SSH_CONFIG.format(**values))
        public = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own demand when it is root
        self._log = (self.folder / "sshd.log").open("wb")
        self._process = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._wait_listening()

    @staticmethod
    def _keygen(path: Path) -> None:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "sshpyk", "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    def _wait_listening(self) -> None:
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        words = (self.folder / "sshd.log").read_text()
        self.close()
        raise RuntimeError(f"the private sshd did not start:\n{words}")

    def close(self) -> None:
        """End sshd and remove every trace."""
        self._process.terminate()
        self._process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> LoopbackHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _user_name() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


if __name__ == "__main__":
    with LoopbackHost() as host, contextlib.suppress(KeyboardInterrupt):
        host._process.wait()
