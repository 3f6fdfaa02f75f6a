"""What a hub may ask of the agent over its link, when its kernels are concerned."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import signal
import time
from typing import Any, NamedTuple

from sshpyk.agent.book import Book
from sshpyk.agent.custody import Custody, label
from sshpyk.agent.environment import Setting
from sshpyk.agent.forward import Forwards
from sshpyk.agent.kernel import Kernel, KernelState
from sshpyk.agent.kernelspecs import RemoteKernelspec, find_kernelspec
from sshpyk.agent.logs import KernelLogs
from sshpyk.agent.logs import operations as logs_operations
from sshpyk.agent.mount import Mounts
from sshpyk.agent.process import KernelProcess, connection_info
from sshpyk.agent.record import KernelRecord, kernel_folder
from sshpyk.agent.script import run_script
from sshpyk.agent.serving import Serving
from sshpyk.errors import KernelDied, KernelError, RemoteShellFailed
from sshpyk.wire.clock import now_s
from sshpyk.wire.driver import LinkDriver
from sshpyk.wire.rpc import Params, Rpc

_LONGEST_PATH = 4096
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

log = logging.getLogger(__name__)


class Places(NamedTuple):
    """Where the agent keeps things on the host."""

    sockets: str  # private, short, emptied when the agent leaves
    logs: str  # what kernels wrote to stdout and stderr; the spool's files, which have no names


class Service:
    """The operations of one link; see :meth:`__init__` for their names."""

    def __init__(self, driver: LinkDriver, book: Book, places: Places) -> None:
        self._driver = driver
        self._book = book
        self._places = places
        self._logs = logs = KernelLogs(places.logs, book.activities)
        book.on_ended = lambda kernel: logs.end(kernel.kernel_id, kernel.status)
        self._starting: set[str] = set()  # asked for, and not stopped since
        self.forwards = Forwards(driver, lambda op, **params: self.rpc.call(op, **params))
        self.mounts = Mounts(driver, places.sockets)
        serving = Serving(driver, book.servers, places, logs, self._notify)
        self.rpc = Rpc(
            driver,
            {
                **self.forwards.operations,
                **self.mounts.operations,
                "start": self._start,
                "interrupt": self._interrupt,
                "signal": self._signal,
                "stop": self._stop,
                "backlog": self._backlog,
                "welcomes": self._welcomes,
                **Custody(driver, book, places.sockets).operations,
                **logs_operations(logs),
                **serving.operations,
                "script": run_script,
            },
        )
        self.heard_s = now_s()  # when something came from the hub
        book.services[driver] = self

    def _notify(self, op: str, **params: Any) -> None:
        self.rpc.notify(op, **params)

    async def _start(self, params: Params) -> Params:
        """Start a kernel and answer when it listens."""
        _check_start(params)
        self._starting.add(params["kernel_id"])
        try:
            return await self._launch(params)
        except BaseException:
            for stream in params["streams"]:
                self._driver.abandon(stream)
            raise
        finally:
            self._starting.discard(params["kernel_id"])

    async def _launch(self, params: Params) -> Params:
        name, kernel_id = params["kernel_name"], params["kernel_id"]
        setting = Setting.from_params(params)
        loop = asyncio.get_running_loop()
        # Apart: a look at a folder that is mounted from the client is answered through this very loop.
        cwd, notice = await loop.run_in_executor(None, _working_directory, params)
        python, spec = await loop.run_in_executor(None, _find, params, setting)
        if kernel_id not in self._starting:
            raise KernelDied("stopped before it was started", phase="starting the kernel")
        kernel = self._make(spec, params)
        self._book.add(kernel)
        try:
            kernel.process.start(python, params["env"], cwd, setting)
        except BaseException as error:  # whatever it was, nothing stays that is no process
            del self._book.kernels[kernel_id]
            self._book.unheard.discard(kernel)
            kernel.process.remove_files()
            raise _start_failure(error, spec, setting) from error
        kernel.note_process()
        log.info("kernel %s is process %d: %s", kernel_id, kernel.process.pid, name)
        overdue = loop.call_later(setting.patience_s, kernel.process.give_up_activation)
        try:
            await kernel.wait_ready()
        finally:
            overdue.cancel()
        self._tell_welcome(kernel)
        return {
            "pid": kernel.process.pid,
            "interrupt_mode": spec.interrupt_mode,
            "transport": kernel.process.info["transport"],
            "welcomes": kernel.welcomes,
            "kernel_info": kernel.info,
            "notice": notice,
        }

    def _make(self, spec: RemoteKernelspec, params: Params) -> Kernel:
        kernel_id = params["kernel_id"]
        folder = kernel_folder(self._places.sockets, kernel_id)
        os.mkdir(folder, 0o700)
        try:
            return self._make_in(folder, spec, params)
        except BaseException:
            os.rmdir(folder)
            raise

    def _make_in(self, folder: str, spec: RemoteKernelspec, params: Params) -> Kernel:
        kernel_id = params["kernel_id"]
        info = connection_info(spec, folder, params["key"], params["signature_scheme"])
        info["kernel_name"] = params["kernel_name"]
        whose = {name: label(params.get(name)) for name in ("owner", "session")}
        name, born_s = params["kernel_name"], time.time()
        log_path = self._logs.begin(kernel_id, name=name, started_s=born_s, **whose)
        main, control = params["streams"]
        link = self._driver.link
        record = KernelRecord(
            kernel_id,
            link.link_id,
            (main, control),
            info,
            spec,
            log_path,
            link.boot_id,
            persistent=params.get("persistent") is True,
            born_s=born_s,
            owner=whose["owner"],
            session=whose["session"],
            mounts=tuple(str(path)[:_LONGEST_PATH] for path in params.get("mounts", [])),
        )
        process = KernelProcess(spec, info, folder, log_path)
        return Kernel(record, process, self._driver)

    def adopt(self, record: KernelRecord, folder: str, since_s: float) -> Kernel:
        """Take care of a kernel of this link that an agent before us has started.

        One that was still starting is ended: its launch has failed. One that has ended is told of.
        """
        process = KernelProcess.adopt(record, folder)
        kernel = Kernel(record, process, self._driver)
        self._book.add(kernel)
        if record.ready:
            kernel.adopt(since_s)
            self._tell_welcome(kernel)
        else:
            process.signal(signal.SIGKILL)
        return kernel

    def _tell_welcome(self, kernel: Kernel) -> None:
        kernel.tell_welcome(lambda: self._book.tell(kernel, "welcomes"))

    def _find(self, params: Params) -> Kernel:
        kernel = self._book.kernels.get(params["kernel_id"])
        if kernel is None or kernel.state is KernelState.ENDED or not self._may(kernel, params):
            raise KernelDied("the kernel has ended", phase="looking for the kernel")
        return kernel

    def _may(self, kernel: Kernel, params: Params) -> bool:
        """Whether an order is meant for the kernel that is there.

        One with streams comes from who carried it when that was said; in an outage somebody else may have
        taken the kernel over since.
        """
        streams = params.get("streams")
        return streams is None or kernel.is_carried_by(self._driver, streams)

    async def _interrupt(self, params: Params) -> Params:
        self._find(params).interrupt(params["seen"])
        return {}

    async def _signal(self, params: Params) -> Params:
        self._find(params).process.signal(params["signal"])
        return {}

    async def _stop(self, params: Params) -> Params:
        """End a kernel, also one that is not a process yet; one that has ended is no error."""
        self._starting.discard(params["kernel_id"])
        kernel, streams = self._book.find(params["kernel_id"]), params.get("streams")
        if kernel is not None and self._may(kernel, params):
            await kernel.stop(params["grace_s"])
            self._book.discard(kernel)
        else:
            # Taken over meanwhile; or a launch was given up whose kernel an agent before us knew.
            for stream in streams or []:
                self._driver.abandon(stream)
        return {}

    async def _welcomes(self, params: Params) -> Params:
        """Tell a hub that replaced another whether the kernel greets its subscribers."""
        kernel = self._find(params)
        if kernel.welcomes:
            self.rpc.notify("welcomes", kernel_id=kernel.kernel_id)
        return {}

    async def _backlog(self, params: Params) -> Params:
        """Say how much the hub has not got yet; asked when the link is up again."""
        messages, size_bytes = self._driver.link.backlog
        return {"messages": messages, "bytes": size_bytes}


def _check_start(params: Params) -> None:
    """Refuse what would harm more than the kernel that it asks for. Raises KernelError."""
    kernel_id, streams, env = (params.get(name) for name in ("kernel_id", "streams", "env"))
    well_formed = (
        isinstance(kernel_id, str)
        and re.fullmatch("[0-9A-Za-z-]{1,64}", kernel_id)  # names a folder and a log
        and isinstance(streams, list)
        and len(streams) == 2
        and all(isinstance(number, int) and 0 < number < 1 << 32 for number in streams)
        and isinstance(env, dict)
        and all(isinstance(value, str) and "\0" not in value for value in env.values())
        and _is_setting(params)
    )
    if not well_formed:
        raise KernelError("a malformed request for a kernel", phase="starting the kernel")


def _is_setting(params: Params) -> bool:
    try:
        Setting.from_params(params)
    except ValueError:
        return False
    folders = params.get("folders", [])
    return isinstance(folders, list) and all(isinstance(folder, str) for folder in folders)


def _find(params: Params, setting: Setting) -> tuple[str, RemoteKernelspec]:
    """Return the kernel's interpreter and its kernelspec.

    A bare name is looked up on PATH, after the activation where there is one: then nothing can be
    asked of that interpreter before, and Python's own kernel is ipykernel.
    """
    python, name = params["python"], params["kernel_name"]
    if setting.activate and os.sep not in python and name in ("python3", "python"):
        argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return python, RemoteKernelspec(argv, resource_dir="", language="python")
    path = _interpreter(python)
    return path, find_kernelspec(name, path)


def _interpreter(path: str) -> str:
    """Return the path of the kernel's interpreter. Raises RemoteShellFailed when there is none."""
    python = os.path.expanduser(path)
    if os.sep not in python:
        return _on_path(python)
    if os.access(python, os.X_OK) and not os.path.isdir(python):
        return python
    raise RemoteShellFailed(
        f"no interpreter at {python}",
        phase="starting the kernel",
        code="HOST-NO-INTERPRETER",
        advice="name another one: sshpyk edit … --remote-python PATH",
    )


def _on_path(name: str) -> str:
    for folder in os.get_exec_path():
        candidate = os.path.join(folder, name)
        if os.access(candidate, os.X_OK):
            return candidate
    raise RemoteShellFailed(
        f"no {name} on the host's PATH", phase="starting the kernel", code="HOST-NO-INTERPRETER"
    )


def _working_directory(params: Params) -> tuple[str, str]:
    """Return the kernel's working directory, and what a person should know of it.

    ``folders`` are where the notebook's may be here, the first that there is wins; else it is the home
    folder. ``cwd`` is meant as it stands. Raises KernelError when it is no folder.
    """
    folders = [os.path.expanduser(folder) for folder in params.get("folders", [])]
    for folder in folders:
        if os.path.isdir(folder):
            return folder, ""
    folder = os.path.expanduser(params["cwd"] or "~")
    if os.path.isdir(folder):
        missing = f"no folder {' or '.join(folders)} on the host: the kernel works in {folder}"
        return folder, missing if folders else ""
    raise KernelError(
        f"no folder {folder} for the kernel to work in",
        phase="starting the kernel",
        code="KERNEL-NO-FOLDER",
        advice="create it on the host, or change it: sshpyk edit … --remote-cwd PATH",
    )


def _start_failure(error: BaseException, spec: RemoteKernelspec, setting: Setting) -> Any:
    if not isinstance(error, OSError):
        return error
    argv = [*setting.wrapper, *spec.argv]
    remedy = "sshpyk edit … --remote-command 'WORDS'" if setting.wrapper else ""
    return KernelError(
        f"cannot run {argv[0]}: {getattr(error, 'strerror', error)}",
        phase="starting the kernel",
        said=f"kernelspec: {spec.resource_dir}\nargv: {argv}",
        advice=remedy,
        code="HOST-DISK-FULL" if error.errno in _DISK_FULL else "KERNEL-NO-PROGRAM",
    )
