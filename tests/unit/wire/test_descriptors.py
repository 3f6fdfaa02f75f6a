"""The limit on descriptors is raised as far as the system lets us."""

from __future__ import annotations

import resource

import pytest

from sshpyk.wire import descriptors
from sshpyk.wire.descriptors import raise_limit

INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "allowed", "after"),
    [
        ((1024, 524288), 524288, 65536),
        ((1024, 4096), 4096, 4096),
        ((256, INFINITY), 10240, 10240),  # macOS
        ((256, INFINITY), 200, 256),
        ((100000, 524288), 524288, 100000),
        ((INFINITY, INFINITY), INFINITY, INFINITY),
    ],
)
def test_the_limit_is_raised_as_far_as_it_may_be(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], allowed: int, after: int
):
    now = [limits]

    def set_limit(_: int, wanted: tuple[int, int]) -> None:
        if allowed != INFINITY and wanted[0] > allowed:
            raise ValueError("current limit exceeds maximum limit")
        now[0] = wanted

    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda _: now[0])
    monkeypatch.setattr(descriptors.resource, "setrlimit", set_limit)
    assert raise_limit() == limits[0]
    assert now == [(after, limits[1])]
