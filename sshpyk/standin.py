"""The stand-in: the local process that stands for one remote kernel.

Its pid, its signals and its exit status mean the kernel's, so whoever started it need know nothing of
ssh. It is not in the data path: it asks the hub to launch the kernel, waits, and translates.

===========  =====================================================
SIGINT       interrupt the running cell
SIGTERM/HUP  shut the kernel down
parent gone  end the kernel, as a local kernel would end itself
===========  =====================================================

Started by the provisioner with ``--provisioner-fd`` (a socket that brings the request and takes the
outcome), or by any program that runs a kernel.json's argv with ``--kernel`` and a connection file.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from sshpyk.errors import HubError, InvalidInput, SshpykError, error_from_record
from sshpyk.hub.client import HubClient, reach_hub
from sshpyk.ssh.command import SshTarget

if TYPE_CHECKING:
    import argparse

PROVISIONER_FD = "--provisioner-fd"  # always the first word
_PARENT_POLL_S = 1.0
_REATTACH_TRIES = 5
_REATTACH_FORGET_S = 10.0
_REATTACH_PAUSE_S = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Request:
    """What to launch, and where to report: the same from a provisioner and from a command line."""

    def __init__(self, record: dict[str, Any], report: socket.socket | None = None) -> None:
        self.target = SshTarget(**record["target"])
        self.launch: dict[str, Any] = record["launch"]
        self.shutdown_timeout_s = float(record["shutdown_timeout_s"])
        self._report = report
        self._reported = False
        self._logs_notices = bool(record.get("logs_notices"))

    def report(self, **outcome: Any) -> None:
        """Tell whoever started us how the launch went; an error after it goes to stderr."""
        if self._report is not None and not self._reported:
            self._send(outcome)
        elif "error" in outcome:
            print(error_from_record(outcome["error"]), file=sys.stderr)  # noqa: T201
        self._reported = True

    def notify(self, text: str) -> None:
        """Say what a person should know: in the log of a Jupyter application, else on stderr."""
        if self._report is not None and self._logs_notices:
            self._send({"notice": text})
        else:
            print(f"sshpyk: {text}", file=sys.stderr, flush=True)  # noqa: T201

    def _send(self, record: dict[str, Any]) -> None:
        assert self._report is not None
        try:
            self._report.sendall(json.dumps(record).encode() + b"\n", socket.MSG_DONTWAIT)
        except OSError:  # a provisioner that has gone, or never reads
            self._report.close()
            self._report = None


def read_request(argv: list[str]) -> Request:
    """Return the request that the command line names. Raises InvalidInput."""
    if argv[:1] == [PROVISIONER_FD] and argv[1:]:  # what follows are words for people who read ps
        report = socket.socket(fileno=int(argv[1]))
        with report.makefile("rb") as lines:
            return Request(json.loads(lines.readline()), report)
    options = _parse(argv)
    if not options.kernel or not options.connection_file:
        raise InvalidInput("name a kernel and a connection file; see sshpyk-kernel --help")
    # Only here: the provisioner has read the kernelspec already, and this costs 0.2 s.
    from sshpyk.kernelspecs import load
    from sshpyk.launch import launch_record

    spec = load(options.kernel)
    if spec.remote is None:
        raise InvalidInput(f"{options.kernel} is not a kernel of sshpyk's; see sshpyk list")
    connection_file = os.path.abspath(options.connection_file)  # the hub works elsewhere
    return Request(
        launch_record(spec.remote, connection_file, dict(spec.env), local_cwd=os.getcwd())
    )


def _parse(argv: list[str]) -> argparse.Namespace:
    # Here: a provisioner needs no parser, and every restart would wait for its import.
    import argparse

    parser = argparse.ArgumentParser(
        prog="sshpyk-kernel",
        description="Launch a remote kernel and stand for it until it ends.",
        epilog="example: sshpyk-kernel --kernel gpu1 --connection-file /tmp/c.json",
    )
    # The long names are those of sshpyk 1.x, whose kernel.json files go on working.
    parser.add_argument("--kernel", "--SSHKernelApp.kernel_name", "-k", metavar="NAME")
    parser.add_argument(
        "--connection-file", "--KernelManager.connection_file", "-f", metavar="FILE", type=_unquote
    )
    return parser.parse_args(argv)


def _unquote(path: str) -> str:
    """Remove the quotes that sshpyk 1.x wrote into kernel.json around the connection file."""
    return path[1:-1] if len(path) > 1 and path[0] == path[-1] and path[0] in "'\"" else path


class StandIn:
    """See the module."""

    def __init__(self, request: Request, hub: HubClient) -> None:
        self._request = request
        self._hub = hub
        self._reattached = 0
        self._reattached_s = time.monotonic()
        self._ticket: dict[str, Any] | None = None
        self._unsaid: list[int] = []
        self._parent = os.getppid() if "JPY_PARENT_PID" in os.environ else 0
        self._wakeup, wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        wakeup.setblocking(False)
        self._wakeup_writer = wakeup
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)  # the wakeup descriptor brings them, in order

    def stand(self) -> int:
        """Launch the kernel and return its exit status when it has ended."""
        self._hub.say("launch", request=self._request.launch)
        while True:
            self._wait()
            for number in self._pending_signals():
                self._on_signal(number)
            if self._parent and os.getppid() != self._parent:
                raise HubError("the process that started this kernel has gone")
            if self._hub.has_more or self._readable():
                status = self._on_record(self._hub.hear())
                if status is not None:
                    return status

    def _reattach(self) -> None:
        """The hub was killed: start another and give it the kernel that ours was."""
        host = self._request.target.host
        if time.monotonic() - self._reattached_s > _REATTACH_FORGET_S:
            self._reattached = 0
        self._reattached += 1
        self._reattached_s = time.monotonic()
        if self._reattached > _REATTACH_TRIES:
            raise HubError("the local hub process goes away again and again", host=host)
        time.sleep(_REATTACH_PAUSE_S)  # a killed process may still hold its socket for a moment
        self._hub.close()
        self._hub = reach_hub(self._request.target)
        with contextlib.suppress(OSError):  # it has gone as well: heard as its silence
            self._take_up_with_the_next()

    def _take_up_with_the_next(self) -> None:
        host = self._request.target.host
        if self._ticket is None:
            self._hub.say("launch", request=self._request.launch)
            return
        words = "the local hub was replaced; what passed it in its last moment may be lost"
        self._request.notify(f"{host}: {words}")
        self._hub.say("reattach", request=self._request.launch, ticket=self._ticket)
        unsaid, self._unsaid = self._unsaid, []
        for number in unsaid:
            self._on_signal(number)

    def _wait(self) -> None:
        if not self._hub.has_more:
            patience_s = _PARENT_POLL_S if self._parent else None
            select.select([self._hub.socket, self._wakeup], [], [], patience_s)

    def _readable(self) -> bool:
        return bool(select.select([self._hub.socket], [], [], 0)[0])

    def _pending_signals(self) -> bytes:
        try:
            return self._wakeup.recv(64)
        except BlockingIOError:
            return b""

    def _on_signal(self, number: int) -> None:
        try:
            if number == signal.SIGINT:
                self._hub.say("interrupt")
            elif number in (signal.SIGTERM, signal.SIGHUP):
                self._hub.say("stop", grace_s=self._request.shutdown_timeout_s)
        except OSError:
            self._unsaid.append(number)  # the hub has gone; the next one is told

    def _on_record(self, record: dict[str, Any] | None) -> int | None:
        if record is None:
            self._reattach()
            return None
        if record["event"] == "failed":
            raise error_from_record(record["error"])
        if record["event"] == "notice":
            self._request.notify(record["text"])
        if record["event"] == "ready":
            self._ticket = record["ticket"]
            self._request.report(ready=True)
        return int(record["status"]) if record["event"] == "exited" else None


def exit_like(status: int) -> NoReturn:
    """End this process as the kernel ended: with its code, or by its signal."""
    if status < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the core was the kernel's
        with contextlib.suppress(OSError):  # SIGKILL has no other disposition
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def main(argv: list[str] | None = None) -> NoReturn:
    """Be a stand-in. Exits with the kernel's status, or with 1 or 2 when there is no kernel."""
    request: Request | None = None
    try:
        request = read_request(sys.argv[1:] if argv is None else argv)
        status = StandIn(request, reach_hub(request.target)).stand()
    except SshpykError as error:
        if request is None:
            print(error, file=sys.stderr)  # noqa: T201
        else:
            request.report(error=error.to_record())
        sys.exit(error.exit_code)
    exit_like(status)


if __name__ == "__main__":
    main()
