"""What Jupyter sees: a provisioner whose local process stands for the remote kernel.

jupyter_client's ``LocalProvisioner`` manages that process: ``poll`` is a local waitpid, signals go to
a local pid, and neither ever touches the network. This subclass adds what a plain process cannot do:
a launch that waits for the kernel and raises the reason of a failure.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import types
from typing import Any, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from tornado.web import HTTPError
from traitlets.config import Application

from sshpyk.errors import HubError, SshpykError, error_from_record
from sshpyk.iopub_limits import iopub_limits
from sshpyk.kernelconfig import RemoteKernel
from sshpyk.launch import Caller, launch_record

# What a launch may take beyond its own timeout before we stop believing the stand-in.
_GRACE_S = 30.0


def shown_by_jupyter(error: SshpykError) -> SshpykError:
    """Return ``error`` as one whose text a Jupyter server passes on to the browser.

    It shows the ``log_message`` of a tornado HTTPError and hides every other exception behind
    "Unhandled error" (jupyter_server ``APIHandler.write_error``).
    """
    bases: tuple[Any, ...] = (type(error), HTTPError)
    kind: Any = types.new_class(type(error).__name__, bases)
    shown: Any = kind.__new__(kind)
    HTTPError.__init__(shown, 500, str(error))
    shown.__dict__.update(error.__dict__)
    return cast(SshpykError, shown)


class Notices:
    """What the stand-in says for people goes to Jupyter's log, while Jupyter's loop runs."""

    def __init__(self, connected: socket.socket, received: bytes, log: Any) -> None:
        self._connected = connected
        self._log = log
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connected, self._read)
        self._take(b"")

    def _read(self) -> None:
        try:
            data = self._connected.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._take(data)

    def _take(self, data: bytes) -> None:
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._log.warning("sshpyk: %s", json.loads(line).get("notice", ""))

    def close(self) -> None:
        """Stop listening; idempotent."""
        if self._connected.fileno() >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(self._connected)
        self._connected.close()


class SSHKernelProvisioner(LocalProvisioner):
    """Launch a kernel on a host, through a stand-in. See the module."""

    def __init__(self, **kwargs: Any) -> None:
        # jupyter_client passes the config of kernel.json as keyword arguments beside its own traits.
        traits = self.trait_names()
        config = {key: kwargs.pop(key) for key in list(kwargs) if key not in traits}
        super().__init__(**kwargs)
        self._remote = RemoteKernel.from_config(config)
        self._notices: Notices | None = None

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the stand-in and return when the kernel listens.

        Called by KernelManager after ``pre_launch`` has written the connection file. Raises an
        :class:`~sshpyk.errors.SshpykError` with host, phase and what was said, within the launch
        timeout; nothing stays behind then.
        """
        environment = kwargs.get("env") or os.environ
        caller = Caller(
            env=self._environment_to_send(environment),
            surroundings=environment,
            folder=kwargs.get("cwd") or os.getcwd(),
        )
        file = os.path.realpath(self._manager.connection_file)
        record = launch_record(self._remote, file, caller, iopub_limits(self._manager))
        self._drop_notices()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            fd = theirs.fileno()
            command = [sys.executable, "-m", "sshpyk.standin", "--provisioner-fd", str(fd)]
            # Not the notebook's folder, which need not be there: Python would import from it.
            kwargs.update(pass_fds=[fd], cwd="/")
            info = await super().launch_kernel([*command, *self._label()], **kwargs)
            theirs.close()
            # Without an application its log goes nowhere: the stand-in's stderr is read more likely.
            record["logs_notices"] = Application.initialized()
            rest = await self._await_ready(ours, record)
            self._notices = Notices(ours, rest, self.log)
        except BaseException as error:
            await self._end_stand_in()
            if isinstance(error, SshpykError):
                raise shown_by_jupyter(error) from error
            raise
        finally:
            theirs.close()
            if self._notices is None:
                ours.close()
        return info

    async def kill(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002
        """End the kernel at once (called by KernelManager)."""
        await self._end_on_host(0)
        await super().kill(restart)

    async def terminate(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002
        """Shut the kernel down (called by KernelManager when asking it did not help)."""
        await self._end_on_host(self._remote.shutdown_timeout)
        await super().terminate(restart)

    async def _end_on_host(self, grace_s: float) -> None:
        """Have a persistent kernel ended, which a signal to its stand-in would not do."""
        if not self._remote.persistent:
            return
        from sshpyk.hub.client import end_kernel  # here: what a server loads should be light

        path = os.path.realpath(self._manager.connection_file)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, end_kernel, self._remote.target(), path, grace_s)

    async def cleanup(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002
        """Let go of the ended stand-in (called by KernelManager)."""
        self._drop_notices()
        await super().cleanup(restart)

    def _drop_notices(self) -> None:
        if self._notices is not None:
            self._notices.close()
            self._notices = None

    @property
    def _manager(self) -> KernelManager:
        if self.parent is None:
            raise HubError("a kernel of sshpyk's is launched through a KernelManager")
        manager: KernelManager = self.parent
        return manager

    def _label(self) -> list[str]:
        """Words for people who read ``ps``."""
        return ["--kernel", self.kernel_spec.display_name.replace("\n", " ")]

    def _environment_to_send(self, environment: Any) -> dict[str, str]:
        """Return what was set for this kernel: the kernelspec's env, and what the caller changed.

        The rest of the Jupyter server's environment describes another machine.
        """
        own = self.kernel_spec.env
        return {
            key: value
            for key, value in environment.items()
            if key in own or key == "JPY_SESSION_NAME" or os.environ.get(key) != value
        }

    async def _await_ready(self, ours: socket.socket, record: dict[str, Any]) -> bytes:
        """Send the request and wait for the outcome, without holding up Jupyter's loop.

        Returns what came behind it.
        """
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(ours, json.dumps(record).encode() + b"\n")
        answer = b""
        patience_s = self._remote.launch_timeout + _GRACE_S
        while b"\n" not in answer:
            try:
                data = await asyncio.wait_for(loop.sock_recv(ours, 65536), patience_s)
            except asyncio.TimeoutError:
                raise self._failure(
                    f"the stand-in gave no answer within {patience_s:g} s"
                ) from None
            if not data:
                raise self._failure(
                    "the stand-in ended without a word; its words are in the Jupyter server's log"
                )
            answer += data
        line, _, rest = answer.partition(b"\n")
        outcome = json.loads(line)
        if "error" in outcome:
            raise error_from_record(outcome["error"])
        return rest

    def _failure(self, what: str) -> HubError:
        return HubError(what, host=self._remote.ssh_host_alias, phase="launching")

    async def _end_stand_in(self) -> None:
        if self.process is not None:
            await self.send_signal(signal.SIGKILL)
            await self.wait()

    def get_shutdown_wait_time(self, recommended: float = 5.0) -> float:
        """Return how long Jupyter waits for a shutdown before it kills: the larger of both wishes."""
        return max(recommended, self._remote.shutdown_timeout)
