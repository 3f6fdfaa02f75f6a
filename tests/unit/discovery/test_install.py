"""The script that installs ipykernel, run by a real sh with Pythons that are scripts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sshpyk.discovery.install import command_for, read_outcome, script_for
from sshpyk.errors import KernelError
from tests.unit.discovery.homes import MARK, program

HAS_PIP = '#!/bin/sh\n[ "$1" = -c ] && exit 0\n'
NO_PIP = '#!/bin/sh\n[ "$1" = -c ] && exit 1\n'
MANAGED = """echo "error: externally-managed-environment"
echo; echo "x This environment is externally managed" >&2; exit 1
"""


def outcome(home: Path, python: Path) -> str:
    done = subprocess.run(
        ["sh"],
        input=script_for(MARK, str(python)),
        capture_output=True,
        text=True,
        timeout=30,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        check=True,
    )
    assert done.stdout.endswith(f"{MARK} end\n")
    return read_outcome(MARK, done.stdout, host="gpu1", python=str(python))


def test_pip_of_that_python_installs_it(tmp_path: Path) -> None:
    python = program(tmp_path / "my env/python", HAS_PIP + 'echo "ran: $*"\n')
    assert outcome(tmp_path, python) == "ran: -m pip install ipykernel"
    assert command_for(str(python)) == f"'{python}' -m pip install ipykernel"


def test_environment_without_pip_is_uvs(tmp_path: Path) -> None:
    program(tmp_path / ".local/bin/uv", '#!/bin/sh\necho "uv: $*"\n')
    python = program(tmp_path / "python", NO_PIP)
    assert outcome(tmp_path, python) == f"uv: pip install --python {python} ipykernel"


def test_neither_pip_nor_uv(tmp_path: Path) -> None:
    python = program(tmp_path / "python", NO_PIP)
    with pytest.raises(KernelError) as failed:
        outcome(tmp_path, python)
    assert "has no pip" in failed.value.said
    assert "ensurepip" in failed.value.advice


def test_refusal_of_a_managed_python_is_in_pips_words(tmp_path: Path) -> None:
    python = program(tmp_path / "python", HAS_PIP + MANAGED)
    with pytest.raises(KernelError) as failed:
        outcome(tmp_path, python)
    assert failed.value.said.splitlines()[0] == "error: externally-managed-environment"
    assert "python3 -m venv" in failed.value.advice


def test_failure_shows_the_last_lines(tmp_path: Path) -> None:
    text = "for i in $(seq 100); do echo line $i; done; exit 3\n"
    with pytest.raises(KernelError) as failed:
        outcome(tmp_path, program(tmp_path / "python", HAS_PIP + text))
    assert failed.value.said.splitlines()[-1] == "line 100"
    assert len(failed.value.said.splitlines()) == 25
    assert failed.value.phase.endswith("-m pip install ipykernel")


def test_python_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KernelError):
        outcome(tmp_path, tmp_path / "none")
