"""From a kernelspec's record to what the stand-in is asked: one function for both ways in."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from sshpyk.errors import InvalidInput
from sshpyk.kernelconfig import RemoteKernel
from sshpyk.mounts.options import sort_options


def launch_record(
    remote: RemoteKernel,
    connection_file: str,
    env: dict[str, str],
    iopub_limits: dict[str, float] | None = None,
    *,
    local_cwd: str = "",
) -> dict[str, Any]:
    """Return the JSON-ready request for :class:`sshpyk.standin.Request`.

    ``env`` is what the kernel gets beside the host's own environment; ``iopub_limits`` are those of
    the Jupyter server that it is for. ``local_cwd``, the notebook's folder, becomes the kernel's where it
    is mounted on the host and no ``remote_cwd`` is set. Raises InvalidInput for a host, an ssh or a
    config that cannot be.
    """
    mounts = _mounts(remote)
    target = remote.target()
    return {
        "target": {"host": target.host, "ssh": target.ssh, "ssh_config": target.ssh_config},
        "shutdown_timeout_s": remote.shutdown_timeout,
        "launch": {
            "connection_file": connection_file,
            "python": remote.python,
            "kernel_name": remote.remote_kernel_name,
            "launch_timeout_s": remote.launch_timeout,
            "env": {**env, **remote.kernel_env},
            "cwd": remote.remote_cwd or _mounted_path(local_cwd, mounts),
            **({"mounts": mounts} if mounts else {}),
            **({"persistent": True} if remote.persistent else {}),
            **({"iopub_limits": iopub_limits} if iopub_limits else {}),
        },
    }


def _mounts(remote: RemoteKernel) -> list[dict[str, Any]]:
    """Return the folders to mount, as :class:`sshpyk.hub.mounts.MountRequest` reads them."""
    if not (remote.mount_local_on_remote and remote.sshfs_enabled):
        return []
    if remote.ssh_host_alias_local_on_remote:
        raise InvalidInput(
            "mounts through a local sshd (ssh_host_alias_local_on_remote) are not supported yet",
            host=remote.ssh_host_alias,
            advice="leave that alias out: folders are then mounted over the link, and need no sshd",
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
        }
        for mount in remote.mount_local_on_remote
    ]


def _mounted_path(local: str, mounts: list[dict[str, Any]]) -> str:
    """Return where the host has a local folder; nothing where it has not. The innermost mount counts."""
    if not local:
        return ""
    folder = Path(os.path.realpath(local))
    for mount in sorted(mounts, key=lambda mount: len(mount["local"]), reverse=True):
        root = Path(os.path.realpath(mount["local"]))
        if folder.is_relative_to(root):
            return str(PurePosixPath(mount["remote"]) / folder.relative_to(root))
    return ""
