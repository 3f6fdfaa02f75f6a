from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from sshpyk.errors import InvalidInput
from sshpyk.kernelapp.files import Note, find_note, new_connection_file, notes, read_connection

NOTE = Note(
    "3fa9c0de", "remote", "gpu1", "python3", None, None, "/r/kernel-a.json", {"shell_port": 1}
)


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_connection_file_is_where_a_console_looks_for_it_and_ours_alone(tmp_path: Path) -> None:
    path = new_connection_file("remote")
    assert Path(path).parent == tmp_path / "runtime"
    assert Path(path).match("kernel-remote-*.json")
    assert mode(path) == 0o600
    written = read_connection(path)
    assert len(written["key"]) == 64
    assert written["kernel_name"] == "remote"
    assert len({written[name] for name in written if name.endswith("_port")}) == 5


def test_two_connection_files_share_nothing() -> None:
    first, second = (read_connection(new_connection_file("remote")) for _ in range(2))
    assert first["key"] != second["key"]


def test_a_folder_that_is_none_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot write the connection file"):
        new_connection_file("remote", str(tmp_path / "missing" / "c.json"))


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_what_is_no_connection_file_is_wrong_input(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "c.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidInput, match="connection file"):
        read_connection(str(path))


def test_a_note_is_found_by_id_its_beginning_and_its_connection_file() -> None:
    other = replace(NOTE, kernel_id="4fa9c0de", connection_file="/r/kernel-b.json")
    NOTE.save()
    other.save()
    assert mode(NOTE.path) == 0o600
    for named in (NOTE.kernel_id, "3fa9", "/r/kernel-a.json", "kernel-a.json"):
        assert find_note(named) == NOTE
    assert find_note("5fa9") is None
    assert find_note("kernel-c.json") is None


def test_nothing_named_is_the_latest_note() -> None:
    assert find_note("") is None
    NOTE.save()
    other = replace(NOTE, kernel_id="4fa9c0de")
    other.save()
    os.utime(NOTE.path, (1, 1))
    assert find_note("") == other


def test_a_beginning_that_several_have_is_wrong_input() -> None:
    for end in "ab":
        replace(NOTE, kernel_id=f"3fa9{end}", connection_file=end).save()
    with pytest.raises(InvalidInput, match=r"3fa9[ab], 3fa9[ab]"):
        find_note("3fa9")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"kernel_id": "x"}', '"text"'])
def test_a_note_that_cannot_be_read_is_none(text: str) -> None:
    NOTE.save()
    NOTE.path.with_name("broken.json").write_text(text)
    assert notes() == [NOTE]


def test_the_connection_file_of_a_note_comes_back_as_it_was(tmp_path: Path) -> None:
    path = new_connection_file("remote")
    before = read_connection(path)
    note = replace(NOTE, connection_file=path, connection=before)
    Path(path).unlink()
    note.restore_connection_file()
    assert read_connection(path) == before
    assert mode(path) == 0o600
    Path(path).write_text(json.dumps({"shell_port": 7}))
    note.restore_connection_file()  # another's by now
    assert read_connection(path) == {"shell_port": 7}


def test_the_key_is_in_no_repr() -> None:
    assert "secret" not in repr(replace(NOTE, connection={"key": "secret"}))
