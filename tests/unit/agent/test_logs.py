from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sshpyk.agent import logs as logs_module
from sshpyk.agent.logs import KernelLogs
from sshpyk.errors import KernelError


@pytest.fixture
def alive() -> dict[str, str]:
    """What each kernel does that lives."""
    return {}


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: dict[str, str]) -> KernelLogs:
    monkeypatch.setattr(logs_module, "LIMIT_BYTES", 1000)
    monkeypatch.setattr(logs_module, "READ_BYTES", 300)
    return KernelLogs(str(tmp_path / "kernels"), lambda: alive)


class Writer:
    """A kernel, which appends."""

    def __init__(self, logs: KernelLogs, kernel_id: str = "k1") -> None:
        self.path = logs.begin(kernel_id, name="python3", owner="ann@here")
        self.count = 0

    def write(self, lines: int) -> None:
        for _ in range(lines):
            self.append(b"line %05d\n" % self.count)
            self.count += 1

    def append(self, data: bytes) -> None:
        with open(self.path, "ab") as file:
            file.write(data)


def read_all(logs: KernelLogs, place: Any = None) -> tuple[str, Any, bool]:
    text, lost = "", False
    while True:
        read = logs.read("k1", place)
        text, place = text + read["text"], read["place"]
        lost = lost or read["lost"]
        if not read["more"]:
            return text, place, lost


def numbered(first: int, last: int) -> str:
    return "".join(f"line {number:05}\n" for number in range(first, last))


def test_reader_who_follows_gets_each_line_once_over_any_number_of_rotations(logs: KernelLogs):
    writer = Writer(logs)
    text, place = "", None
    for _ in range(40):
        writer.write(25)
        more, place, lost = read_all(logs, place)
        text += more
        assert not lost
        logs.rotate("k1")
    assert text == numbered(0, 1000)
    assert os.path.getsize(writer.path) <= 1300


def test_reader_who_comes_late_gets_the_end_that_was_kept(logs: KernelLogs):
    writer = Writer(logs)
    writer.write(300)
    logs.rotate("k1")
    writer.write(5)
    text, _, _ = read_all(logs)
    assert text.endswith(numbered(250, 305))
    assert len(text) == 1000 + 5 * 11


def test_reader_who_was_too_slow_is_told(logs: KernelLogs):
    writer = Writer(logs)
    writer.write(10)
    _, place, _ = read_all(logs)
    writer.write(200)
    logs.rotate("k1")
    writer.write(200)
    logs.rotate("k1")
    text, _, lost = read_all(logs, place)
    assert lost
    assert text.endswith("line 00409\n")


def test_a_kernel_that_prints_without_end_takes_no_more_than_two_files(logs: KernelLogs):
    writer = Writer(logs)
    for _ in range(50):
        writer.write(100)
        logs.rotate("k1")
        folder = os.path.dirname(writer.path)
        assert (
            sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)) < 2500
        )


def test_log_of_a_kernel_that_ended_stays_with_a_note_and_an_empty_one_goes(logs: KernelLogs):
    Writer(logs).write(1)
    logs.end("k1", -6)
    Writer(logs, "k2")
    logs.end("k2", 0)
    (one,) = logs.list()
    assert one.items() >= {"kernel_id": "k1", "status": -6, "owner": "ann@here"}.items()
    assert sorted(os.listdir(logs._folder)) == ["k1.log", "k1.log.json"]
    with pytest.raises(KernelError, match="no log of that kernel"):
        logs.read("k2", None)


def test_log_of_a_quiet_kernel_that_lives_stays_however_many_start_after_it(
    logs: KernelLogs, alive: dict[str, str]
):
    alive["k1"] = "idle"
    Writer(logs).write(1)
    for place in range(logs_module.KEPT_LOGS + 2):
        later = Writer(logs, f"later{place}")
        later.write(1)
        os.utime(later.path, (2**32 + place, 2**32 + place))
    logs.begin("one-more")
    kept = {one["kernel_id"] for one in logs.list()}
    assert "k1" in kept
    assert "later0" not in kept
    del alive["k1"]
    logs.begin("yet-another")
    assert "k1" not in {one["kernel_id"] for one in logs.list()}


def test_log_that_somebody_removed_is_left_alone(
    logs: KernelLogs, caplog: pytest.LogCaptureFixture
):
    path = Writer(logs).path
    logs.rotate("k1")
    assert not os.path.exists(path)
    assert not caplog.records


def test_log_whose_size_cannot_be_told_stays_as_it_is(
    logs: KernelLogs, monkeypatch: pytest.MonkeyPatch
):
    writer = Writer(logs)
    writer.write(200)

    def refuse(path: str) -> int:
        raise PermissionError(13, "denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(logs_module.os.path, "getsize", refuse)
        logs.rotate("k1")
    assert os.path.getsize(writer.path) == 200 * 11


def test_bytes_that_are_no_text_come_through(logs: KernelLogs):
    writer = Writer(logs)
    writer.append(bytes(range(256)))
    text, _, _ = read_all(logs)
    assert text.encode("utf-8", "surrogateescape") == bytes(range(256))


@pytest.mark.parametrize("place", [3, [1], ["a", 2], [-1, 0], [0, -5], {"x": 1}, [1, 2, 3]])
def test_a_place_that_makes_no_sense_is_the_beginning(logs: KernelLogs, place: Any):
    Writer(logs).write(3)
    assert read_all(logs, place)[0] == numbered(0, 3)
