"""The folders that one kernel is to see: before it starts, or when it is attached to."""

from __future__ import annotations

import asyncio

from sshpyk.hub.mounts import Mounts
from sshpyk.hub.requests import HubKernel, LaunchRequest

ATTACHED_PATIENCE_S = 10.0  # the kernel runs meanwhile, and its client waits


async def mount_for_launch(
    mounts: Mounts, kernel_id: str, request: LaunchRequest
) -> tuple[LaunchRequest, list[str]]:
    """Mount what the kernel is to see; return what to start, and what a person should know.

    Raises what kept a folder from being mounted that the kernel must have.
    """
    if not request.mount_optional:
        await mounts.hold(kernel_id, request.mounted_folders)
        return request, []
    failed = await mounts.hold_possible(kernel_id, request.mounted_folders)
    missing = [f"the kernel starts without {error.what}" for error in failed.values()]
    return request.without_mounts(failed), missing


async def mount_for_running(mounts: Mounts, kernel: HubKernel) -> str:
    """Mount for a kernel that is attached to; return what a person should know of it."""
    folders, takeover = kernel.request.mounted_folders, kernel.request.takeover
    if not folders:
        return ""
    mounting = mounts.hold_again(kernel.kernel_id, folders, takeover=takeover)
    done, _ = await asyncio.wait({mounting}, timeout=ATTACHED_PATIENCE_S)
    if not done:
        return "its folders are still being mounted: see sshpyk mounts"
    failed = mounting.result()
    return "; ".join(f"without {error}" for error in failed.values())
