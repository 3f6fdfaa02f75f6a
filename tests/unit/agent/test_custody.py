"""A kernel that is left, attached to, taken over: real kernels, and the links of two laptops."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sshpyk.agent import book as book_module
from sshpyk.agent.service import Places, Service
from sshpyk.errors import KernelDied, KernelInUse
from sshpyk.wire import kernel_messages
from sshpyk.wire.kernel_messages import IOPUB, SHELL
from sshpyk.wire.rpc import Params, Rpc
from tests.unit.agent.fakes import KernelInbox
from tests.unit.agent.service_bench import KERNEL_ID, ServiceBench, alive, service_bench
from tests.unit.wire.harness import Joined, in_loop, until

COUNTING = "import time\nfor i in range({}): print(i, flush=True); time.sleep({})"


class Laptop:
    """Another laptop's end of a link of its own to the same agent."""

    def __init__(self, bench: ServiceBench, joined: Joined) -> None:
        self.joined = joined
        self.session = bench.session
        self.told: list[Params] = []
        self.service = Service(joined.agent, bench.book, Places(str(bench.folder), str(bench.logs)))
        self.rpc = Rpc(joined.hub, {"taken": self._taken})
        self._next_stream = 101

    async def _taken(self, params: Params) -> Params:
        self.told.append(params)
        return {}

    async def attach(self, **changes: Any) -> Params:
        streams = [self._next_stream, self._next_stream + 2]
        self._next_stream += 4
        self.streams = streams
        self.main, self.control = KernelInbox(), KernelInbox()
        params = {"kernel_id": KERNEL_ID, "streams": streams, "owner": "bob@other", **changes}
        found = await self.rpc.call("attach", **params)
        self.joined.hub.claim(streams[0], self.main)
        self.joined.hub.claim(streams[1], self.control, urgent=True)
        return found

    def execute(self, code: str) -> None:
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        more = {"user_expressions": {}, "stop_on_error": True}
        message = self.session.msg("execute_request", {**content, **more})
        parts = [b"other", *self.session.serialize(message)]
        self.joined.hub.send(self.streams[0], kernel_messages.pack(SHELL, parts))


@asynccontextmanager
async def laptop(bench: ServiceBench) -> AsyncIterator[Laptop]:
    joined = Joined()
    async with joined:
        yield Laptop(bench, joined)


def text_of(inbox: KernelInbox) -> str:
    """Return what an inbox got of the kernel's stdout."""
    found = []
    for parts in inbox.of(IOPUB):
        if b'"stream"' in parts[2 + parts.index(b"<IDS|MSG>")]:
            found.append(json.loads(parts[-1])["text"])
    return "".join(found)


def lines(count: int) -> str:
    return "".join(f"{number}\n" for number in range(count))


async def listed(rpc: Rpc, **params: Any) -> list[dict[str, Any]]:
    kernels: list[dict[str, Any]] = (await rpc.call("list", **params))["kernels"]
    return kernels


async def leave(bench: ServiceBench) -> None:
    """Leave the kernel as a hub does: nothing is acknowledged any more, then it says so."""
    for stream in bench.streams:
        bench.joined.hub.release(stream)
    await bench.rpc.call("leave", kernel_id=KERNEL_ID, streams=bench.streams)
    bench.close_streams()


@in_loop
async def test_lines_printed_before_after_and_while_left_arrive_once_at_who_attaches(
    short_folder: Path,
) -> None:
    async with service_bench(short_folder) as bench, laptop(bench) as other:
        await bench.start(persistent=True, owner="ann@here", session="nb.ipynb")
        bench.execute(COUNTING.format(60, 0.01))
        await until(lambda: "9\n" in text_of(bench.main), "the first lines")
        await leave(bench)
        got_before = text_of(bench.main)
        (found,) = await listed(other.rpc)
        assert (found["carried"], found["mine"], found["persistent"]) == ("left", False, True)
        assert (found["owner"], found["session"], found["state"]) == (
            "ann@here",
            "nb.ipynb",
            "busy",
        )
        assert found["memory_bytes"] > 1_000_000
        assert 0 < found["lease_s"] <= book_module.LEASE_S
        answer = await other.attach()
        assert answer["key"] == "0123456789abcdef"
        await until(lambda: "59\n" in text_of(other.main), "the last line")
        assert got_before + text_of(other.main) == lines(60)
        other.execute("print('new')")
        await until(lambda: "new\n" in text_of(other.main), "the new client's output")
        await bench.rpc.call("stop", kernel_id=KERNEL_ID, grace_s=0)
        await until(lambda: other.main.ended, "the end")
        assert other.main.status == -9


@in_loop
async def test_f52_kernel_that_another_laptop_carries_is_taken_only_when_asked_for(
    short_folder: Path,
) -> None:
    async with service_bench(short_folder) as bench, laptop(bench) as other, laptop(bench) as third:
        await bench.start(owner="ann@here")
        with pytest.raises(KernelInUse, match=r"in use by ann@here \(connected\)"):
            await other.attach()
        await other.attach(takeover=True)
        await until(lambda: bench.main.ended and bench.control.ended, "the end at the first")
        assert bench.main.status is None
        await third.attach(takeover=True, owner="eve@third")
        await until(lambda: other.told, "word of it")
        assert other.told[0]["by"] == "eve@third"
        assert other.told[0]["streams"] == other.streams
        third.execute("print(6 * 7)")
        await until(lambda: "42\n" in text_of(third.main), "an answer")
        assert "42" not in text_of(other.main)
        other.joined.hub.send(other.streams[0], b"dropped")
        (found,) = await listed(third.rpc)
        assert (found["owner"], found["mine"]) == ("eve@third", True)
        bench.close_streams()


@in_loop
async def test_same_owner_whose_link_is_gone_needs_no_takeover(short_folder: Path) -> None:
    async with service_bench(short_folder) as bench, laptop(bench) as other:
        await bench.start(owner="ann@here")
        code = "import time; print('on', flush=True); time.sleep(0.5); print('said while away')"
        bench.execute(code)
        await until(lambda: "on" in text_of(bench.main), "the cell")
        await bench.joined.cut_and_noticed()
        with pytest.raises(KernelInUse, match="away"):
            await other.attach()
        await other.attach(owner="ann@here")
        await until(lambda: "said while away" in text_of(other.main), "the backlog")


@in_loop
async def test_kernel_that_ended_while_left_tells_its_last_words_and_status(
    short_folder: Path,
) -> None:
    async with service_bench(short_folder) as bench, laptop(bench) as other:
        await bench.start(persistent=True)
        pid = bench.book.kernels[KERNEL_ID].process.pid
        code = "time.sleep(0.3); print('last words', flush=True); time.sleep(0.1); os._exit(3)"
        bench.execute(f"import os, time; {code}")
        await leave(bench)
        await until(lambda: not alive(pid), "the end of the kernel")
        await until(lambda: not bench.book.kernels, "that it was noticed")
        (found,) = await listed(other.rpc)
        assert (found["state"], found["status"]) == ("ended", 3)
        await other.attach()
        await until(lambda: other.main.ended, "the end")
        assert "last words" in text_of(other.main)
        assert other.main.status == 3
        other.joined.hub.abandon(other.streams[0])
        other.joined.hub.abandon(other.streams[1])
        await until(lambda: not bench.book.unheard, "the hub has heard of the end")
        await until(bench.nothing_is_left, "the folder is gone")


@in_loop
async def test_attaching_to_what_is_not_there_says_so(short_folder: Path) -> None:
    async with service_bench(short_folder) as bench, laptop(bench) as other:
        assert bench.book.kernels == {}
        with pytest.raises(KernelDied, match="no such kernel"):
            await other.attach()


@in_loop
async def test_left_kernel_whose_owner_is_not_heard_of_ends_with_its_lease(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service_bench(short_folder) as bench, laptop(bench) as other:
        await bench.start(persistent=True, owner="ann@here")
        await leave(bench)
        now_s = book_module.now_s
        monkeypatch.setattr(book_module, "now_s", lambda: now_s() + book_module.LEASE_S - 5)
        bench.book.end_expired()
        (found,) = await listed(other.rpc, owner="eve@third")
        assert found["lease_s"] < 5
        (found,) = await listed(other.rpc, owner="ann@here")  # who is heard of keeps it
        assert found["lease_s"] > book_module.LEASE_S - 5
        later_s = book_module.now_s
        monkeypatch.setattr(book_module, "now_s", lambda: later_s() + book_module.LEASE_S + 5)
        bench.book.end_expired()
        await until(lambda: not bench.book.unheard, "the end")
        await until(bench.nothing_is_left, "the folder is gone")


@in_loop
async def test_stop_and_gc_end_left_kernels_and_leave_nothing(short_folder: Path) -> None:
    async with service_bench(short_folder) as bench, laptop(bench) as other:
        await bench.start(persistent=True)
        assert (await other.rpc.call("gc", idle_s=0.0))["ended"] == []  # it is carried
        await leave(bench)
        assert (await other.rpc.call("gc"))["ended"] == []  # it lives
        would = await other.rpc.call("gc", idle_s=0.0, dry_run=True)
        assert [one["kernel_id"] for one in would["ended"]] == [KERNEL_ID]
        assert bench.book.kernels
        stale = bench.folder / "kstale"
        stale.mkdir()
        done = await other.rpc.call("gc", idle_s=0.0)
        assert [one["kernel_id"] for one in done["ended"]] == [KERNEL_ID]
        assert done["swept"] == ["kstale"]
        await until(bench.nothing_is_left, "the folder is gone")
        await bench.start(persistent=True)
        pid = bench.book.kernels[KERNEL_ID].process.pid
        await leave(bench)
        await other.rpc.call("stop", kernel_id=KERNEL_ID, grace_s=5)
        assert not alive(pid)
        await until(bench.nothing_is_left, "the folder is gone")
        assert await listed(other.rpc) == []


@in_loop
async def test_f52_orders_that_the_loser_gave_in_an_outage_do_not_reach_the_winners_kernel(
    short_folder: Path,
) -> None:
    async with service_bench(short_folder) as bench, laptop(bench) as other:
        await bench.start()
        kernel = bench.book.kernels[KERNEL_ID]
        lost = {"kernel_id": KERNEL_ID, "streams": list(kernel.streams)}
        await other.attach(takeover=True)
        for op, params in (("interrupt", {"seen": 0}), ("signal", {"signal": 9})):
            with pytest.raises(KernelDied):
                await bench.rpc.call(op, **lost, **params)
        await bench.rpc.call("stop", **lost, grace_s=0)
        other.execute("print('lives')")
        await until(lambda: "lives\n" in text_of(other.main), "the kernel's answer")
        won = {"kernel_id": KERNEL_ID, "streams": list(kernel.streams)}
        await other.rpc.call("stop", **won, grace_s=0)
        await until(lambda: other.main.ended, "the end")


@in_loop
async def test_interrupt_by_who_attached_and_has_seen_nothing_reaches_the_cell(
    short_folder: Path,
) -> None:
    async with service_bench(short_folder) as bench, laptop(bench) as other:
        await bench.start(persistent=True)
        bench.execute("1 + 1")
        await bench.hear(SHELL, "execute_reply")
        bench.execute("import time; print('on', flush=True); time.sleep(60)")
        await until(lambda: "on" in text_of(bench.main), "the cell")
        await leave(bench)
        await other.attach()
        await other.rpc.call("interrupt", kernel_id=KERNEL_ID, seen=0)
        await until(lambda: any(b"KeyboardInterrupt" in p[-1] for p in other.main.of(IOPUB)), "it")
