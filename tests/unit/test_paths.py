from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshpyk import paths


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "state"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_state_dir_is_created_for_its_owner_alone(tmp_path: Path) -> None:
    folder = paths.state_dir()
    assert folder.is_relative_to(tmp_path)
    assert mode_of(folder) == 0o700


def test_state_dir_that_others_can_enter_is_closed() -> None:
    paths.state_dir().chmod(0o755)
    assert mode_of(paths.state_dir()) == 0o700


@pytest.mark.parametrize("identity", ["gpu1", "me@gpu1"])
def test_hub_log_of_a_plain_identity_has_its_name(identity: str) -> None:
    assert paths.hub_log(identity).name == f"hub-{identity}.log"


@given(st.lists(st.text(), min_size=2, max_size=4, unique=True))
def test_hub_log_is_a_file_in_the_state_dir_and_never_shared(identities: list[str]) -> None:
    logs = [paths.hub_log(identity) for identity in identities]
    assert {log.parent for log in logs} == {paths.state_dir()}
    # Also where the file system ignores case.
    assert len({log.name.lower() for log in logs}) == len(identities)
    assert all(log.name.isprintable() and "/" not in log.name for log in logs)
    assert all(len(log.name.encode()) < 200 for log in logs)
