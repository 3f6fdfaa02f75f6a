"""Conversations with the hub over its unix socket, in front of a fake agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sshpyk.errors import AuthenticationFailed, KernelDied, LinkLost, error_from_record
from sshpyk.hub.kernels import Kernels
from sshpyk.hub.linkstate import LinkState
from sshpyk.hub.server import Server
from tests.unit.hub.fakes import FakeAgent, FakeHost, ipc_info, tcp_info, write_info
from tests.unit.wire.harness import Joined, in_loop, until


class Owner:
    """A local process that talks to the hub."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, **record: Any) -> None:
        self.say_raw(json.dumps(record).encode() + b"\n")

    def say_raw(self, line: bytes) -> None:
        self.writer.write(line)

    async def hear(self) -> dict[str, Any] | None:
        line = await self.reader.readline()
        return json.loads(line) if line else None

    def leave(self) -> None:
        self.writer.close()


class Bench:
    def __init__(self, joined: Joined, folder: Path) -> None:
        self.joined = joined
        self.agent = FakeAgent(joined)
        self.host = FakeHost(joined)
        self.kernels = Kernels(self.host)  # type: ignore[arg-type]
        self.server = Server(self.host, self.kernels)  # type: ignore[arg-type]
        self.folder = folder
        self.path = str(folder / "hub.sock")
        self.info = ipc_info(folder)
        self.owners: list[Owner] = []

    async def owner(self) -> Owner:
        owner = Owner(*await asyncio.open_unix_connection(self.path))
        self.owners.append(owner)
        return owner

    def launch_record(self, **changes: Any) -> dict[str, Any]:
        return {
            "op": "launch",
            "request": {
                "connection_file": write_info(self.folder, self.info),
                "python": "python3",
                "kernel_name": "python3",
                "launch_timeout_s": 10,
                "env": {},
                "cwd": "",
                **changes,
            },
        }

    async def launched(self) -> Owner:
        owner = await self.owner()
        owner.say(**self.launch_record())
        assert (await owner.hear() or {})["event"] == "ready"
        return owner


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    async with Joined() as joined:
        made = Bench(joined, folder)
        listener = await made.server.listen(made.path)
        try:
            yield made
        finally:
            for owner in made.owners:
                owner.leave()
            await until(lambda: not made.server._conversations)
            listener.close()
            await listener.wait_closed()
            made.kernels.close()


@in_loop
async def test_launch_is_answered_and_the_exit_is_told(short_folder: Path):
    async with bench(short_folder) as made:
        owner = await made.launched()
        assert made.server.busy
        made.agent.kernel.exit(7)
        assert await owner.hear() == {"event": "exited", "status": 7}
        assert await owner.hear() is None


@pytest.mark.parametrize(
    "error",
    [
        KernelDied("no module", said="Traceback", advice="pip install"),
        LinkLost("gone", host="gpu1"),
    ],
    ids=repr,
)
@in_loop
async def test_a_failed_launch_tells_the_whole_error(error: Any, short_folder: Path):
    async with bench(short_folder) as made:
        made.agent.start_error = error
        owner = await made.owner()
        owner.say(**made.launch_record())
        answer = await owner.hear() or {}
        assert answer["event"] == "failed"
        told = error_from_record(answer["error"])
        assert type(told) is type(error)
        assert (told.what, told.host, told.said) == (error.what, "gpu1", error.said)
        assert await owner.hear() is None
        await until(lambda: not made.kernels.busy)


@in_loop
async def test_a_host_that_refuses_us_is_told(short_folder: Path):
    async with bench(short_folder) as made:
        made.host.failure = AuthenticationFailed("permission denied", host="gpu1")
        owner = await made.owner()
        owner.say(**made.launch_record())
        answer = await owner.hear() or {}
        assert answer["error"]["kind"] == "AuthenticationFailed"


@in_loop
async def test_a_launch_timeout_is_told(short_folder: Path):
    async with bench(short_folder) as made:
        made.agent.may_start.clear()
        owner = await made.owner()
        owner.say(**made.launch_record(launch_timeout_s=0.05))
        answer = await owner.hear() or {}
        assert answer["error"]["kind"] == "LaunchTimeout"
        await until(lambda: made.agent.ops == ["start", "stop"])


@in_loop
async def test_an_owner_that_vanishes_takes_its_kernel_along(short_folder: Path):
    async with bench(short_folder) as made:
        owner = await made.launched()
        made.info = tcp_info()
        other = await made.launched()
        doomed, spared = made.agent.kernels.values()
        owner.leave()
        await until(lambda: not doomed.alive)
        assert spared.alive
        assert made.agent.asked[-1][1]["grace_s"] == 0
        other.leave()
        await until(lambda: not made.kernels.summaries())


@in_loop
async def test_an_owner_that_vanishes_during_the_launch_leaves_no_kernel(short_folder: Path):
    async with bench(short_folder) as made:
        made.agent.may_start.clear()
        owner = await made.owner()
        owner.say(**made.launch_record())
        await until(lambda: made.agent.ops == ["start"])
        owner.leave()
        await until(lambda: made.agent.ops == ["start", "stop"])
        await until(lambda: not made.server.busy)


@in_loop
async def test_an_owner_that_vanishes_at_any_moment_leaves_no_kernel(short_folder: Path):
    async with bench(short_folder) as made:
        for turns in range(60):
            owner = await made.owner()
            owner.say(**made.launch_record())
            for _ in range(turns):
                await asyncio.sleep(0)
            owner.leave()
            await until(lambda: not made.server._conversations)
            await until(lambda: not made.kernels.summaries(), f"left after {turns} turns")
            await until(lambda: not any(k.alive for k in made.agent.kernels.values()))


@in_loop
async def test_a_restart_right_after_the_owner_was_killed_finds_the_sockets_free(
    short_folder: Path,
):
    """Jupyter's restart kills the stand-in and starts the next one; the line may be down."""
    async with bench(short_folder) as made:
        made.info = tcp_info()
        owner = await made.launched()
        await made.joined.cut_and_noticed()
        owner.leave()
        await until(lambda: not made.server._conversations)
        again = await made.owner()
        again.say(**made.launch_record())
        await asyncio.sleep(0.02)
        made.joined.connect()
        assert (await again.hear() or {})["event"] == "ready"
        await until(lambda: [k.alive for k in made.agent.kernels.values()] == [False, True])


@in_loop
async def test_stop_during_the_launch_gives_it_up(short_folder: Path):
    async with bench(short_folder) as made:
        made.agent.may_start.clear()
        owner = await made.owner()
        owner.say(**made.launch_record())
        await until(lambda: made.agent.ops == ["start"])
        owner.say(op="stop", grace_s=5)
        answer = await owner.hear() or {}
        assert answer["error"]["what"] == "stopped while it was starting"
        await until(lambda: made.agent.ops == ["start", "stop"])


@in_loop
async def test_interrupt_during_the_launch_is_not_the_end_of_it(short_folder: Path):
    async with bench(short_folder) as made:
        made.agent.may_start.clear()
        owner = await made.owner()
        owner.say(**made.launch_record())
        await until(lambda: made.agent.ops == ["start"])
        owner.say(op="interrupt")
        await asyncio.sleep(0.02)
        made.agent.may_start.set()
        assert (await owner.hear() or {})["event"] == "ready"


@pytest.mark.parametrize("line", [b"{\n", b"[]\n", b"7\n", b"{}\n", b"\xff\n", b'{"op": "st'])
@in_loop
async def test_nonsense_during_the_launch_ends_conversation_and_launch(
    line: bytes, short_folder: Path
):
    async with bench(short_folder) as made:
        made.agent.may_start.clear()
        owner = await made.owner()
        owner.say(**made.launch_record(launch_timeout_s=600))
        await until(lambda: made.agent.ops == ["start"])
        owner.say_raw(line)
        owner.writer.write_eof()
        await until(lambda: made.agent.ops == ["start", "stop"])
        made.agent.may_start.set()
        await until(lambda: not made.server.busy)


@pytest.mark.parametrize(
    "line",
    [b"{\n", b"[]\n", b"{}\n", b'{"op": "stop"}\n', b'{"op": "signal", "signal": "x"}\n', b'{"o'],
)
@in_loop
async def test_nonsense_from_an_owner_ends_its_kernel(line: bytes, short_folder: Path):
    async with bench(short_folder) as made:
        owner = await made.launched()
        owner.say_raw(line)
        owner.writer.write_eof()
        await until(lambda: not made.agent.kernel.alive)


@in_loop
async def test_orders_are_passed_on(short_folder: Path):
    async with bench(short_folder) as made:
        owner = await made.launched()
        owner.say(op="interrupt")
        owner.say(op="signal", signal=10)
        await until(lambda: made.agent.ops == ["start", "interrupt", "signal"])
        owner.say(op="dance")  # of a later version
        owner.say(op="stop", grace_s=0.5)
        assert await owner.hear() == {"event": "exited", "status": -9}
        assert made.agent.asked[-1][1]["grace_s"] == 0.5


@in_loop
async def test_orders_that_came_with_the_launch_are_obeyed_after_it(short_folder: Path):
    async with bench(short_folder) as made:
        owner = await made.owner()
        owner.say(**made.launch_record())
        await until(lambda: made.agent.ops == ["start"])
        assert (await owner.hear() or {})["event"] == "ready"
        owner.say(op="interrupt")
        await until(lambda: made.agent.ops == ["start", "interrupt"])


@in_loop
async def test_a_lost_link_is_told_to_the_owner(short_folder: Path):
    async with bench(short_folder) as made:
        owner = await made.launched()
        made.host.on_lost_link(LinkLost("the agent is gone", host="gpu1"))
        answer = await owner.hear() or {}
        assert answer["error"]["kind"] == "LinkLost"
        assert await owner.hear() is None


@in_loop
async def test_status_says_what_there_is(short_folder: Path):
    async with bench(short_folder) as made:
        await made.launched()
        asking = await made.owner()
        for _ in range(2):
            asking.say(op="status")
            answer = await asking.hear() or {}
            assert (answer["host"], answer["link"], answer["away_s"]) == ("gpu1", "up", None)
            assert answer["reason"] is None
            (kernel,) = answer["kernels"]
            assert (kernel["name"], kernel["pid"], kernel["state"]) == ("python3", 1, "alive")
        made.host.state = LinkState.DIALING
        made.host.reason = AuthenticationFailed("denied")
        asking.say(op="status")
        answer = await asking.hear() or {}
        assert (answer["link"], answer["kernels"][0]["state"]) == ("dialing", "unreachable")
        assert answer["reason"]["kind"] == "AuthenticationFailed"


@in_loop
async def test_notice_reaches_every_owner(short_folder: Path):
    async with bench(short_folder) as made:
        owner = await made.launched()
        made.host.on_notice("gpu1: the connection is down")
        told = {"event": "notice", "text": "gpu1: the connection is down"}
        assert await owner.hear() == told


@in_loop
async def test_quit_is_answered_and_sets_the_word(short_folder: Path):
    async with bench(short_folder) as made:
        asking = await made.owner()
        asking.say(op="quit")
        assert await asking.hear() == {"event": "leaving"}
        assert made.server.quit.is_set()


@in_loop
async def test_an_unknown_request_is_an_error_and_the_conversation_goes_on(short_folder: Path):
    async with bench(short_folder) as made:
        asking = await made.owner()
        asking.say(op="fly")
        assert "fly" in (await asking.hear() or {})["error"]["what"]
        asking.say(op="status")
        assert (await asking.hear() or {})["kernels"] == []


@pytest.mark.parametrize(
    "line",
    [
        b"{\n",
        b"[]\n",
        b"{}\n",
        b"\xff\n",
        b'{"op": "launch"}\n',
        b'{"op": "launch", "request": {"x": 1}}\n',
    ],
)
@in_loop
async def test_nonsense_ends_its_conversation_only(line: bytes, short_folder: Path):
    async with bench(short_folder) as made:
        good = await made.owner()
        bad = await made.owner()
        bad.say_raw(line)
        assert await bad.hear() is None
        good.say(op="status")
        assert (await good.hear() or {})["kernels"] == []


@in_loop
async def test_a_script_runs_over_a_link_that_is_up(short_folder: Path):
    async with bench(short_folder) as made:
        made.agent.script_answer = {"stdout": "x", "stderr": "", "status": 0}
        owner = await made.owner()
        owner.say(op="script", script="echo x", timeout_s=3)
        assert await owner.hear() == {"event": "done", "stdout": "x", "stderr": "", "status": 0}


@in_loop
async def test_a_script_for_a_link_that_is_not_up_is_refused_at_once(short_folder: Path):
    async with bench(short_folder) as made:
        made.host.state = LinkState.NEEDS_LOGIN
        owner = await made.owner()
        owner.say(op="script", script="echo x", timeout_s=3)
        answer = await owner.hear() or {}
        assert (answer["event"], answer["error"]["what"]) == ("failed", "the link is not up")


@in_loop
async def test_a_script_without_an_answer_is_given_up(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sshpyk.hub.server._SCRIPT_GRACE_S", 0.0)
    async with bench(short_folder) as made:
        owner = await made.owner()
        owner.say(op="script", script="sleep 60", timeout_s=0.1)
        answer = await owner.hear() or {}
        assert "no answer within 0.1 s" in answer["error"]["what"]
