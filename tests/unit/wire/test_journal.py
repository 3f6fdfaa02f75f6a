"""What a killed hub or agent leaves for the next one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sshpyk.link.link import Link
from sshpyk.link.stream import Message, Taken
from sshpyk.wire import journal as journal_module
from sshpyk.wire.journal import Head, Journal, Noted, read_journal

LINK_ID = "ab" * 16


def message(stream: int, seq: int, before_bytes: int, payload: bytes = b"") -> Message:
    return Message(stream, seq, payload, 0, end=not payload, start=before_bytes)


def test_notes_are_read_back_by_the_next_process(tmp_path: Path):
    path = str(tmp_path / "journal")
    journal = Journal(path)
    head = Head(LINK_ID, 3, 9, 1.5, 2.5, "boot")
    journal.begin(head)
    journal.note(message(1, 0, 0, b"x" * 10))
    journal.note(message(0, 6, 60, b"x" * 10))
    journal.note(message(1, 1, 10, b"x" * 15))
    assert read_journal(path) == Noted(head, {1: Taken(2, 25), 0: Taken(7, 70)})


def test_stream_that_ended_is_noted_until_both_ends_have_forgotten_it(tmp_path: Path):
    path = str(tmp_path / "journal")
    journal = Journal(path)
    journal.begin(Head(LINK_ID, 1, 3))
    journal.note(message(1, 0, 0, b"x" * 10))
    journal.note(message(1, 1, 10))
    link = Link(LINK_ID)
    link.open(1)
    journal.prune(link)
    assert read_journal(path) == Noted(Head(LINK_ID, 1, 3), {1: Taken(2, 10, ended=True)})
    assert (read_journal(path) or pytest.fail("nothing noted")).ended() == [1]
    journal.prune(Link(LINK_ID))
    assert read_journal(path) == Noted(Head(LINK_ID, 1, 3))


def test_next_process_goes_on_with_the_notes_it_found(tmp_path: Path):
    path = str(tmp_path / "journal")
    first = Journal(path)
    first.begin(Head(LINK_ID, 1, 3))
    first.note(message(1, 0, 0, b"x" * 10))
    first.note(message(5, 0, 0))
    second = Journal(path)
    second.resume()
    second.begin(Head(LINK_ID, 2, 5))
    second.note(message(1, 1, 10, b"x"))
    second.note(message(3, 3, 30, b"x" * 10))
    second.prune(Link(LINK_ID))
    assert read_journal(path) == Noted(Head(LINK_ID, 2, 5), {1: Taken(2, 11), 3: Taken(4, 40)})


def test_journal_is_private_and_goes_with_its_process(tmp_path: Path):
    path = tmp_path / "journal"
    journal = Journal(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    journal.remove()
    assert not path.exists()
    assert read_journal(str(path)) is None


def test_journal_of_a_living_process_cannot_be_locked_by_another(tmp_path: Path):
    path = str(tmp_path / "journal")
    first, second = Journal(path), Journal(path)
    assert first.lock()
    assert not second.lock()
    first.close()
    assert second.lock()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no way to ask for blocks")
def test_disk_without_room_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_room(fd: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    path = str(tmp_path / "journal")
    journal = Journal(path)
    assert journal.lock()
    journal.begin(Head(LINK_ID, 1, 3))
    journal.note(message(1, 0, 0, b"x"))
    assert read_journal(path) is None
    journal.remove()


@pytest.mark.parametrize("content", [b"", b"x", b"sshpyk-2", bytes(200_000), b"junk" * 50_000])
def test_file_that_is_no_journal_leaves_nothing_to_take_over(tmp_path: Path, content: bytes):
    path = tmp_path / "journal"
    path.write_bytes(content)
    assert read_journal(str(path)) is None


def test_more_streams_than_slots_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal_module, "_SLOTS", 2)
    path = str(tmp_path / "journal")
    journal = Journal(path)
    journal.begin(Head(LINK_ID, 1, 9))
    for stream in (1, 3, 5):
        journal.note(message(stream, 0, 0, b"x"))
    assert set((read_journal(path) or pytest.fail("nothing noted")).taken) == {1, 3}
