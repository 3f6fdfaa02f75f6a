"""Takes secrets out of a report: by the names of things, by their looks, and by their values.

The names and looks are patterns; the values are what this machine is known to keep secret: variables of
the user's environment, ``env`` of kernelspecs, keys of connection files. Whatever looks or reads like one
of them becomes ``***`` anywhere in the report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

HIDDEN = "***"
# Shorter values are words that a report is full of ("1", "true", "none").
_SHORTEST_SECRET = 6

_WORDS = (
    r"token|passw(?:or)?d|passphrase|passwd|secret|credential|api_?key|access_?key|private_?key"
    r"|authorization|cookie|session_?key|curve_\w*key"
)
_SECRET_NAME = re.compile(rf"(?i)(?:^|[_\W])(?:{_WORDS})|(?:{_WORDS})$|^key$|_key$")
# Settings of ssh that may hold one, and the variables that belong to the user.
_SECRET_SETTINGS = frozenset({"setenv", "env", "environment"})

_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
# name=value, name: value, "name": "value", also inside longer words and URLs.
_NAMED = re.compile(
    rf"(?i)(?<![\w./])(?P<head>[\"']?[\w-]*(?:{_WORDS}|(?<![a-z])key)[\w-]*[\"']?\s*[=:]\s*)"
    r"(?:(?:bearer|basic|token)\s+)?(?P<value>\"[^\"]*\"|'[^']*'|[^\s&,;\"'}]+)"
)
_OPTION = re.compile(
    rf"(?i)(?P<head>--?[\w-]*(?:{_WORDS})[\w-]*[ =]|\bsshpass\s+-p\s*)(?P<value>\"[^\"]*\"|'[^']*'|\S+)"
)
_BEARER = re.compile(r"(?i)(?P<head>\b(?:bearer|basic)\s+)(?P<value>[\w.~+/=-]{6,})")
_URL = re.compile(r"(?P<head>\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)(?P<value>[^\s/@]+)(?=@)")
_PATTERNS = (_OPTION, _NAMED, _BEARER, _URL)
# "identityfile: /home/me/.ssh/key" and words of ssh that are no secrets.
_HARMLESS_NAMES = re.compile(
    r"(?i)^(?:identityfile|.*keyfile|pubkey.*|hostkey.*|.*authentication|.*algorithms|addkeystoagent"
    r"|securitykeyprovider|numberofpasswordprompts|updatehostkeys|hashknownhosts|enablesshkeysign"
    r"|xauthlocation|rekeylimit|keyword)$"
)


def redacted(value: Any, secrets: Iterable[str] = ()) -> Any:
    """Return JSON-ready ``value`` without secrets; ``secrets`` are values that must not occur."""
    known = sorted({secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}, key=len)
    pattern = re.compile("|".join(map(re.escape, reversed(known)))) if known else None
    return _redacted("", value, pattern)


def _redacted(name: str, value: Any, known: re.Pattern[str] | None) -> Any:
    if isinstance(value, Mapping):
        if _is_secret(name):
            return {redacted_text(str(key), known): HIDDEN for key in value}
        return {
            redacted_text(str(key), known): _redacted(str(key), member, known)
            for key, member in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_redacted(name, member, known) for member in value]
    if not isinstance(value, str):
        return value
    if value and _is_secret(name):
        return HIDDEN
    return redacted_text(value, known)


def _is_secret(name: str) -> bool:
    if name.lower() in _SECRET_SETTINGS:
        return True
    return bool(_SECRET_NAME.search(name)) and not _HARMLESS_NAMES.match(name)


def redacted_text(text: str, known: re.Pattern[str] | None = None) -> str:
    """Return a text without what is named like a secret, looks like one, or is ``known`` to be one."""
    text = _BLOCK.sub(HIDDEN, text)
    if known is not None:
        text = known.sub(HIDDEN, text)
    for pattern in _PATTERNS:
        text = pattern.sub(_hide, text)
    return text


def _hide(match: re.Match[str]) -> str:
    head = match["head"]
    name = head.strip(" =:\"'").rpartition(" ")[2]
    return match[0] if _HARMLESS_NAMES.match(name) else head + HIDDEN


def known_secrets(
    environ: Mapping[str, str], connection_files: Iterable[Path], envs: Iterable[Mapping[str, str]]
) -> Iterator[str]:
    """Yield what this machine is known to keep secret: see the module."""
    for name, value in environ.items():
        if _is_secret(name) and not value.startswith("/"):  # SSH_AUTH_SOCK is a path
            yield value
    for env in envs:
        yield from env.values()
    for path in connection_files:
        yield from _keys_of(path)


def _keys_of(path: Path) -> Iterator[str]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(record, dict):
        yield from (str(value) for name, value in record.items() if _is_secret(str(name)) and value)
