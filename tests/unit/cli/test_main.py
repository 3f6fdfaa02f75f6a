from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from sshpyk.cli import main as main_module
from sshpyk.cli.main import cli, main
from sshpyk.errors import SshpykError, Unreachable

VERBS = ["add", "delete", "edit", "list"]
Run = Callable[..., Result]


def test_help_names_every_verb(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert all(f"\n  {verb} " in result.output for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_examples(run: Run, verb: str) -> None:
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert f"Examples:\n    sshpyk {verb}" in result.output


def test_version(run: Run) -> None:
    assert run("--version").output.startswith("sshpyk, version ")


@pytest.mark.parametrize(
    "words", [["nonsense"], ["list", "--nonsense"], ["edit"], ["delete"], ["list", "extra"]]
)
def test_wrong_usage_is_one_line(refused: Callable[..., str], words: list[str]) -> None:
    assert "--help" in refused(*words)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from sshpyk.cli.main import main; main(['--help']);"
        "heavy = {'jupyter_client', 'jupyter_core', 'rich', 'zmq', 'platformdirs', 'asyncio'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "sshpyk.cli.main", "delete", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no kernel named 'nothing'" in done.stderr


class TestErrors:
    @pytest.fixture
    def failing(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
        def fail(error: Exception) -> None:
            def raise_it() -> None:
                raise error

            monkeypatch.setattr("sshpyk.kernelspecs.load_all", raise_it)

        return fail

    def test_failed_operation_is_told_in_full(
        self, run: Run, failing: Callable[[Exception], None]
    ) -> None:
        failing(Unreachable("refused", host="gpu1", said="one\ntwo", advice="wait"))
        result = run("list")
        assert result.exit_code == 1
        assert (
            result.stderr
            == "sshpyk: host gpu1: refused [HOST-UNREACHABLE]\n  | one\n  | two\n  -> wait\n"
        )

    @pytest.mark.parametrize("verbose", [False, True])
    def test_defect_is_one_line_and_a_traceback_in_the_log(
        self,
        failing: Callable[[Exception], None],
        capsys: pytest.CaptureFixture[str],
        home: Path,
        verbose: bool,
    ) -> None:
        failing(RuntimeError("first\nsecond"))
        assert main([*(["-v"] if verbose else []), "list"]) == 70
        said = capsys.readouterr().err
        log = home / "state" / "sshpyk" / "cli.log"
        assert said.startswith(f"sshpyk: internal error: RuntimeError: first (traceback in {log})")
        assert ("Traceback" in said) is verbose
        assert "Traceback" in log.read_text()

    def test_defect_without_a_place_for_the_log(
        self,
        failing: Callable[[Exception], None],
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/x")
        failing(RuntimeError("broken"))
        assert main(["list"]) == 70
        assert "no log" in capsys.readouterr().err

    def test_exit_codes_reach_the_caller(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--help"]) == 0
        assert main(["list", "-n"]) == 0
        assert main(["delete", "nothing"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_every_result_of_a_verb_has_a_renderer() -> None:
    from sshpyk.cli import render, results

    for record in (
        results.Added,
        results.Edited,
        results.Deleted,
        results.Listing,
        results.Processes,
    ):
        assert render.render.dispatch(record) is not render.render.dispatch(object)
    assert cli.name == "cli"
    assert issubclass(main_module.Failure, Exception)
    assert SshpykError.exit_code == 1
