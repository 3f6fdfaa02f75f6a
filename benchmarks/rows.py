"""What is measured. Each group of rows is a function of a :class:`Bench`; :data:`GROUPS` names them.

Subjects take turns, and who begins changes with every round, so that a busy moment meets all of them.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks import machine
from benchmarks.figures import HANDSHAKE, ROUND_TRIP, Figures
from benchmarks.places import Way, round_trip_s
from benchmarks.subjects import LOCAL, Probe, Subject, SubjectFailed

STRAIGHT, LINE = "straight", "line"
SLOW_BYTES_PER_S = 1_000_000
DISPLAY_MB = 100
LINES = 20_000
_IDLE_KERNELS = 10
_SETTLE_S = 3.0
_PATIENCE_S = 180.0
_WARM_UP_EVALUATIONS = 10
_COUNTED = Path(__file__).resolve().parent / "probe" / "counted"

_DISPLAY = f"""
from IPython.display import display
for _ in range({DISPLAY_MB}):
    display({{"text/plain": "a megabyte", "text/html": "x" * 1_000_000}}, raw=True)
"""
_PRINTS = f"for number in range({LINES}): print(number, flush=True)"
_LONG_LINES = f"for number in range({LINES}): print(str(number).ljust(1023, '.'), flush=True)"


@dataclass(frozen=True)
class Plan:
    """How much is measured: one size for a quick run, one for a full one."""

    rounds: int = 5
    evaluations: int = 30
    rtts_ms: tuple[int, ...] = (0, 20, 100)
    output_rounds: int = 5
    slow_rounds: int = 2
    counts: tuple[int, ...] = (1, 10, 50)
    many_rounds: int = 2
    idle_s: float = 30.0
    stall_s: float = 40.0


QUICK = Plan(rounds=2, evaluations=15, output_rounds=2, slow_rounds=1, many_rounds=1)


@dataclass
class Bench:
    """Subjects with their ways to the host, and what was measured of them."""

    subjects: list[Subject]
    plan: Plan
    console: Console
    figures: Figures = field(default_factory=Figures)

    @property
    def remotes(self) -> list[Subject]:
        """Those that go to the host."""
        return [subject for subject in self.subjects if subject.ways]

    def lines(self) -> list[Way]:
        """Return the ways that have a line."""
        return [subject.ways[LINE] for subject in self.remotes]

    def in_turns(self, rounds: int, subjects: list[Subject] | None = None) -> Iterator[Subject]:
        """Yield each subject once in each round."""
        among = self.subjects if subjects is None else subjects
        for number in range(rounds):
            first = number % len(among)
            yield from among[first:] + among[:first]

    @contextlib.contextmanager
    def trying(self, row: str, subject: Subject, rtt_ms: int = 0) -> Iterator[None]:
        """Note a failure of the subject's, and go on with the others."""
        try:
            yield
        except SubjectFailed as failure:
            self.figures.fail(row, subject.title, str(failure), rtt_ms)
            self.console.print(f"  {subject.title}, {row}: {failure}", style="yellow", markup=False)

    @contextlib.contextmanager
    def probes(
        self, subjects: list[Subject], extra: Mapping[str, Mapping[str, str]] | None = None
    ) -> Iterator[dict[str, Probe]]:
        """Run a probe for each, and end it, with all connections."""
        with contextlib.ExitStack() as stack:
            found = {}
            for subject in subjects:
                stack.callback(subject.forget)
                more = (extra or {}).get(subject.title)
                found[subject.title] = stack.enter_context(subject.probe(more))
            yield found


def life(bench: Bench) -> None:
    """Launch cold and warm, ``1+1``, interrupt, restart, shutdown: at each round trip time."""
    with bench.probes(bench.subjects) as probes:
        for rtt_ms in bench.plan.rtts_ms:
            bench.console.print(f"  at {rtt_ms} ms")
            for way in bench.lines():
                assert way.line is not None
                way.line.delay(rtt_ms / 2000)
            for subject in bench.subjects:  # warm-up: what is loaded late, file caches
                with bench.trying("warm-up", subject, rtt_ms):
                    _one_life(bench, subject, probes[subject.title], rtt_ms, Figures())
            for subject in bench.in_turns(bench.plan.rounds):
                if subject is bench.remotes[0]:
                    took_s = subject.ways[STRAIGHT if not rtt_ms else LINE].handshake_s()
                    bench.figures.add(HANDSHAKE, LOCAL, took_s, rtt_ms)
                    if rtt_ms:
                        bench.figures.add(ROUND_TRIP, LOCAL, round_trip_s(rtt_ms), rtt_ms)
                with bench.trying("life", subject, rtt_ms):
                    _one_life(bench, subject, probes[subject.title], rtt_ms, bench.figures)
        for way in bench.lines():
            assert way.line is not None
            way.line.delay(0)


def _one_life(bench: Bench, subject: Subject, probe: Probe, rtt_ms: int, figures: Figures) -> None:
    def note(row: str, what: str, **arguments: object) -> None:
        figures.add(row, subject.title, probe.ask(what, **arguments)["s"], rtt_ms)

    kernel = subject.kernel(LINE if rtt_ms else STRAIGHT)
    probe.ask("close")
    for one in bench.subjects:  # two versions of ours would share an agent
        one.forget()
    note("launch, cold", "launch", kernel_name=kernel)
    probe.ask("close")
    note("launch, warm", "launch", kernel_name=kernel)
    probe.ask("one_plus_one", times=_WARM_UP_EVALUATIONS if not rtt_ms else 3)
    note("1+1", "one_plus_one", times=bench.plan.evaluations)
    note("interrupt", "interrupt")
    note("restart", "restart")
    note("shutdown", "shutdown")


def display(bench: Bench) -> None:
    """100 MB of display_data, as fast as they come."""
    _output(bench, f"{DISPLAY_MB} MB of display_data", _DISPLAY)


def prints(bench: Bench) -> None:
    """20 000 flushed prints, as fast as they come."""
    _output(bench, f"{LINES} flushed prints", _PRINTS)


def _output(bench: Bench, row: str, code: str) -> None:
    with bench.probes(bench.subjects) as probes:
        for subject in bench.subjects:
            with bench.trying(row, subject):
                probes[subject.title].ask("launch", kernel_name=subject.kernel(STRAIGHT))
                probes[subject.title].ask("output", code="pass", limit_s=_PATIENCE_S)
        for subject in bench.in_turns(bench.plan.output_rounds):
            with bench.trying(row, subject):
                said = probes[subject.title].ask("output", code=code, limit_s=_PATIENCE_S)
                if said["complete"]:
                    bench.figures.add(row, subject.title, said["s"])
                else:
                    bench.figures.fail(row, subject.title, f"incomplete: {said}")


def slow(bench: Bench) -> None:
    """20 000 lines of 1 KB over 1 MB/s: how many arrive."""
    row = f"{LINES} lines of 1 KB over 1 MB/s"
    with bench.probes(bench.remotes) as probes:
        for subject in bench.in_turns(bench.plan.slow_rounds, bench.remotes):
            line = subject.ways[LINE].line
            assert line is not None
            with bench.trying(row, subject):
                probes[subject.title].ask("launch", kernel_name=subject.kernel(LINE))
                line.rate(SLOW_BYTES_PER_S)
                said = probes[subject.title].ask("output", code=_LONG_LINES, limit_s=_PATIENCE_S)
                bench.figures.add(f"{row}: received", subject.title, said["lines"])
                bench.figures.add(f"{row}: time", subject.title, said["s"])
            line.rate(0)
            probes[subject.title].ask("close")


def idle(bench: Bench) -> None:
    """10 kernels that do nothing: all subjects at the same time, for processor time is each one's own."""
    row, seconds = f"{_IDLE_KERNELS} idle kernels, {bench.plan.idle_s:.0f} s", bench.plan.idle_s
    starts = {subject.title: subject.folder / "starts" for subject in bench.subjects}
    extra = {
        title: {"PYTHONPATH": str(_COUNTED), "BENCH_STARTS": str(file)}
        for title, file in starts.items()
    }
    with bench.probes(bench.subjects, extra) as probes:
        for subject in bench.subjects:
            with bench.trying(row, subject):
                _start(probes[subject.title], subject, _IDLE_KERNELS)
        time.sleep(_SETTLE_S)
        before = {subject.title: _used(subject, starts) for subject in bench.subjects}
        time.sleep(seconds)
        for subject in bench.subjects:
            used = _used(subject, starts)
            for what, now in used.items():
                bench.figures.add(
                    f"{row}: {what}", subject.title, now - before[subject.title][what]
                )
        for subject in bench.subjects:
            probes[subject.title].begin("end_many", limit_s=60)
        for subject in bench.subjects:
            with bench.trying(row, subject):
                probes[subject.title].outcome(_PATIENCE_S)


def _start(probe: Probe, subject: Subject, count: int) -> dict[str, float]:
    """Start kernels and return what the probe says of it."""
    kernel = subject.kernel(LINE)
    return probe.ask("start_many", _PATIENCE_S, kernel_name=kernel, count=count, limit_s=60)


def _used(subject: Subject, starts: Mapping[str, Path]) -> dict[str, float]:
    file = starts[subject.title]
    used = {
        "processor time": machine.cpu_s(subject.mark),
        "processes started": file.stat().st_size if file.exists() else 0,
    }
    if subject.ways:
        line = subject.ways[LINE].line
        assert line is not None
        used["bytes"] = line.passed_bytes("up") + line.passed_bytes("down")
    return used


def many(bench: Bench) -> None:
    """1, 10 and 50 kernels on one host, over a connection that is there already."""
    for subject in bench.in_turns(bench.plan.many_rounds):
        with bench.trying("many", subject), bench.probes([subject]) as probes:
            probe = probes[subject.title]
            _start(probe, subject, 1)  # warm-up: the connection, and what is loaded late
            probe.ask("end_many", _PATIENCE_S, limit_s=60)
            memory: dict[int, tuple[float, float]] = {}
            for count in bench.plan.counts:
                memory[count] = _one_count(bench, subject, probe, count)
            _note_memory(bench, subject, memory)


def _one_count(bench: Bench, subject: Subject, probe: Probe, count: int) -> tuple[float, float]:
    """Return the memory of all, here and there."""
    row, kernels = f"{count} kernels", bench.figures
    said = _start(probe, subject, count)
    kernels.add(f"{row}: started", subject.title, said["started"])
    kernels.add(f"{row}: time", subject.title, said["s"])
    for failure in said.get("failures", []):  # type: ignore[attr-defined]
        kernels.fail(f"{row}: started", subject.title, failure)
    if subject.ways:
        ssh = machine.count(subject.mark, "ssh")
        kernels.add(f"{row}: ssh processes", subject.title, ssh)
    time.sleep(_SETTLE_S)
    here = machine.memory_mb(subject.mark)
    there = machine.remote_memory_mb(subject.ways[LINE].host) if subject.ways else 0.0
    ended = probe.ask("end_many", _PATIENCE_S, limit_s=90)
    kernels.add(f"{row}: shut down", subject.title, ended["s"])
    return here, there


def _note_memory(bench: Bench, subject: Subject, memory: Mapping[int, tuple[float, float]]) -> None:
    """Note what each further kernel takes, from the difference between two numbers of kernels."""
    counts = sorted(memory)
    for fewer, more in itertools.pairwise(counts):
        here, there = (
            (memory[more][side] - memory[fewer][side]) / (more - fewer) for side in (0, 1)
        )
        row = f"each kernel of {fewer} to {more}"
        bench.figures.add(f"{row}: memory here", subject.title, here)
        if subject.ways:
            bench.figures.add(f"{row}: memory there", subject.title, there)


def stall(bench: Bench) -> None:
    """The longest stall of a server's loop while the host is gone: connections lost, new ones hang."""
    row, seconds = "longest stall of the server's loop", bench.plan.stall_s
    with bench.probes(bench.subjects) as probes:
        for subject in bench.subjects:
            with bench.trying(row, subject):
                _start(probes[subject.title], subject, 2)
        for way in bench.lines():
            assert way.line is not None
            way.line.reset()
            way.line.pause()
        for subject in bench.subjects:
            kernel = subject.kernel(LINE)
            probes[subject.title].begin("stalls", kernel_name=kernel, seconds=seconds)
        for subject in bench.subjects:
            with bench.trying(row, subject):
                said = probes[subject.title].outcome(seconds + _PATIENCE_S)
                bench.figures.add(row, subject.title, said["s"])
        for way in bench.lines():
            assert way.line is not None
            way.line.resume()


GROUPS: dict[str, Callable[[Bench], None]] = {
    "life": life,
    "display": display,
    "prints": prints,
    "slow": slow,
    "idle": idle,
    "many": many,
    "stall": stall,
}
