"""Carries out what ``sshpyk add`` has planned: install, write, check; and undoes what came to nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from sshpyk.cli.add_choices import Choices
from sshpyk.cli.add_host import Host, progress
from sshpyk.cli.add_plan import Planned
from sshpyk.cli.results import Added, AddedKernel, FailedKernel
from sshpyk.discovery import install
from sshpyk.discovery.offers import Offer, State
from sshpyk.doctor.proof import Proof, prove
from sshpyk.errors import KernelError, SshpykError

_OWN_ENVIRONMENT = "python3 -m venv ~/venv   then add again"

_Pairs = Sequence[tuple[Offer, Planned]]


class Writer:
    """See the module."""

    def __init__(self, host: Host, choices: Choices) -> None:
        self._host = host
        self._choices = choices
        self._flags = choices.flags

    def carry_out(self, pairs: _Pairs) -> Added:
        """Add each; return what came of it. What fails is as it was before, unless it is to be kept.

        Whatever goes wrong in between, a Ctrl+C too, leaves nothing that was not checked.
        """
        failed: list[FailedKernel] = []
        plans = []
        for offer, plan in pairs:
            error = self._see_to_ipykernel(offer) if offer.state is State.NO_IPYKERNEL else None
            if error is None:
                plans.append(plan)
            else:
                failed.append(FailedKernel(plan.name, plan.display_name, error, kept=False))
        added: list[AddedKernel] = []
        if self._flags.no_check:
            added = [self._write(plan) for plan in plans]
        elif plans:
            for plan, proof in self._proven(plans):
                if proof.error is None:
                    added.append(_added(plan, proof.took_s))
                else:
                    failed.append(self._failure(plan, proof.error))
        host, as_json = self._choices.host, self._flags.as_json
        return Added(host, tuple(added), tuple(failed), as_json=as_json)

    # ipykernel

    def _see_to_ipykernel(self, offer: Offer) -> SshpykError | None:
        """Install ipykernel where the user wants it; return why the kernel cannot be added."""
        command = install.command_for(offer.python)
        what = f"{offer.place} has no ipykernel"
        missing = KernelError(
            what,
            host=self._choices.host,
            advice=f"give --install-ipykernel, or on the host: {command}",
            code="KERNEL-NO-IPYKERNEL",
        )
        if offer.managed and not self._flags.install_ipykernel:
            missing.advice = f"it is the system's own; make one of yours: {_OWN_ENVIRONMENT}"
            return missing
        if self._choices.interactive and not self._flags.yes:
            question = f"{what}. Run `{command}` on {self._choices.host}?"
            if not click.confirm(question, default=self._flags.install_ipykernel):
                return missing
        elif not self._flags.install_ipykernel:
            return missing
        try:
            said = self._host.install_ipykernel(offer.python)
        except SshpykError as error:
            return error
        for line in said.splitlines():
            click.echo(f"  | {line}", err=True)
        return None

    # Writing

    def _write(self, plan: Planned) -> AddedKernel:
        plan.write()
        return _added(plan, None)

    def _proven(self, plans: Sequence[Planned]) -> Iterator[tuple[Planned, Proof]]:
        """Write all, check all, and yield how each went; without an answer it is undone."""
        proofs: dict[str, Proof] = {}
        try:
            for plan in plans:
                plan.write()
            with _ended_as_by_ctrl_c(), _telling(len(plans)) as tell:
                for proof in prove([plan.name for plan in plans], tell):
                    proofs[proof.name] = proof
        finally:
            for plan in plans:
                if plan.name not in proofs:
                    plan.undo()
        for plan in plans:
            yield plan, proofs[plan.name]

    def _failure(self, plan: Planned, error: SshpykError) -> FailedKernel:
        if not self._flags.keep:
            plan.undo()
        return FailedKernel(plan.name, plan.display_name, error, kept=self._flags.keep)


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Let the end of the terminal, or a SIGTERM, undo as much as a Ctrl+C does."""

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGHUP, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _telling(count: int) -> Iterator[Callable[[Proof], None]]:
    """Show how the checks go, where a person is looking."""
    kernels = "the kernel" if count == 1 else f"{count} kernels"
    text = f"Launching {kernels} to see whether 1+1 is answered …"
    done = 0
    with progress(text) as show:

        def tell(proof: Proof) -> None:
            nonlocal done
            done += 1
            show(f"{text} {done} of {count}")

        yield tell


def _added(plan: Planned, checked_s: float | None) -> AddedKernel:
    return AddedKernel(plan.name, plan.display_name, plan.path, plan.before is not None, checked_s)
