from __future__ import annotations

import json
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from sshpyk.errors import InvalidInput
from sshpyk.hub import client
from sshpyk.hub.client import HubClient
from sshpyk.kernelapp import command as module
from sshpyk.kernelapp.command import command, run
from sshpyk.kernelapp.files import Note, new_connection_file, read_connection
from sshpyk.kernelapp.legacy import modern
from sshpyk.kernelapp.wish import Wish, Words, read_wish
from tests.unit.staged_hub import PATIENCE_S, Stage

NOTE = Note(
    "3fa9c0de", "remote", "gpu1", "python3", None, None, "/r/kernel-a.json", {"shell_port": 1}
)


def wish(*words: str) -> Wish:
    parsed = command.main(args=modern(list(words)), standalone_mode=False)
    assert isinstance(parsed, Words)
    return read_wish(parsed)


@pytest.mark.parametrize(
    "words",
    [
        ["--kernel", "remote", "--connection-file", "FILE"],
        ["--kernel=remote", "--connection-file=FILE"],
        ["-k", "remote", "-f", "FILE"],
        # As sshpyk 1.x wrote it.
        ["--SSHKernelApp.kernel_name=remote", "--KernelManager.connection_file='FILE'"],
        ["--SSHKernelApp.kernel_name=remote", '--KernelManager.connection_file="FILE"'],
        ["--SSHKernelApp.kernel_name=remote", "--KernelManager.connection_file=FILE"],
    ],
)
@pytest.mark.parametrize("name", ["c.json", "with a space.json"])
def test_every_form_of_the_command_line_names_the_same(
    tmp_path: Path, words: list[str], name: str
) -> None:
    path = new_connection_file("remote", str(tmp_path / name))
    made = wish(*(word.replace("FILE", path) for word in words))
    assert made.connection_file == path
    assert made.record["launch"]["env"] == {"FROM": "spec"}
    assert made.record["target"]["host"] == "gpu1"
    assert made.record["shutdown_timeout_s"] == 3.0
    assert (made.by_program, made.removes_file, made.persistent) == (True, False, False)


def test_a_relative_connection_file_is_made_absolute(tmp_path: Path) -> None:
    """The hub reads it, and works in another folder."""
    new_connection_file("remote", "c.json")
    assert wish("-k", "remote", "-f", "c.json").connection_file == str(tmp_path / "c.json")


def test_without_a_connection_file_one_is_made_and_ours_to_remove(tmp_path: Path) -> None:
    made = wish("-k", "remote")
    assert read_connection(made.connection_file)["kernel_name"] == "remote"
    assert Path(made.connection_file).parent == tmp_path / "runtime"
    assert (made.by_program, made.removes_file) == (False, True)


def test_a_connection_file_that_is_not_there_is_made_for_a_person(tmp_path: Path) -> None:
    made = wish("-k", "remote", "-f", "mine.json")
    assert read_connection(str(tmp_path / "mine.json"))
    assert (made.by_program, made.removes_file) == (False, False)


@pytest.mark.parametrize(
    ("words", "persistent", "leaves"),
    [
        ([], False, False),
        (["-p"], True, False),
        (["--persistent"], True, False),
        (["-l"], True, True),
        (["--leave"], True, True),
        (["--persistent-file", "p.json"], True, False),
        (["--SSHKernelApp.persistent=True"], True, False),
    ],
)
def test_who_wants_to_keep_the_kernel_says_so(
    words: list[str], persistent: bool, leaves: bool
) -> None:
    made = wish("-k", "remote", *words)
    assert (made.persistent, made.leave_at_once) == (persistent, leaves)


def test_pythonhome_of_1_x_reaches_the_kernel() -> None:
    made = wish("-k", "remote", "--SSHKernelApp.remote_kernel_pythonhome=/opt/py")
    assert made.record["launch"]["env"]["PYTHONHOME"] == "/opt/py"


class TestExisting:
    @pytest.fixture
    def note(self) -> Note:
        """One kernel that was left."""
        path = new_connection_file("remote")
        note = replace(NOTE, connection_file=path, connection=read_connection(path))
        note.save()
        Path(path).unlink()
        return note

    @pytest.mark.parametrize(
        "words",
        [["--existing"], ["-e", "3fa9"], ["--existing=3fa9c0de", "-v"], ["--existing", "-v"]],
    )
    def test_finds_what_was_left_here(self, note: Note, words: list[str]) -> None:
        made = wish(*words)
        assert made.existing == note.kernel_id
        assert made.kernel == "remote"
        assert made.connection_file == note.connection_file
        assert read_connection(note.connection_file) == note.connection
        assert made.record["target"]["host"] == "gpu1"
        assert made.persistent

    def test_finds_it_by_its_connection_file(self, note: Note) -> None:
        assert wish("--existing", note.connection_file).existing == note.kernel_id

    def test_without_its_kernelspec_the_host_is_enough(self, note: Note, tmp_path: Path) -> None:
        (tmp_path / "config").touch()
        config = str(tmp_path / "config")
        replace(note, kernel="", ssh=str(tmp_path / "ssh"), ssh_config=config).save()
        made = wish("--existing")
        assert made.kernel == ""
        assert made.record["target"] == {
            "host": "gpu1",
            "ssh": str(tmp_path / "ssh"),
            "ssh_config": config,
        }

    def test_of_several_the_one_of_the_host_or_kernel_that_is_named(
        self, note: Note, tmp_path: Path
    ) -> None:
        os.utime(note.path, (1, 1))
        other = replace(note, kernel_id="4fa9c0de", host="gpu2", kernel="", ssh=note.ssh)
        other = replace(other, ssh=str(tmp_path / "ssh"))
        other.save()
        assert wish("--existing").existing == other.kernel_id
        assert wish("--existing", "--host", "gpu1").existing == note.kernel_id
        assert wish("--existing", "-k", "remote").existing == note.kernel_id

    def test_a_file_in_use_is_not_ours_before_the_kernel_is(self, note: Note) -> None:
        assert wish("--existing").made_file
        assert not wish("--existing").made_file  # it is there by now

    def test_one_from_elsewhere_needs_a_host_or_a_kernel(self, tmp_path: Path) -> None:
        kernel_id = "77aa" * 8
        made = wish("--existing", kernel_id, "--host", "gpu2", "--ssh", str(tmp_path / "ssh"))
        assert (made.existing, made.kernel) == (kernel_id, "")
        assert made.record["target"]["host"] == "gpu2"
        assert not Path(made.connection_file).exists()  # the hub makes it, with the kernel's key
        made = wish("--existing", kernel_id, "-k", "remote")
        assert (made.existing, made.kernel) == (kernel_id, "remote")

    @pytest.mark.parametrize(
        ("named", "expected"),
        [("77aa", "77aa1"), ("88", "88bb2"), ("", "88bb2"), ("7", None), ("99", None)],
    )
    def test_the_host_is_asked_which_one_is_meant(
        self,
        tmp_path: Path,
        stage: Stage,
        monkeypatch: pytest.MonkeyPatch,
        named: str,
        expected: str,
    ) -> None:
        kernels = [
            {"kernel_id": "77aa1", "carried": "connected"},
            {"kernel_id": "77bb1", "carried": "connected"},
            {"kernel_id": "88bb2", "carried": "left"},
        ]
        ours, theirs = socket.socketpair()
        theirs.sendall(json.dumps({"on_host": kernels}).encode() + b"\n")
        monkeypatch.setattr(client, "reach_hub", lambda target: HubClient(ours))
        try:
            if expected is None:
                with pytest.raises(InvalidInput, match=r"several kernels|no kernel 99 runs"):
                    wish("--existing", named, "-k", "remote")
            else:
                assert wish("--existing", named, "-k", "remote").existing == expected
            assert json.loads(theirs.recv(4096)) == {"op": "survey", "python": "python3"}
        finally:
            theirs.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a kernel"),
        (["-f", "c.json"], "name a kernel"),
        (["-k", "local", "-f", "c.json"], "local is not a kernel of sshpyk's"),
        (["-k", "missing", "-f", "c.json"], "missing"),
        (["--existing"], "no kernel was left here"),
        (["--existing", "77aa"], "no kernel 77aa was left here"),
    ],
)
def test_an_incomplete_command_line_is_an_error_in_words(
    tmp_path: Path, words: list[str], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        wish(*words)
    assert not list((tmp_path / "runtime").glob("*"))


def test_help_has_keys_signals_exit_codes_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "Ctrl+\\   leave: the kernel",
        "USR1        restart",
        "Exit codes:",
        "\n  Examples:\n    sshpyk-kernel",
    ):
        assert words in shown


def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--nonsense"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "sshpyk-kernel: No such option '--nonsense'. (see sshpyk-kernel --help)\n"


def test_a_defect_is_shown_whole_and_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "read_wish", lambda words: 1 / 0)
    assert run(["-k", "remote"]) == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_error_of_the_command_line_goes_to_stderr_with_its_exit_code(stage: Stage) -> None:
    process = stage.start("-k", "no-such-kernel", "-f", "/tmp/c.json")
    _, said = process.communicate(timeout=PATIENCE_S)
    assert b"no-such-kernel" in said
    assert b"Traceback" not in said
    assert process.returncode == 2


def test_signals_that_nobody_sent_yet_have_their_table() -> None:
    """The mission's list, once more by hand."""
    from sshpyk.standin import SIGNALS

    assert {signal.Signals(number).name: action.value for number, action in SIGNALS.items()} == {
        "SIGINT": "interrupt",
        "SIGTERM": "shut down",
        "SIGHUP": "shut down",
        "SIGUSR1": "restart",
        "SIGUSR2": "end",
        "SIGQUIT": "leave",
    }
