"""What runs before a kernel: real shells, with startup files of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sshpyk.agent import environment
from sshpyk.agent.environment import Activation, KernelCommand, Setting, login_shell, wrapped
from sshpyk.errors import KernelDied, LaunchTimeout, SshpykError

SHELLS = [
    pytest.param(shell, marks=pytest.mark.skipif(not shutil.which(shell), reason="not here"))
    for shell in ("bash", "zsh")
]
SHOW = (
    "import json, os; print('SHOWN', json.dumps([os.getpid(), os.getcwd(), dict(os.environ),"
    " len(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self') else 4]))"
)
# As `conda init` writes it, in the place where it does: behind the guard of a Debian .bashrc.
GUARDED = """
case $- in *i*) ;; *) return ;; esac
# >>> conda initialize >>>
# !! Contents within this block are managed by 'conda init' !!
. "$HOME/conda/etc/profile.d/conda.sh"
# <<< conda initialize <<<
echo never
"""
CONDA_SH = """
conda() {
    [ "$1" = activate ] || return 2
    [ "$2" != nope ] || { echo "EnvironmentNameNotFound: $2" >&2; return 1; }
    CONDA_PREFIX="$HOME/conda/envs/$2"; export CONDA_PREFIX
    PATH="$CONDA_PREFIX/bin:$PATH"
}
"""


class Account:
    """A home folder, a login shell, and one activation in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.private = home / "k"
        self.status = 0
        self.said = ""

    def put(self, name: str, text: str) -> None:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(
        self, lines: str, *, env: dict[str, str] | None = None, argv: list[str] | None = None
    ) -> Activation:
        shutil.rmtree(self.private, ignore_errors=True)
        self.private.mkdir(mode=0o700)
        activation = Activation(lines, str(self.private), 5)
        command = KernelCommand(
            argv or [sys.executable, "-c", SHOW], str(self.home), "/lead", env or {}
        )
        process = subprocess.Popen(
            activation.prepare(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said, _ = process.communicate(timeout=20)
        self.pid, self.status = process.pid, process.returncode
        return activation

    def shown(self, lines: str, env: dict[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a kernel that came up, after all else has been checked."""
        activation = self.run(lines, env=env)
        assert self.status == 0, self.said
        pid, cwd, found, fds = json.loads(self.said.partition("SHOWN ")[2])
        assert (pid, cwd, fds) == (self.pid, str(self.home), 4)
        assert activation.over
        assert found["PATH"].startswith("/lead:")
        assert not [name for name in found if name.startswith("sshpyk")]
        return dict(found)

    def failure(self, lines: str) -> SshpykError:
        activation = self.run(lines)
        assert not activation.over, self.said
        error = activation.failure(f"status {self.status}", self.said)
        assert "SHOWN" not in self.said
        return error


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    monkeypatch.setattr(environment, "login_shell", lambda: shutil.which(name))
    return name


@pytest.fixture
def account(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CONDA_PREFIX", "CONDA_EXE", "BASH_ENV", "ENV", "ZDOTDIR", "MODULESHOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return Account(tmp_path)


def profile(shell: str) -> str:
    return {"bash": ".bash_profile", "zsh": ".zprofile"}[shell]


def test_lines_change_the_kernels_environment_and_nothing_else(account: Account):
    found = account.shown("export A='x y'\nB=2; export B\ncd /; exec 9</dev/null; exec 9<&-")
    assert (found["A"], found["B"]) == ("x y", "2")


def test_functions_of_the_login_shell_are_there_and_noise_does_not_harm(
    account: Account, shell: str
):
    words = "load() { export LOADED=$1; }; echo noise; echo more >&2; false\n"
    account.put(profile(shell), words)
    assert account.shown("load cuda; load x")["LOADED"] == "x"
    assert account.said.startswith("noise\nmore\n")


def test_a_function_that_fails_inside_and_ends_well_does_not_end_the_lines(account: Account):
    account.put("sourced.sh", "false; export SOURCED=1\n")
    lines = "f() { false; true; }; f; . ~/sourced.sh; false || true; [ 1 = 2 ] && echo; export A=1"
    found = account.shown(lines)
    assert (found["A"], found["SOURCED"]) == ("1", "1")


@pytest.mark.parametrize(
    ("lines", "culprit", "status"),
    [
        ("g() { return 3; }; g a; export A=1", "'g a' ended with status 3", 3),
        ("nonsuch x\nexport A=1", "'nonsuch x' ended with status 127", 127),
        ("export A=1; false", "'false' ended with status 1", 1),
        ("if then", "'if then' ended with status", None),
        ("exit 4", "'exit 4' ended with status 4", 4),
    ],
)
def test_what_failed_is_named_with_what_it_said(
    account: Account, lines: str, culprit: str, status: int | None
):
    error = account.failure(lines)
    assert isinstance(error, KernelDied)
    assert f"--activate: {culprit}" in error.what
    assert error.phase == "preparing the kernel's environment"
    assert status in (None, account.status)
    assert error.said == account.said.strip() or error.said == "(nothing was printed)"
    assert "|| true" in error.advice


def test_startup_files_that_end_the_shell_are_blamed_themselves(account: Account, shell: str):
    account.put(profile(shell), "echo bye; exit 0\n")
    error = account.failure("export A=1")
    assert error.what.startswith("the startup files of the login shell, before --activate, ended")
    assert error.said == "bye"


def test_lines_that_took_too_long_are_named(account: Account):
    activation = account.run("sleep 0")
    (account.private / "activated").write_text("lines\n")
    activation.given_up = True
    error = activation.failure("signal SIGKILL", "Password: ")
    assert isinstance(error, LaunchTimeout)
    assert error.what == "--activate: 'sleep 0' did not end within 5 s"
    assert error.said == "Password:"


def test_variables_that_were_asked_for_outlive_the_lines(account: Account):
    env = {"A": 'it\'s "$HOME"\n', "B": "", "not a name": "x"}
    found = account.shown("export A=lines B=lines C=lines", env)
    assert (found["A"], found["B"], found["C"]) == ('it\'s "$HOME"\n', "", "lines")


def test_what_conda_init_wrote_is_found_behind_a_guard(account: Account, shell: str):
    account.put("conda/etc/profile.d/conda.sh", CONDA_SH)
    account.put({"bash": ".bashrc", "zsh": ".zshrc"}[shell], GUARDED)
    found = account.shown("conda activate ml")
    assert found["CONDA_PREFIX"].endswith("/conda/envs/ml")
    assert "never" not in account.said
    error = account.failure("conda activate nope; export A=1")
    assert "'conda activate nope' ended with status 1" in error.what
    assert "EnvironmentNameNotFound: nope" in error.said


@pytest.mark.parametrize(
    ("rc", "text"),
    [
        ("", ""),  # ~/miniforge3 is one of the places that are looked at
        (".tcshrc", 'if ( -f "{home}/other/etc/profile.d/conda.csh" ) then\n'),
        (".config/fish/config.fish", 'eval {home}/other/bin/conda "shell.fish" "hook"\n'),
    ],
)
def test_conda_is_found_without_an_init_for_this_shell(account: Account, rc: str, text: str):
    root = "other" if rc else "miniforge3"
    account.put(f"{root}/etc/profile.d/conda.sh", CONDA_SH)
    if rc:
        account.put(rc, text.format(home=account.home))
    assert account.shown("conda activate ml")["CONDA_PREFIX"].endswith("/envs/ml")


def test_conda_that_a_module_brings_is_found_when_it_is_called(account: Account, shell: str):
    account.put("sw/etc/profile.d/conda.sh", CONDA_SH)
    account.put("sw/bin/conda", "#!/bin/sh\nexit 1\n")
    (account.home / "sw/bin/conda").chmod(0o755)
    account.put(profile(shell), "module() { PATH=~/sw/bin:$PATH; }\n")
    assert account.shown("module load conda; conda activate ml")["CONDA_PREFIX"]


def test_a_conda_without_conda_sh_is_asked_for_its_hook(account: Account, shell: str):
    hook = 'conda() { export HOOKED="$1 $2"; }'
    account.put("sw/bin/conda", f"#!/bin/sh\n[ \"$1 $2\" = 'shell.{shell} hook' ] && echo '{hook}'")
    (account.home / "sw/bin/conda").chmod(0o755)
    assert account.shown("PATH=~/sw/bin:$PATH; conda activate x")["HOOKED"] == "activate x"


def test_no_conda_at_all_says_so(account: Account):
    error = account.failure("conda activate ml")
    assert "'conda activate ml' ended with status 127" in error.what
    assert "conda" in error.said


def test_module_is_found_where_the_profile_does_not_define_it(
    account: Account, shell: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MODULESHOME", str(account.home / "modules"))
    account.put(f"modules/init/{shell}", 'module() { export LOADED="$*"; }')
    assert account.shown("module load cuda")["LOADED"] == "load cuda"


def test_the_script_is_private_and_forgotten(account: Account):
    activation = account.run("true", env={"TOKEN": "s3cret"})
    script = account.private / "activate"
    assert stat.S_IMODE(script.stat().st_mode) == 0o600
    assert "s3cret" in script.read_text()
    activation.forget()
    activation.forget()
    assert not script.exists()


def test_the_shell_is_the_users_own_if_it_can_be(monkeypatch: pytest.MonkeyPatch):
    shells = {}
    for name in ("bash", "zsh", "dash", "fish", "tcsh", "nologin"):
        own = type("Entry", (), {"pw_shell": shutil.which(name) or f"/bin/{name}"})
        monkeypatch.setattr(environment.pwd, "getpwuid", lambda uid, own=own: own)
        shells[name] = os.path.basename(login_shell())
    for name in ("bash", "dash", "fish", "tcsh", "nologin"):
        assert shells[name] == "bash"
    assert shells["zsh"] == ("zsh" if shutil.which("zsh") else "bash")


def test_an_account_without_an_entry_gets_bash(monkeypatch: pytest.MonkeyPatch):
    def no_entry(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(environment.pwd, "getpwuid", no_entry)
    assert os.path.basename(login_shell()) == "bash"


def test_words_in_front_may_begin_at_home(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert wrapped(["~/bin/run", "a b"], ["python"]) == ["/home/me/bin/run", "a b", "python"]


@pytest.mark.parametrize(
    "params",
    [{"activate": 1}, {"wrapper": "x"}, {"wrapper": [1]}, {"activate_s": "x"}, {"activate": "\0"}],
)
def test_a_malformed_setting_is_refused(params: dict[str, object]):
    with pytest.raises(ValueError):
        Setting.from_params(params)
