from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshpyk.doctor.probe import HostAnswer, Question, end_line, read_answer, script_for
from sshpyk.ssh.script import REMOTE_COMMAND
from tests.unit.fake_home import LOCAL, put

SSH = shutil.which("ssh")
LOGIN_SHELLS = [
    shell for shell in ("bash", "dash", "zsh", "fish", "csh", "tcsh") if shutil.which(shell)
]
SHELLS = [shell for shell in ("sh", "dash", "bash", "ksh", "zsh", "busybox") if shutil.which(shell)]


def ask(shell: str, *questions: Question) -> HostAnswer:
    words = ["busybox", "sh"] if shell == "busybox" else [shell]
    script = script_for("MARK", questions)
    done = subprocess.run(words, input=script, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.endswith(f"{end_line('MARK')}\n")
    return read_answer("MARK", questions, done.stdout)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gives_the_answer(shell: str, kernels: Path) -> None:
    spec = {**LOCAL, "argv": ["a'b", 'c\\n"d', "{connection_file}"], "interrupt_mode": "message"}
    put(kernels / "Mine", spec)
    answer = ask(shell, Question(sys.executable, "mine"), Question(sys.executable, "nope"))
    python = answer.interpreters[sys.executable]
    assert answer.system.split()[0] in ("Linux", "Darwin")
    assert (python.path, python.reason) == (sys.executable, "")
    assert python.version.startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    assert python.specs["mine"].argv == tuple(spec["argv"])
    assert python.specs["mine"].interrupt_mode == "message"
    assert set(python.specs) == {"mine"}
    assert "mine" in python.known


@pytest.mark.parametrize("shell", SHELLS)
def test_interpreters_that_do_not_work(shell: str, home: Path) -> None:
    evil = f"~/x$(touch {home}/pwned)`touch {home}/pwned`"
    pythons = ["/no/python", "/bin/false", "/bin/echo", "/etc/passwd", evil, "no_such_command"]
    answer = ask(shell, *(Question(python, "python3") for python in pythons))
    assert all(answer.interpreters[python].reason for python in pythons)
    assert answer.interpreters["/no/python"].reason == "was not found"
    assert not (home / "pwned").exists()


@pytest.mark.skipif(not SSH, reason="no ssh here")
@pytest.mark.parametrize("shell", SHELLS)
def test_an_alias_is_what_the_hosts_ssh_makes_of_it(shell: str, home: Path) -> None:
    folder = home / "with-ssh"
    folder.mkdir()
    (home / "config").write_text("Host laptop\n HostName localhost\n Port 2222\n User me\n")
    # ssh looks for its config in the home folder that the system knows.
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {SSH} -F {home}/config "$@"\n')
    (folder / "ssh").chmod(0o755)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        answer = ask(
            shell, Question("/no", "k", alias="laptop"), Question("/no", "k", alias="$(x)")
        )
    found = answer.aliases["laptop"]
    assert (found.hostname, found.port, found.user) == ("localhost", 2222, "me")
    assert "$(x)" not in answer.aliases or answer.aliases["$(x)"].hostname == "$(x)"


@pytest.mark.parametrize("shell", LOGIN_SHELLS)
def test_every_login_shell_starts_it(shell: str) -> None:
    # As sshd does: the words joined, given to the login shell.
    command = [shell, "-c", " ".join(REMOTE_COMMAND)]
    script = script_for("MARK", [Question(sys.executable, "python3")])
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
    assert end_line("MARK") in done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_mounts_and_folders(shell: str, home: Path) -> None:
    (home / "full" / "x").mkdir(parents=True)
    (home / "empty one").mkdir()
    (home / "file").touch()
    (home / "bin" / "my sshfs").write_text(
        "#!/bin/sh\necho 'FUSE library 3'; echo 'SSHFS version 3.7'\n"
    )
    (home / "bin" / "my sshfs").chmod(0o755)
    states = {
        "~/full": "full",
        "~/empty one": "empty",
        "~/new/er": "missing",
        "~/file": "no-folder",
    }
    mounts = Question("/no/python", "k", tuple(states), "~/bin/my sshfs", cwd="/no/such")
    answer = ask(shell, mounts, Question("/no/python", "k", ("~/full",), "no_sshfs"))
    assert dict(answer.folders) == {**states, "/no/such": answer.folders["/no/such"]}
    assert answer.folders["/no/such"] in ("missing", "no-parent")  # root may make it
    assert dict(answer.sshfs) == {"~/bin/my sshfs": "SSHFS version 3.7", "no_sshfs": ""}
    assert answer.fuse.device in ("usable", "forbidden", "missing")
    assert answer.free_kb[str(home)] > 0
    assert "/tmp" in answer.free_kb
    assert not (home / "new").exists()


def test_program_and_packages_of_a_kernel(kernels: Path, home: Path) -> None:
    put(kernels / "mine", {**LOCAL, "argv": ["python3", "-m", "ipykernel_launcher", "-f", "x"]})
    put(kernels / "gone", {**LOCAL, "argv": ["{resource_dir}/no", "x"]})
    put(kernels / "shell", {**LOCAL, "argv": ["sh", "-c", "x"]})
    put(kernels / "odd", {**LOCAL, "argv": ["python", "-m", "no_such_module"]})
    put(kernels / "half", "{")
    names = ("mine", "gone", "shell", "odd", "half", "list")
    put(kernels / "list", "[]")
    python = ask("sh", *(Question(sys.executable, name) for name in names)).interpreters[
        sys.executable
    ]
    assert python.specs["mine"].program == sys.executable
    packages = python.specs["mine"].packages
    assert packages
    assert (packages.module_found, packages.zmq_error, packages.failed) == (True, "", "")
    assert packages.pyzmq
    assert (python.specs["gone"].program, python.specs["gone"].packages) == ("", None)
    assert python.specs["shell"].program.endswith("/sh")
    assert python.specs["odd"].packages
    assert python.specs["odd"].packages.module_found is False
    assert set(python.broken) == {"half", "list"}


def test_interpreter_that_is_too_old_says_its_version(home: Path) -> None:
    """Its first lines are all that an old Python can be relied upon to read."""
    old = home / "bin" / "old"
    old.write_text(
        f"#!{sys.executable}\nimport sys, collections\n"
        "class V(tuple):\n    pass\nsys.version_info = V((3, 6, 8))\n"
        "sys.argv = sys.argv[3:]\nsys.argv.insert(0, '-c')\nexec(sys.argv.pop(1))\n"
    )
    old.chmod(0o755)
    python = ask("sh", Question(str(old), "python3")).interpreters[str(old)]
    assert (python.version, python.reason) == ("3.6.8", "")


def test_home_is_the_hosts(home: Path) -> None:
    (home / "my env").symlink_to(sys.prefix)
    python = "~/my env/bin/python"
    assert ask("sh", Question(python, "x")).interpreters[python].reason == ""


def test_modules_of_the_users_in_the_home_folder_are_not_imported(
    kernels: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(kernels / "mine", {**LOCAL, "argv": ["python3", "-m", "ipykernel_launcher", "-f", "x"]})
    for name in ("json", "shutil", "zmq"):
        (home / f"{name}.py").write_text("raise RuntimeError('not meant')")
    monkeypatch.chdir(home)
    python = ask("sh", Question(sys.executable, "mine")).interpreters[sys.executable]
    packages = python.specs["mine"].packages
    assert packages
    assert (packages.failed, packages.zmq_error) == ("", "")


def test_nothing_is_written(home: Path) -> None:
    before = sorted(home.rglob("*"))
    ask("sh", Question(sys.executable, "python3"))
    assert sorted(home.rglob("*")) == before


def test_what_else_is_printed_is_skipped() -> None:
    assert read_answer("MARK", [], "Welcome\nMARK system 0 Linux\nMARK end\n") == HostAnswer(
        "Linux", {}
    )


LINES = st.sampled_from(
    [
        *("system", "python", "failed", "end", "space", "fuse", "sshfs", "folder"),
        *("0", "1", "-1", "٣", "9" * 30, "{}", "[]"),
    ]
)


@given(st.lists(st.lists(LINES | st.text(), max_size=4)))
def test_any_answer_is_read(words: list[list[str]]) -> None:
    questions = [Question("a", "k", ("/m",)), Question("b", "k")]
    lines = [" ".join(["MARK", *line]) for line in words]
    answer = read_answer("MARK", questions, "\n".join(lines))
    assert set(answer.interpreters) == {"a", "b"}


JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["path", "version", "known", "specs"]), JSON) | JSON)
def test_any_json_is_read(value: object) -> None:
    line = f"MARK python 0 {json.dumps(value)}\nMARK end"
    answer = read_answer("MARK", [Question("a", "k")], line)
    assert "a" in answer.interpreters
