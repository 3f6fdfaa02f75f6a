"""A script on the host: what it said, its end, and every bound of it."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from sshpyk.agent import script as module
from sshpyk.agent.script import run_script
from sshpyk.errors import HostError
from tests.unit.agent.service_bench import alive
from tests.unit.wire.harness import in_loop, until


async def run(script: str, timeout_s: float = 20.0) -> dict[str, Any]:
    return await run_script({"script": script, "timeout_s": timeout_s})


@in_loop
async def test_both_streams_and_the_status_are_told() -> None:
    assert await run("echo out; echo é >&2; exit 3") == {
        "stdout": "out\n",
        "stderr": "é\n",
        "status": 3,
    }


@in_loop
async def test_it_runs_in_the_home_folder_and_reads_nothing_of_ours(tmp_path: Path) -> None:
    assert (await run("cd && pwd; cat"))["stdout"] == f"{Path.home()}\n"


@in_loop
async def test_script_larger_than_a_pipe_is_read_to_its_end() -> None:
    assert (await run("# " + "x" * 200_000 + "\necho end"))["stdout"] == "end\n"


@in_loop
async def test_time_is_bounded_and_children_end_with_it() -> None:
    began_s = time.monotonic()
    done = await run("sleep 60 & echo $!; sleep 60", timeout_s=0.3)
    assert time.monotonic() - began_s < 5
    assert done["status"] is None
    pid = int(done["stdout"])
    await until(lambda: not alive(pid))


@in_loop
async def test_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OUTPUT_BYTES", 100_000)
    done = await run("yes")
    assert done["status"] is None
    assert 100_000 < len(done["stdout"]) < 300_000


@in_loop
async def test_child_that_holds_the_pipes_does_not_hold_the_answer() -> None:
    began_s = time.monotonic()
    done = await run("sleep 60 & echo done")
    assert time.monotonic() - began_s < 5
    assert (done["stdout"], done["status"]) == ("done\n", 0)


@in_loop
async def test_given_up_while_it_runs_ends_it(tmp_path: Path) -> None:
    running = asyncio.ensure_future(run(f"echo $$ > {tmp_path}/pid; exec sleep 60"))
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    pid = int((tmp_path / "pid").read_text())
    await until(lambda: not alive(pid))


class Unkillable(subprocess.Popen[bytes]):
    """A child in uninterruptible sleep, as on a file server that is gone: no signal ends it soon."""

    def wait(self, timeout: float | None = None) -> int:
        time.sleep(20 if timeout is None else timeout)
        super().wait()
        raise subprocess.TimeoutExpired(self.args, timeout or 20)


@in_loop
async def test_child_that_cannot_be_killed_holds_neither_the_loop_nor_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.subprocess, "Popen", Unkillable)
    monkeypatch.setattr(module, "_REAP_S", 0.2)
    running = asyncio.ensure_future(run("echo out"))
    longest_s, turn_s = 0.0, time.monotonic()
    while not running.done():
        await asyncio.sleep(0.01)
        longest_s, turn_s = max(longest_s, time.monotonic() - turn_s), time.monotonic()
    assert longest_s < 10
    assert await running == {"stdout": "out\n", "stderr": "", "status": None}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"script": 3, "timeout_s": 1},
        {"script": "x" * (module.MAX_SCRIPT_BYTES + 1), "timeout_s": 1},
        {"script": "true"},
        {"script": "true", "timeout_s": "soon"},
        {"script": "true", "timeout_s": True},
    ],
    ids=lambda params: str(params)[:40],
)
@in_loop
async def test_malformed_request_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(HostError):
        await run_script(params)
