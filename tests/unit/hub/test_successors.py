"""Kernels that are asked for before their restart is, over a link to a fake agent."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sshpyk.errors import AuthenticationFailed, KernelDied, LinkLost
from sshpyk.hub import endpoint_pool, successors
from sshpyk.hub.linkstate import LinkState
from sshpyk.hub.requests import LaunchRequest
from sshpyk.wire.jupyter_messages import Signer
from sshpyk.wire.kernel_messages import CONTROL
from sshpyk.wire.rpc import Rpc
from tests.unit.hub.fakes import FakeAgent, FakeKernel
from tests.unit.hub.kernels_bench import Bench, bench
from tests.unit.wire.harness import Joined, in_loop, until


def goes_for_restart(kernel: FakeKernel, content: dict[str, Any] | None = None) -> None:
    """End a kernel as ipykernel ends when it is asked to restart."""
    content = {"status": "ok", "restart": True} if content is None else content
    signer = Signer("key", "hmac-sha256")
    kernel.say(CONTROL, signer.message("shutdown_reply", content, identities=[b"client"]))
    kernel.exit(0)


@asynccontextmanager
async def restarting(folder: Path, **changes: Any):
    """A bench whose first kernel has gone for a restart, which nobody has asked for yet."""
    async with bench(folder) as made:
        request = made.request(**changes)
        await made.kernels.launch(request)
        made.agent.may_start.clear()
        goes_for_restart(made.agent.kernel)
        await until(lambda: not made.kernels.summaries())
        yield made, request


def living(made: Bench, name: str) -> list[Any]:
    """Return what the kernels that live on the host were asked for with."""
    return [one.params[name] for one in made.agent.kernels.values() if one.alive]


async def come_too_late(made: Bench) -> None:
    """Wait until what was asked for has ended, with all that is here."""
    made.agent.may_start.set()
    await made.stopped_at_the_agent()
    await until(made.nothing_is_left)


@in_loop
async def test_the_next_kernel_is_asked_for_before_its_launch_which_gets_it(short_folder: Path):
    async with restarting(short_folder) as (made, request):
        await until(lambda: made.agent.ops == ["start", "start"])
        made.agent.may_start.set()
        kernel = await made.kernels.launch(request)
        assert made.agent.ops == ["start", "start"]
        assert kernel.kernel_id == made.agent.kernel.params["kernel_id"]
        assert [one["kernel_id"] for one in made.kernels.summaries()] == [kernel.kernel_id]
        statuses: list[object] = []
        kernel.watch(statuses.append)
        made.agent.kernel.exit(3)
        await until(lambda: statuses == [3])


@in_loop
async def test_a_kernel_that_is_there_before_its_launch_loses_no_message(short_folder: Path):
    async with restarting(short_folder) as (made, request):
        made.agent.may_start.set()
        await until(lambda: len(made.agent.kernels) == 2)
        made.agent.kernel.exit(7)
        await asyncio.sleep(0.02)
        kernel = await made.kernels.launch(request)
        statuses: list[object] = []
        kernel.watch(statuses.append)
        await until(lambda: statuses == [7])


@in_loop
async def test_what_no_restart_comes_for_is_ended(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(successors, "HELD_S", 0.02)
    monkeypatch.setattr(endpoint_pool, "LINGER_S", 0.02)
    async with restarting(short_folder) as (made, _):
        await come_too_late(made)
        assert made.agent.ops == ["start", "start", "stop"]


@in_loop
async def test_another_request_ends_it_and_gets_its_own(short_folder: Path):
    async with restarting(short_folder) as (made, _):
        made.agent.may_start.set()
        kernel = await made.kernels.launch(made.request(env={"NEW": "1"}))
        assert kernel.endpoints.info == made.info
        await until(lambda: living(made, "env") == [{"NEW": "1"}])
        assert sorted(made.agent.ops) == ["start", "start", "start", "stop"]


@in_loop
async def test_another_key_in_the_connection_file_ends_it(short_folder: Path):
    async with restarting(short_folder) as (made, _):
        made.info["key"] = "another"
        made.agent.may_start.set()
        await made.kernels.launch(made.request())
        await until(lambda: living(made, "key") == ["another"])


@in_loop
async def test_one_that_has_failed_is_asked_for_anew(short_folder: Path):
    async with restarting(short_folder) as (made, request):
        made.agent.start_error = KernelDied("no luck")
        made.agent.may_start.set()
        (waiting,) = made.kernels._arrivals.successors._waiting.values()
        await until(waiting.start.answer.done)
        made.agent.start_error = None
        await made.kernels.launch(request)
        assert len(living(made, "env")) == 1


@in_loop
async def test_a_failure_after_the_launch_has_come_is_the_launchs(short_folder: Path):
    async with restarting(short_folder) as (made, request):
        launching = asyncio.ensure_future(made.kernels.launch(request))
        await asyncio.sleep(0.02)
        made.agent.start_error = KernelDied("no luck")
        made.agent.may_start.set()
        with pytest.raises(KernelDied) as caught:
            await launching
        assert caught.value.host == "gpu1"
        assert made.nothing_is_left()


@in_loop
async def test_a_launch_that_is_cancelled_ends_it(short_folder: Path):
    async with restarting(short_folder) as (made, request):
        launching = asyncio.ensure_future(made.kernels.launch(request))
        await asyncio.sleep(0.02)
        launching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await launching
        await come_too_late(made)


@in_loop
async def test_a_hub_that_leaves_ends_it(short_folder: Path):
    async with restarting(short_folder) as (made, _):
        made.agent.may_start.set()
        await made.kernels.stop_all()
        await made.stopped_at_the_agent()


@in_loop
async def test_a_lost_link_takes_it_along_and_the_launch_asks_on_the_next(short_folder: Path):
    async with restarting(short_folder) as (made, request):
        made.host.rpc.fail_all(LinkLost("rebooted"))
        await asyncio.sleep(0)
        made.agent.may_start.set()
        await made.kernels.launch(request)
        await until(lambda: len(living(made, "env")) == 1)


@in_loop
async def test_one_that_was_ready_on_a_link_that_is_lost_by_now_is_none(short_folder: Path):
    async with restarting(short_folder) as (made, request), Joined() as after:
        made.agent.may_start.set()
        await until(lambda: len(made.agent.kernels) == 2)
        await asyncio.sleep(0.02)
        next_agent = FakeAgent(after)
        made.host.rpc, made.host.driver = Rpc(after.hub, {}), after.hub
        made.host.on_lost_link(LinkLost("rebooted"))
        kernel = await made.kernels.launch(request)
        assert next_agent.kernel.params["kernel_id"] == kernel.kernel_id


@in_loop
async def test_a_launch_in_an_outage_hears_what_the_dial_meets(short_folder: Path):
    async with restarting(short_folder) as (made, request):
        made.host.state = LinkState.NEEDS_LOGIN
        made.host.failure = AuthenticationFailed("denied")
        with pytest.raises(AuthenticationFailed):
            await made.kernels.launch(request)
        await come_too_late(made)


@in_loop
@pytest.mark.parametrize(
    "content", [{"status": "ok", "restart": False}, {}, {"restart": "yes"}, ["restart"]]
)
async def test_a_shutdown_that_is_no_restart_asks_for_nothing(short_folder: Path, content: Any):
    async with bench(short_folder) as made:
        await made.kernels.launch(made.request())
        goes_for_restart(made.agent.kernel, content)
        await until(lambda: not made.kernels.summaries())
        await asyncio.sleep(0.02)
        assert made.agent.ops == ["start"]


@in_loop
async def test_nothing_is_asked_for_that_could_stay_or_must_wait(short_folder: Path):
    mount = {"local": "/tmp", "remote": "/tmp/x", "options": [], "sshfs": ""}
    wishes: list[dict[str, Any]] = [{"persistent": True}, {"mounts": [mount]}]
    async with bench(short_folder) as made:
        successor = made.kernels._arrivals.successors
        for changes in wishes:
            successor.ask_for(LaunchRequest("file", "python3", "python3", **changes), made.info)
        made.host.outage.begin("silent")
        successor.ask_for(LaunchRequest("file", "python3", "python3"), made.info)
        await asyncio.sleep(0.02)
        assert made.agent.ops == []
