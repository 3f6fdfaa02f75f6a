"""Ask ssh itself what a host stands for; sshpyk never reads an ssh config.

For ``sshpyk list`` and the doctor. Source: ssh(1) ``-G``, ssh_config(5) ``ProxyJump``.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from sshpyk.errors import HostError, InvalidInput
from sshpyk.ssh.command import SshTarget, query_argv
from sshpyk.ssh.diagnose import diagnose

_PHASE = "reading the ssh config"
_MAX_HOPS = 16


@dataclass(frozen=True)
class ResolvedHost:
    """What ssh would do for ``host``. Empty: the config does not set it, and it has no default."""

    host: str
    hostname: str
    user: str
    port: int
    proxyjump: tuple[str, ...] = ()
    proxycommand: str = ""
    controlmaster: str = "no"
    controlpath: str = ""
    serveraliveinterval: int = 0
    connecttimeout: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """All that ``ssh -G`` printed, keywords in small letters."""


def resolve(target: SshTarget, timeout_s: float = 5.0) -> ResolvedHost:
    """Return what ssh's own config says of one host; nothing is connected.

    Raises :class:`InvalidInput` for a config that ssh rejects or a client that cannot be started,
    :class:`HostError` when ssh does not answer in time (``Match exec`` runs commands of the user's).
    """
    said, status = _run(target, timeout_s)
    if status:
        raise diagnose(
            said,
            status,
            host=target.host,
            phase=_PHASE,
            login=target.typed,
            reopen=target.login_command,
        )
    return _record(target.host, _fields(said))


def resolve_chain(target: SshTarget, timeout_s: float = 5.0) -> tuple[ResolvedHost, ...]:
    """Return every ssh server on the way, in the order of travel; the last one is the host.

    ``timeout_s`` bounds each ``ssh -G``. Raises as :func:`resolve` does, and :class:`InvalidInput`
    for a ProxyJump that leads back to itself (ssh would start processes for ever).
    """
    chain = [resolve(target, timeout_s)]
    visited = {target.host}
    while hops := chain[0].proxyjump:
        if hops[0] in visited or len(chain) + len(hops) > _MAX_HOPS:
            raise InvalidInput(
                f"the ProxyJump of {target.host} leads back to {hops[0]}",
                host=target.host,
                phase=_PHASE,
                advice=f"give {hops[0]} a ProxyJump of its own in the ssh config, or 'none'",
                code="SSH-JUMP-LOOP",
            )
        visited.add(hops[0])
        resolved = [resolve(target.at(hop), timeout_s) for hop in hops]
        # ssh reaches hop n with -J hop1,...,hop n-1, which overrides what the config says of hop n;
        # only the first is reached as its own config says.
        later = [
            replace(record, proxyjump=hops[:n], proxycommand="")
            for n, record in enumerate(resolved[1:], start=1)
        ]
        chain[:0] = [resolved[0], *later]
    return tuple(chain)


def _run(target: SshTarget, timeout_s: float) -> tuple[str, int]:
    """Return what ``ssh -G`` printed, stdout if it succeeded and stderr if not, and its status."""
    try:
        process = subprocess.Popen(
            query_argv(target),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # so that a hanging Match exec can be ended with its ssh
        )
    except OSError as error:
        raise InvalidInput(
            f"{target.ssh} cannot be started: {error.strerror}",
            host=target.host,
            phase=_PHASE,
            advice="install the OpenSSH client, or name it with --ssh",
            code="SSH-MISSING",
        ) from error
    with process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _kill_group(process.pid)
            raise HostError(
                f"ssh -G gave no answer within {timeout_s:g} s",
                code="SSH-CONFIG-TIMEOUT",
                host=target.host,
                phase=_PHASE,
                advice="look for a 'Match exec' in the ssh config whose command hangs",
            ) from None
        finally:
            if process.poll() is None:
                _kill_group(process.pid)
    return (err if process.returncode else out), process.returncode


def _kill_group(leader_pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies is EPERM
        os.killpg(leader_pid, signal.SIGKILL)


def read_resolved(host: str, text: str) -> ResolvedHost:
    """Return what ``ssh -G host`` printed, wherever it ran."""
    return _record(host, _fields(text))


def _fields(text: str) -> dict[str, str]:
    """Read ``keyword value`` lines; of a repeated keyword the first value, as everywhere in ssh."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        value = value.strip()
        fields.setdefault(keyword.lower(), "" if value == "none" else value)
    return fields


def _record(host: str, fields: Mapping[str, str]) -> ResolvedHost:
    master = fields.get("controlmaster") or "no"
    timeout = fields.get("connecttimeout", "")
    return ResolvedHost(
        host=host,
        hostname=fields.get("hostname", ""),
        user=fields.get("user", ""),
        port=int(fields.get("port") or 22),
        proxyjump=tuple(hop for hop in fields.get("proxyjump", "").split(",") if hop),
        proxycommand=fields.get("proxycommand", ""),
        # -G prints some of the yes/no settings as true/false.
        controlmaster={"true": "yes", "false": "no"}.get(master, master),
        controlpath=fields.get("controlpath", ""),
        serveraliveinterval=int(fields.get("serveraliveinterval") or 0),
        connecttimeout=int(timeout) if timeout.isdigit() else None,
        settings=fields,
    )
