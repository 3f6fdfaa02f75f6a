"""Causes behind the login: the account and its shell."""

from __future__ import annotations

from sshpyk.errors import RemoteShellFailed, Unreachable
from sshpyk.ssh.cause import TRY, WAIT, row

_SHELL = "see what the login shell says: {login} 'echo ok'"
_PYTHON = "name an interpreter that exists on {host} with --remote-python"

# sh, bash, zsh, fish: 127 not found, 126 not executable; csh and tcsh: 1.
NOT_RUNNABLE: frozenset[int | None] = frozenset({126, 127})
CSH: frozenset[int | None] = frozenset({1})

REMOTE = (
    row(
        "HOST-NO-LOGIN-SHELL",
        RemoteShellFailed,
        r"This account is (?:currently )?not available",
        "the account on the host has no login shell",
        "ask the administrator of {host} for a shell, or use another account",
        exits=None,
    ),
    row(
        "HOST-RESTRICTED-SHELL",
        RemoteShellFailed,
        r": (?P<why>restricted.*)$",
        "the account's shell is restricted: {why}",
        "ask the administrator of {host} for an ordinary shell",
        exits=NOT_RUNNABLE | CSH,
    ),
    row(
        "HOST-PYTHON-BROKEN",
        RemoteShellFailed,
        r"(?:Fatal Python error: |: error while loading shared libraries: )(?P<why>.+)$",
        "the interpreter on the host does not start: {why}",
        "repair it, or name another one with --remote-python",
        exits=NOT_RUNNABLE | CSH,
    ),
    row(
        "HOST-NOT-EXECUTABLE",
        RemoteShellFailed,
        r"(?:[Pp]ermission denied: (?P<a>.+)|(?:^|: )(?P<b>[^:\n]+): (?:cannot execute.*"
        r"|[Pp]ermission denied|Is a directory|Exec format error.*)"
        r"|Unknown command\. '(?P<c>.+)' exists but is not an executable.*)$",
        "{program} on the host cannot be executed",
        _PYTHON,
        exits=NOT_RUNNABLE,
    ),
    row(
        "HOST-NO-PROGRAM",
        RemoteShellFailed,
        r"(?:command not found: (?P<a>.+)|no such file or directory: (?P<b>.+)"
        r"|Unknown command:? '?(?P<c>[^'\n]+)'?"
        r"|(?:^|: )(?P<d>[^:\n]+): (?:(?:command )?not found|No such file or directory))$",
        "the host has no {program}",
        _PYTHON,
        exits=NOT_RUNNABLE,
    ),
    row(
        "HOST-NO-PROGRAM",
        RemoteShellFailed,
        r"^(?P<a>[^:\n]+): (?:Command not found|Permission denied)\.$",
        "the host has no {program} that can be executed",
        _PYTHON,
        exits=CSH,
    ),
)

# What to say when no row knows the words (a translated shell, LogLevel QUIET on a jump host).
STOPPED = row("SSH-STOPPED", Unreachable, "", "ssh was stopped before it got an answer", WAIT)
UNKNOWN = row("SSH-UNKNOWN", Unreachable, "", "ssh ended without a known reason", TRY)
ENDED = row(
    "HOST-ENDED-EARLY",
    RemoteShellFailed,
    "",
    "the remote side ended before our program started",
    "a forced command or an 'exit' in a start-up file of the shell does this; " + _SHELL,
)
EXIT_STATUS = row(
    "HOST-EXIT-STATUS",
    RemoteShellFailed,
    "",
    "the remote command ended with exit status {status}",
    "a start-up file of the shell, or a forced command of the account's, may do this; " + _SHELL,
)
