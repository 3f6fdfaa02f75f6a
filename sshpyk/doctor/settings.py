"""Settings of an ssh config that hurt: what ``ssh -G`` prints in, findings out. Pure.

What sshpyk overrides on its own command line (``ssh.command``) does no harm at the host, but its
options do not reach the ssh processes of jump hosts. Seen with OpenSSH 9.2, and in ssh_config(5).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sshpyk.doctor.finding import Item, Mark
from sshpyk.ssh.config import ResolvedHost

Settings = Mapping[str, str]
_Test = Callable[[Settings], bool]

# sun_path with its end; a master first binds the path with 17 characters more.
_SUN_PATH_BYTES = 104 if sys.platform == "darwin" else 108
LONGEST_CONTROL_PATH = _SUN_PATH_BYTES - 1 - 17

_HOUR_S = 3600
_SHORTEST_PATIENCE_S = 10
_QUIET = ("quiet", "silent", "fatal", "error")


@dataclass(frozen=True)
class _Rule:
    """``hurts`` at ``places``; ``what`` says why, and what to write instead."""

    keyword: str
    mark: Mark
    places: tuple[str, ...]
    hurts: _Test
    what: str
    code: str = "SSH-CONFIG-HURTS"


_HOST, _JUMP = "host", "jump host"
_BOTH = (_HOST, _JUMP)


def _is(keyword: str, *values: str) -> _Test:
    return lambda settings: settings.get(keyword, "").lower() in values


def _number(settings: Settings, keyword: str, default: int = 0) -> int:
    text = settings.get(keyword, "")
    return int(text) if text.isdecimal() and len(text) < 12 else default


def _path_bytes(settings: Settings) -> int:
    return len(settings.get("controlpath", "").encode("utf-8", "surrogateescape"))


def _makes_master(settings: Settings) -> bool:
    return settings.get("controlmaster", "").lower() not in ("", "no", "false")


def _master_cannot_bind(settings: Settings) -> bool:
    return _path_bytes(settings) > LONGEST_CONTROL_PATH and _makes_master(settings)


def _path_is_too_long(settings: Settings) -> bool:
    return _path_bytes(settings) >= _SUN_PATH_BYTES


def _is_impatient(settings: Settings) -> bool:
    interval_s = _number(settings, "serveraliveinterval")
    return 0 < interval_s * _number(settings, "serveralivecountmax", 3) < _SHORTEST_PATIENCE_S


def _trusts_anybody(settings: Settings) -> bool:
    asks = _is("stricthostkeychecking", "no", "off", "false")(settings)
    return asks or settings.get("userknownhostsfile", "") == "/dev/null"


_TOO_LONG = f"is longer than the {LONGEST_CONTROL_PATH} bytes that ssh can bind; "
_SHORT_PATH = "write ControlPath ~/.ssh/%C"

_RULES = (
    _Rule(
        "stdinnull",
        Mark.BROKEN,
        (_HOST,),
        _is("stdinnull", "yes", "true"),
        "ssh would read nothing of what sshpyk sends; write StdinNull no for this host",
    ),
    _Rule(
        "sessiontype",
        Mark.BROKEN,
        (_HOST,),
        _is("sessiontype", "none", "subsystem"),
        "ssh would run no command; write SessionType default for this host",
    ),
    _Rule(
        "controlpath",
        Mark.BROKEN,
        _BOTH,
        _path_is_too_long,
        _TOO_LONG + "ssh refuses to start; " + _SHORT_PATH,
        "SSH-CONTROL-PATH",
    ),
    _Rule(
        "controlpath",
        Mark.BROKEN,
        (_JUMP,),
        lambda settings: _master_cannot_bind(settings) and not _path_is_too_long(settings),
        _TOO_LONG + "the way through this host ends there; " + _SHORT_PATH,
        "SSH-CONTROL-PATH",
    ),
    _Rule(
        "controlpath",
        Mark.ADVICE,
        (_HOST,),
        lambda settings: _master_cannot_bind(settings) and not _path_is_too_long(settings),
        _TOO_LONG + "your own ssh fails with it; " + _SHORT_PATH,
    ),
    _Rule(
        "forkafterauthentication",
        Mark.ADVICE,
        (_HOST,),
        _is("forkafterauthentication", "yes", "true"),
        "ssh goes where sshpyk cannot end it; write ForkAfterAuthentication no for this host",
    ),
    _Rule(
        "serveraliveinterval",
        Mark.ADVICE,
        _BOTH,
        lambda settings: _number(settings, "serveraliveinterval") >= _HOUR_S,
        "ssh would take a dead connection for alive that long; 15 is usual",
    ),
    _Rule(
        "serveraliveinterval",
        Mark.ADVICE,
        _BOTH,
        _is_impatient,
        "with this ServerAliveCountMax ssh ends a connection that stalls for a few seconds; "
        "15 and 3 are usual",
    ),
    _Rule(
        "connecttimeout",
        Mark.ADVICE,
        _BOTH,
        lambda settings: 0 < _number(settings, "connecttimeout") < 3,
        "too short for a slow network; 10 is usual",
    ),
    _Rule(
        "connecttimeout",
        Mark.ADVICE,
        _BOTH,
        lambda settings: _number(settings, "connecttimeout") > 60,
        "an unreachable host is noticed that late; 10 is usual",
    ),
    _Rule(
        "loglevel",
        Mark.ADVICE,
        (_JUMP,),
        _is("loglevel", *_QUIET),
        "hides why a connection through this host fails; write LogLevel INFO",
    ),
    _Rule(
        "stricthostkeychecking",
        Mark.ADVICE,
        _BOTH,
        _trusts_anybody,
        "anybody on the way can play this host; write StrictHostKeyChecking accept-new "
        "and keep a known_hosts",
    ),
    _Rule(
        "permitlocalcommand",
        Mark.INFO,
        _BOTH,
        lambda settings: (
            _is("permitlocalcommand", "yes", "true")(settings)
            and bool(settings.get("localcommand"))
        ),
        "the LocalCommand runs at every reconnection too",
    ),
    _Rule(
        "remotecommand",
        Mark.INFO,
        (_HOST,),
        lambda settings: bool(settings.get("remotecommand")),
        "sshpyk runs its own command instead",
    ),
    _Rule(
        "requesttty",
        Mark.INFO,
        (_HOST,),
        _is("requesttty", "yes", "true", "force"),
        "sshpyk takes no terminal there",
    ),
)


def harmful_settings(host: ResolvedHost, *, is_jump: bool) -> Iterator[Item]:
    """Yield what hurts, or is set in vain, in the settings of one host on the way."""
    place = _JUMP if is_jump else _HOST
    for rule in _RULES:
        if place in rule.places and rule.hurts(host.settings):
            value = host.settings.get(rule.keyword, "")
            code = rule.code if rule.mark is Mark.BROKEN else ""
            yield Item(rule.keyword, f"{value}: {rule.what}", rule.mark, code=code)
