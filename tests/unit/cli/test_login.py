"""``sshpyk login``: what it asks of the hub, and what it makes of the answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from sshpyk.cli import login as login_module
from sshpyk.errors import AuthenticationFailed, LinkLost, SshpykError
from sshpyk.hub.client import HubClient
from sshpyk.ssh.command import SshTarget

Run = Callable[..., Result]
Refused = Callable[..., str]


class FakeHub:
    """Answers the one request with what the test has in store."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] | None = None
        self.asked: list[dict[str, Any]] = []
        self.targets: list[SshTarget] = []

    def reach(self, target: SshTarget) -> HubClient:
        self.targets.append(target)
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._serve, args=(theirs,)).start()
        return HubClient(ours)

    def _serve(self, connected: socket.socket) -> None:
        with connected, connected.makefile("rb") as lines:
            self.asked.append(json.loads(lines.readline()))
            if self.answer is not None:
                connected.sendall(json.dumps(self.answer).encode() + b"\n")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    made = FakeHub()
    monkeypatch.setattr(login_module, "reach_hub", made.reach)
    monkeypatch.setattr(login_module.Terminal, "ours", lambda: None)
    return made


def test_the_link_that_was_opened_is_told(run: Run, hub: FakeHub) -> None:
    hub.answer = {"event": "up", "was_up": False, "kernels": 2, "kept_s": 8 * 3600}
    result = run("login", "gpu1")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "The link to gpu1 is up: 2 kernels go on.",
        "Without kernels it is kept for 8 h; this terminal may be closed.",
    ]
    assert hub.asked == [{"op": "login", "python": "python3", "tty": False}]
    assert hub.targets == [SshTarget.parse("gpu1")]


def test_a_link_that_was_up_is_told(run: Run, hub: FakeHub) -> None:
    hub.answer = {"event": "up", "was_up": True, "kernels": 0, "kept_s": 0}
    assert run("login", "gpu1").stdout == "The link to gpu1 is up already: no kernel yet.\n"


def test_the_target_is_what_add_makes_of_the_same_words(
    run: Run, hub: FakeHub, add: Callable[..., Path], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "lab.config").touch()
    monkeypatch.chdir(home)
    path = add("gpu", "--ssh-config", "lab.config", "--ssh", "ssh", "--remote-python", "~/e/python")
    config = json.loads(path.read_text())["metadata"]["kernel_provisioner"]["config"]
    hub.answer = {"event": "up", "was_up": True, "kernels": 1, "kept_s": 0}
    assert run("login", "gpu1", "--ssh-config", "lab.config", "--ssh", "ssh").exit_code == 0
    assert hub.targets == [SshTarget.parse("gpu1", ssh="ssh", ssh_config=config["ssh_config"])]
    assert hub.asked[0]["python"] == "~/e/python"


@pytest.mark.parametrize("error", [AuthenticationFailed("denied"), LinkLost("gone")], ids=repr)
def test_a_failure_is_exit_code_1(run: Run, hub: FakeHub, error: SshpykError) -> None:
    hub.answer = {"event": "failed", "error": error.to_record()}
    result = run("login", "gpu1")
    assert result.exit_code == 1
    assert error.what in result.stderr


def test_a_hub_that_goes_is_a_failure(run: Run, hub: FakeHub) -> None:
    result = run("login", "gpu1")
    assert result.exit_code == 1
    assert "the hub has gone (while logging in)" in result.stderr


@pytest.mark.parametrize(
    "words",
    [("-oProxyCommand=x",), ("gpu1; ls",), ("gpu1", "--ssh-config", "/no/such"), ()],
    ids=repr,
)
def test_what_cannot_be_is_exit_code_2(refused: Refused, hub: FakeHub, words: list[str]) -> None:
    refused("login", *words)
    assert hub.targets == []
