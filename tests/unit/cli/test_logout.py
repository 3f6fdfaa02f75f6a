"""``sshpyk logout``: what ends with the link, and when it asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from sshpyk.cli import logout as logout_module
from sshpyk.ssh.command import SshTarget

Run = Callable[..., Result]
Refused = Callable[..., str]


class FakeHub:
    """A hub that runs, or none, and whether it was stopped."""

    def __init__(self) -> None:
        self.runs = True
        self.persistent: list[bool] = []
        self.stopped: list[SshTarget] = []

    def running(self, target: SshTarget) -> FakeHub | None:
        return self if self.runs else None

    def ask(self, hub: FakeHub, op: str) -> dict[str, Any]:
        assert op == "status"
        return {"kernels": [{"persistent": persistent} for persistent in self.persistent]}

    def stop(self, target: SshTarget) -> bool:
        self.stopped.append(target)
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    made = FakeHub()
    monkeypatch.setattr(logout_module, "running_hub", made.running)
    monkeypatch.setattr(logout_module, "stop_hub", made.stop)
    monkeypatch.setattr(logout_module, "ask", made.ask)
    return made


def test_a_link_that_carries_nothing_is_closed_without_a_question(run: Run, hub: FakeHub):
    assert run("logout", "gpu1").stdout == "The link to gpu1 is closed.\n"
    assert hub.stopped == [SshTarget.parse("gpu1")]


def test_kernels_that_would_end_are_asked_about(run: Run, refused: Refused, hub: FakeHub):
    hub.persistent = [False, True, False]
    said = refused("logout", "gpu1")
    assert "2 kernel(s) would end: give --yes where nobody can be asked" in said
    assert hub.stopped == []
    assert run("logout", "gpu1", "--yes").stdout == (
        "The link to gpu1 is closed; 2 kernel(s) ended with it;"
        " 1 persistent kernel(s) run on there.\n"
    )
    assert hub.stopped == [SshTarget.parse("gpu1")]


def test_persistent_kernels_are_no_question(run: Run, hub: FakeHub):
    hub.persistent = [True]
    assert "1 persistent kernel(s) run on there" in run("logout", "gpu1").stdout


def test_no_link_is_no_error(run: Run, hub: FakeHub):
    hub.runs = False
    result = run("logout", "gpu1")
    assert (result.exit_code, result.stdout) == (0, "There is no link to gpu1.\n")
    assert hub.stopped == []


@pytest.mark.parametrize("words", [("gpu1; ls",), ("gpu1", "--ssh-config", "/no/such"), ()])
def test_what_cannot_be_is_exit_code_2(refused: Refused, hub: FakeHub, words: tuple[str, ...]):
    refused("logout", *words)
    assert hub.stopped == []
