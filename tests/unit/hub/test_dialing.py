"""When the next dial is due."""

from __future__ import annotations

import asyncio

import pytest

from sshpyk.hub import dialing as dialing_module
from sshpyk.hub.dial import Terminal
from sshpyk.hub.dialing import Dialing, pause_s
from tests.unit.wire.harness import in_loop, until


@pytest.mark.parametrize(
    ("failures", "away_s", "pause"),
    [
        (1, 0, 0.2),
        (2, 1, 0.4),
        (4, 9, 1.6),
        (6, 12, 2),
        (99, 59, 2),
        (99, 60, 5),
        (99, 599, 5),
        (99, 600, 30),
        (1, 3600, 0.2),
    ],
)
def test_pauses_grow_to_what_a_person_waits_for_and_later_to_what_a_host_minds(
    failures: int, away_s: float, pause: float
) -> None:
    assert pause_s(failures, away_s) == pytest.approx(pause)


class Tries:
    def __init__(self, *wanted: bool) -> None:
        self.wanted = list(wanted)
        self.terminals: list[Terminal | None] = []
        self.defects: list[BaseException] = []
        self.dialing = Dialing(self.connect, lambda: 0.0, self.defects.append)

    async def connect(self, terminal: Terminal | None) -> bool:
        self.terminals.append(terminal)
        if not self.wanted:
            raise ZeroDivisionError
        return self.wanted.pop(0)


@in_loop
async def test_it_dials_until_no_other_try_is_wanted(monkeypatch):
    monkeypatch.setattr(dialing_module, "pause_s", lambda *_: 0.001)
    tries = Tries(True, True, False)
    tries.dialing.start()
    tries.dialing.start()  # somebody does
    await until(lambda: not tries.dialing.goes_on)
    assert len(tries.terminals) == 3
    assert tries.defects == []


@in_loop
async def test_a_person_is_asked_in_the_first_try_only(monkeypatch):
    monkeypatch.setattr(dialing_module, "pause_s", lambda *_: 0.001)
    tries, seat = Tries(True, False), object()
    tries.dialing.start(seat)  # type: ignore[arg-type]
    await until(lambda: not tries.dialing.goes_on)
    assert tries.terminals == [seat, None]


@in_loop
async def test_whoever_hurries_ends_the_pause(monkeypatch):
    monkeypatch.setattr(dialing_module, "pause_s", lambda *_: 600.0)
    tries = Tries(True, False)
    tries.dialing.start()
    await until(lambda: len(tries.terminals) == 1)
    assert tries.dialing.goes_on
    tries.dialing.hurry()
    await until(lambda: not tries.dialing.goes_on)
    assert len(tries.terminals) == 2


@in_loop
async def test_a_defect_is_told_and_it_can_be_started_anew():
    tries = Tries()
    tries.dialing.start()
    await until(lambda: tries.defects)
    assert isinstance(tries.defects[0], ZeroDivisionError)
    tries.wanted = [False]
    tries.dialing.start()
    await until(lambda: not tries.dialing.goes_on)
    assert len(tries.terminals) == 2


@in_loop
async def test_ending_it_leaves_nothing_under_way(monkeypatch):
    monkeypatch.setattr(dialing_module, "pause_s", lambda *_: 600.0)
    tries = Tries(True)
    tries.dialing.start()
    await until(lambda: tries.terminals)
    await asyncio.wait_for(tries.dialing.end(), 5)
    assert not tries.dialing.goes_on
    assert tries.defects == []
