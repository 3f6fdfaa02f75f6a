"""The first connection of all is cut: while ssh logs in, the program travels, or the agent's code."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from lab.faultproxy import DOWN, UP
from sshpyk.errors import SshpykError
from sshpyk.hub.host import HostLink
from sshpyk.ssh.command import SshTarget
from sshpyk.wire.journal import Journal
from tests.integration.faults.bench import Bench, bench_to
from tests.integration.kernels import REMOTE_PREFIX, eventually
from tests.integration.machines import Lab

PYTHON = f"{REMOTE_PREFIX}/bin/python"

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("way", [UP, DOWN])
def test_f60_cut_during_bootstrap_runs_nothing_and_the_next_dial_works(
    lab: Lab, account: str, add_kernel: object, tmp_path: Path, way: str
) -> None:
    """Each offset begins without an agent. Up go the login, the program and the agent's code."""

    def agents() -> list[int]:
        return [process.pid for process in lab.remote.processes(user=account) if process.ppid == 1]

    async def cut_and_try_again(offset: int) -> str:
        link = new_link(bench)
        cut = bench.proxy.cut(offset, way, fresh=True)
        failure = None
        try:
            await link.bring_up(PYTHON)
        except SshpykError as error:
            failure = error
        cut.wait(20)
        assert failure is None or failure.retryable, failure
        if failure is not None and way == UP:
            eventually(lambda: not agents(), "nothing that runs of a program that was cut")
        await link.bring_up(PYTHON)
        assert await link.rpc.call("list") == {"kernels": []}
        await link.leave("")
        return str(failure or "no failure").splitlines()[0]

    with bench_to(lab, "remote", add_kernel, tmp_path, user=account) as bench:
        asyncio.run(whole(bench))
        size = bench.proxy.passed_bytes(way)
        eventually(lambda: not agents(), "the agent's leave")
        chance = random.Random(20261121)
        # Not the last bytes: two runs differ by some.
        early = [chance.randrange(1, size * 6 // 10) for _ in range(3)]
        late = [chance.randrange(size * 6 // 10, size * 95 // 100) for _ in range(3)]
        print(f"{size} bytes {way} in all")
        for offset in [1, *early, *late]:
            print(offset, asyncio.run(cut_and_try_again(offset)))
            eventually(lambda: not agents(), "the agent's leave")


async def whole(bench: Bench) -> None:
    """Bring a link up and leave again, without a fault."""
    link = new_link(bench)
    await link.bring_up(PYTHON)
    await link.leave("")


def new_link(bench: Bench) -> HostLink:
    """Return a link through the bench's proxy, in this process."""
    target = SshTarget.parse("remote", ssh_config=str(bench.hub.config))
    return HostLink(target, Journal(str(bench.hub.config.with_name("journal"))))
