"""Where an alias of the host's ssh config leads, and what to say when a login by it fails. Pure.

For mounts that log in from the host (:mod:`.ways_back`), and for the doctor, which looks before.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from sshpyk.errors import MountError
from sshpyk.hub.private_sshd import HostKey
from sshpyk.ssh.config import ResolvedHost
from sshpyk.wire.endpoint import Endpoint

_PHASE = "mounting"
_DEFAULT_PORT = 22  # sshd's own: nobody else can have it
# ssh's words on the host, as sshfs passes them on.
_KEY_CHANGED = "HOST IDENTIFICATION HAS CHANGED"
_KEY_UNKNOWN = "Host key verification failed"
_NO_LOGIN = "Permission denied ("
_KEY_LIMITED = ("is limited to a command in authorized_keys", "is in no authorized_keys file")
# A connection of sshfs's own must not wait for a person, end in an outage, or ride on another.
_LOGIN_OPTIONS = ("BatchMode=yes", "ServerAliveInterval=0", "ControlMaster=no", "ControlPath=none")


@dataclass(frozen=True)
class Route:
    """What the host's ssh does for an alias. ``known_as``: the name of the key in its known_hosts.

    ``options`` are those that sshfs needs besides the alias, once the port is known (see :meth:`words`).
    """

    alias: str
    listen: Endpoint
    known_as: str
    identities: tuple[str, ...] = ()
    known_hosts: str = "~/.ssh/known_hosts"

    def words(self, port: int) -> list[str]:
        """Return sshfs's options for a login by this route."""
        if self.listen.port:
            return list(_LOGIN_OPTIONS)
        return [*_LOGIN_OPTIONS, f"port={port}", f"HostKeyAlias={self.known_as}"]


def read_route(
    alias: str, resolved: ResolvedHost, user: str, identities: Sequence[str] = ()
) -> Route:
    """Return where the alias leads, from what ``ssh -G`` says on the host.

    An alias without a Port, as sshpyk 1.x asked for, gets a free one, and its key a name without it.
    Raises MountError where it does not lead to the host itself, or to another user than this one.
    """
    if not _is_loopback(resolved.hostname):
        raise _wrong_alias(alias, resolved.hostname)
    if resolved.proxyjump or resolved.proxycommand:
        raise MountError(
            f"{alias} goes through another machine (ProxyJump or ProxyCommand) on its way back",
            phase=_PHASE,
            advice=f"write 'ProxyJump none' for 'Host {alias}' into ~/.ssh/config on the host",
            code="MOUNT-ALIAS-NOT-LOOPBACK",
        )
    if resolved.user != user:
        raise MountError(
            f"{alias} logs in as {resolved.user}, and only {user} can be logged in to here",
            phase=_PHASE,
            advice=f"write 'User {user}' for 'Host {alias}' into ~/.ssh/config on the host",
            code="MOUNT-ALIAS-USER",
        )
    own_name = resolved.settings.get("hostkeyalias", "")
    port = 0 if resolved.port == _DEFAULT_PORT else resolved.port
    listed = f"[{resolved.hostname}]:{port}" if port else f"sshpyk-{alias.rpartition('@')[2]}"
    known = resolved.settings.get("userknownhostsfile", "").split()
    return Route(
        alias,
        Endpoint(resolved.hostname, port),
        own_name or listed,
        tuple(identities),
        known[0] if known else Route.known_hosts,
    )


def _is_loopback(hostname: str) -> bool:
    try:
        return hostname == "localhost" or ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return False


def _wrong_alias(alias: str, hostname: str) -> MountError:
    if hostname == alias.rpartition("@")[2]:
        return MountError(
            f"the host's ssh config has no alias {alias}",
            phase=_PHASE,
            advice=f"write it into ~/.ssh/config on the host: Host {alias}, HostName localhost, User "
            "and IdentityFile; or leave ssh_host_alias_local_on_remote out: folders are then "
            "mounted over the link, and need no alias",
            code="MOUNT-NO-ALIAS",
        )
    return MountError(
        f"{alias} leads to {hostname}, and must lead to the host itself, where the tunnel begins",
        phase=_PHASE,
        advice=f"write 'HostName localhost' for 'Host {alias}' into ~/.ssh/config on the host",
        code="MOUNT-ALIAS-NOT-LOOPBACK",
    )


def explain_login(route: Route, key: HostKey, said: str) -> tuple[str, str, str] | None:
    """Return what was wrong with the host's login here, what to do, and its code; None if nothing."""
    line = f"{route.known_as} {key.public}"
    if _KEY_CHANGED in said:
        return (
            f"the host knows another key for {route.known_as} than this machine's ({key.fingerprint})",
            f"if that was an earlier one: ssh-keygen -R '{route.known_as}' on the host, and add to "
            f"{route.known_hosts} there: {line}",
            "MOUNT-ALIAS-HOST-KEY",
        )
    if _KEY_UNKNOWN in said:
        return (
            f"the host does not know this machine's key yet ({key.fingerprint})",
            f"add this line to {route.known_hosts} on the host: {line}",
            "MOUNT-ALIAS-HOST-KEY",
        )
    if _NO_LOGIN in said or any(words in said for words in _KEY_LIMITED):
        keys = ", ".join(f"{path}.pub" for path in route.identities[:3]) or "a key"
        return (
            f"this machine does not let {route.alias} log in",
            f"add the public key that the host has for it ({keys}) to ~/.ssh/authorized_keys here, "
            "without command= or from=; that file and its folders must be writable by you alone",
            "MOUNT-ALIAS-KEY",
        )
    return None
