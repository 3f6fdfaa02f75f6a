"""What a killed hub leaves for the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sshpyk.wire import journal as journal_module
from sshpyk.wire.journal import Journal, Noted, read_journal

LINK_ID = "ab" * 16


def test_notes_are_read_back_by_the_next_process(tmp_path: Path):
    path = str(tmp_path / "journal")
    journal = Journal(path)
    journal.begin(LINK_ID, 3, 9)
    journal.note(1, 1, 10)
    journal.note(0, 7, 70)
    journal.note(1, 2, 25)
    assert read_journal(path) == Noted(LINK_ID, 3, 9, {1: (2, 25), 0: (7, 70)})


def test_ended_stream_is_not_noted_any_more(tmp_path: Path):
    path = str(tmp_path / "journal")
    journal = Journal(path)
    journal.begin(LINK_ID, 1, 3)
    journal.note(1, 1, 10)
    journal.forget(1)
    journal.forget(1)
    assert read_journal(path) == Noted(LINK_ID, 1, 3, {})


def test_next_hub_goes_on_with_the_notes_it_found(tmp_path: Path):
    path = str(tmp_path / "journal")
    first = Journal(path)
    first.begin(LINK_ID, 1, 3)
    first.note(1, 1, 10)
    noted = read_journal(path)
    assert noted is not None
    second = Journal(path)
    second.restore(noted)
    second.begin(LINK_ID, 2, 5)
    second.note(3, 4, 40)
    assert read_journal(path) == Noted(LINK_ID, 2, 5, {1: (1, 10), 3: (4, 40)})


def test_journal_is_private_and_goes_with_the_hub(tmp_path: Path):
    path = tmp_path / "journal"
    journal = Journal(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    journal.remove()
    assert not path.exists()
    assert read_journal(str(path)) is None


@pytest.mark.parametrize("content", [b"", b"x", b"sshpyk-1", bytes(200_000), b"junk" * 50_000])
def test_file_that_is_no_journal_leaves_nothing_to_take_over(tmp_path: Path, content: bytes):
    path = tmp_path / "journal"
    path.write_bytes(content)
    assert read_journal(str(path)) is None


def test_more_streams_than_slots_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal_module, "_SLOTS", 2)
    path = str(tmp_path / "journal")
    journal = Journal(path)
    journal.begin(LINK_ID, 1, 9)
    for stream in (1, 3, 5):
        journal.note(stream, 1, 1)
    assert set((read_journal(path) or pytest.fail("nothing noted")).consumed) == {1, 3}
