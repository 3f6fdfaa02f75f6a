"""Which kernel ``--existing`` means: from a note, or from what the host says."""

from __future__ import annotations

import re
from typing import Any

from sshpyk.errors import HubError, InvalidInput, error_from_record
from sshpyk.hub import client
from sshpyk.ssh.command import SshTarget

_WHOLE_ID = re.compile(r"[0-9a-f]{32}")
_PHASE = "looking for the kernel"


def id_on_host(record: dict[str, Any], named: str) -> str:
    """Return the id of the kernel that is ``named`` by the beginning of its id; "" for the only one left.

    ``record`` is a request, for :class:`sshpyk.standin.Request`. Raises InvalidInput when it is none or
    several, and what a dial met.
    """
    if _WHOLE_ID.fullmatch(named):
        return named
    target = SshTarget(**record["target"])
    found = [
        kernel["kernel_id"]
        for kernel in _kernels_on(target, record["launch"]["python"])
        if (kernel["kernel_id"].startswith(named) if named else kernel.get("carried") == "left")
    ]
    if len(found) == 1:
        return str(found[0])
    what = f"no kernel {named} runs" if named else "no kernel was left"
    if found:
        what = f"several kernels may be meant: {', '.join(found)}"
    raise InvalidInput(what, host=target.host, advice=f"sshpyk ps {target.host} lists them")


def _kernels_on(target: SshTarget, python: str) -> list[dict[str, Any]]:
    hub = client.reach_hub(target)
    try:
        hub.say("survey", python=python)
        answer = hub.hear()
    finally:
        hub.close()
    if answer is None:
        raise HubError("the hub has gone", host=target.host, phase=_PHASE)
    if answer.get("event") == "failed":
        raise error_from_record(answer["error"])
    kernels: list[dict[str, Any]] = answer["on_host"]
    return kernels
