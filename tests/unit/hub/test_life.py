"""The hub's life, in front of a fake host."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sshpyk.hub import life as life_module
from sshpyk.hub.address import journal_of
from sshpyk.hub.linkstate import LinkState
from sshpyk.ssh.command import SshTarget
from tests.unit.hub.fakes import FakeAgent, FakeHost, ipc_info, write_info
from tests.unit.wire.harness import Joined, in_loop, until


class Life:
    def __init__(self, joined: Joined, folder: Path) -> None:
        self.agent = FakeAgent(joined)
        self.host = FakeHost(joined)
        self.folder = folder
        self.path = folder / "sockets" / "hub.sock"
        self.path.parent.mkdir(mode=0o700)
        self.task: asyncio.Task[None]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await until(self.path.exists)
        return await asyncio.open_unix_connection(str(self.path))

    async def launched(self) -> asyncio.StreamWriter:
        reader, writer = await self.connect()
        record: dict[str, Any] = {
            "op": "launch",
            "request": {
                "connection_file": write_info(self.folder, ipc_info(self.folder)),
                "python": "python3",
                "kernel_name": "python3",
                "launch_timeout_s": 10,
            },
        }
        writer.write(json.dumps(record).encode() + b"\n")
        assert json.loads(await reader.readline())["event"] == "ready"
        return writer


@asynccontextmanager
async def life(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Life]:
    loop = asyncio.get_running_loop()
    async with Joined() as joined:
        made = Life(joined, folder)
        monkeypatch.setattr(life_module, "HostLink", lambda *args: made.host)
        monkeypatch.setattr(life_module, "_UPKEEP_S", 0.02)
        made.task = asyncio.ensure_future(life_module.live(SshTarget("gpu1"), str(made.path)))
        await until(lambda: made.path.exists() or made.task.done())
        yield made
        await asyncio.wait_for(made.task, 10)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@in_loop
async def test_told_to_quit_it_leaves_the_host_and_removes_its_files(short_folder, monkeypatch):
    async with life(short_folder, monkeypatch) as hub:
        reader, writer = await hub.connect()
        writer.write(b'{"op": "quit"}\n')
        assert json.loads(await reader.readline()) == {"event": "leaving"}
        await hub.task
        assert hub.host.left == "the hub leaves"
        assert not hub.path.parent.exists()
        writer.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@in_loop
async def test_a_signal_ends_it_and_its_kernels(number, short_folder, monkeypatch):
    async with life(short_folder, monkeypatch) as hub:
        writer = await hub.launched()
        os.kill(os.getpid(), number)
        await hub.task
        assert not hub.agent.kernel.alive
        assert hub.host.left
        writer.close()


@in_loop
async def test_a_cleaner_that_took_its_files_does_not_keep_it_from_leaving(
    short_folder, monkeypatch
):
    """As asyncio itself does when the server closes, from Python 3.13 on."""
    async with life(short_folder, monkeypatch) as hub:
        writer = await hub.launched()
        hub.path.unlink()
        os.kill(os.getpid(), signal.SIGTERM)
        await hub.task
        assert not hub.agent.kernel.alive
        assert hub.host.left
        writer.close()


@in_loop
async def test_an_agent_that_does_not_answer_does_not_keep_it_from_leaving(
    short_folder, monkeypatch
):
    monkeypatch.setattr(life_module, "_STOP_PATIENCE_S", 0.05)
    async with life(short_folder, monkeypatch) as hub:
        writer = await hub.launched()
        await hub.host.joined.cut_and_noticed()
        os.kill(os.getpid(), signal.SIGTERM)
        await hub.task
        assert hub.host.left
        writer.close()


@in_loop
async def test_while_it_leaves_the_next_hub_finds_no_notes_and_keeps_its_own(
    short_folder, monkeypatch
):
    monkeypatch.setattr(life_module, "_STOP_PATIENCE_S", 0.2)
    async with life(short_folder, monkeypatch) as hub:
        notes = Path(journal_of(str(hub.path)))
        writer = await hub.launched()
        assert notes.exists()
        await hub.host.joined.cut_and_noticed()
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: not hub.path.exists())
        assert not notes.exists()
        notes.write_text("the next hub's")
        await hub.task
        assert notes.read_text() == "the next hub's"
        notes.unlink()
        writer.close()


@in_loop
async def test_with_nothing_to_do_it_leaves_after_a_while(short_folder, monkeypatch):
    monkeypatch.setattr(life_module, "IDLE_S", 0.1)
    async with life(short_folder, monkeypatch) as hub:
        await asyncio.wait_for(hub.task, 10)
        assert hub.host.left


@in_loop
async def test_a_connection_that_a_person_opened_is_kept_longer_while_it_is_up(
    short_folder, monkeypatch
):
    monkeypatch.setattr(life_module, "IDLE_S", 0.1)
    async with life(short_folder, monkeypatch) as hub:
        hub.host.opened_by_person = True
        await asyncio.sleep(0.4)
        assert not hub.task.done()
        hub.host.state = LinkState.DIALING
        await asyncio.wait_for(hub.task, 10)


@in_loop
async def test_with_a_kernel_it_stays(short_folder, monkeypatch):
    monkeypatch.setattr(life_module, "IDLE_S", 0.1)
    async with life(short_folder, monkeypatch) as hub:
        writer = await hub.launched()
        await asyncio.sleep(0.3)
        assert not hub.task.done()
        writer.close()
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def begun_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """The root logger of a hub that has just begun its log, with room for 2000 bytes."""
    with monkeypatch.context() as patch:
        patch.setattr(life_module, "hub_log_of", lambda target: path)
        patch.setattr(life_module, "_LOG_LIMIT_BYTES", 2000)
        patch.setattr(logging, "root", logging.RootLogger(logging.WARNING))
        life_module._start_log(SshTarget("gpu1"))
        yield logging.root
        for handler in logging.root.handlers:
            handler.close()


def test_log_that_the_host_fills_keeps_its_end_in_two_files(tmp_path: Path, monkeypatch):
    path, older = tmp_path / "hub.log", tmp_path / "hub.log.1"
    path.write_text("of the hub before\n" * 200)
    with begun_log(path, monkeypatch) as log:
        log.info("first")
        assert older.read_text() == "of the hub before\n" * 200
        for number in range(1000):
            log.info("ssh: line %d", number)
    assert set(tmp_path.iterdir()) == {path, older}
    assert max(path.stat().st_size, older.stat().st_size) < 2200
    lines = (older.read_text() + path.read_text()).splitlines()
    numbers = [int(line.rpartition(" ")[2]) for line in lines]
    assert numbers == list(range(1000 - len(lines), 1000))


def test_full_log_that_somebody_removed_begins_anew(tmp_path: Path, monkeypatch):
    path = tmp_path / "hub.log"
    with begun_log(path, monkeypatch) as log:
        log.info("x" * 3000)
        path.unlink()
        log.info("no text: %s", "\udcff")
    assert path.read_text().endswith("no text: \\udcff\n")


def test_full_log_that_the_next_hub_has_begun_anew_is_left_to_it(tmp_path: Path, monkeypatch):
    path, older = tmp_path / "hub.log", tmp_path / "hub.log.1"
    with begun_log(path, monkeypatch) as log:
        log.info("x" * 3000)
        path.replace(older)
        path.write_text("the next hub's first line\n")
        log.info("our last words")
    assert "x" * 3000 in older.read_text()
    first, last = path.read_text().splitlines()
    assert first == "the next hub's first line"
    assert last.endswith("our last words")
