"""A way to the remote that one test has for itself, and can cut.

A cut drops packets between laptop and bastion, as a lost WiFi does: nobody is told, connections that
exist hang, new ones are not answered. It concerns one port of the bastion's, so other tests may run
beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.integration.kernels import free_port
from tests.integration.machines import Lab


@dataclass(frozen=True)
class Door:
    """An sshd of the bastion's on a port of its own."""

    lab: Lab
    port: int

    @property
    def ssh_config(self) -> str:
        """What comes before the user's ssh config, so that ``bastion`` is reached through here."""
        # By its alias the host key is the known one: known_hosts lists other ports apart.
        return f"Host bastion\n    Port {self.port}\n    HostKeyAlias bastion\n"

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Drop every packet that comes in or goes out here."""
        rules = (
            f"INPUT -p tcp --dport {self.port} -j DROP",
            f"OUTPUT -p tcp --sport {self.port} -j DROP",
        )
        self._as_root(*(f"iptables -w -I {rule}" for rule in rules))
        try:
            yield
        finally:
            self._as_root(*(f"iptables -w -D {rule}" for rule in rules))

    def open(self) -> None:
        """Start the sshd."""
        self._as_root(f"/usr/sbin/sshd -E /dev/null -p {self.port} -o PidFile={self._pid_file}")

    def close(self) -> None:
        """End the sshd and what is left of its sessions."""
        self._as_root(f"pid=$(cat {self._pid_file}); pkill -P $pid || true; kill $pid")

    @property
    def _pid_file(self) -> str:
        return f"/run/sshd-{self.port}.pid"

    def _as_root(self, *lines: str) -> None:
        self.lab.bastion.run("\n".join(["set -e", *lines]), user="root")


@pytest.fixture
def door(lab: Lab) -> Iterator[Door]:
    """The test's own door of the bastion."""
    door = Door(lab, free_port())  # a number that no other worker takes
    door.open()
    yield door
    door.close()
