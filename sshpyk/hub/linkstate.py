"""The states of the link to one host, and the errors that tell how a link came to its end.

The state of the link says nothing about the kernels behind it: silence never means death.

    DOWN --wanted--> DIALING --resumed--> UP --connection lost--> DIALING
                        |--authentication, unknown host key--> NEEDS_LOGIN
                        |--host key changed--> HOST_KEY_CHANGED
                        \\--refused (no Python, bad config)--> DOWN

Nobody dials in the last three until a launch or ``sshpyk login`` wants the host: one that refuses a login
again and again may lock the account.
"""

from __future__ import annotations

import enum

from sshpyk.errors import (
    AgentReplaced,
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyRejected,
    LinkLost,
    ProtocolMismatch,
    SshpykError,
)
from sshpyk.link.frames import VERSIONS

LONG_AWAY_S = 600.0  # from then on nobody sits and waits, and dials become rare


class LinkState(enum.Enum):
    """Whether a connection carries the link now, and if not, what must happen first."""

    DOWN = "down"
    DIALING = "dialing"
    UP = "up"
    NEEDS_LOGIN = "needs login"
    HOST_KEY_CHANGED = "host key changed"


def state_after(error: SshpykError) -> LinkState:
    """Return the state of a link that is not up, after a dial that is not repeated by itself."""
    if isinstance(error, HostKeyChanged):
        return LinkState.HOST_KEY_CHANGED
    if isinstance(error, (AuthenticationFailed, HostKeyRejected)):
        return LinkState.NEEDS_LOGIN
    return LinkState.DOWN


def link_lost(host: str, phase: str, *, rebooted: bool) -> LinkLost:
    """Return the error for what an agent held that knows nothing of our link any more."""
    what = (
        "the host was rebooted, and the kernels on it are gone"
        if rebooted
        else "the agent on the host was ended, and the kernels that it held with it"
    )
    advice = "start them again; in Jupyter: Kernel, Restart Kernel"
    return LinkLost(what, host=host, phase=phase, advice=advice)


def agent_replaced(host: str, phase: str) -> AgentReplaced:
    """Return the error for what an agent was asked for and did not bring to its end."""
    return AgentReplaced(
        "the agent on the host was killed, and what it was doing was given up",
        host=host,
        phase=phase,
        advice="try again",
    )


def no_common_version(host: str, phase: str, theirs: tuple[int, ...]) -> ProtocolMismatch:
    """Return the error for an agent that speaks none of our versions."""
    return ProtocolMismatch(
        f"the agent there speaks version {_list(theirs)} of the link protocol,"
        f" this sshpyk {_list(VERSIONS)}",
        host=host,
        phase=phase,
        advice="it keeps its kernels: go on with the sshpyk that started them, or end them with that"
        " one (the agent leaves a minute later) and try again",
    )


def _list(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions[:8])) or "none"
