"""The script, run by a real sh in home folders as users have them."""

from __future__ import annotations

import ast
import os
import re
import time
from pathlib import Path

import pytest

import sshpyk.discovery
from sshpyk.discovery.finder import Environment, read_findings, script_for
from tests.unit.discovery.homes import (
    BASE,
    MARK,
    VERSION,
    environment,
    found_in,
    kernelspec,
    program,
    tree,
)

ON_HOST = Path(sshpyk.discovery.__file__).with_name("on_host.py")


def in_home(home: Path, found: tuple[Environment, ...]) -> dict[str, Environment]:
    """Return what was found in the home, by the path below it."""
    return {
        str(Path(item.path).relative_to(home)): item
        for item in found
        if item.path.startswith(f"{home}/")
    }


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("miniconda3", "conda"),
        ("miniforge3/envs/ml", "conda"),
        (".conda/envs/ml", "conda"),
        (".virtualenvs/a", "venv"),
        (".venv", "venv"),
        ("venvs/a", "venv"),
        ("project/.venv", "venv"),
        ("project/venv", "venv"),
        (".cache/pypoetry/virtualenvs/p-x1-py3.12", "venv"),
        (".pyenv/versions/3.12.4", "pyenv"),
        (".pyenv/versions/3.12.4/envs/v", "venv"),
        (".local/share/uv/python/cpython-3.12.4-linux-x86_64-gnu", "uv"),
        (".local/share/uv/tools/jupyterlab", "tool"),
    ],
)
def test_environment_is_found_where_its_maker_puts_it(
    tmp_path: Path, place: str, kind: str
) -> None:
    prefix = environment(tmp_path / place, conda=kind == "conda")
    found = in_home(tmp_path, found_in(tmp_path).environments)
    item = found[f"{place}/bin/python"]
    assert (item.kind, item.prefix, item.version) == (kind, str(prefix), VERSION)
    assert item.ipykernel
    assert not item.managed
    assert [spec.name for spec in item.specs] == ["python3"]


def test_places_that_only_configuration_names(tmp_path: Path) -> None:
    listed = environment(tmp_path / "scratch/a", conda=True)
    in_rc = environment(tmp_path / "scratch/mamba", conda=True)
    below_rc = environment(in_rc / "envs/b", conda=True)
    in_condarc = environment(tmp_path / "scratch/envs/c", conda=True)
    work = environment(tmp_path / "scratch/work/d")
    (tmp_path / ".conda").mkdir()
    (tmp_path / ".conda/environments.txt").write_text(f"{listed}\n/no/such/environment\n")
    (tmp_path / ".condarc").write_text(
        f"channels:\n  - defaults\nenvs_dirs:\n  - {tmp_path}/scratch/envs\n  - ~/none # else\n"
    )
    (tmp_path / ".bashrc").write_text(
        f"__conda_setup=\"$('{in_rc}/bin/conda' 'shell.bash' 'hook' 2> /dev/null)\"\n"
    )
    found = found_in(tmp_path, variables={"WORKON_HOME": str(work.parent)})
    prefixes = {item.prefix for item in found.environments}
    assert {str(path) for path in (listed, in_rc, below_rc, in_condarc, work)} <= prefixes


def test_jupyter_applications_of_an_environment(tmp_path: Path) -> None:
    prefix = environment(tmp_path / "venvs/lab", ipykernel=False)
    packages = prefix / "lib" / "python{}.{}".format(*VERSION.split(".")) / "site-packages"
    for name in ("jupyterlab", "jupyter_server"):
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").touch()
    found = in_home(tmp_path, found_in(tmp_path).environments)
    assert found["venvs/lab/bin/python"].apps == ("jupyterlab", "jupyter_server")


def test_environment_that_is_found_twice_is_one(tmp_path: Path) -> None:
    prefix = environment(tmp_path / "miniconda3/envs/ml", conda=True)
    (tmp_path / ".conda").mkdir()
    (tmp_path / ".conda/environments.txt").write_text(f"{prefix}\n{tmp_path}/link/envs/ml\n")
    (tmp_path / "link").symlink_to(tmp_path / "miniconda3")
    found = in_home(tmp_path, found_in(tmp_path).environments)
    assert list(found) == ["miniconda3/envs/ml/bin/python"]


def test_python_on_path_comes_with_the_systems_own(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to(BASE)
    found = found_in(tmp_path, path=f"{tmp_path}/bin:/usr/bin:/bin")
    assert found.driver == f"{tmp_path}/bin/python3"
    assert [item.version for item in found.environments if item.path == found.driver] == [VERSION]
    assert len({(item.prefix, item.version) for item in found.environments}) == len(
        found.environments
    )


def test_kernelspecs_of_no_environment_are_found_on_the_documented_path(tmp_path: Path) -> None:
    kernelspec(tmp_path / ".local/share/jupyter", "IR", language="R", argv=["R", "-e", "x"])
    kernelspec(tmp_path / "shared", "julia-1.10", language="julia")
    (tmp_path / ".ipython").mkdir()
    kernelspec(tmp_path / ".ipython", "old", env={"A": "b"})
    metadata = {"kernel_provisioner": {"provisioner_name": "sshpyk-provisioner", "config": {}}}
    kernelspec(tmp_path / ".local/share/jupyter", "elsewhere", metadata=metadata)
    broken = tmp_path / ".local/share/jupyter/kernels/broken"
    broken.mkdir()
    (broken / "kernel.json").write_text("{")
    found = found_in(tmp_path, variables={"JUPYTER_PATH": f"{tmp_path}/shared"})
    mine = {spec.name: spec for spec in found.specs if spec.folder.startswith(str(tmp_path))}
    assert sorted(mine) == ["ir", "julia-1.10", "old"]
    assert (mine["ir"].language, mine["ir"].argv) == ("R", ("R", "-e", "x"))
    assert mine["old"].has_env


def test_modules_of_the_users_in_the_home_folder_are_not_imported(tmp_path: Path) -> None:
    environment(tmp_path / "venvs/a")
    for name in ("json", "threading", "subprocess"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not meant')")
    assert list(in_home(tmp_path, found_in(tmp_path).environments)) == ["venvs/a/bin/python"]


def test_nothing_is_written_and_startup_files_are_not_run(tmp_path: Path) -> None:
    environment(tmp_path / "miniconda3", conda=True)
    (tmp_path / ".bashrc").write_text(f"touch {tmp_path}/was-run\n")
    before = tree(tmp_path)
    found_in(tmp_path)
    assert tree(tmp_path) == before


def test_old_and_broken_pythons_are_told_apart(tmp_path: Path) -> None:
    old = '#!/bin/sh\necho \'SSHPYK{"prefix": "/old", "version": "3.6.1", "real": "/old"}\'\n'
    program(tmp_path / "venvs/old/bin/python", old)
    program(tmp_path / "venvs/broken/bin/python", "#!/bin/sh\necho no libpython >&2; exit 127\n")
    found = in_home(tmp_path, found_in(tmp_path).environments)
    assert found["venvs/old/bin/python"].version == "3.6.1"
    assert found["venvs/broken/bin/python"].reason == "no libpython"


def test_python_that_hangs_costs_its_own_time_only(tmp_path: Path) -> None:
    program(tmp_path / "venvs/hangs/bin/python", "#!/bin/sh\nexec sleep 60\n")
    environment(tmp_path / "venvs/good")
    began_s = time.monotonic()
    found = found_in(tmp_path, changes={"PATIENCE_S = 10.0": "PATIENCE_S = 3.0"})
    assert time.monotonic() - began_s < 15
    items = in_home(tmp_path, found.environments)
    assert items["venvs/hangs/bin/python"].reason.startswith("no answer within")
    assert items["venvs/good/bin/python"].ipykernel


def test_search_as_a_whole_is_bounded(tmp_path: Path) -> None:
    program(tmp_path / "venvs/hangs/bin/python", "#!/bin/sh\nexec sleep 60\n")
    began_s = time.monotonic()
    found = found_in(tmp_path, changes={"TOTAL_S = 25.0": "TOTAL_S = 1.0"})
    assert time.monotonic() - began_s < 20
    assert found.notes == ("some folders or Pythons did not answer in time",)


def test_number_of_pythons_is_bounded(tmp_path: Path) -> None:
    for number in range(5):
        environment(tmp_path / f"venvs/v{number}", ipykernel=False)
    found = found_in(tmp_path, changes={"MAX_PYTHONS = 120": "MAX_PYTHONS = 2"})
    assert len(found.environments) == 2
    assert "more Pythons were not looked at" in found.notes[0]


def test_named_python_is_the_only_one_asked(tmp_path: Path) -> None:
    environment(tmp_path / "a b/.venv")
    environment(tmp_path / "miniconda3", conda=True)
    found = found_in(tmp_path, python="~/a b/.venv/bin/python")
    assert [item.prefix for item in found.environments] == [f"{tmp_path}/a b/.venv"]
    missing = found_in(tmp_path, python="/no/such/python").environments
    assert [(item.path, item.reason) for item in missing] == [
        ("/no/such/python", "No such file or directory")
    ]


def test_host_without_any_python_is_said(tmp_path: Path) -> None:
    drivers = re.search("for p in .*; do", script_for(MARK))
    assert drivers
    found = found_in(tmp_path, changes={drivers[0]: "for p in /no/python; do"})
    assert (found.driver, found.environments, found.home) == ("", (), str(tmp_path))
    assert found.system.startswith(os.uname().sysname)


@pytest.mark.parametrize(
    "line",
    [
        "python {",
        "python []",
        'python {"path": 1}',
        'broken {"order": "x", "path": "p", "kind": "k"}',
        "specs 3",
        'specs [{"name": 1}]',
        "note []",
        "python " + "[" * 100_000,
        "python {" + '"a":' * 3,
    ],
)
def test_answer_that_makes_no_sense_is_noted(line: str) -> None:
    found = read_findings(MARK, f"junk\n{MARK} {line}\n{MARK} end\n")
    assert found.environments == ()
    assert found.notes == ("a part of the host's answer could not be read",)


def test_text_of_the_host_drives_no_terminal() -> None:
    text = '{"order": 1, "path": "/p", "kind": "venv", "version": "\\u001b[2J3.12.1"}'
    (found,) = read_findings(MARK, f"{MARK} python {text}\n").environments
    assert found.version == "?[2J3.12.1"


def test_program_is_valid_for_the_oldest_python() -> None:
    ast.parse(ON_HOST.read_text(encoding="utf-8"), feature_version=(3, 8))
