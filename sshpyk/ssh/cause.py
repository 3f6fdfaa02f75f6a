"""One row of the table of causes: what OpenSSH prints, what it means, what to do about it.

The rows are in ``causes_login``, ``causes_network`` and ``causes_remote``; their order is their
priority, explained in :mod:`sshpyk.ssh.diagnose`. The messages stand verbatim in
``tests/unit/ssh/test_diagnose.py``, nearly all of them produced with OpenSSH 9.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sshpyk.errors import SshpykError

# ssh's own failures end with 255; None stands for an ssh that was stopped before it ended.
SSH_ITSELF: frozenset[int | None] = frozenset({255, None})

LATER = r"\n(?:.*\n)*?.*"  # in a pattern: "and on a later line"

# Advice that several rows give.
TRY = "see whether this works in a terminal: {login} true"
WAIT = "check the network, a VPN and that the machine runs; then: {login} true"


@dataclass(frozen=True)
class Cause:
    """``code`` is a row of docs/errors.md, of which several causes may share one.

    ``pattern`` is searched with ``re.MULTILINE`` in the cleaned stderr.

    ``what`` and ``advice`` may use the pattern's groups, ``{host}``, ``{login}`` (the ssh command
    of that host), ``{reopen}`` (its ``sshpyk login``) and ``{q_GROUP}`` (a group quoted for a
    shell). ``exits``: the exit statuses for which the row counts, None for all of them.
    """

    code: str
    kind: type[SshpykError]
    pattern: re.Pattern[str]
    what: str
    advice: str
    exits: frozenset[int | None] | None = SSH_ITSELF


def row(
    code: str,
    kind: type[SshpykError],
    pattern: str,
    what: str,
    advice: str,
    *,
    exits: frozenset[int | None] | None = SSH_ITSELF,
) -> Cause:
    """Write one row of the table."""
    return Cause(code, kind, re.compile(pattern, re.MULTILINE), what, advice, exits)
