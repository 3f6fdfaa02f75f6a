"""Programs of ours in a folder where the user has modules of the same names as Python's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NAMES = ("json", "socket", "logging", "random", "click")


@pytest.mark.parametrize("module", ["sshpyk.standin", "sshpyk.cli.main"])
def test_a_program_of_ours_imports_nothing_from_the_folder_in_which_it_is_started(
    module: str, tmp_path: Path
) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not meant')")
    words = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: sshpyk" in done.stdout


def test_a_program_of_somebody_elses_keeps_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import sys, sshpyk.import_path\nprint('kept' if sys.argv[1] in sys.path else sys.path)"
    )
    words = [sys.executable, "-m", "mine", str(tmp_path)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "kept"


@pytest.mark.parametrize("module", ["sshpyk.standin", "sshpyk.cli.main"])
def test_a_program_of_ours_runs_in_a_folder_that_is_gone(module: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    words = f"cd {gone} && rmdir {gone} && exec {sys.executable} -m {module} --help"
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_was_put_on_the_path_on_purpose_stays(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, sys; atexit.register(lambda: print(sys.path.count(sys.argv[1])))"
    )
    words = [sys.executable, "-m", "sshpyk.cli.main", str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip().splitlines()[-1] == "1"
