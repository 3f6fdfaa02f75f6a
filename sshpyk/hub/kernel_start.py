"""One request to the agent for a kernel, from when it goes out until the kernel listens."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from sshpyk.hub.host import HostLink
from sshpyk.hub.requests import LaunchRequest, owner

STARTING = "starting the kernel"


def new_kernel_id() -> str:
    """Return an id that no other kernel has."""
    return secrets.token_hex(16)


class KernelStart:
    """See the module. ``answer`` is the agent's; who does not want the kernel says :meth:`give_up`."""

    def __init__(
        self,
        host: HostLink,
        kernel_id: str,
        request: LaunchRequest,
        info: dict[str, Any],
        deadline_s: float,
    ) -> None:
        """Ask. ``info`` is the content of the local connection file; the loop's clock counts."""
        self.kernel_id = kernel_id
        self.streams = host.new_streams(2)
        # What this begins with: a link that is lost meanwhile is replaced by another.
        self._driver, self._rpc = host.driver, host.rpc
        if host.is_up:
            host.phase = STARTING
        # The agent gives up first, for it can say what the activation had printed.
        rest_s = deadline_s - asyncio.get_running_loop().time()
        self.answer = self._rpc.begin(
            "start",
            kernel_id=kernel_id,
            python=request.python,
            kernel_name=request.kernel_name,
            key=info.get("key", ""),
            signature_scheme=info.get("signature_scheme", "hmac-sha256"),
            env=request.env,
            cwd=request.cwd,
            folders=request.folders,
            mounts=[mount.remote for mount in request.mounted_folders],
            activate=request.activate,
            activate_s=max(rest_s * 0.9 - 0.5, 0.5),
            wrapper=request.wrapper,
            streams=self.streams,
            persistent=request.persistent,
            owner=owner(),
            session=request.session,
        )

    def is_good_for(self, host: HostLink) -> bool:
        """Whether it may still bring a kernel on the host's link of now."""
        failed = self.answer.done() and (self.answer.cancelled() or self.answer.exception())
        return host.driver is self._driver and not failed

    def give_up(self) -> None:
        """End the kernel, also one that has failed, or that the agent has not heard of yet."""
        self.answer.cancel()
        if self.answer.done() and not self.answer.cancelled():
            self.answer.exception()  # noted: nobody will wait for it
        # The request may be on its way, and this follows it.
        self._rpc.notify("stop", kernel_id=self.kernel_id, grace_s=0, streams=self.streams)
        for stream in self.streams:
            self._driver.abandon(stream)
