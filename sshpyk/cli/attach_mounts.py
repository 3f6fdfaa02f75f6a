"""Which folders of this machine a kernel is to see that is attached to.

The host says where the kernel had mounts, never what of this machine was there: that is in this
machine's SSH kernels, or on the command line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from sshpyk import kernelspecs
from sshpyk.errors import InvalidInput
from sshpyk.kernelconfig import Mount, RemoteKernel
from sshpyk.launch import Caller, launch_record


class Folders(NamedTuple):
    """What to mount, as the hub reads it, and the places for which this machine has nothing."""

    mounts: list[dict[str, Any]]
    unknown: list[str]


def folders_for(host: str, kernel: dict[str, Any], named: Sequence[str]) -> Folders:
    """Return what to mount for a kernel that ``sshpyk ps`` describes; ``named`` comes first.

    Raises InvalidInput.
    """
    wanted = [str(place) for place in kernel.get("mounts", [])]
    mounts = _records(RemoteKernel(host, "", "python3", mount_local_on_remote=_parse(named)))
    known = [remote for _, remote in kernelspecs.ssh_kernels() if remote.ssh_host_alias == host]
    known.sort(key=lambda remote: remote.remote_kernel_name != kernel["name"])
    for remote in known:
        with contextlib.suppress(InvalidInput):  # its launch would be refused too
            mounts += [one for one in _records(remote) if one["remote"] in wanted]
    first = {one["remote"]: one for one in reversed(mounts)}
    return Folders(list(first.values()), [place for place in wanted if place not in first])


def _parse(named: Sequence[str]) -> tuple[Mount, ...]:
    return tuple(Mount.parse(text, "--mount-local-on-remote") for text in named)


def _records(remote: RemoteKernel) -> list[dict[str, Any]]:
    """Return a kernel's mounts as its launch would ask for them. Raises InvalidInput."""
    if not remote.mount_local_on_remote:
        return []
    found: list[dict[str, Any]] = launch_record(remote, "", Caller({}, {}, "/"))["launch"].get(
        "mounts", []
    )
    return found
