"""sshpyk beside a local kernel and beside ``sshpyk==1.25``, in one run: ``make bench``.

    python benchmarks/bench.py                        on a private sshd here; half an hour
    python benchmarks/bench.py --quick --only life    fewer rounds, and a part of it
    python benchmarks/bench.py --host gpu1 --remote-python /opt/env/bin/python

Writes docs/benchmarks/PLACE.json and SVG plots. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

if not __package__:  # run as a script: the folder that holds the packages leads the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import machine
from benchmarks.figures import Figures
from benchmarks.places import Way, chosen_host, host_options, line_to
from benchmarks.report import markdown_of, table_of
from benchmarks.rows import GROUPS, LINE, QUICK, STRAIGHT, Bench, Plan
from benchmarks.subjects import LOCAL, Other, Ours, make_subjects, private_folder

_REPO = Path(__file__).resolve().parent.parent
_OTHER_PYTHON = _REPO / ".venv-other/bin/python"
_WIDTH = 150  # the table has eight columns
_RESULTS = _REPO / "docs/benchmarks"


def measure(options: argparse.Namespace, plan: Plan, console: Console) -> Figures:
    """Set everything up, run the groups that are wanted, and return what was measured."""
    with ExitStack() as stack:
        folder = stack.enter_context(private_folder())
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        host = stack.enter_context(chosen_host(options, folder))
        if host.mark:
            stack.callback(machine.end, host.mark)
        host.run_python(  # sshpyk 1.25 makes none where there is none
            "import os, jupyter_core.paths as p; os.makedirs(p.jupyter_runtime_dir(), exist_ok=True)"
        )
        other = options.other if Path(options.other).exists() else None
        if other is None:
            console.print(f"no {options.other}: sshpyk 1.25 is left out", style="yellow")
        subjects = make_subjects(other, options.before, folder)
        if options.subjects:
            subjects = [one for one in subjects if one.title in (LOCAL, *options.subjects)]
        for subject in subjects:
            stack.callback(machine.end, subject.mark)
            if isinstance(subject, Ours | Other):
                subject.add(STRAIGHT, Way(host, host.ssh_config))
                subject.add(LINE, stack.enter_context(line_to(host, subject.folder / LINE)))
        bench = Bench(subjects, plan, console)
        for name in options.only:
            began_s = time.monotonic()
            console.print(f"[bold]{name}[/]: {(GROUPS[name].__doc__ or '').splitlines()[0]}")
            GROUPS[name](bench)
            took_s = time.monotonic() - began_s
            console.print(f"  {took_s:.0f} s; load {os.getloadavg()[0]:.1f}", style="dim")
        return bench.figures


def write(figures: Figures, place: str, folder: Path) -> None:
    """Write the figures of this run, in place of the last one's."""
    folder.mkdir(parents=True, exist_ok=True)
    record = figures.record(place)
    (folder / f"{place}.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / f"{place}.md").write_text(markdown_of(figures))
    if importlib.util.find_spec("matplotlib") is None:  # in the lab, for one
        print("matplotlib is not installed here: no plots")
        return
    from benchmarks.plots import write_plots  # here: it takes a second

    write_plots(figures, folder, place)


def parse(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    host_options(parser)
    parser.add_argument(
        "--other", default=str(_OTHER_PYTHON), metavar="PYTHON", help="the one that has sshpyk 1.25"
    )
    parser.add_argument(
        "--before", metavar="PYTHON", help="of another checkout's environment, to compare with"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: ten minutes")
    parser.add_argument("--rounds", type=int, help="of each row that is a time")
    parser.add_argument("--rtt", type=int, nargs="+", metavar="MS", help="round trips: 0 20 100")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="ROWS",
                        help=f"of {', '.join(GROUPS)}")  # fmt: skip
    parser.add_argument("--subjects", nargs="+", metavar="TITLE", help="beside the local one")
    parser.add_argument("--results", type=Path, default=_RESULTS, metavar="FOLDER")
    return parser.parse_args(words)


def plan_of(options: argparse.Namespace) -> Plan:
    """Return how much is to be measured."""
    from dataclasses import replace

    plan = QUICK if options.quick else Plan()
    if options.rounds:
        plan = replace(plan, rounds=options.rounds, output_rounds=options.rounds)
    return replace(plan, rtts_ms=tuple(options.rtt)) if options.rtt else plan


def main(words: list[str] | None = None) -> int:
    """Measure, show, write; return the exit code."""
    options = parse(sys.argv[1:] if words is None else words)
    console = Console(highlight=False, width=_WIDTH)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended then too
    began_s = time.monotonic()
    figures = measure(options, plan_of(options), console)
    console.print(table_of(figures))
    minutes = (time.monotonic() - began_s) / 60
    console.print(f"{minutes:.0f} min, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    write(figures, options.host or "loopback", options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
