"""The decisions in lab/, without an engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

LAB = Path(__file__).parents[2] / "lab"


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(LAB))
    import lab

    return lab


@pytest.fixture
def images(lab: ModuleType) -> ModuleType:
    import images

    return images


def test_pytest_arguments_none_given_runs_all_in_parallel(lab: ModuleType) -> None:
    arguments = lab.pytest_arguments([])
    assert arguments[-1] == "tests/integration"
    assert arguments[arguments.index("-n") + 1] == "4"


def test_pytest_arguments_option_value_is_no_path(lab: ModuleType) -> None:
    assert lab.pytest_arguments(["-k", "lab"])[-3:] == [
        "-k",
        "lab",
        "tests/integration",
    ]


@pytest.mark.parametrize(
    "node", ["tests/integration/test_lab.py", "tests/integration/x.py::test_y"]
)
def test_pytest_arguments_path_given_replaces_default(lab: ModuleType, node: str) -> None:
    assert lab.pytest_arguments([node])[-1] == node


@pytest.mark.parametrize("own", [["-n0"], ["-n", "2"], ["--numprocesses=1"], ["--pdb"]])
def test_pytest_arguments_own_parallelism_wins(lab: ModuleType, own: list[str]) -> None:
    assert "worksteal" not in lab.pytest_arguments(own)


def test_requirements_laptop_has_everything_remote_what_users_have_there(
    images: ModuleType,
) -> None:
    wanted = images.requirements()
    assert any(entry.startswith("jupyter-client") for entry in wanted["laptop"])
    assert any(entry.startswith("pytest-xdist") for entry in wanted["laptop"])
    assert any(entry.startswith("jupyterlab") for entry in wanted["laptop"])
    assert [entry.split(">")[0] for entry in wanted["remote"]] == [
        "ipykernel",
        "jupyterlab",
        "matplotlib",
        "notebook",
    ]


def test_images_fingerprint_is_repeatable(images: ModuleType) -> None:
    assert images.images_fingerprint() == images.images_fingerprint()


def test_pip_for_image_evaluates_markers_of_the_image(tmp_path: Path) -> None:
    from pip._vendor.packaging.markers import default_environment

    markers = tmp_path / "markers.json"
    markers.write_text(json.dumps({**default_environment(), "python_version": "2.1"}))
    pip = [sys.executable, LAB / "pip_for_image.py", markers]
    said = subprocess.run(
        [*pip, "download", "--no-index", "--dest", tmp_path, 'no-such-thing; python_version > "3"'],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    assert "Ignoring no-such-thing" in said.stdout
