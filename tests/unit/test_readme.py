"""The commands that the README shows: each is one that sshpyk understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from sshpyk.cli.main import cli

README = Path(__file__).parents[2] / "README.md"


def commands() -> list[str]:
    """Return what is shown as typed: in blocks, between backticks, and in the table."""
    text = README.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    found = re.findall(r"^(sshpyk [^#\n]*)", blocks, re.MULTILINE)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found += [inline.replace("\n", " ") for inline in re.findall(r"`(sshpyk [^`]*)`", text)]
    return sorted({command.strip() for command in found} - {"sshpyk COMMAND --help"})


def test_the_first_command_is_add_with_a_host() -> None:
    text = README.read_text(encoding="utf-8")
    assert re.search(r"^sshpyk .*", text, re.MULTILINE)[0] == "sshpyk add gpu1"  # type: ignore[index]


@pytest.mark.parametrize("command", commands())
def test_command_is_understood(command: str) -> None:
    _, verb, *words = shlex.split(command)
    found = cli.get_command(click.Context(cli), verb)
    assert found is not None
    if words or verb in ("list", "ps"):  # otherwise the verb is merely named
        found.make_context(verb, words)
