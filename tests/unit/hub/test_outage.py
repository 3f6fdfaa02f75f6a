"""What people are told of a link that is away, and when."""

from __future__ import annotations

import pytest

from sshpyk.errors import AuthenticationFailed, Unreachable
from sshpyk.hub import outage as outage_module
from sshpyk.hub.outage import Outage, readable_size
from tests.unit.wire.harness import in_loop, until


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage_module, "NOTICE_AFTER_S", 0.05)


@in_loop
async def test_long_outage_is_told_once_with_the_latest_reason_and_once_at_its_end():
    said: list[str] = []
    outage = Outage("gpu1", said.append)
    outage.begin("the connection ended")
    outage.go_on(Unreachable("no connection", said="ssh: noise\nConnection refused\n"))
    outage.begin("again")
    await until(lambda: said)
    assert "gpu1: the connection is down (again)" in said[0]
    outage.go_on(Unreachable("no connection"))
    duration_s = outage.end()
    assert duration_s is not None
    outage.tell_end(duration_s, 1234, 56_000)
    assert said[1:] == [
        "gpu1: connected again after 0 s; 1,234 messages (56.0 kB) that waited there follow"
    ]


@in_loop
async def test_short_break_is_not_told():
    said: list[str] = []
    outage = Outage("gpu1", said.append)
    outage.begin("the connection ended")
    assert outage.duration_s is not None
    assert outage.end() is None
    assert (outage.duration_s, outage.reason) == (None, "")
    outage.begin("the connection ended")
    assert outage.end() is None
    assert said == []


@in_loop
async def test_silence_that_lasted_already_counts():
    said: list[str] = []
    outage = Outage("gpu1", said.append)
    outage.begin("no answer from it", silent_s=5.0)
    await until(lambda: said)
    assert (outage.duration_s or 0) > 5
    assert (outage.end() or 0) > 5


@in_loop
async def test_refusal_that_needs_a_person_is_told_at_once():
    said: list[str] = []
    outage = Outage("gpu1", said.append)
    outage.begin("the connection ended")
    outage.go_on(
        AuthenticationFailed("the host refused us", said="Permission denied", advice="do x")
    )
    assert "needs you: the host refused us: Permission denied. do x" in said[0]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1200, "1.2 kB"), (34_000_000, "34.0 MB"), (5e9, "5.0 GB")],
)
def test_sizes_are_readable(size: float, text: str):
    assert readable_size(size) == text
