"""Checks of the way to a host: the ssh client, its config, the connection. Facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator

from sshpyk.doctor.finding import Item, Mark, advice, failure, worst
from sshpyk.doctor.probe import HostAnswer
from sshpyk.doctor.settings import harmful_settings
from sshpyk.errors import SshpykError
from sshpyk.ssh.config import ResolvedHost
from sshpyk.ssh.version import ClientVersion

# RemoteCommand=none is 7.6's; the variable that keeps jump hosts from asking in a window is 8.4's.
_OLDEST_CLIENT = (7, 6)
_QUIET_CLIENT = (8, 4)
_FULL_KB = 1024
_NEARLY_FULL_KB = 100 * 1024


def client_item(path: str, client: ClientVersion | None) -> Item:
    """Return what is to be said of the ssh client at ``path``."""
    label, text = "SSH Path", path
    if client is None:
        return Item(label, text, Mark.OK)
    parts: tuple[Item, ...] = (Item("version", client.text or "(none)", Mark.INFO),)
    if client.number is None:
        what = f"{client.text or 'it says no version'}: not OpenSSH, which sshpyk is made for"
        parts = (Item("version", what, Mark.ADVICE),)
    elif client.number < _OLDEST_CLIENT:
        what = f"{client.text}: OpenSSH 7.6 or later is needed"
        todo = advice("install a newer OpenSSH, or name one with --ssh")
        parts = (Item("version", what, Mark.BROKEN, code="SSH-TOO-OLD"), *todo)
    elif client.number < _QUIET_CLIENT:
        what = f"{client.text}: before 8.4 a jump host may ask for a password in a window"
        parts = (Item("version", what, Mark.ADVICE),)
    return Item(label, text, worst(parts), parts, "SSH-TOO-OLD" if _has_broken(parts) else "")


def _has_broken(parts: tuple[Item, ...]) -> bool:
    return worst(parts) is Mark.BROKEN


def chain_items(host: str, chain: tuple[ResolvedHost, ...] | SshpykError | None) -> Iterator[Item]:
    """Yield what ssh's config makes of a host and of each jump host; None: not asked."""
    label = "SSH Host Alias"
    if chain is None:
        yield Item(label, host, Mark.UNCHECKED)
    elif isinstance(chain, SshpykError):
        yield failure(label, host, chain)
    else:
        *jumps, last = chain
        yield _resolved_item(label, host, last, is_jump=False)
        for jump in jumps:
            yield _resolved_item(label, f"{jump.host} (jump)", jump, is_jump=True)


def _resolved_item(label: str, value: str, host: ResolvedHost, *, is_jump: bool) -> Item:
    harmful = tuple(harmful_settings(host, is_jump=is_jump))
    said = {part.label for part in harmful}
    parts = (*(part for part in _resolved(host) if part.label not in said), *harmful)
    mark = worst(harmful)
    return Item(label, value, mark, parts, next((part.code for part in parts if part.code), ""))


def _resolved(host: ResolvedHost) -> Iterator[Item]:
    """Yield what ``ssh -G`` says of a host, where it says something."""
    values = {
        "user": host.user,
        "hostname": host.hostname,
        "port": str(host.port),
        "proxyjump": ",".join(host.proxyjump),
        "proxycommand": host.proxycommand,
        "controlpath": host.controlpath if host.controlmaster != "no" else "",
        "serveraliveinterval": str(host.serveraliveinterval or ""),
        "connecttimeout": "" if host.connecttimeout is None else str(host.connecttimeout),
    }
    yield from (Item(key, value, Mark.INFO) for key, value in values.items() if value)


def connection_item(host: str, answer: HostAnswer | SshpykError | None) -> Item:
    """Return whether a login works; None: not tried."""
    if answer is None:
        return Item("SSH Connection", host, Mark.UNCHECKED)
    if isinstance(answer, SshpykError):
        return failure("SSH Connection", host, answer)
    return Item("SSH Connection", host, Mark.OK)


def system_item(answer: HostAnswer) -> Item:
    """Return what system the host is, and whether its disks have room."""
    parts = tuple(_space(answer))
    if not parts:
        return Item("Remote System", answer.system, Mark.INFO)
    code = next((part.code for part in parts if part.code), "")
    todo = advice("make room on the host: df -h ~ /tmp; quota")
    return Item("Remote System", answer.system, worst(parts), (*parts, *todo), code)


def _space(answer: HostAnswer) -> Iterator[Item]:
    for path, free_kb in answer.free_kb.items():
        if free_kb < _NEARLY_FULL_KB:
            full = free_kb < _FULL_KB
            what = f"{path} has {free_kb / 1024:.0f} MB left; kernels may not start"
            mark = Mark.BROKEN if full else Mark.ADVICE
            yield Item("disk", what, mark, code="HOST-DISK-FULL" if full else "")
