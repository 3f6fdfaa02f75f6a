"""What the user said on the command line of ``sshpyk add``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sshpyk.cli.options import Wanted
from sshpyk.discovery.offers import PYTHON_KERNEL
from sshpyk.errors import InvalidInput
from sshpyk.kernelspecs import RemoteKernel
from sshpyk.ssh.command import SshTarget


@dataclass(frozen=True)
class Flags:
    """The switches; see the help of ``add``."""

    take_all: bool = False
    install_ipykernel: bool = False
    no_check: bool = False
    keep: bool = False
    replace: bool = False
    yes: bool = False
    dry_run: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class Choices:
    """Switches, patterns, and the settings that hold for each kernel; whether a person can be asked."""

    wanted: Wanted
    flags: Flags
    match: tuple[str, ...] = ()
    interactive: bool = False

    @classmethod
    def from_options(cls, host: str | None, given: Mapping[str, Any]) -> Choices:
        """Read click's parameters. Raises InvalidInput for what cannot be, before anything is done."""
        rest = dict(given)
        flags = Flags(**{item.name: rest.pop(item.name) for item in fields(Flags)})
        patterns = tuple(rest.pop("match"))
        rest["ssh_host_alias"] = _one_host(host, rest.get("ssh_host_alias"))
        if flags.take_all and patterns:
            raise InvalidInput("give either --all or --match, not both")
        interactive = on_terminal() and not flags.as_json
        if flags.install_ipykernel and not (flags.yes or interactive):
            raise InvalidInput("--install-ipykernel needs --yes where nobody can be asked")
        return cls(Wanted.from_options(rest), flags, patterns, interactive)

    @property
    def host(self) -> str:
        """The host as the user typed it."""
        return str(self.wanted.config["ssh_host_alias"])

    @property
    def python(self) -> str | None:
        """The interpreter that the user named, directly or by its environment."""
        config = self.wanted.config
        named = config.get("remote_python") or config.get("remote_python_prefix")
        return self._example().python if named else None

    def target(self) -> SshTarget:
        """Return the host and the ssh that reaches it; every setting was looked at by then."""
        return self._example().target()

    def _example(self) -> RemoteKernel:
        """Return a kernel with the user's settings, and what is still open filled in."""
        config = {"remote_kernel_name": PYTHON_KERNEL, **self.wanted.config}
        if not (config.get("remote_python") or config.get("remote_python_prefix")):
            config["remote_python"] = "python3"
        return RemoteKernel.from_config(config)


def on_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _one_host(argument: str | None, flag: str | None) -> str:
    if argument and flag and argument != flag:
        raise InvalidInput(f"two hosts are given: {argument!r} and --ssh-host-alias {flag!r}")
    if not (argument or flag):
        raise InvalidInput("which host? Name it as you would for ssh: sshpyk add HOST")
    return argument or flag or ""
