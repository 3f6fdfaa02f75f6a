"""What the agent makes is private; what it starts is not more private than the login's own files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshpyk.agent import umask


@pytest.fixture(autouse=True)
def _login(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A login whose files its group may write."""
    monkeypatch.setattr(umask, "_of_login", None)
    before = os.umask(0o002)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_is_started_has_the_logins_umask_and_the_agent_its_own(tmp_path: Path):
    umask.be_private()
    with umask.as_the_login():
        process = subprocess.Popen(["touch", str(tmp_path / "kernels")])
    (tmp_path / "agents").touch()
    assert process.wait() == 0
    assert mode(tmp_path / "kernels") == 0o664
    assert mode(tmp_path / "agents") == 0o600


def test_a_start_that_fails_leaves_the_agent_private(tmp_path: Path):
    umask.be_private()
    with pytest.raises(FileNotFoundError), umask.as_the_login():
        subprocess.Popen(["/nowhere/python"])
    (tmp_path / "agents").touch()
    assert mode(tmp_path / "agents") == 0o600


def test_a_process_that_is_no_agent_keeps_its_umask(tmp_path: Path):
    with umask.as_the_login():
        (tmp_path / "file").touch()
    assert mode(tmp_path / "file") == 0o664
