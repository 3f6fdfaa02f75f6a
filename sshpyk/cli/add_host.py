"""The host's side of ``sshpyk add``: look there, install there; let ssh ask the user where it must."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Callable, Iterator

import click

from sshpyk.discovery import finder, install
from sshpyk.discovery.finder import Findings
from sshpyk.errors import (
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyRejected,
    RemoteShellFailed,
    SshpykError,
)
from sshpyk.hub.scripts import HostScripts
from sshpyk.ssh.command import SshTarget

_LOOK_TIMEOUT_S = 45.0  # of which the host's side takes 25 at most
_INSTALL_TIMEOUT_S = 900.0

_Script = Callable[[str], str]


@contextlib.contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """Show that something is being done, where a person is looking; yield what changes the text."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console  # here: 80 ms
    from rich.text import Text

    with Console(stderr=True, highlight=False).status(Text(text), spinner="dots") as status:
        yield lambda text: status.update(Text(text))


class Host:
    """A host to look at. ``interactive``: ssh may ask the person at this terminal."""

    def __init__(self, target: SshTarget, *, interactive: bool) -> None:
        self._target = target
        self._interactive = interactive

    def look(self, python: str | None = None) -> Findings:
        """Return what the host has, or what the one interpreter ``python`` is.

        Raises SshpykError: no way to the host, no login, no Python there.
        """
        mark = _mark()
        what = f"Looking for kernels on {self._target.host} …"
        script = finder.script_for(mark, python)
        printed = self._run(HostScripts(_LOOK_TIMEOUT_S), what, script, finder.end_line(mark))
        found = finder.read_findings(mark, printed)
        if not found.driver:
            oldest = ".".join(map(str, finder.OLDEST_PYTHON))
            raise RemoteShellFailed(
                f"no Python {oldest} or later was found",
                host=self._target.host,
                phase="looking for kernels",
                advice="name one that is elsewhere: --remote-python PATH",
                code="HOST-NO-INTERPRETER",
            )
        return found

    def install_ipykernel(self, python: str) -> str:
        """Install ipykernel there; return pip's words. Raises SshpykError with them."""
        mark = _mark()
        what = f"{install.command_for(python)} on {self._target.host} …"
        scripts = HostScripts(_INSTALL_TIMEOUT_S, phase="installing ipykernel")
        script = install.script_for(mark, python)
        printed = self._run(scripts, what, script, finder.end_line(mark))
        return install.read_outcome(mark, printed, host=self._target.host, python=python)

    def _run(self, scripts: HostScripts, what: str, script: str, end: str) -> str:
        try:
            with progress(what):
                return scripts.run(self._target, script, end)
        except (AuthenticationFailed, HostKeyRejected) as error:
            if isinstance(error, HostKeyChanged) or not self._interactive:
                raise
            self._log_in(error)
        with progress(what):
            return scripts.run(self._target, script, end)

    def _log_in(self, reason: SshpykError) -> None:
        """Let ssh ask the person, once; what follows goes over the link that is then up."""
        from sshpyk.cli.login import open_link

        host = self._target.host
        click.echo(f"{host}: {reason.what}. ssh asks you now; sshpyk sees no answer.", err=True)
        open_link(self._target, "python3")


def _mark() -> str:
    return f"sshpyk-{secrets.token_hex(8)}"
