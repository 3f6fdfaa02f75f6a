"""The agent's backlog: memory, files, memory again, then what may be dropped; with a link's sender."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshpyk.agent import packed as packed_module
from sshpyk.agent import segments as segments_module
from sshpyk.agent import spool as spool_module
from sshpyk.agent.packed import FileSegment
from sshpyk.agent.segments import MESSAGE_COST_BYTES, Gap
from sshpyk.agent.spool import Limits, Spool, StreamBacklog
from sshpyk.link.backlog import Joined, Unnumbered
from sshpyk.link.frames import Ack, Data
from sshpyk.link.receiver import Receiver
from sshpyk.link.sender import Sender

SMALL = Limits(
    memory_bytes=4_000,
    file_bytes=6_000,
    hard_memory_bytes=9_000,
    file_segment_bytes=2_000,
    memory_segment_bytes=1_500,
)


class Policy:
    """Messages of lines ``parent:text`` that begin with ``t`` may go: each is one line."""

    def gap_for(self, message: Unnumbered) -> Gap | None:
        payload = bytes(message.payload)  # type: ignore[arg-type]
        if not payload.startswith(b"t"):
            return None
        return Gap(message.place, message.seen, payload[:2], 1, len(payload))

    def notice(self, gap: Gap) -> bytes:
        return b"gap %s %d %d" % (gap.parent_header, gap.lines, gap.size_bytes)


@pytest.fixture(autouse=True)
def _no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small figures all over, so that small examples meet every limit."""
    monkeypatch.setattr(spool_module, "_STREAM_SHARE_BYTES", 300)
    monkeypatch.setattr(spool_module, "_SMALL_REST_BYTES", 400)
    monkeypatch.setattr(segments_module, "READ_BYTES", 700)
    monkeypatch.setattr(packed_module, "READ_BYTES", 700)
    monkeypatch.setattr(packed_module, "LARGEST_PACKED_BYTES", 600)
    monkeypatch.setattr(spool_module, "LARGEST_PACKED_BYTES", 600)


class Bench:
    """A sender with a spool, and the receiver that it sends to."""

    def __init__(self, folder: str, limits: Limits = SMALL) -> None:
        self.spool = Spool(folder, limits)
        self.backlog = self.spool.backlog(1)
        self.backlog.policy = Policy()
        self.sender = Sender(1, self.backlog)
        self.receiver = Receiver(1)
        self.got: list[bytes] = []
        self.seqs: list[int] = []
        self.pushed: list[bytes] = []

    def push(self, payload: bytes) -> None:
        self.pushed.append(payload)
        self.sender.push(payload, len(self.pushed))

    def send(self, chunks: int = 1_000_000, limit: int = 97) -> None:
        while chunks and self.sender.ready:
            chunks -= 1
            fields, chunk = self.sender.next_chunk(limit)
            message = self.receiver.take(fields._replace(chunk=bytes(chunk)))
            if message is not None:
                self.got.append(message.payload)
                self.seqs.append(message.seq)
                self.receiver.consume()

    def acknowledge(self) -> None:
        self.sender.acknowledge(self.receiver.make_ack())

    def close(self) -> None:
        self.sender.close()
        assert (self.spool.memory_bytes, self.spool.file_bytes, self.spool.files) == (0, 0, 0)

    def check(self) -> None:
        """What was pushed is what came, or is in the gaps that came in its place."""
        assert self.seqs == list(range(len(self.got)))
        missing = iter(self.pushed)
        for payload in self.got:
            if not payload.startswith(b"gap"):
                assert next(missing) == payload
                continue
            _, parent, lines, size = payload.split()
            dropped = [next(missing) for _ in range(int(lines))]
            assert all(one.startswith(parent) and parent.startswith(b"t") for one in dropped)
            assert sum(map(len, dropped)) == int(size)
        assert list(missing) == []


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(str(tmp_path))
    yield made
    made.close()
    assert list(tmp_path.iterdir()) == []


def text(number: int, size: int = 200) -> bytes:
    return (b"t0 %d " % number).ljust(size, b".")


def kept(number: int, size: int = 200) -> bytes:
    return (b"k0 %d " % number).ljust(size, b".")


# Order of the stages


def test_what_memory_has_room_for_touches_no_file(bench: Bench):
    for number in range(8):
        bench.push(kept(number))
    assert bench.spool.memory_bytes == 8 * (200 + MESSAGE_COST_BYTES)
    assert bench.backlog.count == 0
    bench.send()
    bench.acknowledge()
    assert bench.spool.memory_bytes == 0
    bench.check()


def test_what_memory_has_no_room_for_is_in_a_private_file_without_a_name(
    bench: Bench, tmp_path: Path
):
    for number in range(20):
        bench.push(kept(number))
    assert bench.backlog.count > 0
    assert bench.spool.memory_bytes <= SMALL.memory_bytes
    assert list(tmp_path.iterdir()) == []
    (segment, *_) = bench.backlog._segments
    assert isinstance(segment, FileSegment)
    assert os.fstat(segment._file.fileno()).st_mode & 0o777 == 0o600
    assert bench.sender.backlog_bytes == 20 * 200
    bench.send()
    bench.check()


def test_the_room_of_a_file_is_given_back_when_it_was_read(bench: Bench):
    for number in range(30):
        bench.push(kept(number))
    assert bench.spool.files > 1
    bench.send()
    assert (bench.spool.files, bench.spool.file_bytes) == (0, 0)
    bench.acknowledge()
    assert bench.spool.memory_bytes == 0


def test_beyond_the_files_memory_is_used_again_and_then_text_is_dropped(bench: Bench):
    for number in range(20):
        bench.push(text(number))
    assert bench.spool.dropped_bytes == 0
    for number in range(20, 200):
        bench.push(text(number))
    assert bench.spool.dropped_bytes > 0
    assert bench.spool.memory_bytes <= SMALL.hard_memory_bytes
    assert bench.spool.file_bytes <= SMALL.file_bytes
    bench.send()
    bench.check()
    assert len([one for one in bench.got if one.startswith(b"gap")]) == 1, "coalesced"


def test_nothing_but_text_is_dropped_and_then_the_stream_is_crowded(bench: Bench):
    for number in range(100):
        bench.push(kept(number))
    assert bench.spool.dropped_bytes == 0
    assert bench.backlog.crowded
    assert not bench.backlog.has_room
    bench.send()
    bench.acknowledge()
    assert bench.backlog.has_room
    assert bench.got == bench.pushed


def test_a_gap_is_where_the_text_was(bench: Bench):
    for number in range(100):
        bench.push(text(number) if number % 5 else kept(number, 30))
    bench.send()
    bench.check()
    assert [one for one in bench.got if one.startswith(b"k")] == bench.pushed[::5]


def test_the_stream_with_most_text_pays(tmp_path: Path):
    bench = Bench(str(tmp_path))
    other = bench.spool.backlog(3)
    other.policy = Policy()
    quiet = Sender(3, other)
    for number in range(10):
        bench.push(text(number))
    quiet.push(text(0), 0)
    for number in range(200):
        bench.push(text(number))
    assert bench.spool.dropped_bytes > 0
    assert other.count == 1 or quiet._waiting
    receiver = Receiver(3)
    fields, chunk = (quiet.ready, quiet.next_chunk(1000))[1]
    assert receiver.take(fields._replace(chunk=bytes(chunk))).payload == text(0)  # type: ignore[union-attr]
    quiet.close()
    bench.close()


# Disks


class FullDisk:
    """Makes writing fail as a full disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room_bytes = 0
        self._writev = os.writev
        monkeypatch.setattr(os, "writev", self.writev)

    def writev(self, fd: int, buffers: list[bytes]) -> int:
        whole = sum(map(len, buffers))
        if not self.room_bytes:
            raise OSError(errno.ENOSPC, "full")
        written = min(whole, self.room_bytes)
        self.room_bytes -= written
        return self._writev(fd, [b"".join(buffers)[:written]])


def test_a_full_disk_falls_back_to_memory_and_then_to_the_policy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    disk = FullDisk(monkeypatch)
    for number in range(12):
        bench.push(text(number))
    assert bench.spool.files == 0
    assert bench.spool.dropped_bytes == 0
    disk.room_bytes = 1000  # another write of which is cut short
    monkeypatch.setattr(spool_module, "now_s", lambda: 1e9)
    for number in range(12, 100):
        bench.push(text(number))
    assert bench.spool.dropped_bytes > 0
    bench.send()
    bench.check()


def test_a_folder_that_is_gone_falls_back_to_memory(tmp_path: Path):
    bench = Bench(str(tmp_path / "missing"))
    for number in range(15):
        bench.push(kept(number))
    bench.send()
    assert bench.got == bench.pushed
    bench.close()


def test_the_last_of_the_disk_is_left_to_others(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    nearly_full = os.statvfs_result((4096, 4096, 1000, 40, 40, 1, 1, 1, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda fd: nearly_full)
    for number in range(15):
        bench.push(kept(number))
    assert bench.spool.files == 0
    bench.send()
    assert bench.got == bench.pushed


def test_dropping_does_not_empty_the_files_when_others_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Room that a file gives back is not ours again: then text in memory goes."""
    bench = Bench(str(tmp_path))
    for number in range(26):
        bench.push(text(number))
    files = bench.spool.files
    assert files >= 2
    FullDisk(monkeypatch)
    for number in range(26, 60):
        bench.push(text(number))
    assert bench.spool.dropped_bytes > 0
    assert bench.spool.files >= files - 1
    bench.send()
    bench.check()
    bench.close()


def test_a_file_that_cannot_be_read_any_more_is_a_gap(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    for number in range(20):
        bench.push(kept(number))
    (segment, *_) = bench.backlog._segments
    assert isinstance(segment, FileSegment)
    os.ftruncate(segment._file.fileno(), 0)
    bench.send()
    assert b"gap {} 0 %d" % segment_bytes(bench) in bench.got
    assert bench.seqs == list(range(len(bench.got)))


def segment_bytes(bench: Bench) -> int:
    came = sum(len(one) for one in bench.got if not one.startswith(b"gap"))
    return sum(map(len, bench.pushed)) - came


# Large messages


def test_a_large_message_is_read_piece_by_piece_and_its_file_lives_until_it_is_acknowledged(
    bench: Bench,
):
    large = bytes(range(256)) * 20
    bench.push(large)
    bench.push(kept(1))
    assert bench.spool.memory_bytes < 1000
    bench.send()
    assert bench.got == [large, kept(1)]
    bench.sender.rewind(bench.receiver.position._replace(seq=0, offset=0, start=0))
    again = Receiver(1)
    messages = []
    while bench.sender.ready:
        fields, chunk = bench.sender.next_chunk(1000)
        messages.append(again.take(fields._replace(chunk=bytes(chunk))))
    assert [one.payload for one in messages if one] == [large, kept(1)]
    bench.acknowledge()
    assert bench.sender.drained


@pytest.mark.parametrize("parts", [3, 200])
def test_a_payload_in_pieces_is_stored_and_sent_as_if_it_were_one(bench: Bench, parts: int):
    whole = bytes(range(256)) * 10
    size = len(whole) // parts + 1
    pieces = [memoryview(whole)[at : at + size] for at in range(0, len(whole), size)]
    for _ in range(6):
        bench.sender.push(Joined(pieces), 0)
    assert bench.spool.files
    bench.send()
    assert bench.got == [whole] * 6
    bench.acknowledge()
    assert bench.spool.memory_bytes == 0


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=6), st.integers(0, 130), st.integers(0, 130))
def test_a_piece_of_pieces_is_that_of_the_whole(pieces: list[bytes], offset: int, size: int):
    payload, whole = Joined(pieces), b"".join(pieces)
    assert len(payload) == len(whole)
    assert bytes(payload) == whole
    assert payload.read(offset, size) == whole[offset : offset + size]


def test_a_link_given_up_leaves_no_file_open(tmp_path: Path):
    bench = Bench(str(tmp_path))
    bench.push(bytes(5000))
    for number in range(20):
        bench.push(text(number))
    bench.send(chunks=3)
    bench.close()
    assert bench.sender.backlog_bytes == 0


# Everything at once

sizes = st.integers(10, 900)
pushes = st.tuples(st.just("push"), st.sampled_from([b"t0", b"t1", b"k0", b"k1"]), sizes)
sends = st.tuples(st.sampled_from(["send", "acknowledge", "cut", "disk"]), st.integers(0, 12))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(pushes, pushes, pushes, sends), max_size=120), st.data())
def test_whatever_happens_each_message_comes_or_is_counted_in_a_gap_in_its_place(
    steps: list[tuple[object, ...]], data: st.DataObject
):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        disk = FullDisk(patch)
        disk.room_bytes = 10**9
        clock = [0.0]
        patch.setattr(spool_module, "now_s", lambda: clock[0])
        bench = Bench(folder)
        for number, (act, *rest) in enumerate(steps):
            clock[0] += 0.3
            if act == "push":
                kind, size = rest
                assert isinstance(kind, bytes)
                assert isinstance(size, int)
                bench.push((kind + b" %d " % number).ljust(size, b"."))
            elif act == "send":
                bench.send(chunks=int(str(rest[0])))
            elif act == "acknowledge":
                bench.acknowledge()
            elif act == "disk":
                disk.room_bytes = int(str(rest[0])) * 300 if rest[0] else 10**9
            else:
                bench.sender.rewind(bench.receiver.position)
        bench.send()
        bench.check()
        bench.acknowledge()
        assert bench.sender.drained
        bench.close()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(0, 60))
def test_numbers_are_dense_and_the_end_comes_last(before: int, after: int):
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder)
        for number in range(before):
            bench.push(text(number))
        bench.send(chunks=5)
        for number in range(after):
            bench.push(text(number))
        bench.sender.push(b"", 0, end=True)
        bench.send()
        assert bench.receiver.ended
        assert bench.got.pop() == b""
        bench.seqs.pop()
        bench.check()
        bench.acknowledge()
        assert bench.sender.drained
        bench.close()


# Replays


def flags_of(bench: Bench) -> list[bool]:
    flags = []
    while bench.sender.ready:
        fields, chunk = bench.sender.next_chunk(1 << 20)
        message = bench.receiver.take(fields._replace(chunk=bytes(chunk)))
        assert message is not None
        flags.append(message.replayed)
        bench.receiver.consume()
    return flags


def test_what_waited_for_a_connection_and_what_is_queued_behind_it_is_marked(bench: Bench):
    bench.push(kept(0))
    assert flags_of(bench) == [False]
    for number in range(15):
        bench.push(kept(number))
    bench.sender.rewind(bench.receiver.position)
    bench.push(kept(16))
    assert flags_of(bench) == [True] * 16
    bench.push(kept(17))
    assert flags_of(bench) == [False]
    assert bench.sender.ready is False


def test_a_stream_without_backlog_marks_as_well():
    sender = Sender(1)
    sender.push(b"a", 0)
    sender.rewind(Receiver(1).position)
    sender.push(b"b", 0)
    fields: list[Data] = [sender.next_chunk(9)[0], sender.next_chunk(9)[0]]
    assert [data.flags & 4 for data in fields] == [4, 4]
    sender.push(b"c", 0)
    assert not sender.next_chunk(9)[0].flags & 4
    sender.acknowledge(Ack(1, 3, 0))


def test_backlogs_are_forgotten_with_their_streams(tmp_path: Path):
    spool = Spool(str(tmp_path))
    made: list[StreamBacklog] = [spool.backlog(number) for number in range(3)]
    for backlog in made:
        backlog.close()
        backlog.close()
    assert spool._backlogs == []


@settings(deadline=None, max_examples=60)
@given(st.lists(st.booleans(), max_size=120))
def test_places_and_numbers_name_the_same_message_whatever_was_dropped(drops: list[bool]):
    """Of a message that is kept: the peer has seen it if and only if its count says so."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder)
        places = {}
        for number, droppable in enumerate(drops):
            payload = text(number) if droppable else kept(number)
            places[payload] = bench.sender.push(payload, 0)
        bench.send()
        for seq, payload in enumerate(bench.got):
            if payload in places:
                assert bench.sender.place_of(seq) <= places[payload]
                assert bench.sender.place_of(seq + 1) == places[payload] + 1
        bench.close()


# What the process takes

_FILL_AND_READ = """
from sshpyk.agent.spool import Limits, Spool
from sshpyk.link.sender import Sender
from sshpyk.link.frames import Ack

MB = 1024 * 1024

def resident_mb():
    with open("/proc/self/status") as file:
        (line,) = [line for line in file if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024

limits = Limits(memory_bytes=4 * MB, file_bytes=0, hard_memory_bytes=64 * MB)
spool = Spool("/nowhere", limits)
sender = Sender(1, spool.backlog(1))
sender.acknowledge(Ack(1, 0, 1 << 60))
before = resident_mb()
count = 0
while spool.memory_bytes < limits.hard_memory_bytes - 4096:
    parts = [bytes([count % 256]) * size for size in (30, 300, 1000 + count % 200)]
    sender.push(b"".join(parts), 0)
    count += 1
full = resident_mb()
while sender.ready:
    fields, _ = sender.next_chunk(1 << 20)
    sender.acknowledge(Ack(1, fields.seq + 1, 1 << 60))
print(full - before, resident_mb() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
def test_f22_what_waits_in_memory_takes_what_was_counted_and_is_given_back():
    argv = [sys.executable, "-c", _FILL_AND_READ]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    full_mb, empty_mb = map(float, done.stdout.split())
    assert 60 < full_mb < 64 * 1.1
    assert empty_mb < 12
