"""From a kernelspec's record to what the stand-in is asked: one function for both ways in."""

from __future__ import annotations

from typing import Any

from sshpyk.errors import InvalidInput
from sshpyk.kernelconfig import RemoteKernel


def launch_record(
    remote: RemoteKernel,
    connection_file: str,
    env: dict[str, str],
    iopub_limits: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Return the JSON-ready request for :class:`sshpyk.standin.Request`.

    ``env`` is what the kernel gets beside the host's own environment; ``iopub_limits`` are those of
    the Jupyter server that it is for. Raises InvalidInput for a host, an ssh or a config that cannot be.
    """
    if remote.mount_local_on_remote and remote.sshfs_enabled:
        raise InvalidInput(
            "mounts (mount_local_on_remote) are not supported yet",
            host=remote.ssh_host_alias,
            advice="leave them out for now: set sshfs_enabled to false in the kernel.json",
        )
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
            "cwd": remote.remote_cwd or "",
            **({"persistent": True} if remote.persistent else {}),
            **({"iopub_limits": iopub_limits} if iopub_limits else {}),
        },
    }
