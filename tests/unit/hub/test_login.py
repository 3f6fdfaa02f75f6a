"""``sshpyk login`` as the hub sees it: whoever is at the other end starts ssh with the hub's pipes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from sshpyk.errors import AuthenticationFailed, SshpykError
from sshpyk.hub.dial import Terminal
from sshpyk.hub.host import HostLink
from sshpyk.hub.login import LOGIN_IDLE_S, ForeignSsh, serve_login
from sshpyk.hub.ssh_process import SshProcess
from tests.unit.agent.service_bench import alive
from tests.unit.wire.harness import in_loop, until

# Talks as ssh does: on stderr while it authenticates, then its stdio is the remote command's.
SSH = ["sh", "-c", 'echo "Welcome to gpu1" >&2; [ -t 2 ] && echo tty; exec cat']


class FakeLink:
    """What ``serve_login`` needs of a HostLink: it has ssh started and reads what that says."""

    def __init__(self) -> None:
        self.opened_by_person = True
        self.failure: SshpykError | None = None
        self.was_up = False
        self.python = ""
        self.ssh: SshProcess | None = None
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def log_in(self, python: str, terminal: Terminal) -> bool:
        self.python = python
        if self.was_up:
            return False
        self.ssh = await terminal.start(SSH)
        try:
            assert await self.ssh.read_some() == b"tty\n"  # as a security key's prompt wants it
            await until(lambda: self.ssh is not None and self.ssh.stderr_tail != "")
            await self.may_go_on.wait()
            if self.failure is not None:
                raise self.failure
        except BaseException:
            self.ssh.end(close_pipes=True)
            raise
        return True


class CommandLine:
    """The other end of the conversation."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.fds: list[int] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._received = b""

    def say(self, op: str, **params: Any) -> None:
        self.socket.sendall(json.dumps({**params, "op": op}).encode() + b"\n")

    async def hear(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        while b"\n" not in self._received:
            readable = loop.create_future()
            loop.add_reader(self.socket, readable.set_result, None)
            await readable
            loop.remove_reader(self.socket)
            data, fds, _, _ = socket.recv_fds(self.socket, 65536, 3)
            self.fds += fds
            assert data, "the hub hung up"
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        record: dict[str, Any] = json.loads(line)
        return record

    async def start(self) -> None:
        record = await self.hear()
        assert (record["event"], record["argv"]) == ("start", SSH)
        stdin, stdout, stderr = self.fds
        self.process = subprocess.Popen(
            SSH, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        self.say("started", pid=self.process.pid)

    def close(self) -> None:
        self.socket.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@asynccontextmanager
async def login() -> AsyncIterator[tuple[FakeLink, CommandLine, asyncio.Future[None]]]:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    link, person = FakeLink(), CommandLine(theirs)
    record = {"op": "login", "python": "~/env/bin/python", "tty": True}
    serving = asyncio.ensure_future(
        serve_login(cast(HostLink, link), lambda: 2, record, reader, writer)
    )
    try:
        yield link, person, serving
    finally:
        person.close()
        await asyncio.wait({serving})
        writer.close()
        if link.ssh is not None:
            await until(lambda: link.ssh is not None and link.ssh._process.poll() is not None)


@in_loop
async def test_ssh_runs_where_the_person_is_and_talks_to_the_hub():
    async with login() as (link, person, serving):
        await person.start()
        up = {"event": "up", "was_up": False, "kernels": 2, "kept_s": LOGIN_IDLE_S}
        said = {"event": "said", "text": "Welcome to gpu1\n"}
        assert [await person.hear(), await person.hear()] == [said, up]
        await serving
        assert link.python == "~/env/bin/python"
        assert link.ssh is not None
        await link.ssh.write(b"frame")
        assert await link.ssh.read_some() == b"frame"
        link.ssh.end(close_pipes=True)
        assert person.process is not None
        await until(lambda: person.process is not None and person.process.poll() is not None)
        assert person.process.returncode in (0, -signal.SIGTERM)


@in_loop
async def test_a_link_that_is_up_needs_no_ssh():
    async with login() as (link, person, serving):
        link.was_up = True
        assert (await person.hear())["was_up"] is True
        await serving


@in_loop
async def test_a_refusal_is_told_and_ssh_ended():
    async with login() as (link, person, serving):
        link.failure = AuthenticationFailed("denied", host="gpu1")
        await person.start()
        while (record := await person.hear())["event"] == "said":
            pass
        assert record == {"event": "failed", "error": link.failure.to_record()}
        await serving
        await until(lambda: person.process is not None and person.process.poll() is not None)


@pytest.mark.parametrize("moment", ["before ssh starts", "while ssh asks"])
@in_loop
async def test_ssh_is_ended_when_the_person_goes(moment: str):
    async with login() as (link, person, serving):
        link.may_go_on.clear()
        if moment == "while ssh asks":
            await person.start()
            await person.hear()
        else:
            await person.hear()
            for fd in person.fds:
                os.close(fd)
        person.socket.close()
        await serving
        if person.process is not None:
            await until(lambda: person.process is not None and person.process.poll() is not None)
            assert not alive(person.process.pid)


@in_loop
async def test_the_exit_status_that_the_command_line_tells_is_sshs():
    async with login() as (link, person, serving):
        link.may_go_on.clear()
        await person.start()
        await person.hear()
        person.say("ended", status=255)
        assert link.ssh is not None
        assert await link.ssh.wait() == 255
        link.may_go_on.set()
        await serving
        link.ssh.end(close_pipes=True)


@pytest.mark.parametrize("error", [ProcessLookupError, PermissionError])
def test_ssh_whose_group_is_gone_or_all_zombies_has_ended(monkeypatch, error: type[OSError]):
    """macOS has the second word for a group that nobody has reaped."""

    def refuse(group: int, number: int) -> None:
        raise error

    monkeypatch.setattr(os, "killpg", refuse)
    assert ForeignSsh(4711).poll() == -1
