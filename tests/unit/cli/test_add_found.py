"""``sshpyk add HOST``: what is found on the host, what is chosen of it, and what comes of the check.

The host is this machine: ssh is a script, the search is the real one. The check is a fake here; the
integration tests launch kernels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sshpyk.cli import add_choices, add_host, add_write
from sshpyk.cli.main import cli
from sshpyk.doctor.proof import Proof
from sshpyk.errors import AuthenticationFailed, KernelDied, SshpykError
from tests.unit.discovery.homes import environment, kernelspec, program
from tests.unit.fake_home import config_of

Run = Callable[..., Result]
Refused = Callable[..., str]


class Check:
    """Stands for the launch of kernels: ``errors`` by name, ``seen`` what was written by then."""

    def __init__(self, kernels: Path) -> None:
        self.errors: dict[str, SshpykError | BaseException] = {}
        self.seen: list[str] = []
        self._kernels = kernels

    def __call__(self, names: Iterable[str], tell: Callable[[Proof], None]) -> list[Proof]:
        proofs = []
        for name in names:
            assert (self._kernels / name / "kernel.json").exists()
            self.seen.append(name)
            error = self.errors.get(name)
            if isinstance(error, BaseException) and not isinstance(error, SshpykError):
                raise error
            proofs.append(Proof(name, 1.5, error))
            tell(proofs[-1])
        return proofs


@pytest.fixture(autouse=True)
def check(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    made = Check(kernels)
    monkeypatch.setattr(add_write, "prove", made)
    return made


@pytest.fixture(autouse=True)
def host(home: Path) -> Path:
    """The home of the account on the host (and here): two environments, one without ipykernel, and R."""
    environment(home / "miniconda3/envs/analysis", conda=True)
    environment(home / "thesis/.venv")
    environment(home / "venvs/bare", ipykernel=False)
    kernelspec(home / ".ipython", "ir", argv=["R"], language="R")
    return home


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs ``sshpyk add`` on a terminal and types."""
    monkeypatch.setattr(add_choices, "on_terminal", lambda: True)

    def runner(typed: str, *words: str) -> Result:
        return CliRunner().invoke(cli, ["add", *words], prog_name="sshpyk", input=typed)

    return runner


def added(kernels: Path) -> list[str]:
    return sorted(path.name for path in kernels.iterdir()) if kernels.exists() else []


MINE = ["ssh_gpu1_analysis", "ssh_gpu1_ir", "ssh_gpu1_thesis"]


def test_all_adds_what_is_ready(run: Run, kernels: Path, host: Path, check: Check) -> None:
    result = run("add", "gpu1", "--all")
    assert result.exit_code == 0, result.output
    assert set(MINE) <= set(added(kernels))
    assert set(check.seen) == set(added(kernels))
    assert "ssh_gpu1_bare" not in added(kernels)
    assert f"checked in 1.5 s: {kernels}/ssh_gpu1_thesis/kernel.json" in result.stdout
    assert config_of(kernels / "ssh_gpu1_analysis" / "kernel.json") == {
        "ssh_host_alias": "gpu1",
        "remote_kernel_name": "python3",
        "remote_python_prefix": str(host / "miniconda3/envs/analysis"),
    }
    document = json.loads((kernels / "ssh_gpu1_ir" / "kernel.json").read_text())
    assert (document["display_name"], document["language"]) == ("gpu1: ir (R)", "R")


def test_match(run: Run, kernels: Path) -> None:
    assert run("add", "gpu1", "--match", "thes*", "--match", "IR").exit_code == 0
    assert added(kernels) == ["ssh_gpu1_ir", "ssh_gpu1_thesis"]


def test_match_of_nothing(refused: Refused, kernels: Path) -> None:
    assert "'x' fits nothing" in refused("add", "gpu1", "--match", "x")
    assert added(kernels) == []


def test_settings_hold_for_each(run: Run, kernels: Path) -> None:
    run("add", "gpu1", "--match", "thesis", "--match", "ir", "--launch-timeout", "99")
    timeouts = {config_of(path)["launch_timeout"] for path in kernels.glob("*/kernel.json")}
    assert timeouts == {99}


def test_a_name_is_for_one_kernel(refused: Refused, run: Run, kernels: Path) -> None:
    both = ("add", "gpu1", "--match", "thesis", "--match", "ir")
    assert "for one kernel" in refused(*both, "--kernel-name", "k")
    assert "for one kernel" in refused(*both, "--display-name", "k")
    assert added(kernels) == []
    words = ("--kernel-name", "k", "--display-name", "Kay")
    assert run("add", "gpu1", "--match", "thesis", *words).exit_code == 0
    assert added(kernels) == ["k"]


def test_remote_kernel_name_alone_chooses(run: Run, kernels: Path) -> None:
    assert run("add", "gpu1", "--remote-kernel-name", "ir").exit_code == 0
    assert added(kernels) == ["ssh_gpu1_ir"]
    assert run("add", "gpu1", "--remote-kernel-name", "nope").exit_code == 1


def test_without_a_terminal_and_a_choice_the_table_and_one_line(run: Run, kernels: Path) -> None:
    result = run("add", "gpu1")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "--all, --match GLOB" in result.stderr
    table = {line.split()[1]: line.split()[2:] for line in result.stdout.splitlines()[1:] if line}
    assert table["thesis"][0] == "python"
    assert table["thesis"][-1] == "yes"
    assert table["bare"][-1] == "no"
    assert table["ir"][0] == "R"
    assert added(kernels) == []


def test_json_for_scripts(run: Run, kernels: Path) -> None:
    result = run("add", "gpu1", "--json")
    assert result.exit_code == 2
    found = {row["name"]: row for row in json.loads(result.stdout)["found"]}
    assert found["bare"]["state"] == "no_ipykernel"
    result = run("add", "gpu1", "--match", "thesis", "--json")
    record = json.loads(result.stdout)
    assert [kernel["name"] for kernel in record["added"]] == ["ssh_gpu1_thesis"]
    assert record["added"][0]["checked_s"] == 1.5


def test_dry_run_adds_nothing(run: Run, kernels: Path) -> None:
    result = run("add", "gpu1", "--all", "--dry-run")
    assert (result.exit_code, added(kernels)) == (0, [])
    assert "thesis" in result.stdout


class TestFailedCheck:
    ERROR = KernelDied("the kernel ended", host="gpu1", said="No module", advice="pip install x")

    def test_it_is_removed_and_the_others_stay(self, run: Run, kernels: Path, check: Check) -> None:
        check.errors["ssh_gpu1_thesis"] = self.ERROR
        result = run("add", "gpu1", "--match", "thesis", "--match", "ir")
        assert result.exit_code == 1
        assert added(kernels) == ["ssh_gpu1_ir"]
        for text in (
            "gpu1: thesis",
            "is not added: the kernel ended",
            "| No module",
            "-> pip install x",
        ):
            assert text in result.stderr

    def test_it_is_kept_when_it_is_to_be(self, run: Run, kernels: Path, check: Check) -> None:
        check.errors["ssh_gpu1_thesis"] = self.ERROR
        result = run("add", "gpu1", "--match", "thesis", "--keep")
        assert (result.exit_code, added(kernels)) == (1, ["ssh_gpu1_thesis"])
        assert "is kept" in result.stderr

    def test_what_it_was_to_replace_is_back(self, run: Run, kernels: Path, check: Check) -> None:
        run("add", "gpu1", "--match", "thesis")
        path = kernels / "ssh_gpu1_thesis" / "kernel.json"
        before = path.read_text()
        check.errors["ssh_gpu1_thesis"] = self.ERROR
        words = ("--match", "thesis", "--replace", "--launch-timeout", "7")
        assert run("add", "gpu1", *words).exit_code == 1
        assert path.read_text() == before
        assert [entry.name for entry in path.parent.iterdir()] == ["kernel.json"]

    def test_ctrl_c_leaves_nothing(self, kernels: Path, check: Check) -> None:
        check.errors["ssh_gpu1_thesis"] = KeyboardInterrupt()
        result = CliRunner().invoke(cli, ["add", "gpu1", "--match", "thesis", "--match", "ir"])
        assert result.exit_code == 1
        assert added(kernels) == []


class TestAddedBefore:
    def test_it_is_not_added_again(self, run: Run, kernels: Path, check: Check) -> None:
        run("add", "gpu1", "--match", "thesis")
        result = run("add", "gpu1", "--match", "thesis", "--match", "ir")
        assert result.exit_code == 0
        assert added(kernels) == ["ssh_gpu1_ir", "ssh_gpu1_thesis"]
        assert check.seen == ["ssh_gpu1_thesis", "ssh_gpu1_ir"]
        assert "'ssh_gpu1_thesis' (thesis) was added before" in result.stdout

    def test_it_is_marked_in_the_table(self, run: Run) -> None:
        run("add", "gpu1", "--match", "thesis", "--kernel-name", "mine")
        (line,) = [text for text in run("add", "gpu1").stdout.splitlines() if " thesis " in text]
        assert line.split()[-1] == "mine"

    def test_replace_writes_it_anew_under_its_name(self, run: Run, kernels: Path) -> None:
        run("add", "gpu1", "--match", "thesis", "--kernel-name", "mine")
        result = run("add", "gpu1", "--match", "thesis", "--replace", "--launch-timeout", "9")
        assert result.stdout.startswith("Replaced kernel 'mine'")
        assert added(kernels) == ["mine"]

    def test_another_kernel_of_the_same_name_is_left_alone(
        self, run: Run, kernels: Path, host: Path
    ) -> None:
        run("add", "gpu1", "--match", "thesis")
        (host / "thesis/.venv").rename(host / "thesis/env")
        text = (host / "thesis/env/share/jupyter/kernels/python3/kernel.json").read_text()
        (host / "thesis/env/share/jupyter/kernels/python3/kernel.json").write_text(
            text.replace(".venv", "env")
        )
        assert run("add", "gpu1", "--match", "thesis").exit_code == 0
        assert added(kernels) == ["ssh_gpu1_thesis", "ssh_gpu1_thesis_2"]


class TestAsking:
    def test_numbers_and_names(self, ask: Callable[..., Result], kernels: Path) -> None:
        result = ask("nonsense\nthesis, ir\n", "gpu1")
        assert result.exit_code == 0, result.output
        assert "'nonsense' is no number, name or pattern" in result.output
        assert added(kernels) == ["ssh_gpu1_ir", "ssh_gpu1_thesis"]

    def test_end_of_input_adds_nothing(self, ask: Callable[..., Result], kernels: Path) -> None:
        assert ask("", "gpu1").exit_code == 1
        assert added(kernels) == []

    def test_flags_are_not_asked_for(self, ask: Callable[..., Result], kernels: Path) -> None:
        result = ask("", "gpu1", "--match", "thesis")
        assert (result.exit_code, added(kernels)) == (0, ["ssh_gpu1_thesis"])
        assert "Add which" not in result.output

    def test_ipykernel_is_offered_and_may_be_declined(
        self, ask: Callable[..., Result], kernels: Path
    ) -> None:
        result = ask("bare\nn\n", "gpu1")
        assert "bin/python -m pip install ipykernel` on gpu1? [y/N]" in result.output
        assert (result.exit_code, added(kernels)) == (1, [])
        assert "has no ipykernel" in result.output

    def test_login_when_ssh_must_ask_and_then_over_the_link(
        self, ask: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, kernels: Path
    ) -> None:
        calls: list[str] = []
        through = add_host.HostScripts.run

        def first_refused(self: Any, *given: Any) -> str:
            calls.append("run")
            if len(calls) == 1:
                raise AuthenticationFailed("permission denied (password)", host="gpu1")
            return through(self, *given)

        monkeypatch.setattr(add_host.HostScripts, "run", first_refused)
        opened = lambda target, python: calls.append(f"login {target.host}")  # noqa: E731
        monkeypatch.setattr("sshpyk.cli.login.open_link", opened)
        assert ask("thesis\n", "gpu1").exit_code == 0
        assert calls == ["run", "login gpu1", "run"]
        assert added(kernels) == ["ssh_gpu1_thesis"]


class TestIpykernel:
    WORKS = (
        '#!/bin/sh\ncase "$*" in\n-c*) exec {real} "$@";;\nesac\necho "ran: $*"\nexit {status}\n'
    )

    @pytest.fixture
    def bare(self, host: Path) -> Callable[[int], None]:
        """Return a function that makes pip in the environment end with that status."""

        def make(status: int) -> None:
            python = host / "venvs/bare/bin/python"
            python.rename(python.with_name("real"))
            real = f"{python.parent}/real"
            program(python, self.WORKS.format(real=real, status=status))

        return make

    def test_it_is_installed_when_asked_for(
        self, run: Run, kernels: Path, bare: Callable[[int], None]
    ) -> None:
        bare(0)
        result = run("add", "gpu1", "--match", "bare", "--install-ipykernel", "--yes")
        assert result.exit_code == 0, result.output
        assert "| ran: -m pip install ipykernel" in result.stderr
        assert added(kernels) == ["ssh_gpu1_bare"]

    def test_it_is_not_installed_without_a_word(self, run: Run, kernels: Path) -> None:
        result = run("add", "gpu1", "--match", "bare")
        assert (result.exit_code, added(kernels)) == (1, [])
        assert "give --install-ipykernel" in result.stderr

    def test_failure_shows_what_pip_said(
        self, run: Run, kernels: Path, bare: Callable[[int], None]
    ) -> None:
        bare(3)
        result = run("add", "gpu1", "--match", "bare", "--install-ipykernel", "--yes")
        assert (result.exit_code, added(kernels)) == (1, [])
        assert "| ran: -m pip install ipykernel" in result.stderr


class TestNamedPython:
    def test_it_is_looked_at_and_well_named(self, run: Run, kernels: Path, host: Path) -> None:
        prefix = host / "thesis/.venv"
        assert run("add", "gpu1", "--remote-python-prefix", str(prefix)).exit_code == 0
        (path,) = kernels.glob("*/kernel.json")
        assert path.parent.name == "ssh_gpu1_thesis"
        assert json.loads(path.read_text())["display_name"].startswith("gpu1: thesis (Python 3.")

    def test_it_is_not_there(self, run: Run, kernels: Path) -> None:
        result = run("add", "gpu1", "--remote-python", "/no/python")
        assert (result.exit_code, added(kernels)) == (1, [])
        assert "/no/python cannot be used: No such file" in result.stderr
        assert "--dry-run" in result.stderr


def test_host_that_refuses(run: Run, kernels: Path) -> None:
    result = run("add", "refused", "--all")
    assert (result.exit_code, added(kernels)) == (1, [])
    assert "Connection refused" in result.stderr
