"""How verbs ask a host about its kernels: over its hub, within a time, one kernel or all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from sshpyk import kernelspecs
from sshpyk.errors import HubError, InvalidInput, SshpykError, Unreachable, error_from_record
from sshpyk.hub.client import HubClient, reach_hub
from sshpyk.ssh.command import SshTarget

TIMEOUT_S = 30.0
_GRACE_S = 5.0  # the hub says itself what took too long
_MAX_AT_ONCE = 16

_Item = TypeVar("_Item")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def host_flags(function: _Function) -> _Function:
    """Give a verb the flags that say how to reach a host (a decorator)."""
    for flag, kind, text in (
        ("--timeout", float, f"Seconds to wait for a host ({TIMEOUT_S:g})."),
        ("--ssh", str, "The ssh to run, the same as in `sshpyk add`."),
        ("--ssh-config", str, "A file for `ssh -F`, the same as in `sshpyk add`."),
    ):
        function = click.option(flag, type=kind, help=text)(function)
    return function


@dataclass(frozen=True)
class Host:
    """A host, and how long to wait for it."""

    target: SshTarget
    timeout_s: float = TIMEOUT_S

    @classmethod
    def named(
        cls, host: str, ssh: str | None, ssh_config: str | None, timeout: float | None
    ) -> Host:
        """Return the host that the command line names. Raises InvalidInput."""
        if timeout is not None and timeout <= 0:
            raise InvalidInput("--timeout must be above 0")
        target = SshTarget.parse(host, ssh=ssh, ssh_config=ssh_config)
        return cls(target, timeout or TIMEOUT_S)

    @property
    def python(self) -> str:
        """The interpreter that a kernel of this host is known to have."""
        remotes = [remote for _, remote in kernelspecs.ssh_kernels()]
        pythons = [one.python for one in remotes if one.ssh_host_alias == self.target.host]
        return [*pythons, "python3"][0]

    def converse(self, op: str, **params: Any) -> dict[str, Any]:
        """Say one thing to the host's hub and return its answer. Raises what went wrong."""
        client = reach_hub(self.target)
        try:
            client.say(op, **params)
            answer = self._hear(client)
        finally:
            client.close()
        if answer.get("event") == "failed":
            raise error_from_record(answer["error"])
        return answer

    def _hear(self, client: HubClient) -> dict[str, Any]:
        client.socket.settimeout(self.timeout_s + _GRACE_S)
        try:
            answer = client.hear()
        except TimeoutError:
            raise Unreachable(
                f"no answer within {self.timeout_s:g} s",
                host=self.target.host,
                phase="waiting for the link",
                advice="see sshpyk ps: it says how the link is",
            ) from None
        if answer is None:
            raise HubError("the local hub process went away", host=self.target.host)
        return answer

    def ask(self, what: str, **params: Any) -> dict[str, Any]:
        """Ask the agent on the host; connect if need be. Raises what went wrong."""
        answer = self.converse(
            "ask", what=what, params=params, python=self.python, timeout_s=self.timeout_s
        )
        result: dict[str, Any] = answer["answer"]
        return result

    def kernels(self) -> list[dict[str, Any]]:
        """Return what lives on the host."""
        found: list[dict[str, Any]] = self.ask("list")["kernels"]
        return found


def each(items: Sequence[_Item], ask: Callable[[_Item], dict[str, Any]]) -> list[Any]:
    """Ask about items side by side; return the answer to each, or the SshpykError that it met."""

    def asked(item: _Item) -> Any:
        try:
            return ask(item)
        except SshpykError as error:
            return error

    with ThreadPoolExecutor(_MAX_AT_ONCE) as pool:
        return list(pool.map(asked, items))


def the_kernel(found: list[dict[str, Any]], named: str, host: str) -> dict[str, Any]:
    """Return the one kernel that is meant: by the beginning of its id, its name or its notebook's.

    Raises InvalidInput when that is none, or several.
    """
    by_id = [one for one in found if named and one["kernel_id"].startswith(named)]
    exact = [one for one in found if named in (one.get("name"), _notebook(one), one.get("session"))]
    meant = by_id or exact
    if len(meant) == 1:
        return meant[0]
    if meant:
        ids = ", ".join(one["kernel_id"][:8] for one in meant)
        raise InvalidInput(f"{named!r} may be any of these kernels on {host}: {ids}")
    known = ", ".join(f"{one['kernel_id'][:8]} ({one.get('name', '')})" for one in found[:20])
    raise InvalidInput(f"no kernel {named!r} on {host}; there are: {known or 'none'}")


def _notebook(one: dict[str, Any]) -> str:
    return str(one.get("session") or "").rpartition("/")[2] or "-"
