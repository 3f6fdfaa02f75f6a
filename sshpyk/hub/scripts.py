"""Runs a script on a host by the way that is open: the link where it is up, else a plain ssh.

The one place that chooses. Over the link nobody has to be asked again for a password or a code, and no
second login is made. Who calls: ``sshpyk add``, and whatever looks at hosts with a script.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from sshpyk.errors import HubError, SshpykError, Unreachable, error_from_record
from sshpyk.hub.client import HubClient, running_hub
from sshpyk.ssh.command import SshTarget
from sshpyk.ssh.diagnose import said
from sshpyk.ssh.script import ScriptRunner

_GRACE_S = 10.0

log = logging.getLogger(__name__)


class HostScripts:
    """Runs scripts on hosts, from any number of threads; the same face as :class:`ScriptRunner`."""

    def __init__(self, timeout_s: float = 20.0, *, phase: str = "checking the host") -> None:
        self._timeout_s = timeout_s
        self._phase = phase
        self._over_ssh = ScriptRunner(timeout_s, phase=phase)

    def run(self, target: SshTarget, script: str, end: str) -> str:
        """Return what the script printed, which came to the line ``end``, its last.

        Raises SshpykError with the cause when it did not: no ssh, no login, no answer in time.
        """
        answer = self._over_link(target, script)
        if answer is None:
            return self._over_ssh.run(target, script, end)
        if end in answer["stdout"]:
            return str(answer["stdout"])
        ended = answer["status"] is not None
        what = "the script broke off" if ended else f"no usable answer within {self._timeout_s:g} s"
        words = said(f"{answer['stdout'][-2000:]}\n{answer['stderr']}")
        raise Unreachable(what, host=target.host, phase=self._phase, said=words)

    def stop(self) -> None:
        """End every script that runs over an ssh of ours, and all to come."""
        self._over_ssh.stop()

    def _over_link(self, target: SshTarget, script: str) -> dict[str, Any] | None:
        """Return the agent's answer; None where the link is not up, or the agent cannot do it."""
        try:
            hub = running_hub(target)
        except HubError:  # no folder for its socket: then there is no hub either
            return None
        if hub is None:
            return None
        with contextlib.closing(hub):
            answer = self._ask(hub, script)
        if answer is None or answer.get("event") != "done":
            log.info("%s: not over the link: %s", target.host, _reason(answer))
            return None
        return answer

    def _ask(self, hub: HubClient, script: str) -> dict[str, Any] | None:
        hub.socket.settimeout(self._timeout_s + _GRACE_S)
        try:
            hub.say("script", script=script, timeout_s=self._timeout_s)
            return hub.hear()
        except OSError:
            return None


def _reason(answer: dict[str, Any] | None) -> SshpykError:
    record = (answer or {}).get("error")
    return error_from_record(record) if isinstance(record, dict) else HubError("the hub left")
