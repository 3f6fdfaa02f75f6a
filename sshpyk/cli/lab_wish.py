"""What ``sshpyk lab`` is asked for, and the requests that this becomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from sshpyk import kernelspecs
from sshpyk.agent.jupyter_app import APPS
from sshpyk.cli.add_host import Host as LookedAt
from sshpyk.cli.asking import Host
from sshpyk.errors import InvalidInput, SshpykError
from sshpyk.servers.lab import new_server_id, usual_port

_MAX_SHOWN = 12

Record = dict[str, Any]


@dataclass(frozen=True)
class Wish:
    """The command line. ``existing``: None, or which one (empty: whichever there is)."""

    app: str
    folder: str
    python: str
    activate: str
    args: tuple[str, ...]
    port: int | None
    browser: bool
    keep: bool
    background: bool
    new: bool
    existing: str | None
    agent_python: str

    @classmethod
    def from_options(cls, given: Mapping[str, Any], agent_python: str) -> Wish:
        """Read click's parameters. Raises InvalidInput."""
        if given["python"] and given["prefix"]:
            raise InvalidInput("give either --python or --prefix, not both")
        if given["existing"] is not None and (given["new"] or given["args"]):
            raise InvalidInput("--existing starts nothing: it goes with neither --new nor -- ARGS")
        python = given["python"] or ""
        if given["prefix"]:
            python = f"{given['prefix'].rstrip('/')}/bin/python"
        names = ("app", "args", "port", "keep", "background", "new", "existing")
        return cls(
            **{name: given[name] for name in names},
            folder=given["folder"] or "",
            python=python,
            activate=given["activate"] or "",
            browser=not given["no_browser"],
            agent_python=agent_python,
        )

    def request(self, host: Host, found: Record | None, folder: str, python: str = "") -> Record:
        """Return what the hub is asked for: to open ``found``, or to start a server.

        ``folder`` is the real path of ours on the host.
        """
        usual = usual_port(host.target.host, self.app, found["folder"] if found else folder)
        common = {
            "agent_python": self.agent_python,
            "port": usual if self.port is None else self.port,
            "any_port": self.port is None,
            "timeout_s": host.timeout_s,
            "keep": self.keep,
        }
        if found is not None:
            return {**common, "server_id": found["server_id"]}
        return {
            **common,
            "start": True,
            "server_id": new_server_id(),
            "app": self.app,
            "folder": self.folder,
            "python": python or self.python,
            "known": _known(host),
            "args": list(self.args),
            "activate": self.activate,
        }


def _known(host: Host) -> list[str]:
    """Return the interpreters that kernels of this host use."""
    remotes = [remote for _, remote in kernelspecs.ssh_kernels()]
    pythons = [one.python for one in remotes if one.ssh_host_alias == host.target.host]
    return [python for python in dict.fromkeys(pythons) if "/" in python]


def elsewhere(host: Host, wish: Wish, found: Record | None, folder: str) -> Iterator[Record]:
    """Yield requests; the caller puts a ``failure`` into one that failed.

    Where the host's agent finds no Jupyter by itself, what ``sshpyk add`` would find is tried.
    """
    first = wish.request(host, found, folder)
    yield first
    failure: SshpykError = first["failure"]
    if failure.code != "SERVER-NOT-FOUND" or wish.python or wish.activate or found:
        raise failure
    click.echo(
        f"{host.target.host}: no {APPS[wish.app].command} on PATH; looking further", err=True
    )
    looked = LookedAt(host.target, interactive=False).look()
    module = APPS[wish.app].module
    for environment in looked.environments:
        if module in environment.apps:
            second = wish.request(host, None, folder, environment.path)
            yield second
            raise second["failure"]
    lines = [f"{one.path}: has no {module}" for one in looked.environments if not one.reason]
    if len(lines) > _MAX_SHOWN:
        lines[_MAX_SHOWN:] = [f"and {len(lines) - _MAX_SHOWN} more"]
    failure.said = "\n".join(dict.fromkeys([*failure.said.splitlines(), *lines]))
    raise failure
