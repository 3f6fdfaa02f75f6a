"""``sshpyk login``: open the link to a host where ssh has to ask a person."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from typing import Any

import click

from sshpyk import kernelspecs
from sshpyk.cli.complete import hosts
from sshpyk.cli.options import Wanted
from sshpyk.cli.results import LoggedIn
from sshpyk.errors import HostError, HubError, error_from_record
from sshpyk.hub.client import HubClient, reach_hub
from sshpyk.kernelspecs import LocalKernelspec, RemoteKernel
from sshpyk.ssh.command import SshTarget
from sshpyk.ssh.diagnose import said
from sshpyk.ssh.foreground import Terminal, start_unseen

_CHILD_POLL_S = 0.1


@click.command()
@click.argument("host", shell_complete=hosts)
@click.option("--ssh-config", help="A file for `ssh -F`, the same as in `sshpyk add`.")
@click.option("--ssh", help="The ssh to run, the same as in `sshpyk add`.")
def login(host: str, **given: Any) -> LoggedIn:
    """Open the link to a host, with ssh's questions on this terminal.

    For hosts that want a password, a one-time code or a passphrase, and after a key was missing:
    kernels that wait for the host go on. HOST is what was given to `sshpyk add`. ssh itself asks;
    sshpyk sees no answer. The terminal may be closed afterwards. Where nothing needs to be asked, the
    link is simply dialed at once.

    \b
    Examples:
      sshpyk login gpu1
      sshpyk login me@gpu1 --ssh-config ~/cluster/ssh_config
    """
    return open_link(*target_of(host, given))


def open_link(target: SshTarget, python: str) -> LoggedIn:
    """Open the link of a host, with ssh's questions on this terminal (also for ``sshpyk add``).

    ``python``: what to start there. Raises SshpykError with what ssh said.
    """
    hub = reach_hub(target)
    try:
        with contextlib.ExitStack() as stack:
            terminal = Terminal.ours()
            if terminal is not None:
                stack.enter_context(terminal)
            return _Login(target, hub, terminal).run(python)
    finally:
        hub.close()


def target_of(host: str, given: dict[str, Any]) -> tuple[SshTarget, str]:
    """Return the target as ``add`` would make it of these options, and a Python that kernels use there.

    Raises InvalidInput for what cannot be a host or a config.
    """
    config = {"remote_kernel_name": "python3", "remote_python": "python3", "ssh_host_alias": host}
    wanted = Wanted.from_options({**config, **given})
    target = RemoteKernel.from_config(wanted.config).target()
    for kernel in kernelspecs.load_all():
        remote = kernel.remote if isinstance(kernel, LocalKernelspec) else None
        if remote is not None and remote.ssh_host_alias == host:
            return target, remote.python
    return target, "python3"


class _Login:
    """One conversation with the hub; see ``sshpyk.hub.login``."""

    def __init__(self, target: SshTarget, hub: HubClient, terminal: Terminal | None) -> None:
        self._target = target
        self._hub = hub
        self._terminal = terminal
        self._ssh: subprocess.Popen[bytes] | None = None
        self._ended = False

    def run(self, python: str) -> LoggedIn:
        self._hub.say("login", python=python, tty=self._terminal is not None)
        while True:
            record = self._hear()
            if record is None:
                raise HubError("the hub has gone", host=self._target.host, phase="logging in")
            if record["event"] == "start":
                self._start(record["argv"])
            elif record["event"] == "said":
                if words := said(record["text"]):
                    print(words, file=sys.stderr)
            elif record["event"] == "up":
                kept_h = round(record["kept_s"] / 3600)
                return LoggedIn(self._target.host, record["was_up"], record["kernels"], kept_h)
            else:
                raise self._error(record["error"])

    def _hear(self) -> dict[str, Any] | None:
        """Return the hub's next word; meanwhile tell it when ssh ends."""
        while not self._hub.has_more:
            if select.select([self._hub.socket], [], [], _CHILD_POLL_S)[0]:
                break
            if self._ssh is not None and not self._ended and self._ssh.poll() is not None:
                self._ended = True
                self._hub.say("ended", status=self._ssh.returncode)
        return self._hub.hear()

    def _start(self, argv: list[str]) -> None:
        stdio = self._hub.take_descriptors()
        try:
            start = start_unseen if self._terminal is None else self._terminal.start
            self._ssh = start(argv, stdio)
        except (OSError, subprocess.SubprocessError) as error:
            what = f"{argv[0]} cannot be started: {error}"
            raise HostError(what, host=self._target.host, phase="logging in") from error
        finally:
            for fd in stdio:
                os.close(fd)
        self._hub.say("started", pid=self._ssh.pid)

    def _error(self, record: dict[str, str]) -> Exception:
        if self._ssh is not None and self._ssh.poll() == -signal.SIGINT:
            return HostError("the login was cancelled", host=self._target.host)
        return error_from_record(record)
