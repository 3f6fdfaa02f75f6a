"""Runs a script on a host by the way that is open: the link where it is up, else a plain ssh.

The one place that chooses. Over the link nobody has to be asked again for a password or a code, and no
second login is made. Who calls: ``sshpyk add``, and whatever looks at hosts with a script.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Sequence
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
        self._lock = threading.Lock()
        self._hubs: set[HubClient] = set()

    def run(
        self,
        target: SshTarget,
        script: str,
        end: str,
        *,
        options: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> str:
        """Return what the script printed, which came to the line ``end``, its last.

        ``options`` (of a plain ssh) and ``timeout_s`` as in :meth:`ScriptRunner.run`. Raises
        SshpykError with the cause when it did not: no ssh, no login, no answer in time.
        """
        patience_s = self._timeout_s if timeout_s is None else timeout_s
        answer = self._over_link(target, script, patience_s)
        if answer is None:
            return self._over_ssh.run(target, script, end, options=options, timeout_s=timeout_s)
        if end in answer["stdout"]:
            return str(answer["stdout"])
        ended = answer["status"] is not None
        what = "the script broke off" if ended else f"no usable answer within {patience_s:g} s"
        code = "HOST-ENDED-EARLY" if ended else "HOST-NO-ANSWER"
        words = said(f"{answer['stdout'][-2000:]}\n{answer['stderr']}")
        raise Unreachable(what, host=target.host, phase=self._phase, said=words, code=code)

    def stop(self) -> None:
        """Wait for no script any more; end those over an ssh of ours, and all to come."""
        self._over_ssh.stop()
        with self._lock, contextlib.suppress(OSError):
            for hub in self._hubs:
                hub.socket.shutdown(socket.SHUT_RDWR)

    def _over_link(self, target: SshTarget, script: str, timeout_s: float) -> dict[str, Any] | None:
        """Return the agent's answer; None where the link is not up, or the agent cannot do it."""
        hub = running_hub(target)
        if hub is None:
            return None
        with self._lock:
            self._hubs.add(hub)
        try:
            answer = _ask(hub, script, timeout_s)
        finally:
            with self._lock:
                self._hubs.discard(hub)
            hub.close()
        if answer is None or answer.get("event") != "done":
            log.info("%s: not over the link: %s", target.host, _reason(answer))
            return None
        return answer


def _ask(hub: HubClient, script: str, timeout_s: float) -> dict[str, Any] | None:
    hub.socket.settimeout(timeout_s + _GRACE_S)
    try:
        hub.say("script", script=script, timeout_s=timeout_s)
        return hub.hear()
    except OSError:
        return None


def _reason(answer: dict[str, Any] | None) -> SshpykError:
    record = (answer or {}).get("error")
    return error_from_record(record) if isinstance(record, dict) else HubError("the hub left")
