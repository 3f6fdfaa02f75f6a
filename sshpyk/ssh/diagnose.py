"""Turn what a failed ssh printed into one error that says what failed and what to do next.

Called by whoever ran ssh and saw it end (or stopped it) before its work was done. The table is in
``causes_login``, ``causes_network`` and ``causes_remote``.

Which line wins. ssh reports a cause first and its consequences after it ("Connection refused" of a
jump host, then "kex_exchange_identification", then "Connection closed"); warnings may stand before
both. So neither the first nor the last line is right. Instead:

1. Noise is removed: debug lines, warnings, notes of multiplexing.
2. Rows are tried in the order of the table, and the first row that matches anywhere wins: security
   before configuration, authentication, jump host, network; a broken connection after every reason
   for one; the remote shell's words last.
3. Within a row the last match wins: a later hop, a later address, not a start-up file's complaint.
4. A row counts only for the exit statuses it names: 255 is ssh's own, anything else is the remote
   command's, whose stderr may say anything ("Permission denied" of a start-up file).
5. Without a match the exit status alone decides.
"""

from __future__ import annotations

import re
import shlex

from sshpyk.errors import InvalidInput, SshpykError
from sshpyk.ssh.cause import Cause
from sshpyk.ssh.causes_login import AUTHENTICATION, CONFIG, SECURITY
from sshpyk.ssh.causes_network import JUMP, NETWORK
from sshpyk.ssh.causes_remote import ENDED, EXIT_STATUS, REMOTE, STOPPED, UNKNOWN
from sshpyk.ssh.command import SshTarget

CAUSES = (*SECURITY, *CONFIG, *AUTHENTICATION, *JUMP, *NETWORK, *REMOTE)

_MAX_SAID_LINES = 20
_MAX_READ_LINES = 200
_MAX_LINE_CHARACTERS = 500

_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# Not after a slash: "/etc/passwd: Permission denied" is no secret.
_SECRET = re.compile(
    r"(?i)(?<![\w./-])([\w-]*(?:token|passw(?:or)?d|passphrase|secret|api_?key|authorization)[\w-]*"
    r"\s*[=:]\s*)(?:(?:bearer|basic|token)\s+)?[^\s&,;]+"
)

# Never shown: what ssh says of itself at -v.
_CHATTER = re.compile(r"debug\d:|OpenSSH_\d|Authenticated to |Transferred: sent|Bytes per second:")
# Shown, but never a cause.
_NOISE = re.compile(
    r"^(?:channel \d+: open failed: .*\n(?=mux_client_)"
    r"|(?:Warning: |mux_client_|Pseudo-terminal will not|ControlSocket .* already exists"
    r"|no such identity|Could not chdir to home directory|X11 forwarding request failed"
    r"|Permission denied, please try again|Disconnected from ).*(?:\n|\Z))",
    re.MULTILINE,
)


def diagnose(
    stderr_tail: str,
    exit_status: int | None,
    *,
    host: str,
    phase: str,
    login: str = "",
    reopen: str = "",
) -> SshpykError:
    """Return (not raise) the error that explains why ssh ended.

    ``exit_status`` is ssh's return code; None or a negative one (a signal) means that it was
    stopped. ``login`` is the command that a person pastes to log in (:attr:`SshTarget.typed`);
    without it the advice says ``ssh HOST``; ``reopen`` is the same for :attr:`SshTarget.login_command`.
    The result is a :class:`~sshpyk.errors.HostError`, or
    an :class:`~sshpyk.errors.InvalidInput` when the local ssh config is at fault.
    """
    status = exit_status if exit_status is not None and exit_status >= 0 else None
    lines = _clean(stderr_tail)
    cause, groups = _find("\n".join(lines), status)
    values = {
        **groups,
        "host": host,
        "login": login or _login(host),
        "reopen": reopen or shlex.join(["sshpyk", "login", host]),
        "status": str(status),
        **{f"q_{name}": shlex.quote(text) for name, text in groups.items()},
    }
    return cause.kind(
        cause.what.format_map(values),
        host=host,
        phase=phase,
        said="\n".join(lines[-_MAX_SAID_LINES:]),
        advice=cause.advice.format_map(values),
        code=cause.code,
    )


def said(stderr_tail: str) -> str:
    """Return the tail of stderr that may be shown and logged: no chatter, no secrets, no escapes."""
    return "\n".join(_clean(stderr_tail)[-_MAX_SAID_LINES:])


def _clean(stderr_tail: str) -> list[str]:
    """Return the lines that may be shown, without what could drive or deceive a terminal."""
    cleaned = []
    for raw in stderr_tail.splitlines()[-_MAX_READ_LINES:]:
        line = _CONTROL.sub("", _TERMINAL.sub("", raw)).rstrip()[:_MAX_LINE_CHARACTERS]
        if line and not _CHATTER.match(line):
            cleaned.append(_SECRET.sub(r"\1***", line))
    return cleaned


def _find(text: str, status: int | None) -> tuple[Cause, dict[str, str]]:
    text = _NOISE.sub("", text)
    for cause in CAUSES:
        if cause.exits is not None and status not in cause.exits:
            continue
        matches = list(cause.pattern.finditer(text))
        if matches:
            return cause, _groups(matches[-1])
    return _fallback(status), {}


def _groups(match: re.Match[str]) -> dict[str, str]:
    groups = {name: text for name, text in match.groupdict().items() if text}
    # The shells' wordings differ, so that a row has one group for each; one of them is set.
    program = next((groups[name] for name in "abcd" if name in groups), "program")
    return {"name": "the host", **groups, "program": program}


def _fallback(status: int | None) -> Cause:
    if status is None:
        return STOPPED
    if status == 0:
        return ENDED
    return UNKNOWN if status == 255 else EXIT_STATUS


def _login(host: str) -> str:
    try:
        return SshTarget(host).typed
    except InvalidInput:
        return shlex.join(["ssh", host])
