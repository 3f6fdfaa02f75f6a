"""When a lost connection is dialled again."""

from __future__ import annotations

import itertools

import pytest

from sshpyk.hub.redial import Redial


def test_host_that_answers_is_asked_ever_more_rarely():
    redial = Redial(0.5)
    pauses = [redial.pause_s(10, answered=True) for _ in range(20)]
    assert 0.15 <= pauses[0] <= 0.25
    assert all(later > earlier for earlier, later in itertools.pairwise(pauses[:5]))
    assert 3.75 <= pauses[-1] <= 6.25


def test_long_outage_of_a_host_that_answers_is_no_hurry():
    redial = Redial(0.5)
    pauses = [redial.pause_s(3600, answered=True) for _ in range(20)]
    assert 22 <= pauses[-1] <= 38


def test_silent_line_is_tried_again_at_once_however_often():
    redial = Redial(0.5)
    assert all(redial.pause_s(300, answered=False) < 0.7 for _ in range(50))
    assert redial.pause_s(3600, answered=False) < 7


def test_answer_after_silence_begins_with_short_pauses():
    redial = Redial(0.5)
    for _ in range(10):
        redial.pause_s(10, answered=True)
    redial.pause_s(10, answered=False)
    assert redial.pause_s(10, answered=True) < 0.3


def test_first_dial_waits_as_long_as_ssh_is_configured_to():
    assert Redial().connect_timeout_s() is None


@pytest.mark.parametrize(("usual_s", "expected"), [(0.2, 4), (2.0, 8), (60.0, 15)])
def test_tries_of_an_outage_are_short_measured_by_what_is_usual(usual_s: float, expected: int):
    assert Redial(usual_s).connect_timeout_s() == expected


def test_one_try_in_sixteen_is_patient():
    redial = Redial(0.2)
    patiences = [redial.connect_timeout_s() for _ in range(32)]
    assert patiences == ([4] * 15 + [15]) * 2
