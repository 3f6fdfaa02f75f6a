"""Which way a script takes to its host: the link where it is up, else an ssh of its own."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sshpyk.errors import HubError, Unreachable
from sshpyk.hub import scripts as module
from sshpyk.hub.client import HubClient
from sshpyk.hub.scripts import HostScripts
from sshpyk.ssh.command import SshTarget

TARGET = SshTarget("gpu1")
DOWN = {"event": "failed", "error": HubError("the link is not up").to_record()}


class Ways:
    """A hub that answers once, and what was run over ssh instead."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] | None = None
        self.asked: list[dict[str, Any]] = []
        self.over_ssh: list[str] = []
        self.threads: list[threading.Thread] = []

    def hub(self, target: SshTarget) -> HubClient:
        ours, theirs = socket.socketpair()
        self.threads.append(threading.Thread(target=self._serve, args=(theirs,)))
        self.threads[-1].start()
        return HubClient(ours)

    def _serve(self, connected: socket.socket) -> None:
        with connected, connected.makefile("rb") as lines:
            self.asked.append(json.loads(lines.readline()))
            if self.answer is not None:
                connected.sendall(json.dumps(self.answer).encode() + b"\n")

    def run_over_ssh(self, target: SshTarget, script: str, end: str) -> str:
        self.over_ssh.append(script)
        return f"by ssh\n{end}"


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ways]:
    made = Ways()
    monkeypatch.setattr(module, "running_hub", made.hub)
    run = lambda self, *given, **options: made.run_over_ssh(*given)  # noqa: E731
    monkeypatch.setattr(module.ScriptRunner, "run", run)
    yield made
    for thread in made.threads:
        thread.join(5)


def done(stdout: str, status: int | None = 0) -> dict[str, Any]:
    return {"event": "done", "stdout": stdout, "stderr": "token=abc", "status": status}


def test_link_that_is_up_is_used(ways: Ways) -> None:
    ways.answer = done("found\nEND\n")
    assert HostScripts(7).run(TARGET, "look", "END") == "found\nEND\n"
    assert ways.asked == [{"op": "script", "script": "look", "timeout_s": 7}]
    assert ways.over_ssh == []


@pytest.mark.parametrize("answer", [DOWN, None], ids=["down", "gone"])
def test_link_that_is_not_up_is_passed_by(ways: Ways, answer: dict[str, Any] | None) -> None:
    ways.answer = answer
    assert HostScripts().run(TARGET, "look", "END") == "by ssh\nEND"


def test_no_hub_at_all(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "running_hub", lambda target: None)
    assert HostScripts().run(TARGET, "look", "END") == "by ssh\nEND"


@pytest.mark.parametrize(("status", "what"), [(None, "within 7 s"), (1, "broke off")])
def test_script_without_its_last_line_is_a_failure(
    ways: Ways, status: int | None, what: str
) -> None:
    ways.answer = done("half", status)
    with pytest.raises(Unreachable, match=what) as failed:
        HostScripts(7, phase="looking").run(TARGET, "look", "END")
    assert failed.value.phase == "looking"
    assert "token=***" in failed.value.said
    assert ways.over_ssh == []


def test_stop_ends_the_wait_for_a_link_that_says_nothing(
    ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(module, "running_hub", lambda target: HubClient(ours))
    scripts = HostScripts(60)
    running = threading.Thread(target=scripts.run, args=(TARGET, "look", "END"))
    running.start()
    assert b"look" in theirs.recv(1000)
    scripts.stop()
    running.join(10)
    assert not running.is_alive()
    theirs.close()
