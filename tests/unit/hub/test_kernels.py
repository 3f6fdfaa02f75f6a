"""The hub's kernels, over a link to a fake agent in the same process."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sshpyk.errors import (
    AuthenticationFailed,
    HubError,
    KernelDied,
    KernelError,
    LaunchTimeout,
    LinkLost,
    MountError,
    SshpykError,
)
from sshpyk.hub import endpoint_pool
from sshpyk.wire.kernel_messages import SHELL
from sshpyk.wire.rpc import RPC_STREAM, Rpc
from tests.unit.hub.fakes import Client, FakeAgent, tcp_info
from tests.unit.hub.kernels_bench import bench
from tests.unit.wire.harness import Joined, in_loop, until


@in_loop
async def test_a_mount_that_is_optional_does_not_fail_the_launch(short_folder: Path):
    mount = {"local": "/no/such", "remote": "~/code", "options": [], "sshfs": ""}
    async with bench(short_folder) as made:
        request = made.request(mounts=[mount], cwd="~/code/notebooks")
        with pytest.raises(MountError, match="no folder /no/such"):
            await made.kernels.launch(request)
        kernel = await made.kernels.launch(replace(request, mount_optional=True))
        assert "the kernel starts without mount /no/such:~/code: there is no" in kernel.notice
        asked = made.agent.kernel.params
        assert (asked["cwd"], asked["folders"]) == ("", ["~/code/notebooks"])


@in_loop
async def test_launch_tells_the_agent_what_was_asked_and_joins_the_sockets(short_folder: Path):
    async with bench(short_folder) as made:
        await made.kernels.launch(
            made.request(python="~/env/bin/python", kernel_name="ir", env={"A": "1"}, cwd="~/w")
        )
        asked = made.agent.kernel.params
        assert (asked["python"], asked["kernel_name"]) == ("~/env/bin/python", "ir")
        assert (asked["env"], asked["cwd"]) == ({"A": "1"}, "~/w")
        assert (asked["key"], asked["signature_scheme"]) == (made.info["key"], "hmac-sha256")
        assert len(made.kernels.summaries()) == 1
        client = Client(made.info)
        client.open("shell").send(b"request")
        await until(lambda: made.agent.kernel.got)
        made.agent.kernel.say(SHELL, [b"client", b"reply"])
        assert await client.receive("shell") == [b"reply"]
        client.close()


@in_loop
async def test_two_kernels_have_streams_and_ids_of_their_own(short_folder: Path):
    async with bench(short_folder) as made:
        first = await made.kernels.launch(made.request())
        made.info = tcp_info()
        second = await made.kernels.launch(made.request())
        streams = [kernel.params["streams"] for kernel in made.agent.kernels.values()]
        assert len({number for pair in streams for number in pair}) == 4
        assert first.kernel_id != second.kernel_id
        assert len(made.kernels.summaries()) == 2


@pytest.mark.parametrize("kind", [KernelDied, KernelError, SshpykError])
@in_loop
async def test_what_the_agent_raises_reaches_the_caller_with_the_host(
    kind: type[SshpykError], short_folder: Path
):
    async with bench(short_folder) as made:
        made.agent.start_error = kind("no luck", said="words")
        with pytest.raises(kind, match="no luck") as caught:
            await made.kernels.launch(made.request())
        assert (caught.value.host, caught.value.said) == ("gpu1", "words")
        assert made.nothing_is_left()
        await made.stopped_at_the_agent()


@in_loop
async def test_a_host_that_does_not_come_up_fails_the_launch(short_folder: Path):
    async with bench(short_folder) as made:
        made.host.failure = AuthenticationFailed("permission denied", host="gpu1")
        with pytest.raises(AuthenticationFailed):
            await made.kernels.launch(made.request())
        assert made.agent.asked == []
        assert made.nothing_is_left()


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '"text"', "\ud800"])
@in_loop
async def test_a_connection_file_that_is_none_fails_the_launch(
    content: str | None, short_folder: Path
):
    path = short_folder / "broken.json"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
    async with bench(short_folder) as made:
        with pytest.raises((HubError, KernelError), match=r"broken\.json"):
            await made.kernels.launch(made.request(connection_file=str(path)))
        assert made.agent.asked == []
        assert made.nothing_is_left()


@pytest.mark.parametrize(
    "change",
    [
        {"transport": "carrier pigeon"},
        {"curve_secretkey": "too short", "curve_publickey": "too short"},
        {"curve_secretkey": "0" * 40},
        {"signature_scheme": "hmac-nonsense"},
        {"signature_scheme": 7},
        {"key": 7},
    ],
    ids=str,
)
@in_loop
async def test_a_connection_file_that_cannot_be_served_is_an_error_of_ours(
    change: dict[str, Any], short_folder: Path
):
    async with bench(short_folder) as made:
        made.info.update(change)
        with pytest.raises(SshpykError):
            await made.kernels.launch(made.request())
        assert made.nothing_is_left()


@in_loop
async def test_ports_in_use_fail_the_launch(short_folder: Path):
    async with bench(short_folder) as made:
        made.info = tcp_info()
        await made.kernels.launch(made.request())
        with pytest.raises(HubError, match="Address already in use"):
            await made.kernels.launch(made.request())
        assert len(made.kernels.summaries()) == 1


@in_loop
async def test_timeout_while_the_kernel_starts_stops_it_and_leaves_nothing(short_folder: Path):
    async with bench(short_folder) as made:
        made.agent.may_start.clear()
        with pytest.raises(LaunchTimeout, match=r"not ready within 0\.1 s") as caught:
            await made.kernels.launch(made.request(launch_timeout_s=0.1))
        assert caught.value.phase == "starting the kernel"
        await until(made.nothing_is_left)
        await until(lambda: made.agent.ops == ["start", "stop"])
        assert made.agent.asked[0][1]["kernel_id"] == made.agent.asked[1][1]["kernel_id"]


@in_loop
async def test_timeout_while_the_link_is_away_says_so(short_folder: Path):
    async with bench(short_folder) as made:
        made.agent.may_start.clear()
        made.host.outage.begin("no answer from it", silent_s=40)
        with pytest.raises(LaunchTimeout) as caught:
            await made.kernels.launch(made.request(launch_timeout_s=0.1))
        made.host.outage.end()
        assert "which has been down for 40 s" in caught.value.phase
        assert "launch_timeout" not in caught.value.advice


@in_loop
async def test_timeout_while_dialing_names_that_phase_and_starts_nothing(short_folder: Path):
    async with bench(short_folder) as made:
        made.host.may_come_up.clear()
        with pytest.raises(LaunchTimeout) as caught:
            await made.kernels.launch(made.request(launch_timeout_s=0.1))
        assert caught.value.phase.startswith("connecting with ssh")
        assert ".bashrc" in caught.value.advice
        await until(made.nothing_is_left)
        assert made.agent.asked == []


@in_loop
async def test_a_cancelled_launch_leaves_nothing(short_folder: Path):
    async with bench(short_folder) as made:
        made.agent.may_start.clear()
        launching = asyncio.ensure_future(made.kernels.launch(made.request()))
        await until(lambda: made.agent.ops == ["start"])
        launching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await launching
        await until(made.nothing_is_left)
        await until(lambda: made.agent.ops == ["start", "stop"])


@in_loop
async def test_a_launch_cancelled_at_any_moment_leaves_no_kernel_without_an_owner(
    short_folder: Path,
):
    async with bench(short_folder) as made:
        for turns in range(40):
            launching = asyncio.ensure_future(made.kernels.launch(made.request()))
            for _ in range(turns):
                await asyncio.sleep(0)
            launching.cancel()
            try:
                kernel = await launching
            except asyncio.CancelledError:
                await until(lambda: not made.kernels.summaries(), f"cancelled after {turns} turns")
            else:
                made.kernels.stop(kernel, 0)
            await until(lambda: not any(k.alive for k in made.agent.kernels.values()))
            await until(lambda: not made.kernels.summaries())


@in_loop
async def test_exit_is_told_once_with_its_status(short_folder: Path):
    async with bench(short_folder) as made:
        kernel = await made.kernels.launch(made.request())
        statuses: list[object] = []
        kernel.watch(statuses.append)
        made.agent.kernel.exit(3)
        await until(lambda: statuses)
        assert statuses == [3]
        assert not made.kernels.summaries()
        assert made.kernels.busy  # its sockets wait for a restart


@in_loop
async def test_a_kernel_that_dies_right_after_its_start_still_tells_its_status(
    short_folder: Path,
):
    async with bench(short_folder) as made:
        made.agent.dies_at_once = True
        kernel = await made.kernels.launch(made.request())
        statuses: list[object] = []
        kernel.watch(statuses.append)
        await until(lambda: statuses == [1])


@in_loop
async def test_orders_reach_the_agent_with_the_kernels_id(short_folder: Path):
    async with bench(short_folder) as made:
        kernel = await made.kernels.launch(made.request())
        made.kernels.interrupt(kernel)
        made.kernels.signal(kernel, 10)
        made.kernels.stop(kernel, 2.5)
        await until(lambda: len(made.agent.asked) == 4)
        orders = [
            (op, {key: value for key, value in params.items() if key != "op"})
            for op, params in made.agent.asked[1:]
        ]
        ticket = kernel.ticket
        kernel_and_streams = {"kernel_id": ticket.kernel_id, "streams": ticket.streams}
        assert orders == [
            ("interrupt", {**kernel_and_streams, "seen": 0}),
            ("signal", {**kernel_and_streams, "signal": 10}),
            ("stop", {**kernel_and_streams, "grace_s": 2.5}),
        ]


@in_loop
async def test_a_restart_finds_its_clients_still_connected(short_folder: Path):
    async with bench(short_folder) as made:
        first = await made.kernels.launch(made.request())
        client = Client(made.info)
        shell = client.open("shell")
        shell.send(b"one")
        await until(lambda: made.agent.kernel.got)
        made.agent.kernel.exit(0)
        await until(lambda: not made.kernels.summaries())
        shell.send(b"two")
        second = await made.kernels.launch(made.request())
        assert second.endpoints is first.endpoints
        await until(lambda: made.agent.kernel.got)
        assert made.agent.kernel.got[0].parts == [b"client", b"two"]
        client.close()


@in_loop
async def test_a_restart_with_another_key_gets_new_sockets(short_folder: Path):
    async with bench(short_folder) as made:
        first = await made.kernels.launch(made.request())
        made.agent.kernel.exit(0)
        await until(lambda: not made.kernels.summaries())
        made.info["key"] = "another"
        second = await made.kernels.launch(made.request())
        assert second.endpoints is not first.endpoints
        assert made.agent.kernel.params["key"] == "another"


@in_loop
async def test_a_restart_that_fails_frees_the_sockets(short_folder: Path):
    async with bench(short_folder) as made:
        await made.kernels.launch(made.request())
        made.agent.kernel.exit(0)
        await until(lambda: not made.kernels.summaries())
        made.agent.start_error = KernelDied("no luck")
        with pytest.raises(KernelDied):
            await made.kernels.launch(made.request())
        assert made.nothing_is_left()


@in_loop
async def test_sockets_that_no_restart_wants_are_freed(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(endpoint_pool, "LINGER_S", 0.02)
    async with bench(short_folder) as made:
        await made.kernels.launch(made.request())
        made.agent.kernel.exit(0)
        await until(lambda: not made.kernels.summaries())
        await until(made.nothing_is_left)


@in_loop
async def test_a_lost_link_fails_every_kernel_with_the_reason(short_folder: Path):
    async with bench(short_folder) as made:
        kernel = await made.kernels.launch(made.request())
        failures: list[object] = []
        kernel.watch(failures.append)
        made.host.on_lost_link(LinkLost("the agent is gone", host="gpu1"))
        assert [type(error) for error in failures] == [LinkLost]
        assert not made.kernels.summaries()


@in_loop
async def test_a_launch_during_an_outage_happens_when_the_link_is_back(short_folder: Path):
    async with bench(short_folder) as made:
        await made.joined.cut_and_noticed()
        launching = asyncio.ensure_future(made.kernels.launch(made.request()))
        await asyncio.sleep(0.02)
        assert made.agent.asked == []
        made.joined.connect()
        await launching
        assert made.agent.ops == ["start"]


@in_loop
async def test_failed_launches_leave_no_stream_behind(short_folder: Path):
    async with bench(short_folder) as made:
        made.agent.start_error = KernelDied("no luck")
        for _ in range(3):
            with pytest.raises(KernelDied):
                await made.kernels.launch(made.request())
        made.agent.start_error = None
        await made.kernels.launch(made.request())
        assert set(made.joined.hub.link._streams) >= set(made.agent.kernel.params["streams"])


@in_loop
async def test_a_launch_whose_link_is_lost_is_repeated_on_the_next_and_leaves_nothing_else(
    short_folder: Path,
):
    async with bench(short_folder) as made, Joined() as after:
        made.agent.may_start.clear()
        launching = asyncio.ensure_future(made.kernels.launch(made.request()))
        await until(lambda: made.agent.ops == ["start"])
        next_agent = FakeAgent(after)
        lost, made.host.rpc = made.host.rpc, Rpc(after.hub, {})
        made.host.driver = after.hub
        lost.fail_all(LinkLost("the agent is gone"))
        kernel = await launching
        assert next_agent.ops == ["start"]
        assert set(after.hub.link._streams) == {RPC_STREAM, *kernel.ticket.streams}
        assert not after.hub.link.unacknowledged


@in_loop
async def test_a_launch_is_repeated_once_only(short_folder: Path):
    async with bench(short_folder) as made:
        made.host.failure = LinkLost("the agent is gone")
        with pytest.raises(LinkLost) as caught:
            await made.kernels.launch(made.request())
        assert caught.value.host == "gpu1"
        assert made.agent.ops == []


@in_loop
async def test_stop_all_ends_every_kernel(short_folder: Path):
    async with bench(short_folder) as made:
        await made.kernels.launch(made.request())
        made.info = tcp_info()
        await made.kernels.launch(made.request())
        await made.kernels.stop_all()
        assert not any(kernel.alive for kernel in made.agent.kernels.values())


@in_loop
async def test_f16_new_agent_is_asked_anew_for_what_was_to_end(short_folder: Path):
    async with bench(short_folder) as made:
        made.agent.ignores_stop = True
        stopped = await made.kernels.launch(made.request())
        made.info = tcp_info()
        kept = await made.kernels.launch(made.request())
        made.info = tcp_info()
        orphan = await made.kernels.launch(made.request())
        made.kernels.stop(stopped, 3.0)
        made.kernels.abandon(orphan)
        await until(lambda: made.agent.ops.count("stop") == 2)
        made.agent.asked.clear()
        made.agent.ignores_stop = False
        made.host.on_agent_replaced()
        await until(lambda: made.agent.ops.count("stop") == 2)
        ended = {params["kernel_id"] for op, params in made.agent.asked if op == "stop"}
        assert ended == {stopped.kernel_id, orphan.kernel_id}
        assert made.agent.kernels[kept.kernel_id].alive
