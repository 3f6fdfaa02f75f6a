from __future__ import annotations

import time

from sshpyk.wire import clock


def test_the_clock_goes_forward_in_seconds():
    before = clock.now_s()
    time.sleep(0.01)
    assert 0.009 < clock.now_s() - before < 1


def test_the_clock_counts_suspend_where_the_system_can(monkeypatch):
    monkeypatch.setattr(clock, "_BOOTTIME", time.CLOCK_MONOTONIC)
    assert abs(clock.now_s() - time.monotonic()) < 1
    monkeypatch.setattr(clock, "_BOOTTIME", None)
    assert abs(clock.now_s() - time.monotonic()) < 1
