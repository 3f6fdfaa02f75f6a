from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from sshpyk.doctor import machine
from sshpyk.doctor.finding import Mark
from sshpyk.doctor.machine import Folder, JupyterProgram
from sshpyk.kernelspecs import BrokenKernelspec, LocalKernelspec
from sshpyk.wire import private


def test_this_very_interpreter_sees_the_provisioner() -> None:
    assert machine.sees_provisioner()
    assert machine.versions()["jupyter_client"]


def test_jupyter_that_does_not_see_it_is_the_cause() -> None:
    *_, item = machine.jupyter_items({}, sees=False, programs=[])
    assert (item.mark, item.code) == (Mark.BROKEN, "JUPYTER-NO-PROVISIONER")
    assert item.parts[-1].value == f"{sys.executable} -m pip install sshpyk"


@pytest.mark.parametrize(
    ("sees", "mark"), [(True, Mark.OK), (False, Mark.ADVICE), (None, Mark.ADVICE)]
)
def test_another_jupyter_on_path(sees: bool | None, mark: Mark) -> None:
    program = JupyterProgram("/usr/bin/jupyter-lab", "/usr/bin/python3", sees)
    *_, item = machine.jupyter_items({}, sees=True, programs=[program])
    assert item.mark is mark


def test_jupyter_of_another_environment_is_found_by_its_script(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "env").mkdir()
    python = home / "env" / "python3"
    python.write_text("#!/bin/sh\necho '[\"local-provisioner\"]'\n")
    python.chmod(0o755)
    script = home / "bin" / "jupyter-lab"
    script.write_text(f"#!{python}\n")
    script.chmod(0o755)
    assert machine.jupyter_programs() == [JupyterProgram(str(script), str(python), False)]
    python.write_text("#!/bin/sh\nexit 1\n")
    assert machine.jupyter_programs()[0].sees is None
    script.write_text(f"#!{sys.executable}\n")
    assert machine.jupyter_programs() == []


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "s").mkdir()
    monkeypatch.setattr(private, "_ROOT", str(tmp_path / "s"))
    return tmp_path / "s" / f"sshpyk-hub-{os.getuid()}"


def test_our_folders(home: Path, sockets: Path) -> None:
    def states() -> list[str]:
        return [folder.state for folder in machine.our_folders()]

    assert states() == ["missing", "missing"]
    (home / "state" / "sshpyk").mkdir(parents=True, mode=0o755)
    sockets.mkdir(mode=0o700)
    assert states() == ["open", "private"]
    sockets.rmdir()
    sockets.write_text("")
    assert states() == ["open", "no-folder"]


@pytest.mark.parametrize(
    ("state", "free_kb", "code"),
    [
        ("private", 10**6, ""),
        ("missing", 10**6, ""),
        ("foreign", 10**6, "LOCAL-FOLDER"),
        ("read-only", 10**6, "LOCAL-FOLDER"),
        ("no-folder", 10**6, "LOCAL-FOLDER"),
        ("private", 10, "LOCAL-DISK-FULL"),
    ],
)
def test_folder(state: str, free_kb: int, code: str) -> None:
    item = machine.folder_item(Folder("Logs", "/x", state, free_kb))
    assert (item.code, item.is_broken) == (code, bool(code))


def test_links() -> None:
    up: dict[str, Any] = {
        "host": "gpu1",
        "link": "up",
        "kernels": [1],
        "away_reason": "",
        "reason": None,
    }
    reason = {"what": "permission denied", "advice": "sshpyk login gpu1", "code": "SSH-NEEDS-LOGIN"}
    down = {**up, "link": "needs login", "reason": reason}
    first, second, third = machine.hub_items([up, down, None])
    assert (first.value, first.mark) == ("gpu1: up, 1 kernel", Mark.OK)
    assert (second.mark, second.code) == (Mark.ADVICE, "SSH-NEEDS-LOGIN")
    assert "permission denied" in second.value
    assert third.mark is Mark.ADVICE
    assert [item.mark for item in machine.hub_items([])] == [Mark.INFO]


def test_kernelspecs() -> None:
    ours = BrokenKernelspec("a", Path("/k/a"), "no JSON", sshpyk=True)
    other = BrokenKernelspec("b", Path("/k/b"), "no JSON", sshpyk=None)
    marks = [item.mark for item in machine.spec_items([ours, other])]
    assert marks == [Mark.BROKEN, Mark.ADVICE, Mark.INFO]


def test_argv_that_programs_without_provisioners_stumble_over() -> None:
    spec = LocalKernelspec("a", Path("/k/a"), ("/gone/python",), "A", "python")
    (item,) = machine.argv_items(spec)
    assert item.mark is Mark.ADVICE
    assert "/k/a/kernel.json" in item.parts[0].value
