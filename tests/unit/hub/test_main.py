"""A hub's command line, and the ssh that it starts before it imports the rest."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from sshpyk.hub import life as life_module
from sshpyk.hub import main as main_module
from sshpyk.hub.address import hub_socket, journal_of
from sshpyk.hub.ssh_start import SshStart
from sshpyk.ssh.command import SshTarget
from sshpyk.wire import private


class Started:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(private, "_ROOT", str(folder))
        monkeypatch.setattr(life_module, "be_hub", self._be_hub)
        self.ssh = folder / "ssh"
        self.ssh.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {folder}/words\n")
        self.ssh.chmod(0o755)
        self.words = folder / "words"
        self.target: SshTarget
        self.start: SshStart | None

    def _be_hub(self, target: SshTarget, path: str, *, umask: int, start: Any) -> None:
        self.target, self.start, self.users_umask = target, start, umask

    def by(self, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["main", *words])
        before = os.umask(0o022)
        try:
            main_module.main()
        finally:
            self.umask = os.umask(before)
        if self.start is not None:
            self.start.process.wait()


@pytest.fixture
def started(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    return Started(short_folder, monkeypatch)


@pytest.mark.parametrize("more", [(), ("",), ("", "")])
def test_a_hub_that_nobody_waits_for_starts_no_ssh(started: Started, monkeypatch, more):
    started.by(monkeypatch, "gpu1", str(started.ssh), *more)
    assert started.target == SshTarget("gpu1", str(started.ssh))
    assert started.start is None


@pytest.mark.parametrize("config", ["", "/c"])
def test_a_hub_that_a_launch_waits_for_starts_ssh(started: Started, monkeypatch, config: str):
    started.by(monkeypatch, "gpu1", str(started.ssh), config, "~/env/bin/python")
    assert started.target == SshTarget("gpu1", str(started.ssh), config or None)
    assert started.start is not None
    assert (started.umask, started.users_umask) == (0o077, 0o022)
    said = started.words.read_text().splitlines()
    assert ("/c" in said) == bool(config)
    at = said.index("~/env/bin/python")
    assert (said[at - 1], said[at + 1]) == ("gpu1", "-c")
    assert said[at + 3 :][:2] == [started.start.marker, "asyncio"]


def test_a_hub_that_takes_over_expects_an_agent_there(started: Started, monkeypatch):
    target = SshTarget("gpu1", str(started.ssh))
    Path(journal_of(hub_socket(target))).touch()
    started.by(monkeypatch, "gpu1", str(started.ssh), "", "python3")
    assert started.start is not None
    assert started.words.read_text().splitlines()[-1] == started.start.marker


@pytest.mark.parametrize(("ssh", "python"), [("/no/such/ssh", "python3"), (None, "-c")])
def test_what_cannot_be_started_is_left_to_the_dial(
    started: Started, monkeypatch, ssh: str | None, python: str
):
    started.by(monkeypatch, "gpu1", ssh or str(started.ssh), "", python)
    assert started.start is None
