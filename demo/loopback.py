"""A host at hand: a private sshd of the current user on 127.0.0.1, with keys of its own.

Used by ``make demo``, by the benchmarks and by tests that need no containers. Everything it makes is in
one temporary folder; nothing of the user's ssh setup is read or written.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ALIAS = "loopback"

_SSHD_CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/user_key.pub
AuthenticationMethods publickey
StrictModes no
UsePAM {pam}
MaxStartups 100
{environment}
{extra}
"""

_SSH_CONFIG = """\
Host {alias}
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {folder}/known_hosts
    StrictHostKeyChecking yes
    {jump}
"""

# Debian's sshd wants it when it runs as root. It stays: another sshd may have begun to use it.
_SEPARATION_FOLDER = Path("/run/sshd")
_LISTEN_PATIENCE_S = 10.0


class NoSshd(Exception):
    """A program of OpenSSH's is missing on this machine; the message says which package has it."""


def find_sshd() -> str:
    """Return the path of sshd, which must be absolute. Raises NoSshd with what to install."""
    for program in ("ssh", "ssh-keygen"):
        if shutil.which(program) is None:
            raise NoSshd(f"{program} is missing: install the OpenSSH client (openssh-client)")
    found = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise NoSshd("sshd is missing: install openssh-server (macOS has it in /usr/sbin)")
    return found


class LoopbackHost:
    """A running sshd; ``ssh_config`` is the file that knows it as ``alias``.

    ``environment`` is what its sessions find set, beside what a login sets. ``behind`` is another
    such host that ssh jumps through. Raises NoSshd, or RuntimeError with sshd's own words.
    """

    def __init__(
        self,
        extra_sshd_config: str = "",
        *,
        environment: Mapping[str, str] | None = None,
        alias: str = ALIAS,
        behind: LoopbackHost | None = None,
    ) -> None:
        self.alias = alias
        self.port = _free_port()
        self._sshd = find_sshd()
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="sshpyk-loopback-"))
        self.ssh_config = self.folder / "ssh_config"
        try:
            self._write_sshd_config(extra_sshd_config, environment or {})
            self._write_ssh_config(behind)
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id of the listening sshd."""
        assert self._process is not None
        return self._process.pid

    def _write_sshd_config(self, extra: str, environment: Mapping[str, str]) -> None:
        for name in ("host_key", "user_key"):
            path = str(self.folder / name)
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "sshpyk", "-f", path]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        # One directive: sshd takes the first SetEnv that it meets, with all of its words.
        words = " ".join(f'"{key}={value}"' for key, value in environment.items())
        text = _SSHD_CONFIG.format(
            port=self.port,
            folder=self.folder,
            pam="yes" if _is_locked_root() else "no",
            environment=f"SetEnv {words}" if words else "",
            extra=extra,
        )
        (self.folder / "sshd_config").write_text(text)

    def _write_ssh_config(self, behind: LoopbackHost | None) -> None:
        public = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")
        text = _SSH_CONFIG.format(
            alias=self.alias,
            port=self.port,
            folder=self.folder,
            user=pwd.getpwuid(os.getuid()).pw_name,
            jump=f"ProxyJump {behind.alias}" if behind else "",
        )
        self.ssh_config.write_text(text + (behind.ssh_config.read_text() if behind else ""))

    def _start(self) -> None:
        if os.getuid() == 0:
            _SEPARATION_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
        with (self.folder / "sshd.log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl+C in the terminal is not for it
            )
        deadline_s = time.monotonic() + _LISTEN_PATIENCE_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.01)
        raise RuntimeError(f"the private sshd did not start:\n{self.log()}")

    def log(self) -> str:
        """Return what sshd has said."""
        return (self.folder / "sshd.log").read_text(errors="replace")

    def close(self) -> None:
        """End sshd and remove every trace; idempotent."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
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


def _is_locked_root() -> bool:
    """Whether we are a root without a password, as on Ubuntu: sshd lets it in through PAM only."""
    if os.getuid() != 0:
        return False
    with contextlib.suppress(OSError), open("/etc/shadow", encoding="utf-8") as entries:
        return any(entry.startswith("root:!") for entry in entries)
    return False


if __name__ == "__main__":
    with LoopbackHost() as host, contextlib.suppress(KeyboardInterrupt):
        os.write(1, f"ssh -F {host.ssh_config} {host.alias}\n".encode())
        while True:
            time.sleep(3600)
