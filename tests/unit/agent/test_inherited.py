"""What the agent changes for itself, and what it starts has as the login gave it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshpyk.agent import inherited


@pytest.fixture(autouse=True)
def _login(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A login whose files its group may write, and that may hold 300 descriptors."""
    monkeypatch.setattr(inherited, "_umask", None)
    monkeypatch.setattr(inherited, "_descriptors", None)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, limits[1]))
    before = os.umask(0o002)
    yield
    os.umask(before)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_is_started_has_the_logins_umask_and_the_agent_its_own(tmp_path: Path):
    inherited.change_for_the_agent()
    with inherited.as_the_login():
        process = subprocess.Popen(["touch", str(tmp_path / "kernels")])
    (tmp_path / "agents").touch()
    assert process.wait() == 0
    assert mode(tmp_path / "kernels") == 0o664
    assert mode(tmp_path / "agents") == 0o600


def test_a_start_that_fails_leaves_the_agent_private(tmp_path: Path):
    inherited.change_for_the_agent()
    with pytest.raises(FileNotFoundError), inherited.as_the_login():
        subprocess.Popen(["/nowhere/python"])
    (tmp_path / "agents").touch()
    assert mode(tmp_path / "agents") == 0o600


def test_a_process_that_is_no_agent_keeps_its_umask(tmp_path: Path):
    with inherited.as_the_login():
        (tmp_path / "file").touch()
    assert mode(tmp_path / "file") == 0o664


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux has prlimit")
def test_the_agent_may_hold_many_descriptors_and_what_it_starts_as_many_as_the_login():
    inherited.change_for_the_agent()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 300
    code = "import resource; input(); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        inherited.give_back_limit(process.pid)
        assert process.communicate("\n")[0] == "300\n"
    inherited.give_back_limit(process.pid)  # which has ended
