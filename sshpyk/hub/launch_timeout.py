"""The error for a launch that took too long: what it was waiting for, and what to do about that."""

from __future__ import annotations

from sshpyk.errors import LaunchTimeout
from sshpyk.hub.dial import silence_advice
from sshpyk.hub.host import HostLink
from sshpyk.hub.requests import LaunchRequest


def timed_out(request: LaunchRequest, host: HostLink) -> LaunchTimeout:
    """Return the error; an outage is not the kernel's slowness, nor is a silent host."""
    ready = "ready" if request.kernel_name else "there"
    away_s = host.outage.duration_s
    phase = host.phase
    advice = "raise launch_timeout: sshpyk edit … --launch-timeout SECONDS"
    if request.activate:
        advice = f"--activate may wait for something that never comes; or {advice}"
    if away_s is None and host.is_connecting:
        advice = f"{silence_advice(host.target)}; or {advice}"
    if away_s is not None:
        phase = f"waiting for the connection, which has been down for {away_s:.0f} s"
        advice = "sshpyk goes on connecting; start or restart the kernel when it is back"
    return LaunchTimeout(
        f"the kernel was not {ready} within {request.launch_timeout_s:g} s",
        host=host.target.host,
        phase=phase,
        advice=advice,
    )
