"""From a kernelspec's record to what the stand-in is asked: one function for both ways in."""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sshpyk.errors import InvalidInput
from sshpyk.kernelconfig import NOTEBOOK_DIR, Mount, RemoteKernel
from sshpyk.mounts.options import sort_options

# Describe the laptop or one login on it: no pattern means them, only their own name does.
_OF_THIS_MACHINE = (
    *(
        "_",
        "HOME",
        "HOSTNAME",
        "LOGNAME",
        "MAIL",
        "OLDPWD",
        "PATH",
        "PWD",
        "SHELL",
        "SHLVL",
        "USER",
    ),
    *("DISPLAY", "TERM", "TMPDIR", "SSH_*", "XDG_*", "JPY_*", "DBUS_*", "LD_*", "DYLD_*"),
    *("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_*"),
)


_ALIAS = re.compile(r"\w[\w.@+-]*")


@dataclass(frozen=True)
class Caller:
    """Whoever launches a kernel: a Jupyter server, a console, VS Code.

    ``env`` was set for this kernel; ``surroundings`` is the caller's own environment, of which
    ``--pass-env`` takes; ``folder`` is the notebook's.
    """

    env: Mapping[str, str]
    surroundings: Mapping[str, str]
    folder: str


def launch_record(
    remote: RemoteKernel,
    connection_file: str,
    caller: Caller,
    iopub_limits: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Return the JSON-ready request for :class:`sshpyk.standin.Request`.

    ``iopub_limits`` are those of the Jupyter server that it is for. Raises InvalidInput for a host, an
    ssh or a config that cannot be.
    """
    mounts = _mounts(remote)
    target = remote.target()
    passed = passed_on(remote.pass_env, caller.surroundings)
    return {
        "target": {"host": target.host, "ssh": target.ssh, "ssh_config": target.ssh_config},
        "shutdown_timeout_s": remote.shutdown_timeout,
        "launch": {
            "connection_file": connection_file,
            "python": remote.python,
            "kernel_name": remote.remote_kernel_name,
            "launch_timeout_s": remote.launch_timeout,
            "env": {**passed, **caller.env, **remote.kernel_env},
            **_folder(remote, caller),
            **({"activate": remote.activate} if remote.activate else {}),
            **({"wrapper": list(remote.wrapper)} if remote.wrapper else {}),
            **({"mounts": mounts} if mounts else {}),
            **({"mount_optional": True} if mounts and remote.mount_optional else {}),
            **({"persistent": True} if remote.persistent else {}),
            **({"iopub_limits": iopub_limits} if iopub_limits else {}),
        },
    }


def passed_on(patterns: Sequence[str], surroundings: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that ``--pass-env`` names; those that are not set are left out."""
    return {
        name: value
        for name, value in surroundings.items()
        if name in patterns
        or (
            any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
            and not any(fnmatch.fnmatchcase(name, local) for local in _OF_THIS_MACHINE)
        )
    }


def _folder(remote: RemoteKernel, caller: Caller) -> dict[str, Any]:
    home, folder = os.path.expanduser("~"), os.path.abspath(caller.folder)
    mounts = remote.mount_local_on_remote if remote.sshfs_enabled else ()
    mounted = any(is_below(folder, _local_root(mount, home)) for mount in mounts)
    template = remote.remote_cwd or (NOTEBOOK_DIR if mounted else "")
    if NOTEBOOK_DIR not in template:
        return {"cwd": template}
    folders = folders_on_host(folder, mounts, home)
    return {"cwd": "", "folders": [template.replace(NOTEBOOK_DIR, one) for one in folders]}


def folders_on_host(folder: str, mounts: Sequence[Mount], home: str) -> list[str]:
    """Return where a local folder may be on the host, the likeliest first; all paths are absolute.

    Inside of a mount that is its other end, and nothing else is the same folder. Otherwise the same
    place below the home folder, then the same path.
    """
    inside = [
        (len(local), mount.remote, posixpath.relpath(folder, local))
        for mount in mounts
        for local in [_local_root(mount, home)]
        if is_below(folder, local)
    ]
    if inside:
        _, remote, rest = max(inside)
        return [posixpath.normpath(posixpath.join(remote, rest))]
    if not is_below(folder, home):
        return [folder]
    return [posixpath.normpath(posixpath.join("~", posixpath.relpath(folder, home))), folder]


def _local_root(mount: Mount, home: str) -> str:
    return posixpath.normpath(re.sub(r"\A~(?=/|\Z)", home, mount.local))


def is_below(folder: str, root: str) -> bool:
    """Tell whether ``folder`` is ``root`` or inside of it; both absolute and without ``..``."""
    return root == "/" or folder == root or folder.startswith(root + "/")


def _mounts(remote: RemoteKernel) -> list[dict[str, Any]]:
    """Return the folders to mount, as :class:`sshpyk.hub.mounts.MountRequest` reads them."""
    if not (remote.mount_local_on_remote and remote.sshfs_enabled):
        return []
    alias = remote.ssh_host_alias_local_on_remote or ""
    if alias and not _ALIAS.fullmatch(alias):
        raise InvalidInput(
            f"ssh_host_alias_local_on_remote {alias!r} cannot be a host of an ssh config",
            host=remote.ssh_host_alias,
            advice="name the alias that ~/.ssh/config on the host has for this machine",
        )
    for mount in remote.mount_local_on_remote:
        try:
            sort_options(mount.options)
        except ValueError as error:
            raise InvalidInput(
                f"mount_local_on_remote {mount}: {error}", host=remote.ssh_host_alias
            ) from error
    return [
        {
            "local": os.path.abspath(os.path.expanduser(mount.local)),
            "remote": mount.remote,
            "options": list(mount.options),
            "sshfs": remote.remote_sshfs or "",
            **({"alias": alias, "sshd": remote.sshd or ""} if alias else {}),
        }
        for mount in remote.mount_local_on_remote
    ]
