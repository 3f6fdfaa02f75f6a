"""``sshpyk completion``: the lines that teach a shell to complete verbs, options, hosts and kernels."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from sshpyk.cli.results import CompletionScript
from sshpyk.errors import InvalidInput

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", required=False, type=click.Choice(_SHELLS))
def completion(shell: str | None) -> CompletionScript:
    """Print the completion for a shell (the one that you use, if none is named).

    It completes verbs and options, hosts from your ssh config, and the names of SSH kernels.

    \b
    Examples:
      eval "$(sshpyk completion bash)"                                    in ~/.bashrc
      eval "$(sshpyk completion zsh)"                                     in ~/.zshrc, after compinit
      sshpyk completion fish > ~/.config/fish/completions/sshpyk.fish     once
    """
    from sshpyk.cli.main import cli

    name = shell or Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(name) if name in _SHELLS else None
    if kind is None:
        raise InvalidInput(f"which shell? name one: {', '.join(_SHELLS)}")
    # Not `kind.source()`: for bash, that runs one to ask for its version.
    made = kind(cli, {}, "sshpyk", "_SSHPYK_COMPLETE")
    return CompletionScript(made.source_template % made.source_vars())
