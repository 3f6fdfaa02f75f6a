"""``sshpyk list``: which kernels there are, and whether the SSH kernels would start."""

from __future__ import annotations

import click

from sshpyk import kernelspecs
from sshpyk.cli import survey
from sshpyk.cli.progress import checking
from sshpyk.cli.results import KernelReport, Listing
from sshpyk.doctor.hosts import HostFindings, find_out
from sshpyk.doctor.kernel_checks import question_for
from sshpyk.doctor.probe import Question
from sshpyk.errors import InvalidInput
from sshpyk.kernelspecs import BrokenKernelspec, LocalKernelspec
from sshpyk.ssh.command import SshTarget

_ORDER = ("local", "ssh", "broken")


@click.command("list")
@click.option("--remote", "-r", is_flag=True, help="SSH kernels only.")
@click.option("--local", "-l", is_flag=True, help="Local kernels only.")
@click.option("--no-check", "-n", is_flag=True, help="Connect to no host.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--timeout",
    default=20.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True, max=3600),
    help="Seconds that all of it may take.",
)
def list_kernels(
    *, remote: bool, local: bool, no_check: bool, as_json: bool, timeout: float
) -> Listing:
    """List local and SSH kernels, and check the latter.

    (v) is fine, (x) is broken, (!) is advice, (?) was not checked, (i) is information.
    Hosts are checked side by side, with one ssh each; nothing is written there. Where ssh would have
    to ask, a host counts as broken. `sshpyk doctor NAME` says more about one of them.

    \b
    Examples:
      sshpyk list
      sshpyk list --remote --timeout 5
      sshpyk list -r -n --json
    """
    specs = [
        spec for spec in kernelspecs.load_all() if _is_wanted(spec, remote=remote, local=local)
    ]
    targets = {spec.name: _target(spec) for spec in specs}
    questions: dict[SshTarget, list[Question]] = {}
    for spec in specs:
        target = targets[spec.name]
        if target is not None and isinstance(spec, LocalKernelspec) and spec.remote:
            questions.setdefault(target, []).append(question_for(spec.remote))
    with checking(questions, quiet=as_json) as progress:
        findings = find_out(questions, connect=not no_check, timeout_s=timeout, progress=progress)
    reports = [_report(spec, targets[spec.name], findings) for spec in specs]
    return Listing(tuple(sorted(reports, key=lambda report: _ORDER.index(report.kind))), as_json)


def _is_wanted(spec: LocalKernelspec | BrokenKernelspec, *, remote: bool, local: bool) -> bool:
    if remote == local:  # neither, or both
        return True
    if isinstance(spec, BrokenKernelspec):  # of an unknown kind: always
        return spec.sshpyk is not local
    return (spec.remote is not None) == remote


def _target(spec: LocalKernelspec | BrokenKernelspec) -> SshTarget | None:
    """Return where an SSH kernel runs; None when ssh or its config is not on this machine."""
    if isinstance(spec, BrokenKernelspec) or spec.remote is None:
        return None
    try:
        return spec.remote.target()
    except InvalidInput:
        return None


def _report(
    spec: LocalKernelspec | BrokenKernelspec,
    target: SshTarget | None,
    findings: dict[SshTarget, HostFindings],
) -> KernelReport:
    if isinstance(spec, BrokenKernelspec):
        return survey.broken_report(spec)
    if spec.remote is None:
        return survey.local_report(spec)
    return survey.ssh_report(spec, spec.remote, findings[target] if target else None)
