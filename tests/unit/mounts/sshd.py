"""An account that a private sshd of a test lets in: keys, an ssh config, and an ``ssh`` that reads it."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from sshpyk.hub import private_sshd

_PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
# As root it wants a folder that only an installed service makes.
HAS_SSHD = bool(
    shutil.which("sshd", path=_PLACES)
    and shutil.which("ssh")
    and (os.getuid() or Path("/run/sshd").is_dir())
)


@dataclass
class Account:
    """``folder`` holds what the host has (config, known_hosts, id) and what the laptop has."""

    folder: Path

    @property
    def authorized(self) -> Path:
        return self.folder / "authorized_keys"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def public_key(self) -> str:
        return (self.folder / "id.pub").read_text().strip()

    def alias(self, name: str, *lines: str, known: bool = False) -> None:
        """Give the host's ssh config an alias. Its key is asked for unless it is known."""
        checking = "yes" if known else "accept-new"
        text = [
            f"Host {name}",
            f"User {getpass.getuser()}",
            f"IdentityFile {self.folder}/id",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile none",
            f"StrictHostKeyChecking {checking}",
            "IdentitiesOnly yes",
            "ServerAliveInterval 1",
            *(lines or ("HostName localhost",)),
        ]
        with (self.folder / "config").open("a") as config:
            config.write("\n  ".join(text) + "\n")


def new_account(folder: Path) -> Account:
    """Make keys and an ssh config with an alias ``laptop`` as sshpyk 1.x has asked for."""
    folder.mkdir(parents=True)
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "id")]
    subprocess.run(argv, check=True)
    account = Account(folder)
    account.authorized.write_text(account.public_key + "\n")
    account.alias("laptop")
    (folder / "state").mkdir(mode=0o700)
    return account


def let_in(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a private sshd admit this account's key, and keep its files with the account."""
    monkeypatch.setattr(private_sshd, "state_dir", lambda: account.folder / "state")
    monkeypatch.setattr(private_sshd, "AUTHORIZED_KEYS", (str(account.authorized),))
    monkeypatch.setattr(private_sshd, "STRICT_MODES", "no")  # /tmp is everybody's


def make_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    """Make one that is let in, and an ``ssh`` on PATH that reads its config."""
    account = new_account(tmp_path / "account")
    folder = account.folder / "bin"
    folder.mkdir()
    real = shutil.which("ssh")
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {real} -F {account.folder}/config "$@"\n')
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    let_in(account, monkeypatch)
    return account
