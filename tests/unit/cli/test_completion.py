"""What the shell offers after TAB: through the real shells where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from sshpyk.cli.complete import config_hosts

CONFIG = """
Host gpu1 gpu2  *.example !bad
    HostName gpu.example
Include more/*  none
host="quoted"
Match host other
"""


@pytest.fixture
def sshpyk(home: Path) -> Path:
    """Put the command on PATH and hosts into ssh's config."""
    command = home / "bin" / "sshpyk"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sshpyk.cli.main "$@"\n')
    command.chmod(0o755)
    (home / ".ssh" / "more").mkdir(parents=True)
    (home / ".ssh" / "config").write_text(CONFIG)
    (home / ".ssh" / "more" / "a").write_text("Host deep\nInclude config\nInclude more/a\n")
    return command


def offered(line: str) -> list[str]:
    """Return what bash offers behind ``line``."""
    script = (
        'eval "$(sshpyk completion bash)"; words="$1"; COMP_WORDS=($words "$2"); '
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _sshpyk_completion sshpyk; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    words, _, last = line.rpartition(" ")
    bash = ["bash", "--norc", "-c", script, "bash", words, last]
    done = subprocess.run(bash, capture_output=True, text=True, check=True, env=dict(os.environ))
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sshpyk log", {"login", "logout"}),
        ("sshpyk login g", {"gpu1", "gpu2"}),
        ("sshpyk login me@g", {"me@gpu1", "me@gpu2"}),
        ("sshpyk login d", {"deep"}),
        ("sshpyk add --ssh-host-alias q", {"quoted"}),
        ("sshpyk delete m", {"mine"}),
        ("sshpyk edit m", {"mine"}),
        ("sshpyk completion z", {"zsh"}),
    ],
)
def test_bash_completes(sshpyk: Path, add: Callable[..., Path], line: str, words: set[str]) -> None:
    add("mine")
    assert words <= set(offered(line))


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish here")
def test_fish_completes(sshpyk: Path) -> None:
    line = "sshpyk completion fish | source; complete -C 'sshpyk login gp'"
    done = subprocess.run(["fish", "-c", line], capture_output=True, text=True, check=True)
    assert {"gpu1", "gpu2"} <= set(done.stdout.split())


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here")
def test_zsh_reads_its_completion(sshpyk: Path) -> None:
    line = (
        'autoload -U compinit; compinit -u; eval "$(sshpyk completion zsh)"; print $_comps[sshpyk]'
    )
    done = subprocess.run(["zsh", "-f", "-c", line], capture_output=True, text=True, check=True)
    assert "_sshpyk_completion" in done.stdout


def test_patterns_are_no_hosts_and_files_that_include_each_other_end(sshpyk: Path) -> None:
    assert config_hosts(Path("~/.ssh/config").expanduser()) == ["gpu1", "gpu2", "deep", "quoted"]
    assert config_hosts(Path("/no/such/config")) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_be_named_or_is_the_users(
    shell: str, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = run("completion", shell)
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert run("completion").stdout == named.stdout
    assert f"{shell}_complete" in named.stdout


def test_another_shell_is_told_which_there_are(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert "bash, zsh, fish" in refused("completion")
