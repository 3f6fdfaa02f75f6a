"""A stand-in and the hub that takes the place of a killed one, in front of a fake agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from sshpyk.errors import LinkLost
from tests.unit.hub.test_server import Bench, Owner, bench
from tests.unit.wire.harness import in_loop, until

KERNEL_ID = "k1"


@asynccontextmanager
async def next_hub(folder: Path) -> AsyncIterator[tuple[Bench, Owner, Callable[[], None]]]:
    """The next hub, with a stand-in that has just asked for its kernel; what lets its client be back."""
    async with bench(folder) as made:
        streams = made.host.new_streams(2)
        await made.host.rpc.call("start", kernel_id=KERNEL_ID, streams=streams)
        made.host.took_over = True
        owner = await made.owner()
        owner.say(**reattach(made, streams))
        await until(lambda: made.kernels.summaries())
        (kernel,) = made.kernels._kernels.values()
        yield made, owner, kernel.endpoints._subscribed.set


def reattach(made: Bench, streams: list[int]) -> dict[str, object]:
    ticket = {"kernel_id": KERNEL_ID, "streams": streams, "pid": 1}
    return {**made.launch_record(), "op": "reattach", "ticket": ticket}


@in_loop
async def test_an_order_waits_until_the_kernel_is_taken_over(short_folder: Path):
    async with next_hub(short_folder) as (made, owner, come_back):
        owner.say(op="interrupt")
        owner.say(op="stop", grace_s=2)
        await asyncio.sleep(0.02)
        assert made.agent.ops == ["start"]
        come_back()
        assert (await owner.hear() or {})["event"] == "ready"
        assert await owner.hear() == {"event": "exited", "status": -9}
        assert made.agent.ops == ["start", "welcomes", "interrupt", "stop"]


@in_loop
async def test_an_owner_that_vanishes_takes_its_kernel_along(short_folder: Path):
    async with next_hub(short_folder) as (made, owner, _):
        owner.leave()
        await until(lambda: made.agent.ops == ["start", "stop"])
        await until(lambda: not made.kernels.summaries())
        await until(lambda: not made.joined.agent.link.unacknowledged, "that its end was taken")


@in_loop
async def test_one_that_is_left_meanwhile_does_not_come_back(short_folder: Path):
    async with next_hub(short_folder) as (made, owner, come_back):
        made.kernels.leave(made.kernels._kernels[KERNEL_ID])
        come_back()
        heard = [(await owner.hear() or {})["event"] for _ in range(2)]
        assert heard == ["ready", "left"]
        assert not made.kernels.summaries()


@in_loop
async def test_a_link_that_turns_out_lost_is_told_and_nothing_is_kept(short_folder: Path):
    async with next_hub(short_folder) as (made, owner, come_back):
        made.host.on_lost_link(LinkLost("rebooted", host="gpu1"))
        come_back()
        heard = [(await owner.hear() or {})["event"] for _ in range(2)]
        assert heard == ["ready", "failed"]
        assert not made.kernels.summaries()


@in_loop
async def test_a_stand_in_that_comes_after_the_link_was_lost_is_told_so(short_folder: Path):
    async with bench(short_folder) as made:
        made.host.took_over = False  # as after the loss
        owner = await made.owner()
        owner.say(**reattach(made, made.host.new_streams(2)))
        assert (await owner.hear() or {})["error"]["phase"] == "taking the kernel over"
        assert not made.kernels.summaries()
