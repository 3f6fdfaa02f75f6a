"""A cell that prints 100 lines in 20 s while the line suffers: what arrives, and how soon it goes on.

Like ``faults.py``, whose options and host it has. *goes on* is the time from the line's return (or, where
nothing was down, from the break) to the first line that arrives after it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

if not __package__:  # run as a script: the folder that holds the packages leads the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.faults import PATIENCE_S, Bench, parser, way_to_host
from sshpyk.hub.client import reach_hub

LINES = 100
_BREAK_AT_LINE = 25
_PRINTING = f"""
import time
for number in range({LINES}):
    print(number, flush=True)
    time.sleep(0.2)
"the end"
"""


@dataclass(frozen=True)
class Outcome:
    """What one scenario brought, with the seconds from the line's return to the next line, and in all."""

    title: str
    received: int
    result: bool
    reply: bool
    goes_on_s: float
    took_s: float


@dataclass(frozen=True)
class Scenario:
    """``act`` breaks the line; ``down_s`` later it can be used again."""

    title: str
    act: Callable[[Bench], object]
    down_s: float = 0.0


def _ssh_of_hub(bench: Bench) -> tuple[int, str]:
    """Return the pid of the hub's ssh, and the random word in its command line."""
    hub = reach_hub(bench.target)
    hub.say("status")
    answer = hub.hear()
    hub.close()
    assert answer is not None
    listed = subprocess.run(
        ["ps", "--ppid", str(answer["pid"]), "-o", "pid=,args="],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = [line for line in listed.splitlines() if "ssh" in line]
    (marker,) = re.findall(r" ([0-9a-f]{16})\b", line)
    return int(line.split()[0]), str(marker)


def _kill_ssh(bench: Bench) -> None:
    os.kill(_ssh_of_hub(bench)[0], signal.SIGKILL)


def _kill_session(bench: Bench) -> None:
    """Kill the sshd process of the session: the parent of what runs there with our random word."""
    marker = _ssh_of_hub(bench)[1]
    script = (
        "import os, signal\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    try: words = open('/proc/%s/cmdline' % pid).read().split('\\0')\n"
        "    except OSError: continue\n"
        f"    if {marker!r} in words and 'ssh' not in words[0]:\n"
        "        parent = open('/proc/%s/stat' % pid).read().rpartition(')')[2].split()[1]\n"
        "        if 'sshd' in open('/proc/%s/cmdline' % parent).read():\n"
        "            os.kill(int(parent), signal.SIGKILL)\n"
    )
    bench.host.run_python(script)


def _resets(bench: Bench) -> None:
    """Refuse every connection for 12 s, and reset those that are there."""
    bench.proxy.refuse(12)
    bench.proxy.reset()


SCENARIOS = (
    Scenario("nothing", lambda bench: None),
    Scenario("black hole 12 s", lambda bench: bench.proxy.pause(12), 12),
    Scenario("reset", lambda bench: bench.proxy.reset()),
    Scenario("ssh killed", _kill_ssh),
    Scenario("sshd session killed", _kill_session),
    Scenario("12 s with resets", _resets, 12),
    Scenario("address change", lambda bench: bench.proxy.strand()),
)


def measure(bench: Bench, scenario: Scenario) -> Outcome:
    """Run the cell once and break the line in its first half."""
    began_s = time.monotonic()
    request = bench.client.execute(_PRINTING)
    numbers: list[int] = []
    broken_s, goes_on_s, result = 0.0, 0.0, False
    while True:
        message = bench.next_iopub(request)
        content = message["content"]
        if content.get("execution_state") == "idle":
            break
        result = result or message["msg_type"] == "execute_result"
        if message["msg_type"] == "stream":
            numbers += [int(word) for word in content["text"].split()]
            if broken_s and not goes_on_s and time.monotonic() > broken_s + scenario.down_s:
                goes_on_s = time.monotonic() - broken_s - scenario.down_s
            if not broken_s and len(numbers) >= _BREAK_AT_LINE:
                broken_s = time.monotonic()
                threading.Thread(target=scenario.act, args=(bench,)).start()
    reply = bench.client.get_shell_msg(timeout=PATIENCE_S)
    while reply["parent_header"].get("msg_id") != request:
        reply = bench.client.get_shell_msg(timeout=PATIENCE_S)
    assert numbers == sorted(set(numbers)), "in order, none twice"
    took_s = time.monotonic() - began_s
    answered = reply["content"]["status"] == "ok"
    return Outcome(scenario.title, len(numbers), result, answered, goes_on_s, took_s)


def main() -> int:
    """Measure and show; return the exit code."""
    options = parser(__doc__ or "").parse_args()
    table = Table(box=None, padding=(0, 1))
    for title in ("", "lines", "result", "reply", "goes on, s", "in all, s"):
        table.add_column(title, justify="right" if title else "left")
    with way_to_host(options) as (way, folder), Bench(way, folder) as bench:
        for one in (measure(bench, scenario) for scenario in SCENARIOS):
            words = ["yes" if good else "no" for good in (one.result, one.reply)]
            times = [f"{one.goes_on_s:.1f}", f"{one.took_s:.1f}"]
            table.add_row(one.title, f"{one.received} of {LINES}", *words, *times)
    Console().print(table)
    print(f"load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
