from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sshpyk.hub import client
from sshpyk.hub.address import hub_log_of
from sshpyk.hub.client import HubClient
from sshpyk.kernelapp.progress import LogTail, Progress
from sshpyk.ssh.command import SshTarget

TARGET = SshTarget("gpu1", "/usr/bin/ssh", None)
Answer = Callable[..., Progress]


@pytest.fixture
def hub_says(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answer]:
    """Return a function that makes a progress whose hub says this about its status."""
    ends: list[socket.socket] = []

    def says(**status: Any) -> Progress:
        ours, theirs = socket.socketpair()
        theirs.sendall(json.dumps(status).encode() + b"\n")
        ends.extend((ours, theirs))
        monkeypatch.setattr(client, "reach_hub", lambda target: HubClient(ours))
        return Progress(TARGET)

    yield says
    for end in ends:
        end.close()


def test_the_phase_names_the_host_once(hub_says: Answer) -> None:
    assert hub_says(phase="connecting with ssh: gpu1", away_s=None).phase() == "connecting with ssh"


def test_an_outage_goes_before_the_phase(hub_says: Answer) -> None:
    status = {"phase": "starting the kernel", "away_s": 4.0, "away_reason": "timed out"}
    assert hub_says(**status).phase() == "no connection yet: timed out"
    assert hub_says(**status).away() == "no connection yet: timed out"


def test_a_link_that_is_there_is_not_away(hub_says: Answer) -> None:
    assert hub_says(away_s=None, away_reason="").away() == ""


def test_a_hub_that_has_gone_says_nothing(hub_says: Answer) -> None:
    progress = hub_says()
    assert progress.phase() == ""
    progress.close()
    progress.close()


def test_the_tail_begins_now_and_brings_whole_lines(kernelspecs: Path) -> None:
    path = hub_log_of(TARGET)
    path.write_text("before\n")
    tail = LogTail(TARGET)
    assert tail.lines() == []
    with path.open("a") as log:
        log.write("one\ntw")
        log.flush()
        assert tail.lines() == ["one"]
        log.write("o\n")
    assert tail.lines() == ["two"]
    path.rename(path.with_suffix(".log.1"))
    path.write_text("anew\n")
    assert tail.lines() == ["anew"]
    tail.close()


def test_a_log_that_is_not_begun_yet_has_no_lines() -> None:
    tail = LogTail(TARGET)
    assert tail.lines() == []
    hub_log_of(TARGET).write_text("first\n")
    assert tail.lines() == ["first"]
    tail.close()
