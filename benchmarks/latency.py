"""Launch, ``1+1``, interrupt, restart, shutdown: local, direct and through a bastion, in one run.

``python benchmarks/latency.py`` makes its own hosts on loopback; in the lab, or with real hosts:
``python benchmarks/latency.py --direct remote --jump remote-jump --remote-python /opt/venv/bin/python``.
See README.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

if not __package__:  # run as a script: the folder that holds the packages leads the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.timing import Spread, TimedKernel
from sshpyk import kernelspecs
from sshpyk.hub.client import stop_hub
from sshpyk.kernelconfig import RemoteKernel
from sshpyk.ssh.command import SshTarget

WARM_UP_EVALUATIONS = 10
_AGENT_LEAVES_S = 0.3  # after its last hub; a cold launch begins with none


@dataclass
class Subject:
    """One kernel to measure, and what was measured of it, in seconds."""

    title: str
    kernel_name: str
    target: SshTarget | None = None
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def note(self, metric: str, took_s: float) -> None:
        self.seconds.setdefault(metric, []).append(took_s)


@dataclass(frozen=True)
class Host:
    """Where a remote subject runs."""

    title: str
    alias: str
    ssh_config: str | None
    python: str


# What is measured


def measure_cold(subject: Subject) -> None:
    """Launch with no hub and no agent, and with none of them left over from another subject."""
    with TimedKernel(subject.kernel_name) as kernel:
        subject.note("launch, cold", kernel.launch())


def measure_warm(subject: Subject, evaluations: int) -> None:
    """Launch over the link that is up, and all that follows."""
    with TimedKernel(subject.kernel_name) as kernel:
        subject.note("launch, warm", kernel.launch())
        kernel.one_plus_one(WARM_UP_EVALUATIONS)
        subject.note("1+1", kernel.one_plus_one(evaluations))
        subject.note("interrupt", kernel.interrupt())
        subject.note("restart", kernel.restart())
        subject.note("shutdown", kernel.shutdown())


def run_round(subjects: list[Subject], evaluations: int) -> None:
    """Measure each subject once, one after the other."""
    for subject in subjects:
        stop_hubs(subjects)
        measure_cold(subject)
        measure_warm(subject, evaluations)
    stop_hubs(subjects)


def stop_hubs(subjects: list[Subject]) -> None:
    """End the links of this run, and so the agent, unless it serves somebody else."""
    left = [stop_hub(subject.target) for subject in subjects if subject.target is not None]
    if any(left):
        time.sleep(_AGENT_LEAVES_S)


# What is compared


@contextlib.contextmanager
def private_jupyter() -> Iterator[None]:
    """Keep kernelspecs, connection files and histories of this run to itself."""
    with tempfile.TemporaryDirectory(prefix="sshpyk-bench-", ignore_cleanup_errors=True) as folder:
        names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        before = {name: os.environ.get(name) for name in names}
        os.environ.update({name: f"{folder}/{name.lower()}" for name in names})
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def add_subject(host: Host) -> Subject:
    """Add a kernel on the host to this run's kernelspecs."""
    config = {
        "ssh_host_alias": host.alias,
        "remote_python": host.python,
        "remote_kernel_name": "python3",
    }
    if host.ssh_config is not None:
        config["ssh_config"] = host.ssh_config
    remote = RemoteKernel.from_config(config)
    name = f"bench_{host.title}"
    document = kernelspecs.render_kernel_json(name, host.title, "python", remote)
    kernelspecs.write_kernelspec(name, kernelspecs.user_kernel_dir() / name, document)
    return Subject(host.title, name, remote.target())


@contextlib.contextmanager
def hosts_to_measure(options: argparse.Namespace) -> Iterator[list[Host]]:
    """Yield the hosts of the command line, or hosts on loopback that end with the run."""
    python = options.remote_python
    if options.direct:
        aliases = {"direct": options.direct, "jump": options.jump}
        yield [Host(t, alias, options.ssh_config, python) for t, alias in aliases.items() if alias]
        return
    from demo.loopback import LoopbackHost  # only here: the lab needs no sshd of ours

    with contextlib.ExitStack() as hosts:
        near = hosts.enter_context(LoopbackHost())
        found = [Host("direct", near.alias, str(near.ssh_config), python)]
        if options.via_jump:
            far = hosts.enter_context(LoopbackHost(alias="loopback-inside", behind=near))
            found.append(Host("jump", far.alias, str(far.ssh_config), python))
        yield found


# What is shown


def table_of(subjects: list[Subject]) -> Table:
    """Return the medians with least and most, in milliseconds, and what ssh adds to them."""
    local, *remotes = subjects
    table = Table(box=None, padding=(0, 1))
    table.add_column("ms: median (min-max)", no_wrap=True)
    table.add_column(local.title, justify="right", no_wrap=True)
    for remote in remotes:
        table.add_column(remote.title, justify="right", no_wrap=True)
        table.add_column("more", justify="right", style="dim")
    for metric, seconds in local.seconds.items():
        floor = Spread.of(seconds)
        cells = [metric, _in_ms(floor)]
        for remote in remotes:
            spread = Spread.of(remote.seconds[metric])
            cells += [_in_ms(spread), f"{(spread.median - floor.median) * 1000:+.1f}"]
        table.add_row(*cells)
    return table


def _in_ms(spread: Spread) -> str:
    median, least, most = (_short(value * 1000) for value in spread)
    return f"{median} ({least}-{most})"


def _short(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.1f}"


def record_of(subjects: list[Subject], options: argparse.Namespace) -> dict[str, Any]:
    """Return everything that was measured, for a file."""
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": f"{platform.platform()}, {os.cpu_count()} cpus, Python {platform.python_version()}",
        "load": os.getloadavg(),
        "rounds": options.rounds,
        "evaluations": options.evaluations,
        "hosts": {subject.title: subject.target and subject.target.host for subject in subjects},
        "seconds": {
            subject.title: {
                metric: {**Spread.of(seconds)._asdict(), "all": seconds}
                for metric, seconds in subject.seconds.items()
            }
            for subject in subjects
        },
    }


def parse(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Verbatim)
    parser.add_argument(
        "--direct", metavar="ALIAS", help="a host of your ssh config; else loopback"
    )
    parser.add_argument("--jump", metavar="ALIAS", help="the same one behind a bastion")
    parser.add_argument("--ssh-config", metavar="FILE", help="for ssh -F")
    parser.add_argument("--via-jump", action="store_true", help="on loopback: a second sshd behind")
    parser.add_argument("--remote-python", default=sys.executable, metavar="PATH")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, default=100, help="of 1+1, in each round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    options = parser.parse_args(words)
    if options.jump and not options.direct:
        parser.error("--jump needs --direct")
    return options


class _Verbatim(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples of the docstring as they are."""


def main(words: list[str] | None = None) -> int:
    """Measure, show, write; return the exit code."""
    options = parse(sys.argv[1:] if words is None else words)
    console = Console()
    with private_jupyter(), hosts_to_measure(options) as hosts:
        subjects = [Subject("local", "python3"), *map(add_subject, hosts)]
        try:
            with Progress(console=console, transient=True) as progress:
                for turn in progress.track(range(options.rounds), description="rounds"):
                    start = turn % len(subjects)  # nobody is always first
                    run_round(subjects[start:] + subjects[:start], options.evaluations)
        finally:
            stop_hubs(subjects)
    console.print(table_of(subjects))
    console.print(f"{options.rounds} rounds, in turns; load {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps(record_of(subjects, options), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
