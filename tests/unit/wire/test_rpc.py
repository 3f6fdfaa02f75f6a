"""Requests, answers and notices over two drivers and a connection that may go away."""

from __future__ import annotations

import asyncio
import json

import pytest

from sshpyk.errors import AgentReplaced, KernelDied, LinkLost, SshpykError
from sshpyk.wire.rpc import RPC_STREAM, Params, Rpc
from tests.unit.wire.harness import Joined, in_loop, until


async def echo(params: Params) -> Params:
    return {"echo": params["text"]}


async def refuse(params: Params) -> Params:
    raise KernelDied("it ended", phase="starting the kernel", said="boom\nbang", advice="look")


async def fail(params: Params) -> Params:
    raise ZeroDivisionError("oops")


@in_loop
async def test_call_returns_the_answer_in_both_directions():
    async with Joined() as joined:
        hub, agent = Rpc(joined.hub, {"echo": echo}), Rpc(joined.agent, {"echo": echo})
        assert await hub.call("echo", text="é\n") == {"echo": "é\n"}
        assert await agent.call("echo", text="") == {"echo": ""}


@in_loop
async def test_an_error_arrives_as_the_type_that_was_raised_with_all_its_words():
    async with Joined() as joined:
        hub, _ = Rpc(joined.hub, {}), Rpc(joined.agent, {"start": refuse})
        with pytest.raises(KernelDied) as caught:
            await hub.call("start")
        error = caught.value
        assert (error.what, error.phase, error.said, error.advice) == (
            "it ended",
            "starting the kernel",
            "boom\nbang",
            "look",
        )


@in_loop
async def test_an_unexpected_failure_is_answered_too():
    async with Joined() as joined:
        hub, _ = Rpc(joined.hub, {}), Rpc(joined.agent, {"start": fail})
        with pytest.raises(SshpykError, match="start failed: ZeroDivisionError"):
            await hub.call("start")


@in_loop
async def test_unknown_operation_is_an_error_that_names_it():
    async with Joined() as joined:
        hub, _ = Rpc(joined.hub, {}), Rpc(joined.agent, {})
        with pytest.raises(SshpykError, match="does not know the operation fly"):
            await hub.call("fly")


@in_loop
async def test_notice_runs_the_operation_and_gets_no_answer():
    async with Joined() as joined:
        told: list[str] = []

        async def note(params: Params) -> Params:
            told.append(params["text"])
            return {}

        hub, _ = Rpc(joined.hub, {}), Rpc(joined.agent, {"note": note})
        hub.notify("note", text="psst")
        hub.notify("nobody knows this")
        await until(lambda: told == ["psst"])
        await until(lambda: joined.hub.link.backlog_bytes(RPC_STREAM) == 0)
        assert joined.agent.link.backlog_bytes(RPC_STREAM) == 0


@in_loop
async def test_calls_are_answered_out_of_order():
    async with Joined() as joined:
        release = asyncio.Event()

        async def slow(params: Params) -> Params:
            await release.wait()
            return {"slow": True}

        hub, _ = Rpc(joined.hub, {}), Rpc(joined.agent, {"slow": slow, "echo": echo})
        waiting = asyncio.ensure_future(hub.call("slow"))
        assert await hub.call("echo", text="x") == {"echo": "x"}
        assert not waiting.done()
        release.set()
        assert await waiting == {"slow": True}


@in_loop
async def test_a_call_outstanding_across_an_outage_is_answered_once():
    async with Joined() as joined:
        began, release = asyncio.Event(), asyncio.Event()
        served = 0

        async def slow(params: Params) -> Params:
            nonlocal served
            served += 1
            began.set()
            await release.wait()
            return {"n": served}

        hub, _ = Rpc(joined.hub, {}), Rpc(joined.agent, {"slow": slow})
        waiting = asyncio.ensure_future(hub.call("slow"))
        await began.wait()
        await joined.cut_and_noticed()
        release.set()
        later = asyncio.ensure_future(hub.call("slow"))  # asked while there is no connection
        joined.connect()
        assert await waiting == {"n": 1}
        assert await later == {"n": 2}
        assert served == 2


@in_loop
async def test_fail_all_ends_every_waiting_call_with_the_error():
    joined = Joined()  # never connected: the calls wait
    hub = Rpc(joined.hub, {})
    calls = [asyncio.ensure_future(hub.call("start")) for _ in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    hub.fail_all(LinkLost("the agent is gone"))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [type(result) for result in results[1:]] == [LinkLost, LinkLost]
    joined.close()


@in_loop
async def test_the_answer_to_a_cancelled_call_is_dropped():
    async with Joined() as joined:
        release = asyncio.Event()

        async def slow(params: Params) -> Params:
            await release.wait()
            return {}

        hub, _ = Rpc(joined.hub, {}), Rpc(joined.agent, {"slow": slow, "echo": echo})
        waiting = asyncio.ensure_future(hub.call("slow"))
        await asyncio.sleep(0)
        waiting.cancel()
        release.set()
        assert await hub.call("echo", text="next") == {"echo": "next"}


@pytest.mark.parametrize(
    "nonsense", [b"", b"{", b"[]", b"7", b"null", b'{"id": 7}', b'{"id": 1, "error": 3}', b"\xff"]
)
@in_loop
async def test_nonsense_from_the_peer_costs_nothing_but_itself(nonsense: bytes):
    async with Joined() as joined:
        hub, _ = Rpc(joined.hub, {}), Rpc(joined.agent, {"echo": echo})
        joined.hub.send(RPC_STREAM, nonsense)
        assert await hub.call("echo", text="x") == {"echo": "x"}


@in_loop
async def test_what_travels_is_json():
    async with Joined() as joined:
        seen: list[bytes] = []
        joined.agent.claim(RPC_STREAM, lambda message: bool(seen.append(message.payload)) or True)
        hub = Rpc(joined.hub, {})
        hub.notify("interrupt", kernel_id="k1")
        await until(lambda: seen)
        assert json.loads(seen[0]) == {"op": "interrupt", "kernel_id": "k1"}


@in_loop
async def test_peer_that_was_replaced_is_asked_again_except_for_what_may_not_be_done_twice():
    async with Joined() as joined:
        hub = Rpc(joined.hub, {})
        asked: list[str] = []
        waiting: list[asyncio.Future[Params]] = []

        async def never(params: Params) -> Params:
            asked.append(params["op"])
            return await asyncio.get_running_loop().create_future()

        async def at_second(params: Params) -> Params:
            asked.append(params["op"])
            waiting.append(asyncio.get_running_loop().create_future())
            return await waiting[-1]

        Rpc(joined.agent, {"start": never, "list": at_second})
        starting = asyncio.ensure_future(hub.call("start"))
        listing = asyncio.ensure_future(hub.call("list"))
        await until(lambda: len(asked) == 2)
        hub.ask_again(AgentReplaced("it was killed"), never=("start",))
        with pytest.raises(AgentReplaced):
            await starting
        await until(lambda: asked == ["start", "list", "list"])
        waiting[1].set_result({"n": 1})
        assert await listing == {"n": 1}
