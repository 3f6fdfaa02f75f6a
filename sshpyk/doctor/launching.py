"""Launches a kernel once, the way a Jupyter application does, to see that it starts."""

from __future__ import annotations

import time

from sshpyk.doctor.finding import Item, Mark, failure
from sshpyk.errors import LaunchTimeout, SshpykError

_LABEL = "Launch"


def launch_item(name: str, timeout_s: float) -> Item:
    """Start the kernel ``name``, wait until it answers, stop it; return how that went.

    Called by the doctor when all else is fine. What is left behind is what a notebook would leave: the
    link to the host, for a few minutes.
    """
    began_s = time.monotonic()
    try:
        _launch(name, timeout_s)
    except SshpykError as error:
        return failure(_LABEL, "", error)
    return Item(_LABEL, f"the kernel answered after {time.monotonic() - began_s:.1f} s", Mark.OK)


def _launch(name: str, timeout_s: float) -> None:
    # Imported here: 0.3 s, and only where a kernel is launched.
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name=name)
    try:
        manager.start_kernel()
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=timeout_s)
        except RuntimeError as error:  # jupyter_client's word for a kernel that is silent or dies
            raise LaunchTimeout(f"it started and then gave no answer: {error}") from error
        finally:
            client.stop_channels()
    finally:
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)
        manager.cleanup_connection_file()
