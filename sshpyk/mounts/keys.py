"""Which of the user's own authorized keys may have SFTP here: those that are not limited to a command.

A key with ``command="…"`` in ``authorized_keys`` was given away for that command alone. The private
sshd's ForceCommand would overrule it, so the server looks at the key that logged in (sshd tells, with
ExposeAuthInfo) and refuses. Source: sshd(8), AUTHORIZED_KEYS FILE FORMAT.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_KIND = re.compile(r"[a-z0-9@.-]+")
_LIMITS = ("command", "cert-authority")


class AuthorizedKey(NamedTuple):
    """One line of ``authorized_keys``; the options by their names, in small letters."""

    options: tuple[str, ...]
    key: tuple[str, str]  # its kind, and the key in base64


def authorized_keys(text: str) -> Iterator[AuthorizedKey]:
    """Yield what a file's lines say; those that say nothing that can be read are skipped."""
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or line.lstrip().startswith("#"):
            continue
        if words[1].startswith("AAAA") and _KIND.fullmatch(words[0]):
            yield AuthorizedKey((), (words[0], words[1]))
            continue
        options, rest = _split_options(line.strip())
        words = rest.split()
        if len(words) >= 2:
            yield AuthorizedKey(tuple(options), (words[0], words[1]))


def _split_options(line: str) -> tuple[list[str], str]:
    """Return the options' names, and what follows them. Quoted text may hold spaces and commas."""
    plain = re.sub(r'"(?:\\"|[^"])*"', lambda quoted: "x" * len(quoted[0]), line)
    field = plain.split(maxsplit=1)[0]
    names = [option.partition("=")[0].lower() for option in field.split(",")]
    return names, line[len(field) :]


def refused_because(logged_in_with: str, authorized: str) -> str:
    """Return why whoever logged in gets nothing; empty when they do.

    ``logged_in_with``: what sshd wrote of the login; ``authorized``: the user's ``authorized_keys``.
    """
    used = {
        (words[1], words[2])
        for words in map(str.split, logged_in_with.splitlines())
        if len(words) >= 3 and words[0] == "publickey"
    }
    lines = [line for line in authorized_keys(authorized) if line.key in used]
    if not lines:
        return "the key that logged in is in no authorized_keys file of this account"
    if all(set(line.options) & set(_LIMITS) for line in lines):
        return "the key is limited to a command in authorized_keys: use another one for mounts"
    return ""
