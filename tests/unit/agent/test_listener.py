"""The agent's socket and its log: removed, stolen, shared, and held open by nobody in particular.

Real processes, no ssh.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sshpyk.agent import listener as listener_module
from sshpyk.wire.private import AGENT_SOCKET
from tests.unit.agent.service_bench import alive
from tests.unit.agent.test_main import PATIENCE_S, Carried, Host, carried, host, wait_for
from tests.unit.wire.harness import in_loop, until

__all__ = ["host"]


def sped_up(host: Host, module: str, line: str, faster: str) -> None:
    """Make the agent to come less patient."""
    source = host.modules[f"sshpyk.agent.{module}"]
    assert source.count(line) == 1
    host.modules[f"sshpyk.agent.{module}"] = source.replace(line, faster)


@pytest.mark.parametrize("said", [b"", b"some banner\n"])
def test_session_that_never_says_hello_is_ended(host: Host, said: bytes):
    sped_up(host, "main", "HELLO_S = 60.0", "HELLO_S = 0.3")
    made = carried(host)
    made.call("list")
    silent = host.session()
    silent.bring_up()
    silent.say(said)
    assert silent.process.wait(PATIENCE_S) == 0
    assert "result" in made.call("list")  # which is silent for longer than that by now
    if not said:
        assert "said nothing that makes sense within 0.3 s" in host.log


class WithoutDescriptors:
    """A listening socket whose process has no descriptor free, until some are."""

    def __init__(self, real: socket.socket) -> None:
        self.real = real
        self.free = False
        self.asked = 0

    def fileno(self) -> int:
        return self.real.fileno()

    def accept(self) -> tuple[socket.socket, Any]:
        self.asked += 1
        if not self.free:
            raise OSError(errno.EMFILE, "Too many open files")
        return self.real.accept()

    def close(self) -> None:
        self.real.close()


@in_loop
async def test_who_comes_waits_while_no_descriptor_is_free_and_the_agent_does_not_spin(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listener_module, "ACCEPT_PAUSE_S", 0.1)
    folder = short_folder / "agent"
    folder.mkdir(mode=0o700)
    listener = listener_module.Listener(str(folder))
    crowded: Any = WithoutDescriptors(listener._socket)
    listener._socket = crowded
    came: list[list[int]] = []
    listener.on_descriptors = lambda session, fds: came.append(fds) or session.close()
    listener.serve()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / AGENT_SOCKET))
        socket.send_fds(client, [b"c"], [0, 1])
        await asyncio.sleep(0.15)
        assert 1 <= crowded.asked <= 2
        crowded.free = True
        await until(lambda: came, "the session")
    for fd in came[0]:
        os.close(fd)
    asyncio.get_running_loop().remove_reader(crowded)
    crowded.close()
    listener.close()


def test_process_that_connects_and_brings_nothing_is_turned_away(host: Host):
    sped_up(host, "listener", "DESCRIPTORS_S = 60.0", "DESCRIPTORS_S = 0.3")
    made = carried(host)
    made.call("list")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        client.connect(str(host.folder / AGENT_SOCKET))
        assert client.recv(1) == b""
    assert "result" in made.call("list")


@pytest.mark.parametrize(
    "remove",
    [lambda folder: (folder / AGENT_SOCKET).unlink(), shutil.rmtree],
    ids=["the socket", "the folder"],
)
def test_agent_whose_socket_was_removed_is_found_again(
    host: Host, remove: Callable[[Path], object]
):
    made = carried(host)
    made.call("list")
    remove(host.folder)
    wait_for((host.folder / AGENT_SOCKET).exists, "a socket where it was")
    session = host.session()
    assert session.bring_up() == "found"
    again = Carried(session, made.link, 2)
    again.messages = made.messages
    again.flush()
    assert again.call("list")["result"] == {"kernels": []}
    assert len(host.agents()) == 1
    assert "was removed, and is bound again" in host.log
    assert not os.lstat(host.folder).st_mode & 0o077


def test_socket_of_another_agent_in_its_place_is_left_alone(host: Host):
    made = carried(host)
    made.call("list")
    (agent,) = host.agents()
    path = host.folder / AGENT_SOCKET
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(host.folder / "other"))
        os.replace(host.folder / "other", path)
        wait_for(lambda: "another agent listens" in host.log, "a word about it")
        inode = path.stat().st_ino
        os.kill(agent, signal.SIGTERM)
        wait_for(lambda: not alive(agent), "the end of the agent")
        assert path.stat().st_ino == inode
    path.unlink()


def test_files_look_used_as_long_as_the_agent_lives(host: Host):
    sped_up(host, "listener", "_TOUCH_S = 3600.0", "_TOUCH_S = 0.1")
    made = carried(host)
    made.call("list")
    things = [host.folder, *host.folder.iterdir()]
    assert len(things) > 2
    for path in things:
        os.utime(path, (1000, 1000))
    wait_for(lambda: all(path.stat().st_mtime > 1000 for path in things), "a younger age")
    assert all(path.stat().st_atime > 1000 for path in things)


def test_log_goes_on_behind_what_another_agent_has_written(host: Host):
    log = host.home / ".local/state/sshpyk/agent.log"
    log.parent.mkdir(parents=True)
    log.write_text("written by an agent of another version\n")
    carried(host).call("list")
    assert host.log.startswith("written by an agent of another version\n")
    assert f" {host.agents()[0]} INFO sshpyk.agent.main: link abababab epoch 1\n" in host.log


def test_log_begins_anew_when_it_is_long(host: Host):
    sped_up(host, "main", "LOG_BYTES = 1024 * 1024", "LOG_BYTES = 1000")
    log = host.home / ".local/state/sshpyk/agent.log"
    log.parent.mkdir(parents=True)
    log.write_text("x" * 990 + "\n")
    carried(host).call("list")
    assert "epoch 1" in host.log
    assert len(host.log) < 500
    assert log.with_suffix(".log.1").read_text().startswith("xxx")
