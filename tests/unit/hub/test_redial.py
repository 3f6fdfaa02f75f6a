"""Dials beside dials: the first that gets through is taken, the others are ended."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from sshpyk.errors import Unreachable
from sshpyk.hub import redial
from sshpyk.hub.redial import AT_ONCE, Redial, dial_again
from sshpyk.hub.ssh_process import SshProcess
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
