"""The stand-in: the local process that stands for one remote kernel.

Its pid, its signals and its exit status mean the kernel's, so whoever started it need know nothing of
ssh. It is not in the data path: it asks the hub to launch the kernel, waits, and translates.

Which signal asks for what is :data:`SIGNALS`. When the parent goes, the kernel is ended, as a local
kernel would end itself.

Started by the provisioner with ``--provisioner-fd`` (a socket that brings the request and takes the
outcome). Any other command line, a program's or a person's, is :mod:`sshpyk.kernelapp`'s: what only
those need is imported there, for this module's start is part of every restart in JupyterLab.
"""

from __future__ import annotations

import sshpyk.import_path  # noqa: F401  # before all others

# isort: split
import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from enum import Enum
from typing import Any, ClassVar, NoReturn

from sshpyk.errors import HubError, KernelTaken, SshpykError, error_from_record
from sshpyk.hub.client import HubClient, reach_hub
from sshpyk.ssh.command import SshTarget

PROVISIONER_FD = "--provisioner-fd"  # always the first word
_PARENT_POLL_S = 1.0
_REATTACH_TRIES = 5
_REATTACH_FORGET_S = 10.0
_REATTACH_PAUSE_S = 0.1


class Action(Enum):
    """What may be asked of a stand-in, by a signal or by a person."""

    INTERRUPT = "interrupt"
    SHUT_DOWN = "shut down"  # a persistent kernel is left instead
    END = "end"  # shut down, persistent or not
    RESTART = "restart"
    LEAVE = "leave"


SIGNALS: dict[int, Action] = {
    signal.SIGINT: Action.INTERRUPT,
    signal.SIGTERM: Action.SHUT_DOWN,
    signal.SIGHUP: Action.SHUT_DOWN,
    signal.SIGUSR1: Action.RESTART,
    signal.SIGUSR2: Action.END,
    signal.SIGQUIT: Action.LEAVE,
}


class Request:
    """What to launch, and where to report: the same from a provisioner and from a command line."""

    def __init__(self, record: dict[str, Any], report: socket.socket | None = None) -> None:
        self.target = SshTarget(**record["target"])
        self.launch: dict[str, Any] = record["launch"]
        self.shutdown_timeout_s = float(record["shutdown_timeout_s"])
        self._report = report
        self._reported = False
        # Of a kernel that runs already; its connection file is then the hub's work, and goes with us.
        self.attach_to: str | None = record.get("attach_to")
        self.links: list[str] = record.get("links", [])  # that go with it
        self._logs_notices = bool(record.get("logs_notices"))

    def reach_hub(self) -> HubClient:
        """Return a conversation with the host's hub; one that is started for it connects at once."""
        return reach_hub(self.target, self.launch["python"])

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


def read_request(fd: int) -> Request:
    """Return the request that the provisioner sends over the socket ``fd``."""
    report = socket.socket(fileno=fd)
    with report.makefile("rb") as lines:
        return Request(json.loads(lines.readline()), report)


class StandIn:
    """One kernel's; see the module. A subclass may heed more, and tell people more."""

    # What the signals of a stand-in that Jupyter started may ask; others do what they do to any process.
    heeded: ClassVar[frozenset[Action]] = frozenset({Action.INTERRUPT, Action.SHUT_DOWN})

    def __init__(self, request: Request, hub: HubClient) -> None:
        self._request = request
        self._hub = hub
        self._reattached = 0
        self._reattached_s = time.monotonic()
        self._ticket: dict[str, Any] | None = None
        self._unsaid: list[Action] = []
        self._parent = os.getppid() if "JPY_PARENT_PID" in os.environ else 0
        self._wakeup, wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        wakeup.setblocking(False)
        self._wakeup_writer = wakeup
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        for number, action in SIGNALS.items():
            if action in self.heeded:
                signal.signal(
                    number, lambda *_: None
                )  # the wakeup descriptor brings them, in order

    def stand(self) -> int:
        """Launch the kernel and return its exit status when it has ended."""
        with contextlib.suppress(OSError):  # a hub that leaves in this moment: heard as its silence
            self._ask_for_kernel()
        while True:
            self._wait()
            for number in self._pending_signals():
                self._act(SIGNALS[number])
            if self._parent and os.getppid() != self._parent:
                return 1  # as a local kernel ends then: without a word to anybody
            if self._hub.has_more or self._readable():
                status = self._on_record(self._hub.hear())
                if status is not None:
                    return status

    def _ask_for_kernel(self) -> None:
        launch, attach_to = self._request.launch, self._request.attach_to
        if attach_to is None:
            self._hub.say("launch", request=launch)
        else:
            self._hub.say("attach", request=launch, kernel_id=attach_to)

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
        self._hub = self._request.reach_hub()
        with contextlib.suppress(OSError):  # it has gone as well: heard as its silence
            self._take_up_with_the_next()

    def _take_up_with_the_next(self) -> None:
        host = self._request.target.host
        if self._ticket is None:
            self._ask_for_kernel()
            return
        words = "the local hub was replaced; what passed it in its last moment may be lost"
        self._notify(f"{host}: {words}")
        self._hub.say("reattach", request=self._request.launch, ticket=self._ticket)
        self._say_again()

    def _say_again(self) -> None:
        """Give the next hub the orders that the last one did not hear."""
        unsaid, self._unsaid = self._unsaid, []
        for action in unsaid:
            self._act(action)

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

    def _act(self, action: Action) -> None:
        """Do what a signal asks for."""
        if action is Action.INTERRUPT:
            self._order(action, "interrupt")
        elif self._request.launch.get("persistent"):
            self._order(action, "leave")  # a machine that shuts down sends it to everybody
        else:
            self._order(action, "stop", grace_s=self._request.shutdown_timeout_s)

    def _order(self, action: Action, op: str, **params: Any) -> None:
        try:
            self._hub.say(op, **params)
        except OSError:
            self._unsaid.append(action)  # the hub has gone; the next one is told

    def _notify(self, text: str) -> None:
        self._request.notify(text)

    def _on_record(self, record: dict[str, Any] | None) -> int | None:
        if record is None:
            self._reattach()
            return None
        if record["event"] == "failed":
            raise error_from_record(record["error"])
        if record["event"] == "notice":
            self._notify(record["text"])
        if record["event"] == "ready":
            self._ticket = record["ticket"]
            notice = record.get("notice")
            self._request.report(ready=True, **({"notice": notice} if notice else {}))
        return self._how_it_ended(record)

    def _how_it_ended(self, record: dict[str, Any]) -> int | None:
        """Return the exit status to end with, if this record says that we have nothing to stand for."""
        if record["event"] == "taken":
            what = f"the kernel was taken over by {record.get('by')}: it goes on there"
            raise KernelTaken(what, host=self._request.target.host, advice=KernelTaken.TAKE_BACK)
        if record["event"] == "left":
            return 0
        return int(record["status"]) if record["event"] == "exited" else None

    def clean_up(self) -> None:
        """Remove the connection file that the hub made for us."""
        if self._request.attach_to is not None and self._ticket is not None:
            for path in (*self._request.links, self._request.launch["connection_file"]):
                with contextlib.suppress(OSError):
                    os.unlink(path)


def exit_like(status: int) -> NoReturn:
    """End this process as the kernel ended: with its code, or by its signal."""
    if status < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the core was the kernel's
        with contextlib.suppress(OSError):  # SIGKILL has no other disposition
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed by who started us
        try:
            stream.flush()
        except OSError:  # a terminal that is closed; Python would end with 120 for it
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)


def main(argv: list[str] | None = None) -> NoReturn:
    """Be a stand-in. Exits with the kernel's status, or with 1 or 2 when there is no kernel."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] != [PROVISIONER_FD] or not words[1:]:  # what follows is for people who read ps
        from sshpyk.kernelapp.command import run

        exit_like(run(words))
    request = read_request(int(words[1]))
    try:
        stand_in = StandIn(request, request.reach_hub())
        try:
            status = stand_in.stand()
        finally:
            stand_in.clean_up()
    except SshpykError as error:
        request.report(error=error.to_record())
        sys.exit(error.exit_code)
    exit_like(status)


if __name__ == "__main__":
    main()
