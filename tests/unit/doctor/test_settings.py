from __future__ import annotations

import pytest

from sshpyk.doctor.finding import Mark
from sshpyk.doctor.settings import LONGEST_CONTROL_PATH, harmful_settings
from sshpyk.ssh.config import ResolvedHost

# As `ssh -G` of 9.2 prints them for an empty config.
DEFAULTS = {
    "stdinnull": "no",
    "sessiontype": "default",
    "forkafterauthentication": "no",
    "controlmaster": "false",
    "controlpath": "",
    "serveraliveinterval": "0",
    "serveralivecountmax": "3",
    "connecttimeout": "",
    "loglevel": "INFO",
    "stricthostkeychecking": "ask",
    "userknownhostsfile": "/root/.ssh/known_hosts /root/.ssh/known_hosts2",
    "permitlocalcommand": "no",
    "requesttty": "auto",
}


def found(*, is_jump: bool = False, **settings: str) -> list[tuple[str, Mark | None]]:
    host = ResolvedHost("h", "h", "me", 22, settings={**DEFAULTS, **settings})
    return [(item.label, item.mark) for item in harmful_settings(host, is_jump=is_jump)]


def test_defaults_hurt_nobody() -> None:
    assert found() == []
    assert found(is_jump=True) == []
    assert list(harmful_settings(ResolvedHost("h", "h", "me", 22), is_jump=False)) == []


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("stdinnull", "yes"), ("sessiontype", "none"), ("sessiontype", "subsystem")],
)
def test_what_takes_the_session_away_breaks_the_host_only(keyword: str, value: str) -> None:
    assert found(**{keyword: value}) == [(keyword, Mark.BROKEN)]
    assert found(**{keyword: value}, is_jump=True) == []


@pytest.mark.parametrize(
    ("size", "at_host", "at_jump"),
    [
        (LONGEST_CONTROL_PATH, None, None),
        (LONGEST_CONTROL_PATH + 1, Mark.ADVICE, Mark.BROKEN),
        (LONGEST_CONTROL_PATH + 18, Mark.BROKEN, Mark.BROKEN),  # ssh refuses even to look
    ],
)
def test_control_path_that_ssh_cannot_bind(
    size: int, at_host: Mark | None, at_jump: Mark | None
) -> None:
    settings = {"controlpath": "/" + "x" * (size - 1), "controlmaster": "auto"}
    assert found(**settings) == ([("controlpath", at_host)] if at_host else [])
    assert found(**settings, is_jump=True) == ([("controlpath", at_jump)] if at_jump else [])


def test_control_path_counts_bytes_and_matters_to_a_master_only() -> None:
    path = "/" + "é" * (LONGEST_CONTROL_PATH // 2)
    assert found(controlpath=path, controlmaster="auto") == [("controlpath", Mark.ADVICE)]
    assert found(controlpath=path, controlmaster="false") == []


@pytest.mark.parametrize(
    ("interval", "count", "hurts"),
    [
        ("604800", "3", True),
        ("15", "3", False),
        ("1", "3", True),
        ("5", "1", True),
        ("60", "1", False),
    ],
)
def test_server_alive(interval: str, count: str, hurts: bool) -> None:
    marks = found(serveraliveinterval=interval, serveralivecountmax=count)
    assert marks == ([("serveraliveinterval", Mark.ADVICE)] if hurts else [])


@pytest.mark.parametrize(
    ("value", "hurts"), [("1", True), ("10", False), ("600", True), ("none", False)]
)
def test_connect_timeout(value: str, hurts: bool) -> None:
    assert bool(found(connecttimeout=value)) is hurts


def test_quiet_log_hides_reasons_at_a_jump_host_only() -> None:
    assert found(loglevel="QUIET") == []
    assert found(loglevel="SILENT", is_jump=True) == [("loglevel", Mark.ADVICE)]


@pytest.mark.parametrize(
    "settings", [{"stricthostkeychecking": "false"}, {"userknownhostsfile": "/dev/null"}]
)
def test_host_keys_that_nobody_checks(settings: dict[str, str]) -> None:
    assert found(**settings) == [("stricthostkeychecking", Mark.ADVICE)]


def test_what_sshpyk_overrides_is_only_said() -> None:
    settings = {"remotecommand": "tmux", "requesttty": "force", "permitlocalcommand": "yes"}
    assert {mark for _, mark in found(**settings, localcommand="date")} == {Mark.INFO}
    assert len(found(**settings, localcommand="date")) == 3
