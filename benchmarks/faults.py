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
import subprocess
import sys
import tempfile
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

from benchmarks.latency import Host, add_subject, private_jupyter
from lab.faultproxy import FaultProxy
from sshpyk.hub.client import reach_hub, stop_hub
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

    def __init__(self, host: Host, proxy: FaultProxy, direct: list[str]) -> None:
        self.host = host
        self.proxy = proxy
        self.direct = direct  # the ssh command that does not pass the proxy
        subject = add_subject(host)
        assert subject.target is not None
        self.target: SshTarget = subject.target
        self._manager = KernelManager(kernel_name=subject.kernel_name)

    def __enter__(self) -> Bench:
        stop_hub(self.target)
        time.sleep(1)  # the agent leaves with its last hub: its peak is to be this run's
        self._manager.start_kernel()
        self.client: BlockingKernelClient = self._manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_channels()
        self._manager.shutdown_kernel()
        stop_hub(self.target)

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
        script = f"{self.host.python} - <<'END'\n{_AGENT}\nEND"
        said = subprocess.run(
            [*self.direct, script], capture_output=True, text=True, check=True
        ).stdout
        peaks = [line.split() for line in said.splitlines()]
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
def host_behind_proxy(options: argparse.Namespace) -> Iterator[tuple[Host, FaultProxy, list[str]]]:
    """Yield the host as the kernel's ssh sees it, the proxy, and the ssh command that goes around."""
    with contextlib.ExitStack() as stack:
        alias, config = options.host, options.ssh_config or str(Path.home() / ".ssh/config")
        if alias is None:
            from demo.loopback import LoopbackHost  # only here: the lab needs no sshd of ours

            loopback = stack.enter_context(LoopbackHost())
            alias, config = loopback.alias, str(loopback.ssh_config)
        direct = ["ssh", "-F", config, alias]
        asked = subprocess.run(
            ["ssh", "-F", config, "-G", alias], capture_output=True, text=True, check=True
        )
        said = dict(line.partition(" ")[::2] for line in asked.stdout.splitlines())
        name, port = said["hostname"], int(said["port"])
        key_name = said.get("hostkeyalias") or (name if port == 22 else f"[{name}]:{port}")
        proxy = stack.enter_context(FaultProxy(name, port))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        proxied = Path(folder) / "ssh_config"
        proxied.write_text(
            f"Host {alias}\n    HostName 127.0.0.1\n    Port {proxy.port}\n"
            f"    HostKeyAlias {key_name}\n{Path(config).read_text()}"
        )
        yield Host("behind_a_proxy", alias, str(proxied), options.remote_python), proxy, direct


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
    made.add_argument("--host", metavar="ALIAS", help="a host of your ssh config; else loopback")
    made.add_argument("--ssh-config", metavar="FILE", help="for ssh -F")
    made.add_argument("--remote-python", default=sys.executable, metavar="PATH")
    return made


def main(words: list[str] | None = None) -> int:
    """Measure and show; return the exit code."""
    reader = parser(__doc__ or "")
    reader.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    options = reader.parse_args(sys.argv[1:] if words is None else words)
    figures = []
    with private_jupyter(), host_behind_proxy(options) as (host, proxy, direct):
        with Bench(host, proxy, direct) as bench:
            figures.append(in_an_outage(bench, 100))
        with Bench(host, proxy, direct) as bench:
            figures.append(over_a_slow_line(bench, 20_000))
    Console().print(table_of(figures))
    print(f"load {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps([vars(one) for one in figures], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
