"""What a kernel prints while the line is down or slow: lines received, time, and the memory that it took.

``python benchmarks/faults.py`` makes its own host on loopback; in the lab, or with a real host:
``python /src/benchmarks/faults.py --host remote --remote-python /opt/venv/bin/python``. A fault proxy
(``lab/faultproxy.py``) stands in front of the host's sshd. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from rich.console import Console
from rich.table import Table

if not __package__:  # run as a script: the folder that holds the packages leads the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.places import Host, Way, chosen_host, host_options, line_to
from benchmarks.subjects import OURS, Ours, private_folder
from sshpyk.hub.client import reach_hub
from sshpyk.ssh.command import SshTarget

LINE_BYTES = 1000  # of text; its message is larger
PATIENCE_S = 300.0
_PRINTING = """
import sys, time
print("begun", flush=True)
time.sleep({wait_s})
for number in range({lines}):
    print(str(number).ljust({size} - 1, "."))
"""
# Runs on the host: of the processes with this in their arguments, the agent is the large one.
_AGENT = """
import os
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        words = open("/proc/%s/cmdline" % pid).read()
        if "sshpyk:locate" in words and os.getuid() == os.stat("/proc/" + pid).st_uid:
            status = dict(l.split(":", 1) for l in open("/proc/%s/status" % pid).read().splitlines())
            print(status["VmHWM"].split()[0], *open("/proc/%s/stat" % pid).read().split()[13:15])
    except OSError:
        pass
"""


@dataclass(frozen=True)
class Figures:
    """What one scenario brought."""

    title: str
    lines: int
    received: int
    took_s: float
    agent_mb: float
    hub_mb: float


class Bench:
    """A kernel on the host behind the proxy."""

    def __init__(self, way: Way, folder: Path) -> None:
        assert way.line is not None
        self.host: Host = way.host
        self.proxy = way.line
        self.target = SshTarget.parse(way.host.alias, ssh_config=way.ssh_config)
        self._subject = Ours(OURS, sys.executable, folder)
        os.environ.update(self._subject.environment())
        self._subject.add("shaky", way)
        self._manager = KernelManager(kernel_name=self._subject.kernel("shaky"))

    def __enter__(self) -> Bench:
        self._subject.forget()
        time.sleep(1)  # the agent leaves with its last hub: its peak is to be this run's
        self._manager.start_kernel()
        self.client: BlockingKernelClient = self._manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_channels()
        self._manager.shutdown_kernel()
        self._subject.forget()

    def printing(self, lines: int, wait_s: float) -> str:
        """Begin to print; return when the kernel has begun."""
        code = _PRINTING.format(lines=lines, size=LINE_BYTES, wait_s=wait_s)
        request: str = self.client.execute(code)
        while "begun" not in self.next_iopub(request)["content"].get("text", ""):
            pass
        return request

    def next_iopub(self, request: str) -> dict[str, Any]:
        """Return the next message that the request brought."""
        while True:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=PATIENCE_S)
            if message["parent_header"].get("msg_id") == request:
                return message

    def received(self, request: str, lines: int) -> int:
        """Read all that the cell prints; return how many lines are there, each in its place."""
        text = []
        while True:
            message = self.next_iopub(request)
            if message["content"].get("execution_state") == "idle":
                break
            text.append(message["content"].get("text", ""))
        expected = set(range(lines))
        numbers = [int(line.rstrip(".")) for line in "".join(text).split()]
        assert numbers == sorted(set(numbers)), "in order, none twice"
        return len(expected.intersection(numbers))

    def hub_mb(self) -> float:
        """Return the hub's peak memory."""
        hub = reach_hub(self.target)
        hub.say("status")
        answer = hub.hear()
        hub.close()
        assert answer is not None
        status = Path(f"/proc/{answer['pid']}/status").read_text()
        words = dict(line.split(":", 1) for line in status.splitlines())
        return int(words["VmHWM"].split()[0]) * 1024 / 1e6

    def agent(self) -> tuple[float, int]:
        """Return the agent's peak memory and the processor time that it has used, in ticks."""
        peaks = [line.split() for line in self.host.run_python(_AGENT).splitlines()]
        peak_kb, *ticks = max(peaks, key=lambda words: int(words[0]))
        return int(peak_kb) * 1024 / 1e6, sum(map(int, ticks))


def in_an_outage(bench: Bench, megabytes: int) -> Figures:
    """All of it is printed while nothing passes."""
    lines = megabytes * 1_000_000 // LINE_BYTES
    request = bench.printing(lines, wait_s=3)
    bench.proxy.pause()
    time.sleep(3)
    before = -10
    while (now := bench.agent()[1]) - before > 3:  # until the agent has read it
        before = now
        time.sleep(1)
    bench.proxy.resume()
    began_s = time.monotonic()
    received = bench.received(request, lines)
    took_s = time.monotonic() - began_s
    title = f"{megabytes} MB during an outage"
    return Figures(title, lines, received, took_s, bench.agent()[0], bench.hub_mb())


def over_a_slow_line(bench: Bench, lines: int) -> Figures:
    """Printed at full speed, over 1 MB/s."""
    bench.proxy.rate(1_000_000)
    request = bench.printing(lines, wait_s=0)
    began_s = time.monotonic()
    received = bench.received(request, lines)
    took_s = time.monotonic() - began_s
    bench.proxy.rate(0)
    title = f"{lines} lines over 1 MB/s"
    return Figures(title, lines, received, took_s, bench.agent()[0], bench.hub_mb())


@contextlib.contextmanager
def way_to_host(options: argparse.Namespace) -> Iterator[tuple[Way, Path]]:
    """Yield a way past a proxy, to the host of the command line or one on loopback, and a folder."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(private_folder())
        host = stack.enter_context(chosen_host(options, folder))
        yield stack.enter_context(line_to(host, folder / "line")), folder


def table_of(figures: list[Figures]) -> Table:
    """Return the figures as they are shown."""
    table = Table(box=None, padding=(0, 1))
    for title in ("", "lines", "s", "agent, MB", "hub, MB"):
        table.add_column(title, justify="right" if title else "left")
    for one in figures:
        received = f"{one.received} of {one.lines}"
        table.add_row(
            one.title, received, f"{one.took_s:.1f}", f"{one.agent_mb:.0f}", f"{one.hub_mb:.0f}"
        )
    return table


def parser(description: str) -> argparse.ArgumentParser:
    """Return the options that name the host."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    host_options(made)
    return made


def main(words: list[str] | None = None) -> int:
    """Measure and show; return the exit code."""
    reader = parser(__doc__ or "")
    reader.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    options = reader.parse_args(sys.argv[1:] if words is None else words)
    figures = []
    with way_to_host(options) as (way, folder):
        with Bench(way, folder) as bench:
            figures.append(in_an_outage(bench, 100))
        with Bench(way, folder) as bench:
            figures.append(over_a_slow_line(bench, 20_000))
    Console().print(table_of(figures))
    print(f"load {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps([vars(one) for one in figures], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
