"""``sshpyk add``: find the kernels of a host, let the user choose, write and check them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from sshpyk.cli.add_choices import Choices
from sshpyk.cli.add_host import Host
from sshpyk.cli.add_plan import Planner
from sshpyk.cli.add_write import Writer
from sshpyk.cli.complete import hosts
from sshpyk.cli.options import kernel_flags
from sshpyk.cli.results import Added, OfferRow
from sshpyk.discovery import picks
from sshpyk.discovery.offers import (
    PYTHON_KERNEL,
    Offer,
    State,
    offer_for,
    offers_from,
    unseen_offer,
)
from sshpyk.errors import InvalidInput, KernelError, KernelspecNotFound


@click.command()
@click.argument("host", required=False, shell_complete=hosts)
@click.option("--all", "take_all", is_flag=True, help="Add every kernel that is found.")
@click.option(
    "--match",
    multiple=True,
    metavar="GLOB",
    help="Add the kernels with such a name or path (repeatable).",
)
@click.option(
    "--kernel-name",
    help="The kernel's name on this machine, as `sshpyk list` shows it (ssh_HOST_NAME).",
)
@kernel_flags
@click.option("--install-ipykernel", is_flag=True, help="Install ipykernel where it is missing.")
@click.option("--no-check", is_flag=True, help="Launch nothing to see whether it runs.")
@click.option("--keep", is_flag=True, help="Keep a kernel that does not pass its check.")
@click.option("--replace", is_flag=True, help="Replace an SSH kernel that has the name.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing before ipykernel is installed.")
@click.option("--dry-run", is_flag=True, help="Show what the host has; add nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; ask nothing.")
def add(host: str | None, **given: Any) -> Added:
    """Add kernels that run on a host.

    HOST is what you type after `ssh`. Its Pythons (PATH, conda, venvs, pyenv, uv) and Jupyter kernels are
    looked up and shown; you choose: all, numbers (1,3-5) or names. Each is launched once to see that it
    runs; one that does not is removed again. A flag that is given is not asked for: with
    --remote-python or --remote-python-prefix only that Python is looked at, and with --no-check as
    well the host is not connected to.

    \b
    Examples:
      sshpyk add gpu1
      sshpyk add gpu1 --all
      sshpyk add gpu1 --match 'ml*' --match analysis
      sshpyk add gpu1 --dry-run --json
      sshpyk add gpu1 --remote-python-prefix '~/venv' --install-ipykernel --yes
      sshpyk add --ssh-host-alias gpu1 --remote-python /usr/bin/python3 \\
          --remote-kernel-name ir --language R --display-name "R on gpu1"
      sshpyk add hpc --remote-python python3 --pass-env 'WANDB_*' \\
          --env OMP_NUM_THREADS=8 --activate 'module load cuda; conda activate ml'
    """
    return _Add(Choices.from_options(host, given)).run()


class _Add:
    """One run of the command; the user's choices decide how far it asks."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._host = Host(choices.target(), interactive=choices.interactive)
        self._planner = Planner(choices.host, choices.wanted, replace=choices.flags.replace)

    def run(self) -> Added:
        """Do it all; return what came of it."""
        choices = self._choices
        if choices.python is not None:
            return self._add([self._named_offer(choices.python)])
        findings = self._host.look()
        rows = self._rows(offers_from(findings))
        seen = Added(choices.host, rows=rows, notes=findings.notes, as_json=choices.flags.as_json)
        usable = [row for row in rows if row.offer.state is not State.UNUSABLE]
        if not usable:
            what = "nothing was found that could be a kernel"
            problem = KernelError(what, host=choices.host, code="KERNELSPEC-NOT-FOUND")
            return replace(seen, problem=problem)
        if choices.flags.dry_run:
            return seen
        chosen = self._chosen_by_flags([row.offer for row in usable])
        if chosen is None and not choices.interactive:
            ways = "--all, --match GLOB, --remote-python PATH or --remote-python-prefix PATH"
            return replace(seen, problem=InvalidInput(f"which of these? Give {ways}"))
        return self._add(self._ask(rows, findings.notes) if chosen is None else chosen)

    def _named_offer(self, python: str) -> Offer:
        """Return the kernel of the interpreter that the user named."""
        flags, config = self._choices.flags, self._choices.wanted.config
        kernel_name = config.get("remote_kernel_name") or PYTHON_KERNEL
        # Lines may bring the interpreter that a bare name means: only a launch can tell.
        brought = bool(config.get("activate")) and "/" not in python
        if brought or (flags.no_check and not flags.install_ipykernel):
            return unseen_offer(python, config.get("remote_python_prefix") or "", kernel_name)
        offer = offer_for(self._host.look(python), kernel_name)
        if offer.state is State.UNUSABLE:
            raise KernelError(
                f"{python} cannot be used: {offer.reason}",
                host=self._choices.host,
                phase="looking at the Python",
                code="HOST-PYTHON-TOO-OLD" if offer.version else "HOST-NO-INTERPRETER",
                advice=f"see what there is: sshpyk add {self._choices.host} --dry-run",
            )
        return offer

    def _rows(self, offers: Sequence[Offer]) -> tuple[OfferRow, ...]:
        name = self._choices.wanted.config.get("remote_kernel_name")
        if name:
            offers = [offer for offer in offers if offer.kernel_name == name.lower()]
        if name and not offers:
            raise KernelspecNotFound(
                f"no kernel named {name!r} was found",
                host=self._choices.host,
                advice=f"see what there is: sshpyk add {self._choices.host} --dry-run",
            )
        added_as = self._planner.added_as
        return tuple(OfferRow(place, item, added_as(item)) for place, item in enumerate(offers, 1))

    def _chosen_by_flags(self, usable: Sequence[Offer]) -> list[Offer] | None:
        """Return what flags alone choose; None when they leave it open."""
        choices = self._choices
        if choices.match:
            return picks.match(choices.match, usable, self._planner.name_of)
        if choices.flags.take_all:
            also = choices.flags.install_ipykernel
            return [
                offer
                for offer in usable
                if offer.state is State.READY or (also and not offer.managed)
            ]
        named = choices.wanted.config.get("remote_kernel_name")
        return list(usable) if named and len(usable) == 1 else None

    def _ask(self, rows: Sequence[OfferRow], notes: Sequence[str]) -> list[Offer]:
        """Show the table and ask until the answer means something."""
        from sshpyk.cli.offers_table import print_table

        print_table(rows, notes)
        usable = [row for row in rows if row.offer.state is not State.UNUSABLE]
        fresh = [row for row in usable if row.offer.state is State.READY and not row.added_as]
        default = str(fresh[0].number) if len(fresh) == 1 else None
        while True:
            said = click.prompt("Add which? (all, numbers as in 1,3-5, or names)", default=default)
            try:
                chosen = picks.pick(said, [row.offer for row in usable], self._planner.name_of)
            except InvalidInput as error:
                click.echo(error.what, err=True)
                continue
            if chosen:
                return chosen

    def _add(self, chosen: Sequence[Offer]) -> Added:
        """Add what was chosen, but for what was added before."""
        choices = self._choices
        earlier = [(name, offer.label) for offer in chosen for name in self._planner.earlier(offer)]
        chosen = [offer for offer in chosen if not self._planner.earlier(offer)]
        plans = self._planner.plan(chosen)  # refuses before anything is installed or written
        writer = Writer(self._host, choices)
        done = writer.carry_out(list(zip(chosen, plans, strict=True)))
        return replace(done, already=tuple(earlier))
