"""``sshpyk doctor``: the checks one by one, in the order in which things break, up to the cause."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
from pathlib import Path

import click

from sshpyk import kernelspecs
from sshpyk.cli.complete import hosts_and_kernels
from sshpyk.cli.progress import working
from sshpyk.cli.render import show_finding
from sshpyk.cli.results import Diagnosis
from sshpyk.doctor.exam import Exam, HostExam, host_exam, kernel_exam, machine_exam, run
from sshpyk.doctor.report import build_report
from sshpyk.errors import InvalidInput, SshpykError
from sshpyk.kernelspecs import BrokenKernelspec, LocalKernelspec
from sshpyk.ssh.command import SshTarget

_Spec = LocalKernelspec | BrokenKernelspec


@click.command()
@click.argument("name", metavar="[HOST|KERNEL]", required=False, shell_complete=hosts_and_kernels)
@click.option("--no-launch", is_flag=True, help="Do not launch the kernel in the end.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, and nothing else.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the report to this new file: JSON without secrets, to attach to a bug.",
)
@click.option(
    "--timeout",
    default=20.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True, max=3600),
    help="Seconds that each login may take.",
)
@click.option("--ssh-config", help="For a HOST: as given to `sshpyk add`.")
@click.option("--ssh", help="For a HOST: as given to `sshpyk add`.")
def doctor(
    *,
    name: str | None,
    no_launch: bool,
    as_json: bool,
    report: Path | None,
    timeout: float,
    ssh_config: str | None,
    ssh: str | None,
) -> Diagnosis:
    """Find out why a kernel, a host or this machine does not work.

    Looks in the order in which things break, shows each finding as it is made, and stops at the cause,
    with what to do. Without a name: this machine (ssh, Jupyter, folders, kernelspecs, links). A KERNEL
    is also launched once in the end. Nothing is changed. Exit code 1 when something is broken.

    \b
    Examples:
      sshpyk doctor
      sshpyk doctor gpu1
      sshpyk doctor ssh_gpu1_analysis --report bug.json
    """
    _refuse_existing(report)
    specs = kernelspecs.load_all()
    exam, host = _exam(name, specs, timeout_s=timeout, launch=not no_launch, ssh=(ssh, ssh_config))
    quiet = as_json
    items = run(
        exam,
        (lambda _item: None) if quiet else show_finding,
        (lambda _title: contextlib.nullcontext()) if quiet else working,
    )
    said = build_report(exam.subject, items, host, specs) if as_json or report else {}
    if report is not None:
        _write(report, said)
    names = [spec.name for spec in specs if isinstance(spec, LocalKernelspec) and spec.remote]
    meant = difflib.get_close_matches((name or "").lower(), names, n=3)
    return Diagnosis(exam.subject, items, said, report, as_json, tuple(meant))


def _exam(
    name: str | None,
    specs: list[_Spec],
    *,
    timeout_s: float,
    launch: bool,
    ssh: tuple[str | None, str | None],
) -> tuple[Exam, HostExam | None]:
    """Return what to do for ``name``: a kernel's if there is one of that name, else a host's."""
    if name is None:
        if any(ssh):
            raise click.UsageError("--ssh and --ssh-config need a HOST")
        return machine_exam(specs), None
    spec = next((spec for spec in specs if spec.name == name.lower()), None)
    if isinstance(spec, BrokenKernelspec):
        raise InvalidInput(
            f"{spec.resource_dir / 'kernel.json'}: {spec.reason}",
            advice="correct it, or remove that kernel",
            code="KERNELSPEC-BROKEN",
        )
    if spec is not None and spec.remote is not None:
        return kernel_exam(spec, spec.remote, timeout_s=timeout_s, launch=launch)
    if spec is not None:
        raise InvalidInput(f"kernel {name!r} runs on this machine: it is not an SSH kernel")
    target = SshTarget.parse(name, ssh=ssh[0], ssh_config=ssh[1])
    return host_exam(target, list(_kernels_on(target, specs)), timeout_s)


def _kernels_on(target: SshTarget, specs: list[_Spec]) -> list[LocalKernelspec]:
    found = []
    for spec in specs:
        if isinstance(spec, LocalKernelspec) and spec.remote is not None:
            with contextlib.suppress(InvalidInput):  # its ssh is not on this machine
                if spec.remote.target() == target:
                    found.append(spec)
    return found


def _refuse_existing(report: Path | None) -> None:
    if report is not None and report.exists():
        raise InvalidInput(f"{report} is there already", advice="name a new file for the report")


def _write(path: Path, report: dict[str, object]) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(report, stream, indent=2)
            stream.write("\n")
    except OSError as error:
        raise SshpykError(f"cannot write {path}: {error.strerror}") from error
