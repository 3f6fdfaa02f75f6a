"""Checks of a kernel's mounts: the folder here, and sshfs, fuse and the mount point there.

Facts in, findings out, apart from a look at this machine's folders. Source: sshfs(1), fuse(8).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sshpyk.doctor.finding import Item, Mark, advice, worst
from sshpyk.doctor.probe import HostAnswer
from sshpyk.errors import MountError
from sshpyk.kernelconfig import Mount, RemoteKernel

DEFAULT_SSHFS = "sshfs"

_STATES = {
    "empty": (Mark.OK, "an empty folder"),
    "missing": (Mark.OK, "to be made"),
    "mounted": (Mark.OK, "mounted now; see sshpyk mounts"),
    "full": (Mark.BROKEN, "is not empty"),
    "no-parent": (Mark.BROKEN, "is not there and cannot be made"),
    "no-folder": (Mark.BROKEN, "is no folder"),
    "forbidden": (Mark.BROKEN, "is not this account's"),
    "stale": (Mark.ADVICE, "an earlier mount that lost its other end; it will be replaced"),
}


def sshfs_program(remote: RemoteKernel) -> str:
    """Return the program on the host that mounts."""
    return remote.remote_sshfs or DEFAULT_SSHFS


def mount_items(remote: RemoteKernel, answer: HostAnswer | None) -> Iterator[Item]:
    """Yield one finding per mount; without an answer only this machine's side is checked."""
    for mount in remote.mount_local_on_remote:
        if not remote.sshfs_enabled:
            yield Item("Mount", f"{mount} (off)", Mark.INFO)
            continue
        parts = [_local(mount), *_way(remote, answer)]
        if answer is not None:
            parts += _remote(mount, sshfs_program(remote), answer)
        broken = [part for part in parts if part.is_broken]
        codes = [part.code for part in broken]
        todo = _todo(broken[0]) if broken else ()
        if codes and remote.mount_optional:
            parts = [replace(part, mark=Mark.ADVICE) if part.is_broken else part for part in parts]
            todo = (*todo, Item("mount_optional", "the kernel starts without it", Mark.INFO))
        yield Item("Mount", str(mount), worst(parts), (*parts, *todo), codes[0] if codes else "")


_REMEDIES = {
    "MOUNT-LOCAL-FOLDER": "make that folder, or correct --mount-local-on-remote",
    "MOUNT-NO-SSHFS": "have the package sshfs installed on the host, or name it with --remote-sshfs",
    "MOUNT-NO-FUSE": "ask the host's administrator for fuse3 (a container needs --device /dev/fuse)",
    "MOUNT-ALLOW-OTHER": "leave allow_other out, or have user_allow_other put into /etc/fuse.conf there",
    "MOUNT-POINT": "name another mount point with --mount-local-on-remote",
}


def _todo(part: Item) -> tuple[Item, ...]:
    return advice(_REMEDIES[part.code]) if part.code in _REMEDIES else part.parts


def _way(remote: RemoteKernel, answer: HostAnswer | None) -> Iterator[Item]:
    """Yield how the files get there: over the link, or through a login by an alias of the host's."""
    alias = remote.ssh_host_alias_local_on_remote
    if not alias:
        yield Item("way", "over the link", Mark.INFO)
        return
    # Here: only who names an alias needs them.
    from sshpyk.hub.alias import read_route
    from sshpyk.hub.private_sshd import find_sshd, local_user

    yield Item("way", f"a login by the host's alias {alias}, to a private sshd here", Mark.INFO)
    try:
        yield Item("sshd", find_sshd(remote.sshd or ""), Mark.OK)
        resolved = answer.aliases.get(alias) if answer is not None else None
        if resolved is not None:
            listen = read_route(alias, resolved, local_user()).listen
            port = str(listen.port) if listen.port else "a free port"
            yield Item("alias", f"{alias}: {listen.host}, {port}", Mark.OK)
    except MountError as error:
        label = "sshd" if error.code == "MOUNT-NO-SSHD" else "alias"
        yield Item(label, error.what, Mark.BROKEN, advice(error.advice), error.code)


def _local(mount: Mount) -> Item:
    if Path(mount.local).expanduser().is_dir():
        return Item("local folder", mount.local, Mark.OK)
    what = f"{mount.local}: there is no such local folder"
    return Item("local folder", what, Mark.BROKEN, code="MOUNT-LOCAL-FOLDER")


def _remote(mount: Mount, program: str, answer: HostAnswer) -> Iterator[Item]:
    version = answer.sshfs.get(program, "")
    if version:
        yield Item("sshfs", version, Mark.OK)
    else:
        what = f"the host has no {program}"
        yield Item("sshfs", what, Mark.BROKEN, code="MOUNT-NO-SSHFS")
    yield from _fuse(mount, answer)
    mark, what = _STATES.get(answer.folders.get(mount.remote, ""), (Mark.UNCHECKED, "not known"))
    code = "MOUNT-POINT" if mark is Mark.BROKEN else ""
    yield Item("mount point", f"{mount.remote}: {what}", mark, code=code)


def _fuse(mount: Mount, answer: HostAnswer) -> Iterator[Item]:
    fuse = answer.fuse
    if not answer.system.startswith("Linux"):
        return
    if fuse.device != "usable":
        why = "is not there" if fuse.device == "missing" else "cannot be opened"
        yield Item("fuse", f"/dev/fuse {why}", Mark.BROKEN, code="MOUNT-NO-FUSE")
    elif not fuse.fusermount:
        what = "the host has no fusermount3 and no fusermount"
        yield Item("fuse", what, Mark.BROKEN, code="MOUNT-NO-FUSE")
    elif "allow_other" in mount.options and not fuse.allow_other:
        what = "allow_other is not allowed: /etc/fuse.conf has no user_allow_other"
        yield Item("fuse", what, Mark.BROKEN, code="MOUNT-ALLOW-OTHER")
    else:
        yield Item("fuse", "/dev/fuse", Mark.OK)
