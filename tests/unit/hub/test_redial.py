"""Dials beside dials: the first that gets through is taken, the others are ended."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from sshpyk.errors import Unreachable
from sshpyk.hub import redial
from sshpyk.hub.redial import AT_ONCE, Redial, dial_again
from sshpyk.hub.ssh_process import SshProcess
from sshpyk.hub.ssh_start import SshStart, start_ssh
from sshpyk.ssh.command import SshTarget
from tests.unit.wire.harness import in_loop, until


class Ssh:
    def __init__(self) -> None:
        self.ended = False

    def end(self, *, close_pipes: bool) -> None:
        self.ended = close_pipes


class Line:
    """Dials that hang until the test answers them."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[Any]] = []
        self.given_up = 0

    async def dial(self) -> SshProcess:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        try:
            return cast(SshProcess, await answer)
        except asyncio.CancelledError:
            self.given_up += 1
            raise


@in_loop
async def test_a_dial_that_hangs_gets_another_beside_it_and_the_first_answer_is_taken():
    line, ssh = Line(), Ssh()
    dialing = asyncio.ensure_future(dial_again(line.dial, 0.02))
    await until(lambda: len(line.answers) == 2)
    line.answers[1].set_result(ssh)
    assert await dialing is cast(Any, ssh)
    assert line.given_up == len(line.answers) - 1
    assert not ssh.ended


@in_loop
async def test_in_a_long_hole_dials_follow_each_other_and_only_some_are_under_way():
    line = Line()
    dialing = asyncio.ensure_future(dial_again(line.dial, 0.02))
    await until(lambda: len(line.answers) == 10)
    assert len(line.answers) - line.given_up <= AT_ONCE
    dialing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialing
    await until(lambda: line.given_up == len(line.answers))


@in_loop
async def test_the_first_is_not_given_up_for_fresh_ones():
    """A host whose logins have become slow is reached all the same."""
    line, ssh = Line(), Ssh()
    dialing = asyncio.ensure_future(dial_again(line.dial, 0.02))
    await until(lambda: len(line.answers) == 10)
    line.answers[0].set_result(ssh)
    assert await dialing is cast(Any, ssh)


@in_loop
async def test_two_that_answer_at_once_leave_one():
    line, both = Line(), [Ssh(), Ssh()]
    dialing = asyncio.ensure_future(dial_again(line.dial, 0.02))
    await until(lambda: len(line.answers) == 2)
    for answer, ssh in zip(line.answers, both, strict=False):
        answer.set_result(ssh)
    assert await dialing in cast(Any, both)
    assert [ssh.ended for ssh in both].count(True) == 1


@in_loop
async def test_what_the_first_that_fails_meets_is_raised_and_no_other_goes_on():
    line = Line()
    dialing = asyncio.ensure_future(dial_again(line.dial, 0.02))
    await until(lambda: len(line.answers) == 2)
    line.answers[1].set_exception(Unreachable("refused", host="gpu1"))
    with pytest.raises(Unreachable, match="refused"):
        await dialing
    assert line.given_up == len(line.answers) - 1


@pytest.mark.parametrize(
    ("usual_s", "away_s", "every_s"), [(0.4, 0, 2), (5, 0, 15), (0.4, 599, 2), (0.4, 600, 15)]
)
@in_loop
async def test_a_slow_login_is_not_hurried_and_an_outage_of_hours_is_not_hammered(
    monkeypatch, usual_s, away_s, every_s
):
    intervals: list[float] = []

    async def dial_again(dial: redial.Dial, every_s: float) -> None:
        intervals.append(every_s)

    monkeypatch.setattr(redial, "dial_again", dial_again)
    dialer = Redial(SshTarget("gpu1"), lambda text: None, lambda: away_s)
    dialer._usual_s = usual_s
    await dialer.connect("python3", behind=None)
    assert intervals == [every_s]


class Advance:
    """An ssh that hangs, started before its dial; the dials are recorded."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ssh = folder / "ssh"
        ssh.write_text("#!/bin/sh\nexec sleep 600\n")
        ssh.chmod(0o755)
        self.dialed: list[SshStart | None] = []
        monkeypatch.setattr(redial, "dial", self._dial)
        target = SshTarget("gpu1", str(ssh))
        self.start = start_ssh(target, "python3", starts_agent=True)
        self.dialer = Redial(target, lambda text: None, lambda: 0.0, self.start)

    async def _dial(self, *args: Any, start: SshStart | None, **more: Any) -> SshProcess:
        self.dialed.append(start)
        return cast(SshProcess, Ssh())

    @property
    def ended(self) -> bool:
        return self.start.process.returncode is not None


@in_loop
async def test_an_ssh_started_in_advance_is_for_the_first_dial_only(tmp_path: Path, monkeypatch):
    advance = Advance(tmp_path, monkeypatch)
    await advance.dialer.connect("python3", behind=lambda: b"")
    await advance.dialer.connect("python3", behind=None)
    assert advance.dialed == [advance.start, None]
    advance.dialer.drop_start()
    assert advance.start.process.poll() is None
    SshProcess(advance.start.process, advance.start.pipes).end(close_pipes=True)
    await until(lambda: advance.ended)


@in_loop
async def test_an_ssh_started_in_advance_for_another_python_is_ended(tmp_path: Path, monkeypatch):
    advance = Advance(tmp_path, monkeypatch)
    await advance.dialer.connect("/opt/python3", behind=lambda: b"")
    assert advance.dialed == [None]
    await until(lambda: advance.ended)


@in_loop
async def test_an_ssh_started_in_advance_is_ended_where_a_person_can_be_asked(
    tmp_path: Path, monkeypatch
):
    advance = Advance(tmp_path, monkeypatch)
    await advance.dialer.connect("python3", cast(Any, object()), behind=None)
    assert advance.dialed == [None]
    await until(lambda: advance.ended)


@in_loop
async def test_an_ssh_started_in_advance_that_nobody_claims_is_ended(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(redial, "UNCLAIMED_S", 0.02)
    advance = Advance(tmp_path, monkeypatch)
    await until(lambda: advance.ended)
