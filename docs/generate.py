"""Writes docs/reference.md and docs/errors.md from the source: ``python docs/generate.py [--check]``."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from sshpyk.cli.main import cli
from sshpyk.doctor.catalogue import page
from sshpyk.kernelapp.command import command as kernel_command

REFERENCE = Path(__file__).with_name("reference.md")
ERRORS = Path(__file__).with_name("errors.md")
_HEAD = """# Reference

Made from the commands' own help by `make docs`. `sshpyk COMMAND --help` says the same in a terminal.

`-v`, `-vv`, `-vvv` before the verb log warnings, progress, everything. Colours and progress are for
terminals; `NO_COLOR` turns colours off.

Exit codes of `sshpyk`: 0 done, 1 it failed, 2 invalid arguments or settings (nothing was
changed), 70 a bug in sshpyk. Each failure that can be met has a code, explained in
[errors.md](errors.md).
"""


def reference() -> str:
    """Return the whole page."""
    group = click.Context(cli, info_name="sshpyk", **cli.context_settings)
    sections = [_HEAD]
    for name in cli.list_commands(group):
        command = cli.get_command(group, name)
        assert command is not None
        sections.append("\n".join(_section(command, click.Context(command, group, name))))
    settings = kernel_command.context_settings
    ctx = click.Context(kernel_command, info_name="sshpyk-kernel", **settings)
    sections.append("\n".join(_section(kernel_command, ctx)))
    return "\n".join(sections)


def _section(command: click.Command, ctx: click.Context) -> Iterator[str]:
    yield f"## {ctx.command_path}\n"
    yield f"    {ctx.command_path} {' '.join(command.collect_usage_pieces(ctx))}\n"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines = paragraph.splitlines()
        if lines[0] == "\b":  # click's sign for lines that are to stay as they are
            yield f"{lines[1]}\n"
            yield textwrap.indent(textwrap.dedent("\n".join(lines[2:])), "    ") + "\n"
        else:
            yield " ".join(lines) + "\n"
    options = [param.get_help_record(ctx) for param in command.get_params(ctx)]
    rows = [record for record in options if record is not None]
    yield "| option | |\n|---|---|"
    yield from (f"| `{_cell(names)}` | {_cell(text)} |" for names, text in rows)
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def main() -> int:
    """Write the pages, or with ``--check`` tell whether they are as they should be."""
    pages = {REFERENCE: reference(), ERRORS: page()}
    if sys.argv[1:] != ["--check"]:
        for path, text in pages.items():
            path.write_text(text, encoding="utf-8")
        return 0
    return int(any(path.read_text(encoding="utf-8") != text for path, text in pages.items()))


if __name__ == "__main__":
    sys.exit(main())
