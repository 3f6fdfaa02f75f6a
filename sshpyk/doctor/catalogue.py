"""Every code that an error or a finding can have: what it says, why, what to do, and a test of it.

``docs/errors.md`` is :func:`page`, written by ``make docs``. A test compares the two, and this table with
the source: no code is missing here, none is left over, and the texts are those in the source, with ``…``
for what is filled in. The words about ssh are the rows of ``sshpyk.ssh.causes_*`` themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sshpyk.doctor.codes import host, kernel, machine, mounts, servers, ssh
from sshpyk.doctor.codes.entry import ERRORS
from sshpyk.ssh.cause import Cause
from sshpyk.ssh.causes_remote import ENDED, EXIT_STATUS, STOPPED, UNKNOWN
from sshpyk.ssh.diagnose import CAUSES

SECTIONS = {
    "The ssh client and its config": ssh.CLIENT,
    "The way to the host": ssh.NETWORK,
    "Host keys and logins": ssh.LOGIN,
    "The account and its Python": host.HOST,
    "The kernel": kernel.KERNEL,
    "Mounts": mounts.MOUNTS,
    "Tunnels": servers.TUNNELS,
    "Jupyter servers": servers.SERVERS,
    "This machine": machine.MACHINE,
}
ENTRIES = {code: entry for section in SECTIONS.values() for code, entry in section.items()}

_HEAD = """# Errors

Each failure that has a known cause carries a code in brackets, `host gpu1: … [SSH-REFUSED]`; in `--json`
it is the member `code`. Codes stay when texts change. `sshpyk doctor HOST` or `sshpyk doctor KERNEL`
looks for the cause and stops there. `…` stands for what is filled in; the last column is the test that
makes it happen, in the lab where the lab can.

This page is made by `make docs`; a test keeps it and the source together.

## Exit codes

| code | of `sshpyk` | of a kernel's process (`sshpyk-kernel`, kernel.json's argv) |
|---|---|---|
| 0 | done; `doctor`: nothing is broken | the kernel ended with 0, was left, or was taken over |
| 1 | it failed; `doctor`: something is broken | it did not start, was lost, or ended with 1 |
| 2 | invalid arguments or settings: one line says why, nothing was changed | the same |
| 70 | a bug in sshpyk; the traceback is in the log | the same |
| other | | the kernel's own; after a signal the process ends by that signal too |
"""


def why(code: str) -> str:
    """Return what is behind a code, in one line; empty for one that this version does not know."""
    return ENTRIES[code].why if code in ENTRIES else ""


def causes(code: str) -> list[Cause]:
    """Return the rows about ssh that have this code."""
    return [row for row in (*CAUSES, STOPPED, UNKNOWN, ENDED, EXIT_STATUS) if row.code == code]


def test_of(code: str) -> str:
    """Return the test that produces a code, ``file::name`` below ``tests/``."""
    return ENTRIES[code].test or f"{ERRORS}::{code.lower().replace('-', '_')}"


def page() -> str:
    """Return the text of ``docs/errors.md``."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    for title, entries in SECTIONS.items():
        yield f"## {title}\n"
        yield "| code | what it says | why | remedy | test |\n|---|---|---|---|---|"
        for code, entry in entries.items():
            row = next(iter(causes(code)), None)
            says = entry.says or (_holes(row.what) if row else "")
            remedy = entry.remedy or (_holes(row.advice) if row else "")
            file, _, name = test_of(code).partition("::")
            cells = [f"`{code}`", says, entry.why, remedy, f"[{name}](../tests/{file})"]
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        yield ""


def _holes(template: str) -> str:
    """Return a row's text with its fields as a reader understands them."""
    text = template.replace("{login}", "ssh HOST").replace("{reopen}", "sshpyk login HOST")
    return re.sub(r"\{\w+\}", "…", text.replace("{host}", "HOST"))
