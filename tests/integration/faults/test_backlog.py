"""What a kernel prints while nothing carries it away: memory, then the disk, then less, and it is said.

The kernel is one that drops nothing by itself. Figures of a quiet machine: benchmarks/README.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tornado.websocket import websocket_connect

from tests.integration.faults.bench import Bench
from tests.integration.faults.test_sizes import BURST_KERNEL
from tests.integration.kernels import (
    PATIENCE_S,
    Running,
    eventually,
    free_port,
    started,
)
from tests.integration.lifecycle_helpers import (
    REMOTE_PYTHON,
    InstallKernelspec,
    the_agent,
)
from tests.integration.machines import Lab, Machine

pytestmark = [pytest.mark.timeout(400), pytest.mark.exclusive]

LINE_BYTES = 1000
BUDGET_MB = 32  # sshpyk.agent.spool.Limits: what the agent keeps in memory
HARD_MB = 134  # the same, where the disk takes nothing
MORE_MB = 64  # what a process may take beside it
STATE = "/home/lab/.local/state/sshpyk"
GAP = re.compile(r"\[sshpyk: ([\d,]+) lines? \(.*\) of output w\w+ dropped here: the connection")


@dataclass
class Heard:
    """What a flood brought: the numbers of its lines, with what was dropped in its place."""

    numbers: list[int] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)  # after how many lines, how many

    def take(self, name: str, text: str) -> None:
        """Note what a ``stream`` message says; anything but lines and gaps is a failure."""
        if name == "stdout":
            self.numbers += [int(line.rstrip(".")) for line in text.splitlines()]
            return
        gap = GAP.match(text)
        assert gap, text
        self.gaps.append((len(self.numbers), int(gap[1].replace(",", ""))))

    def assert_whole(self, count: int) -> None:
        """Check that each line came once, or is counted in the gap where it would have been."""
        expected: list[int] = []
        number, gaps = 0, dict(self.gaps)
        for at in range(len(self.numbers) + 1):
            number += gaps.get(at, 0)
            if at < len(self.numbers):
                expected.append(number)
                number += 1
        assert self.numbers == expected
        assert number == count


def flooding_kernel(bench: Bench, install: InstallKernelspec) -> str:
    """Add the kernel that floods; return its name."""
    argv = [REMOTE_PYTHON, "{resource_dir}/burst_kernel.py", "{connection_file}"]
    name = install(argv, files={BURST_KERNEL.name: BURST_KERNEL.read_text()})
    return bench.add_kernel(bench.hub.host, *bench.hub.options, remote_kernel_name=name)


@contextlib.contextmanager
def flooding(lab: Lab, bench: Bench, install: InstallKernelspec) -> Iterator[Running]:
    """Start the kernel that floods."""
    with started(lab, flooding_kernel(bench, install)) as kernel:
        yield kernel


def flood_in_an_outage(lab: Lab, bench: Bench, kernel: Running, lines: int) -> str:
    """Let the kernel print while the line is down; return when the agent has all of it."""
    msg_id = kernel.client.execute(f"{lines} {LINE_BYTES} 3")
    busy = kernel.client.get_iopub_msg(timeout=PATIENCE_S)
    assert busy["parent_header"]["msg_id"] == msg_id
    bench.proxy.pause()
    agent = the_agent(lab)
    time.sleep(3)
    await_quiet(lab.remote, agent.pid)
    return msg_id


def hear(kernel: Running, msg_id: str) -> Heard:
    """Read all of it, and the reply."""
    heard = Heard()
    socket = kernel.client.iopub_channel.socket
    while True:
        assert socket.poll(1000 * PATIENCE_S), f"silence after {len(heard.numbers)} lines"
        parts = socket.recv_multipart()
        # Not by get_iopub_msg: it takes longer for a message than all others together.
        content = json.loads(parts[parts.index(b"<IDS|MSG>") + 5])
        if content.get("execution_state") == "idle":
            break
        if "text" in content:
            assert content["name"] == "stderr" or len(content["text"]) == LINE_BYTES
            heard.take(**content)
    assert kernel.client.get_shell_msg(timeout=PATIENCE_S)["parent_header"]["msg_id"] == msg_id
    return heard


def memory_mb(machine: Machine, pid: int, what: str = "VmHWM") -> float:
    """Return the most (or with VmRSS the present) memory of a process."""
    words = machine.run(["grep", what, f"/proc/{pid}/status"]).split()
    return int(words[1]) * 1024 / 1e6


def forget_peak(machine: Machine, pid: int) -> None:
    machine.run(f"echo 5 > /proc/{pid}/clear_refs")


def await_quiet(machine: Machine, pid: int) -> None:
    """Return when a process has no work any more."""

    def ticks() -> int:
        stat = machine.run(["cat", f"/proc/{pid}/stat"]).rpartition(")")[2].split()
        return int(stat[11]) + int(stat[12])

    def quiet() -> bool:
        before = ticks()
        time.sleep(1)
        return ticks() - before <= 3

    eventually(quiet, "an agent that has read everything", timeout_s=120)


def test_f45_100_mb_in_an_outage_arrive_whole_and_memory_stays_small(
    lab: Lab, bench: Bench, remote_kernelspec: InstallKernelspec
) -> None:
    with flooding(lab, bench, remote_kernelspec) as kernel:
        agent = the_agent(lab)
        forget_peak(lab.remote, agent.pid)
        began_s = time.monotonic()
        msg_id = flood_in_an_outage(lab, bench, kernel, 100_000)
        held_s = time.monotonic() - began_s
        files = lab.remote.run(f"ls -l /proc/{agent.pid}/fd | grep -c '(deleted)'", check=False)
        bench.proxy.resume()
        began_s = time.monotonic()
        heard = hear(kernel, msg_id)
        took_s = time.monotonic() - began_s
        agent_mb = memory_mb(lab.remote, agent.pid)
        hub_mb = memory_mb(lab.laptop, bench.hub.pid)
    print(f"{len(heard.numbers)} lines; held after {held_s:.1f} s, replayed in {took_s:.1f} s")
    print(f"peak of the agent {agent_mb:.0f} MB, of the hub {hub_mb:.0f} MB; {files.strip()} files")
    assert int(files) > 1
    heard.assert_whole(100_000)
    assert heard.gaps == []
    assert agent_mb < BUDGET_MB * 1.05 + MORE_MB
    assert hub_mb < BUDGET_MB * 1.05 + MORE_MB


@contextlib.contextmanager
def small_disk(machine: Machine, folder: str, size_kb: int) -> Iterator[None]:
    """Put a file system of that size in the place of a folder of the user's."""
    machine.run(["mkdir", "-p", folder])  # as the user, or what is above would be root's
    machine.run(
        f"mount -t tmpfs -o size={size_kb}k,uid=1000,mode=700 tmpfs {folder}"
        f" && mkdir -m 700 {folder}/kernels && chown lab: {folder}/kernels",
        user="root",
    )
    try:
        yield
    finally:
        machine.run(["umount", "-l", folder], user="root")


def test_f22_full_disk_falls_back_to_memory_then_drops_text_and_says_so(
    lab: Lab, bench: Bench, remote_kernelspec: InstallKernelspec
) -> None:
    with small_disk(lab.remote, STATE, 4096), flooding(lab, bench, remote_kernelspec) as kernel:
        lab.remote.run(f"head -c 100M /dev/zero > {STATE}/kernels/full", check=False)
        agent = the_agent(lab)
        for lines, drops in ((70_000, False), (200_000, True)):
            msg_id = flood_in_an_outage(lab, bench, kernel, lines)
            bench.proxy.resume()
            heard = hear(kernel, msg_id)
            print(f"{len(heard.numbers)} of {lines} lines, gaps {heard.gaps}")
            peak_mb = memory_mb(lab.remote, agent.pid)
            left_mb = memory_mb(lab.remote, agent.pid, "VmRSS")
            print(f"peak of the agent {peak_mb:.0f} MB, afterwards {left_mb:.0f} MB")
            assert peak_mb < HARD_MB + MORE_MB
            assert left_mb < BUDGET_MB * 1.05 + MORE_MB
            heard.assert_whole(lines)
            assert bool(heard.gaps) == drops


# A Jupyter server in front


@contextlib.contextmanager
def jupyter_server() -> Iterator[str]:
    """Run a server with its usual limits; return its address."""
    port = free_port()
    argv = [sys.executable, "-m", "jupyter_server", f"--port={port}", "--no-browser"]
    argv += ["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    server = subprocess.Popen(argv)
    try:
        address = f"127.0.0.1:{port}"
        eventually(lambda: answers(address), "a server that answers", timeout_s=PATIENCE_S)
        yield address
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


def answers(address: str) -> bool:
    try:
        return bool(call(address, "GET", "/api"))
    except OSError:
        return False


def call(address: str, method: str, path: str, body: Any = None) -> Any:
    """Ask the server's REST API."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{address}{path}", data, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        text = answer.read()
    return json.loads(text) if text else True


async def _next_message(page: Any, away: asyncio.Future[Any] | None) -> Any:
    """Wait for a message, and while the line is away as long as that takes."""
    reading = asyncio.ensure_future(page.read_message())
    if away is not None:
        await asyncio.wait({reading, away}, return_when=asyncio.FIRST_COMPLETED)
    return await asyncio.wait_for(reading, PATIENCE_S)


async def read_page(
    address: str, kernel_id: str, code: str, outage: Callable[[], float]
) -> tuple[Heard, float]:
    """Do what a notebook's page does; return what it heard, and how long after the outage it had all.

    It reads on during the ``outage``, as a page answers the server's pings meanwhile.
    """
    url = f"ws://{address}/api/kernels/{kernel_id}/channels?session_id=page"
    page = await websocket_connect(url)
    header = {"msg_id": "flood", "msg_type": "execute_request", "session": "page"}
    header.update(username="u", version="5.3", date="2026-01-01T00:00:00Z")
    message = {"header": header, "parent_header": {}, "metadata": {}}
    message["content"] = {"code": code, "silent": False}
    await page.write_message(json.dumps({**message, "channel": "shell", "buffers": []}))
    heard = Heard()
    away: asyncio.Future[float] | None = None
    while True:
        answer = await _next_message(page, away)
        assert answer is not None, "the server closed the page's connection"
        said = json.loads(answer)
        if said["parent_header"].get("msg_id") != "flood" or said["channel"] != "iopub":
            continue
        if said["content"].get("execution_state") == "busy":
            away = asyncio.ensure_future(asyncio.to_thread(outage))
        elif said["content"].get("execution_state") == "idle":
            assert away is not None
            page.close()
            return heard, time.monotonic() - await away
        elif said["header"]["msg_type"] == "stream":
            heard.take(**said["content"])


def test_f45_replay_is_paced_for_a_jupyter_server_that_drops_nothing_of_it(
    lab: Lab, bench: Bench, remote_kernelspec: InstallKernelspec
) -> None:
    """15 MB of messages where the server lets 1 MB/s pass."""
    pytest.importorskip("jupyter_server")
    lines = 10_000

    def outage() -> float:
        bench.proxy.pause()
        time.sleep(3)
        await_quiet(lab.remote, the_agent(lab).pid)
        bench.proxy.resume()
        return time.monotonic()

    name = flooding_kernel(bench, remote_kernelspec)
    with jupyter_server() as address:
        kernel_id = call(address, "POST", "/api/kernels", {"name": name})["id"]
        code = f"{lines} {LINE_BYTES} 3"
        heard, took_s = asyncio.run(read_page(address, kernel_id, code, outage))
        call(address, "DELETE", f"/api/kernels/{kernel_id}")
    print(f"{len(heard.numbers)} of {lines} lines, replayed in {took_s:.1f} s")
    assert heard.gaps == []
    heard.assert_whole(lines)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_f45_ten_minutes_at_1_mb_s_fill_the_disk_then_drop_the_oldest_and_replay_slowly(
    lab: Lab, bench: Bench, remote_kernelspec: InstallKernelspec
) -> None:
    """600 MB of text in an outage, 128 MB of disk, and a Jupyter server at its usual limits."""
    pytest.importorskip("jupyter_server")
    lines, rate, outage_s = 600_000, 1000, 600
    name = flooding_kernel(bench, remote_kernelspec)
    with small_disk(lab.remote, STATE, 128 * 1024), jupyter_server() as address:
        kernel_id = call(address, "POST", "/api/kernels", {"name": name})["id"]
        agent = the_agent(lab)

        def outage() -> float:
            bench.proxy.pause()
            time.sleep(outage_s)
            print("disk:", lab.remote.run(["df", "-k", STATE]).splitlines()[-1])
            bench.proxy.resume()
            return time.monotonic()

        code = f"{lines} {LINE_BYTES} 0 {rate}"
        heard, took_s = asyncio.run(read_page(address, kernel_id, code, outage))
        agent_mb = memory_mb(lab.remote, agent.pid)
        hub_mb = memory_mb(lab.laptop, bench.hub.pid)
        call(address, "DELETE", f"/api/kernels/{kernel_id}")
    print(f"{len(heard.numbers)} of {lines} lines, gaps {heard.gaps}, replayed in {took_s:.0f} s")
    print(f"peak of the agent {agent_mb:.0f} MB, of the hub {hub_mb:.0f} MB")
    heard.assert_whole(lines)
    assert heard.gaps
    assert len(heard.numbers) > 100_000
    assert agent_mb < HARD_MB + MORE_MB
    assert hub_mb < BUDGET_MB * 1.05 + MORE_MB
