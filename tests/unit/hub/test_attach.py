"""Leave, attach and takeover as a stand-in meets them: two hubs, one agent, real kernels."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sshpyk.agent.book import Book
from sshpyk.agent.service import Places, Service
from sshpyk.hub import arrivals
from sshpyk.hub.kernels import Kernels
from sshpyk.hub.server import Server
from tests.unit.agent.service_bench import alive
from tests.unit.hub.fakes import Client, FakeHost, tcp_info, write_info
from tests.unit.hub.test_server import Owner
from tests.unit.wire.harness import Joined, in_loop, until

COUNT = "import time\nfor i in range({}): print(i, flush=True); time.sleep({})"


class Hub:
    """One laptop's hub, and its conversations."""

    def __init__(self, joined: Joined, folder: Path) -> None:
        self.joined, self.folder = joined, folder
        self.host = FakeHost(joined)
        self.kernels = Kernels(self.host)  # type: ignore[arg-type]
        self.server = Server(self.host, self.kernels)  # type: ignore[arg-type]
        self.path = str(folder / "hub.sock")
        self.owners: list[Owner] = []
        self.clients: list[Client] = []

    async def ask(self, op: str, **record: Any) -> tuple[Owner, dict[str, Any]]:
        """Open a conversation and return it with the first answer."""
        owner = Owner(*await asyncio.open_unix_connection(self.path))
        self.owners.append(owner)
        owner.say(op=op, **record)
        return owner, await owner.hear() or {}

    async def launch(self, **changes: Any) -> Owner:
        self.info = tcp_info()
        request = {
            "connection_file": write_info(self.folder, self.info),
            "python": sys.executable,
            "kernel_name": "python3",
            "launch_timeout_s": 30,
            "env": {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "JPY_SESSION_NAME": "nb.ipynb"},
            **changes,
        }
        owner, answer = await self.ask("launch", request=request)
        assert answer["event"] == "ready", answer
        self.kernel_id = answer["ticket"]["kernel_id"]
        return owner

    async def attach(self, kernel_id: str, name: str = "attached.json", **changes: Any) -> Any:
        self.file = self.folder / name
        request = {"connection_file": str(self.file), "python": "python3", "launch_timeout_s": 30}
        owner, answer = await self.ask(
            "attach", request={**request, **changes}, kernel_id=kernel_id
        )
        if answer["event"] == "ready":
            self.info = json.loads(self.file.read_text())
        return owner, answer

    def client(self, identity: bytes = b"client") -> Client:
        client = Client(self.info, identity)
        self.clients.append(client)
        client.open("iopub")
        client.open("shell")
        return client


def execute(client: Client, code: str) -> None:
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    more = {"user_expressions": {}, "stop_on_error": True}
    client.session.send(client.sockets["shell"], "execute_request", {**content, **more})


class Screen:
    """What one client has been shown of the kernel's output."""

    def __init__(self, client: Client) -> None:
        self.client, self.text, self.seen = client, "", set()

    def shows(self, text: str) -> bool:
        iopub = self.client.sockets["iopub"]
        while iopub.poll(0):
            _, frames = self.client.session.feed_identities(iopub.recv_multipart())
            message = self.client.session.deserialize(frames)
            assert message["header"]["msg_id"] not in self.seen, "came twice"
            self.seen.add(message["header"]["msg_id"])
            if message["header"]["msg_type"] == "stream":
                self.text += message["content"]["text"]
        return text in self.text


def lines(count: int) -> str:
    return "".join(f"{number}\n" for number in range(count))


@asynccontextmanager
async def two_hubs(folder: Path) -> AsyncIterator[tuple[Hub, Hub, Book]]:
    book = Book()
    private = folder / "a"
    (private / "logs").mkdir(parents=True, mode=0o700)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, book.check_all)
    async with AsyncExitStack() as stack:
        hubs = []
        for name in ("one", "two"):
            joined = await stack.enter_async_context(Joined())
            Service(joined.agent, book, Places(str(private), str(private / "logs")))
            (folder / name).mkdir()
            hub = Hub(joined, folder / name)
            listener = await hub.server.listen(hub.path)
            hubs.append((hub, listener))
        try:
            yield hubs[0][0], hubs[1][0], book
        finally:
            pids = [kernel.process.pid for kernel in book.kernels.values()]
            for kernel in list(book.kernels.values()):
                kernel.process.signal(signal.SIGKILL)
            await until(lambda: not book.kernels, "the end of every kernel")
            assert not any(map(alive, pids))
            for kernel in list(book.unheard):
                book.leave(kernel)
                book.discard(kernel)
            await until(lambda: not book.unheard, "that nothing is kept")
            for hub, listener in hubs:
                for owner in hub.owners:
                    owner.leave()
                for client in hub.clients:
                    client.close()
                await until(lambda hub=hub: not hub.server._conversations)
                listener.close()
                await listener.wait_closed()
                hub.kernels.close()
            loop.remove_signal_handler(signal.SIGCHLD)
            await loop.shutdown_default_executor()
    shutil.rmtree(private)


@in_loop
async def test_f15_persistent_kernel_whose_owner_goes_is_kept_with_its_backlog(
    short_folder: Path,
):
    async with two_hubs(short_folder) as (one, two, book):
        owner = await one.launch(persistent=True)
        screen = Screen(one.client())
        execute(screen.client, COUNT.format(80, 0.01))
        await until(lambda: screen.shows("9\n"), "the first lines")
        owner.leave()  # killed
        await until(lambda: [k for k in book.unheard if book.is_left(k)], "that it is left")
        await asyncio.sleep(0.1)
        screen.shows("")
        _, answer = await two.attach(one.kernel_id)
        assert answer["event"] == "ready"
        assert stat.S_IMODE(os.stat(two.file).st_mode) == 0o600
        assert two.info["key"] == one.info["key"]
        assert two.info["kernel_name"] == "python3"
        await asyncio.sleep(0.5)  # nobody is there: nothing may be handed over
        second = Screen(two.client())
        await until(lambda: second.shows("79\n"), "the last line")
        assert screen.text + second.text == lines(80)
        execute(second.client, "print('and on')")
        await until(lambda: second.shows("and on"), "the next cell")


@in_loop
async def test_f15_kernel_that_is_not_persistent_ends_with_its_owner(short_folder: Path):
    async with two_hubs(short_folder) as (one, _, book):
        owner = await one.launch()
        owner.leave()
        await until(lambda: not book.unheard, "the end of the kernel")


@in_loop
async def test_leave_is_answered_and_the_kernel_goes_on(short_folder: Path):
    async with two_hubs(short_folder) as (one, _two, book):
        owner = await one.launch()
        owner.say(op="leave")
        assert await owner.hear() == {"event": "left", "told": True}
        assert await owner.hear() is None
        (kernel,) = book.unheard
        assert book.is_left(kernel)
        owner, answer = await one.attach(one.kernel_id)  # back from the same laptop
        assert answer["event"] == "ready"
        screen = Screen(one.client(b"again"))
        execute(screen.client, "print('here')")
        await until(lambda: screen.shows("here"), "an answer")


@in_loop
async def test_f52_loser_is_told_who_took_the_kernel_and_winner_has_it_alone(short_folder: Path):
    async with two_hubs(short_folder) as (one, two, _book):
        owner = await one.launch(persistent=True)
        loser = Screen(one.client())
        execute(loser.client, COUNT.format(100, 0.01))
        await until(lambda: loser.shows("9\n"), "the first lines")
        _, answer = await two.attach(one.kernel_id)
        assert answer["event"] == "failed"
        assert answer["error"]["kind"] == "KernelInUse"
        assert "for nb.ipynb" in answer["error"]["what"]
        assert not two.file.exists()
        second, answer = await two.attach(one.kernel_id, takeover=True)
        assert answer["event"] == "ready"
        told = await owner.hear() or {}
        assert told["event"] == "taken"
        assert "@" in told["by"]
        winner = Screen(two.client(b"other"))
        await until(lambda: winner.shows("99\n"), "the last line")
        loser.shows("")
        execute(loser.client, "print('from the loser')")
        execute(winner.client, "print('from the winner')")
        await until(lambda: winner.shows("from the winner"), "an answer")
        # What the loser was shown and had not acknowledged is shown again at the other laptop.
        assert lines(100).startswith(loser.text)
        counted, _, _ = winner.text.partition("from")
        assert lines(100).endswith(counted)
        assert len(loser.text + counted) >= len(lines(100))
        assert not loser.shows("from")
        assert "loser" not in winner.text
        assert list(one.kernels._kernels) == []
        second.say(op="stop", grace_s=0)
        assert await second.hear() == {"event": "exited", "status": -9}


@in_loop
async def test_attach_twice_from_one_laptop_is_a_takeover_as_well(short_folder: Path):
    async with two_hubs(short_folder) as (one, _, _book):
        owner = await one.launch(persistent=True)
        _, answer = await one.attach(one.kernel_id, takeover=True)
        assert answer["event"] == "ready"
        assert (await owner.hear() or {})["event"] == "taken"
        screen = Screen(one.client(b"again"))
        execute(screen.client, "print('here')")
        await until(lambda: screen.shows("here"), "an answer")


@in_loop
async def test_leaving_while_the_link_is_down_is_answered_in_time_and_done_later(
    short_folder: Path, monkeypatch: Any
):
    monkeypatch.setattr("sshpyk.hub.kernels.LEAVE_PATIENCE_S", 0.2)
    async with two_hubs(short_folder) as (one, _, book):
        owner = await one.launch(persistent=True)
        await one.joined.cut_and_noticed()
        owner.say(op="leave")
        assert await owner.hear() == {"event": "left", "told": False}
        assert one.kernels.busy
        one.joined.connect()
        await until(lambda: [k for k in book.unheard if book.is_left(k)], "that it is left")


@in_loop
async def test_hub_that_leaves_keeps_persistent_kernels_and_ends_the_others(short_folder: Path):
    async with two_hubs(short_folder) as (one, _, book):
        await one.launch(persistent=True)
        kept = one.kernel_id
        await one.launch()
        await one.kernels.stop_all()
        await until(lambda: [kernel.kernel_id for kernel in book.unheard] == [kept], "one is left")
        assert all(map(book.is_left, book.unheard))


@in_loop
async def test_another_kernels_connection_file_is_not_overwritten(short_folder: Path):
    async with two_hubs(short_folder) as (one, two, book):
        owner = await one.launch(persistent=True)
        owner.say(op="leave")
        await owner.hear()
        (two.folder / "attached.json").write_text(json.dumps({**tcp_info(), "key": "other"}))
        _, answer = await two.attach(one.kernel_id)
        assert answer["event"] == "failed"
        assert "in the way" in answer["error"]["what"]
        await until(lambda: not two.kernels.busy, "that it is left again")
        assert all(map(book.is_left, book.unheard))
        _, answer = await two.attach(one.kernel_id, name="free.json")
        assert answer["event"] == "ready"


@in_loop
async def test_stopped_before_any_client_came_it_ends_all_the_same(short_folder: Path):
    """The end comes behind the output, which waits for a client otherwise."""
    async with two_hubs(short_folder) as (one, two, _):
        owner = await one.launch()
        owner.say(op="leave")
        await owner.hear()
        attached, _ = await two.attach(one.kernel_id)
        attached.say(op="stop", grace_s=5)
        assert await asyncio.wait_for(attached.hear(), 15) == {"event": "exited", "status": 0}


@in_loop
async def test_attaching_that_is_given_up_while_folders_are_mounted_leaves_the_kernel_to_others(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    mounting = asyncio.Event()

    async def mount(*_: object) -> str:
        mounting.set()
        await asyncio.sleep(60)
        return ""

    monkeypatch.setattr(arrivals, "mount_for_running", mount)
    async with two_hubs(short_folder) as (one, two, book):
        owner = await one.launch(persistent=True)
        owner.say(op="leave")
        assert (await owner.hear() or {})["event"] == "left"
        asking = asyncio.ensure_future(two.attach(one.kernel_id))
        await mounting.wait()
        asking.cancel()
        two.owners[-1].leave()
        await until(lambda: not two.kernels.summaries(), "that the hub has let go")
        (kernel,) = book.unheard
        await until(lambda: book.is_left(kernel), "that the kernel is left")
