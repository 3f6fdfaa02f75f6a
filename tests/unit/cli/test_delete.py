from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.unit.fake_home import LOCAL, put

Run = Callable[..., Result]
Refused = Callable[..., str]
Add = Callable[..., Path]


def test_removes_the_folder(add: Add, run: Run, kernels: Path) -> None:
    folder = add("gpu").parent
    (folder / "logo-64x64.png").touch()
    add("other")
    result = run("delete", "GPU")
    assert result.stdout == f"Deleted kernel 'gpu': {folder}\n"
    assert [entry.name for entry in kernels.iterdir()] == ["other"]


def test_kernel_with_a_bad_config_can_be_deleted(add: Add, run: Run, kernels: Path) -> None:
    path = add("gpu")
    path.write_text(path.read_text().replace('"/opt/bin/python"', "3"))
    assert run("delete", "gpu").exit_code == 0
    assert list(kernels.iterdir()) == []


@pytest.mark.parametrize("document", [LOCAL, "{", {"metadata": []}])
def test_kernel_of_another_is_refused(refused: Refused, kernels: Path, document: object) -> None:
    path = put(kernels / "gpu", document)
    refused("delete", "gpu")
    assert path.exists()


@pytest.mark.parametrize("name", ["gpu", "../gpu", "a\nb", "", "..", "/etc"])
def test_no_such_kernel(refused: Refused, name: str) -> None:
    refused("delete", name)


@pytest.mark.parametrize("name", ["notes.txt", "subfolder"])
def test_folder_that_holds_more_is_left_whole(add: Add, run: Run, name: str) -> None:
    path = add("gpu")
    foreign = path.parent / name
    foreign.touch() if "." in name else foreign.mkdir()
    result = run("delete", "gpu")
    assert result.exit_code == 1
    assert repr(name) in result.stderr
    assert path.exists()
    assert foreign.exists()


def test_linked_folder_is_left(add: Add, run: Run, home: Path) -> None:
    path = add("gpu")
    real = path.parent.rename(home / "real")
    path.parent.symlink_to(real)
    result = run("delete", "gpu")
    assert result.exit_code == 1
    assert "symbolic link" in result.stderr
    assert (real / "kernel.json").exists()


def test_linked_file_is_unlinked_only(add: Add, run: Run, home: Path) -> None:
    path = add("gpu")
    real = path.rename(home / "real.json")
    path.symlink_to(real)
    assert run("delete", "gpu").exit_code == 0
    assert real.exists()
    assert not path.parent.exists()


def test_failure_is_told(add: Add, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = add("gpu")

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    result = run("delete", "gpu")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"sshpyk: cannot delete {path}: Permission denied")
    assert path.exists()
