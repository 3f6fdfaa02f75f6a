"""How local processes reach the hub, with hubs of the test's own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshpyk.errors import HubError
from sshpyk.hub import client as client_module
from sshpyk.hub.address import hub_socket
from sshpyk.hub.client import HubClient, reach_hub, stop_all_hubs, stop_hub
from sshpyk.ssh.command import SshTarget
from sshpyk.wire import private

TARGET = SshTarget("gpu1")
# A hub that answers every line with its own pid, and leaves when told to.
HUB = """
import json, os, socket, sys, time
time.sleep(0.2)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
while True:
    connection, _ = listener.accept()
    for line in connection.makefile("rb"):
        if json.loads(line)["op"] == "quit":
            os.unlink(sys.argv[1])
            connection.sendall(b'{"event": "leaving"}\\n')
            time.sleep(0.1)
            sys.exit()
        connection.sendall(json.dumps({"pid": os.getpid()}).encode() + b"\\n")
"""


class Hubs:
    """Starts the hubs that the client asks for."""

    def __init__(self) -> None:
        self.program = HUB
        self.started: list[subprocess.Popen[bytes]] = []

    def spawn(self, target: SshTarget, python: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", self.program, hub_socket(target)], stderr=subprocess.PIPE
        )
        self.started.append(process)
        return process

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()


@pytest.fixture
def hubs(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hubs]:
    monkeypatch.setattr(private, "_ROOT", str(short_folder))
    made = Hubs()
    monkeypatch.setattr(client_module, "_spawn", made.spawn)
    yield made
    made.close()


def ask(client: HubClient) -> int:
    client.say("status")
    answer = client.hear()
    assert answer is not None
    return int(answer["pid"])


def test_a_hub_is_started_where_there_is_none_and_found_from_then_on(hubs: Hubs):
    first = reach_hub(TARGET)
    assert ask(first) == hubs.started[0].pid
    first.close()
    second = reach_hub(TARGET)
    assert ask(second) == hubs.started[0].pid
    second.close()
    assert len(hubs.started) == 1


def test_several_that_start_at_once_start_one_hub(hubs: Hubs):
    reached: list[HubClient] = []
    threads = [threading.Thread(target=lambda: reached.append(reach_hub(TARGET))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reached) == 5
    assert len(hubs.started) == 1
    for client in reached:
        client.close()


def test_each_host_and_each_ssh_config_has_a_hub_of_its_own(hubs: Hubs):
    targets = [TARGET, SshTarget("gpu2"), SshTarget("gpu1", ssh_config="/tmp/c")]
    clients = [reach_hub(target) for target in targets]
    assert len({ask(client) for client in clients}) == 3
    for client in clients:
        client.close()


def test_a_socket_that_nobody_serves_is_no_hub(hubs: Hubs):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(hub_socket(TARGET))
    hubs.program = "import os, sys; os.unlink(sys.argv[1])\n" + HUB
    client = reach_hub(TARGET)
    assert ask(client) == hubs.started[0].pid
    client.close()


def test_a_hub_that_fails_to_start_is_an_error_with_its_words(hubs: Hubs):
    hubs.program = "raise SystemExit('no room on the disk')"
    with pytest.raises(HubError, match="did not start") as caught:
        reach_hub(TARGET)
    assert "no room on the disk" in caught.value.said


def test_a_hub_that_never_listens_is_an_error(hubs: Hubs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_module, "_START_PATIENCE_S", 0.1)
    hubs.program = "import time; time.sleep(600)"
    with pytest.raises(HubError, match="did not start"):
        reach_hub(TARGET)


def test_no_folder_for_sockets_is_an_error_with_the_reason(
    hubs: Hubs, short_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(private, "_ROOT", f"{short_folder}/missing")
    with pytest.raises(HubError, match="no private folder"):
        reach_hub(TARGET)


def test_the_hubs_command_line_names_the_target_and_its_environment_no_parent(
    monkeypatch: pytest.MonkeyPatch,
):
    calls: list[tuple[list[str], dict[str, str]]] = []

    def popen(words: list[str], **more: dict[str, str]) -> None:
        calls.append((words, more["env"]))

    monkeypatch.setenv("JPY_PARENT_PID", "1")
    monkeypatch.setattr(subprocess, "Popen", popen)
    client_module._spawn(SshTarget("gpu1", "/usr/bin/ssh", "/c"), "python3")
    client_module._spawn(SshTarget("gpu1", "/usr/bin/ssh"), "")
    program = [sys.executable, "-m", "sshpyk.hub.main", "gpu1", "/usr/bin/ssh"]
    assert [words for words, _ in calls] == [[*program, "/c", "python3"], [*program, "", ""]]
    assert all("JPY_PARENT_PID" not in env for _, env in calls)


# Conversations


def conversation() -> tuple[HubClient, socket.socket]:
    ours, theirs = socket.socketpair()
    return HubClient(ours), theirs


def test_records_are_told_apart_however_they_arrive():
    client, hub = conversation()
    hub.sendall(b'{"n": 1}\n{"n": 2}\n{"n"')
    assert not client.has_more
    assert client.hear() == {"n": 1}
    assert client.has_more
    assert client.hear() == {"n": 2}
    assert not client.has_more
    hub.sendall(b": 3}\n")
    assert client.hear() == {"n": 3}
    client.close()
    hub.close()


def test_a_hub_that_has_gone_is_heard_as_nothing():
    client, hub = conversation()
    hub.sendall(b'{"half')
    hub.close()
    assert client.hear() is None
    assert client.hear() is None
    client.close()


def test_a_hub_that_goes_with_something_unread_is_heard_as_nothing():
    client, hub = conversation()
    client.say("status")
    hub.close()  # a reset
    assert client.hear() is None
    client.close()


# Stopping


def reached(hubs: Hubs, *hosts: str) -> list[int]:
    pids = []
    for host in hosts:
        client = reach_hub(SshTarget(host))
        pids.append(ask(client))
        client.close()
    return pids


def test_every_hub_is_stopped(hubs: Hubs):
    reached(hubs, "gpu1", "gpu2")
    assert stop_all_hubs() == 2
    assert [process.wait(5) for process in hubs.started] == [0, 0]
    assert stop_all_hubs() == 0


def test_one_hub_is_stopped_and_the_others_are_not(hubs: Hubs):
    reached(hubs, "gpu1", "gpu2")
    assert stop_hub(SshTarget("gpu1"))
    assert hubs.started[0].wait(5) == 0
    assert hubs.started[1].poll() is None
    assert not stop_hub(SshTarget("gpu1"))


def test_stopping_returns_when_the_hub_has_gone(hubs: Hubs):
    reached(hubs, "gpu1")
    stop_all_hubs()
    began_s = time.monotonic()
    hubs.started[0].wait(5)
    assert time.monotonic() - began_s < 0.5
    assert not os.path.exists(hub_socket(TARGET))


def test_a_hub_that_does_not_answer_does_not_hold_us_up(hubs: Hubs):
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(hub_socket(TARGET))
        deaf.listen()
        began_s = time.monotonic()
        assert stop_all_hubs(timeout_s=0.2) == 1
        assert time.monotonic() - began_s < 5
