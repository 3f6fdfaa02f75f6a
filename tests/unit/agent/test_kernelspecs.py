"""Kernelspecs on the host, in folders of the test's own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from sshpyk.agent import kernelspecs
from sshpyk.agent.kernelspecs import RemoteKernelspec, command, find_kernelspec, from_json
from sshpyk.errors import KernelspecNotFound


class Host:
    """A home folder, an environment, and nothing else."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.prefix = root / "env"
        self.python = str(self.prefix / "bin" / "python")
        (self.prefix / "bin").mkdir(parents=True)
        self.home.mkdir()
        Path(self.python).symlink_to(sys.executable)

    def add(self, data: Path, name: str = "k", text: str | None = None) -> Path:
        folder = data / "kernels" / name
        folder.mkdir(parents=True)
        spec = {"argv": ["python", "-m", "k", str(data)], "display_name": "x"}
        (folder / "kernel.json").write_text(json.dumps(spec) if text is None else text)
        return folder


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(made.home))
    monkeypatch.setattr(kernelspecs.sys, "platform", "linux")
    monkeypatch.setattr(kernelspecs, "_ask", lambda name, python: None)
    return made


def test_the_search_order_is_jupyters(host: Host, monkeypatch: pytest.MonkeyPatch):
    paths = [host.home / "first", host.home / "second"]
    monkeypatch.setenv("JUPYTER_PATH", os.pathsep.join(map(str, paths)))
    data = [
        *paths,
        host.prefix / "share" / "jupyter",
        host.home / ".local" / "share" / "jupyter",
    ]
    folders = [host.add(folder) for folder in data]
    ipython = host.home / ".ipython" / "kernels" / "k"
    ipython.mkdir(parents=True)
    (ipython / "kernel.json").write_text('{"argv": ["last"]}')
    for folder in [*folders, ipython]:
        assert find_kernelspec("k", host.python).resource_dir == str(folder)
        (folder / "kernel.json").unlink()
    with pytest.raises(KernelspecNotFound):
        find_kernelspec("k", host.python)


def test_the_users_data_folder_can_be_moved(host: Host, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(host.home / "xdg"))
    folder = host.add(host.home / "xdg" / "jupyter")
    assert find_kernelspec("k", host.python).resource_dir == str(folder)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(host.home / "data"))
    moved = host.add(host.home / "data")
    assert find_kernelspec("k", host.python).resource_dir == str(moved)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        '"text"',
        "{}",
        '{"argv": []}',
        '{"argv": "python"}',
        '{"argv": [1]}',
        '{"argv": null}',
        '{"argv": ["x"], "env": "A=1"}',
        '{"argv": ["x"], "env": 7}',
    ],
)
def test_a_broken_kernelspec_is_passed_over(host: Host, text: str):
    host.add(host.prefix / "share" / "jupyter", text=text)
    good = host.add(host.home / ".local" / "share" / "jupyter")
    assert find_kernelspec("k", host.python).resource_dir == str(good)


def test_a_kernelspec_that_is_no_utf8_is_passed_over(host: Host):
    folder = host.add(host.prefix / "share" / "jupyter")
    (folder / "kernel.json").write_bytes(b'{"argv": ["\xff"]}')
    with pytest.raises(KernelspecNotFound):
        find_kernelspec("k", host.python)


def test_the_error_lists_what_was_searched_and_what_there_is(host: Host):
    host.add(host.prefix / "share" / "jupyter", "ir")
    host.add(host.home / ".local" / "share" / "jupyter", "julia-1.10")
    with pytest.raises(KernelspecNotFound) as caught:
        find_kernelspec("python3", host.python)
    text = str(caught.value)
    assert str(host.prefix / "share" / "jupyter" / "kernels") in text
    assert "found there: ir, julia-1.10" in text
    assert f"{host.python} -m pip install ipykernel" in text


def test_jupyter_client_itself_is_asked_last(host: Host, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, str]] = []

    def ask(name: str, python: str) -> RemoteKernelspec:
        asked.append((name, python))
        return RemoteKernelspec(["x"], "/from/jupyter_client")

    monkeypatch.setattr(kernelspecs, "_ask", ask)
    host.add(host.prefix / "share" / "jupyter")
    find_kernelspec("k", host.python)
    assert asked == []
    assert find_kernelspec("other", host.python).resource_dir == "/from/jupyter_client"
    assert asked == [("other", host.python)]


def test_asking_jupyter_client_finds_what_only_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its native kernel is made up when no kernelspec is installed at all."""
    monkeypatch.setenv("HOME", str(tmp_path))
    found = kernelspecs._ask("python3", sys.executable)
    assert found is not None
    assert found.speaks_ipc
    assert kernelspecs._ask("no-such-kernel", sys.executable) is None
    assert kernelspecs._ask("python3", "/no/such/python") is None
    assert kernelspecs._ask("python3", "/bin/true") is None


def test_a_kernelspec_is_read_with_its_types():
    spec = from_json(
        {
            "argv": ["R", "-e", "x"],
            "language": "R",
            "interrupt_mode": "message",
            "env": {"A": 1},
            "display_name": "R",
        },
        "/r",
    )
    assert spec == RemoteKernelspec(["R", "-e", "x"], "/r", "R", "message", {"A": "1"})


@pytest.mark.parametrize(
    ("argv", "language", "speaks"),
    [
        (["python", "-m", "ipykernel_launcher"], "", True),
        (["/opt/env/bin/python", "-m", "ipykernel"], "fortran", True),
        (["x"], "Python", True),
        (["R"], "R", False),
        (["julia"], "", False),
    ],
)
def test_kernels_for_python_are_known_to_take_unix_sockets(argv, language, speaks):
    assert RemoteKernelspec(argv, "/r", language).speaks_ipc is speaks


def test_placeholders_are_filled_in_as_jupyter_does():
    spec = RemoteKernelspec(
        ["{prefix}/bin/x", "{connection_file}", "--dir={resource_dir}/a", "{unknown}", "{", "{}"],
        "/res",
    )
    assert command(spec, "/env/bin/python", "/tmp/c.json") == [
        "/env/bin/x",
        "/tmp/c.json",
        "--dir=/res/a",
        "{unknown}",
        "{",
        "{}",
    ]


def test_a_value_that_looks_like_a_placeholder_is_not_expanded_again():
    spec = RemoteKernelspec(["{connection_file}"], "/res")
    assert command(spec, "/env/bin/python", "/tmp/{prefix}") == ["/tmp/{prefix}"]


@pytest.mark.parametrize("word", ["python", "python3", "python3.11"])
def test_a_bare_python_is_the_interpreter_that_was_named(word: str):
    assert command(RemoteKernelspec([word, "-m", "k"], "/r"), "/e/bin/python", "c")[0] == (
        "/e/bin/python"
    )


@pytest.mark.parametrize("word", ["/usr/bin/python3", "python2", "ipython", "pythonw", "python3x"])
def test_any_other_program_stays_what_it_is(word: str):
    assert command(RemoteKernelspec([word], "/r"), "/e/bin/python", "c")[0] == word


def test_macos_has_a_folder_of_its_own(host: Host, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernelspecs.sys, "platform", "darwin")
    folder = host.add(host.home / "Library" / "Jupyter")
    assert find_kernelspec("k", host.python).resource_dir == str(folder)
