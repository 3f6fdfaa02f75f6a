"""The server's process, with a client of our own, OpenSSH's sftp and sshfs in front of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshpyk.mounts.sftp import (
    LARGEST_DATA_BYTES,
    OPEN_CREATE,
    OPEN_READ,
    OPEN_WRITE,
    Reply,
    Request,
)
from tests.unit.mounts.client import INIT, NO_ATTRIBUTES, packet, strings, u32, u64

SERVER = [sys.executable, "-m", "sshpyk.mounts.server"]
SFTP = shutil.which("sftp")
MEGABYTE = 1 << 20


@pytest.fixture
def conversation(root: Path) -> Iterator[Conversation]:
    with Conversation(root) as talk:
        yield talk


class Conversation:
    """A server process at the other end of a socket."""

    def __init__(self, root: Path, *options: str) -> None:
        self.socket, other = socket.socketpair()
        with other:
            self.process = subprocess.Popen(
                [*SERVER, str(root), *options], stdin=other, stdout=other, stderr=subprocess.PIPE
            )
        self.socket.settimeout(20)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        with self.process:
            self.process.wait(10)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> bytes:
        (length,) = [int.from_bytes(self._exactly(4), "big")]
        return self._exactly(length)

    def ask(self, data: bytes) -> bytes:
        self.send(data)
        return self.reply()

    def _exactly(self, size_bytes: int) -> bytes:
        found = bytearray()
        while len(found) < size_bytes:
            piece = self.socket.recv(size_bytes - len(found))
            if not piece:
                raise EOFError
            found += piece
        return bytes(found)

    def end(self) -> tuple[int, str]:
        """Wait for the server's end: its exit code and what it said."""
        _, said = self.process.communicate(timeout=10)
        return self.process.returncode, said.decode()

    def resident_bytes(self) -> int:
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class TestProcess:
    def test_it_ends_with_its_client(self, conversation: Conversation) -> None:
        assert conversation.ask(INIT)[0] == Reply.VERSION
        conversation.socket.shutdown(socket.SHUT_WR)
        assert conversation.end() == (0, "")

    def test_what_is_no_sftp_ends_it_in_one_line(self, conversation: Conversation) -> None:
        conversation.send(b"GET / HTTP/1.1\r\n\r\n")
        code, said = conversation.end()
        assert code == 1
        assert said.splitlines() == [
            "sshpyk.mounts.server: the client speaks no SFTP: a packet of 1195725856 bytes"
        ]

    @pytest.mark.parametrize("name", ["missing", "file"])
    def test_a_folder_that_cannot_be_served_is_named(self, root: Path, name: str) -> None:
        (root / "file").touch()
        with Conversation(root / name) as talk:
            code, said = talk.end()
        assert code == 2
        assert str(root / name) in said
        assert len(said.splitlines()) == 1

    def test_replies_already_asked_for_arrive_after_the_clients_last_word(
        self, conversation: Conversation, root: Path
    ) -> None:
        (root / "file").write_bytes(os.urandom(LARGEST_DATA_BYTES))
        conversation.ask(INIT)
        opening = packet(Request.OPEN, strings(b"file") + u32(OPEN_READ) + NO_ATTRIBUTES)
        handle = conversation.ask(opening)[9:]
        reading = packet(Request.READ, strings(handle) + u64(0) + u32(LARGEST_DATA_BYTES))
        conversation.send(reading * 20)
        conversation.socket.shutdown(socket.SHUT_WR)
        assert sum(len(conversation.reply()) for _ in range(20)) == 20 * (LARGEST_DATA_BYTES + 9)

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_memory_is_flat_over_200_megabytes_each_way(
        self, conversation: Conversation, root: Path
    ) -> None:
        conversation.ask(INIT)
        flags = OPEN_READ | OPEN_WRITE | OPEN_CREATE
        opening = packet(Request.OPEN, strings(b"big") + u32(flags) + NO_ATTRIBUTES)
        handle = conversation.ask(opening)[9:]
        block = os.urandom(LARGEST_DATA_BYTES)
        before = 0
        for number in range(200 * MEGABYTE // len(block) + 1):
            where = strings(handle) + u64(number * len(block))
            conversation.ask(packet(Request.WRITE, where + strings(block)))
            data = conversation.ask(packet(Request.READ, where + u32(len(block))))
            assert data[9:] == block
            if number == 20:
                before = conversation.resident_bytes()
        assert (root / "big").stat().st_size > 200 * MEGABYTE
        assert conversation.resident_bytes() - before < 2 * MEGABYTE

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_a_client_that_does_not_read_fills_no_memory(
        self, conversation: Conversation, root: Path
    ) -> None:
        (root / "file").write_bytes(os.urandom(LARGEST_DATA_BYTES))
        conversation.ask(INIT)
        opening = packet(Request.OPEN, strings(b"file") + u32(OPEN_READ) + NO_ATTRIBUTES)
        handle = conversation.ask(opening)[9:]
        before = conversation.resident_bytes()
        reading = packet(Request.READ, strings(handle) + u64(0) + u32(LARGEST_DATA_BYTES))
        conversation.socket.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 4000:  # a gigabyte of replies
                conversation.socket.send(reading)
                sent += 1
        time.sleep(0.5)  # what it can do, it has done
        assert sent > 100
        assert conversation.resident_bytes() - before < 8 * MEGABYTE


@pytest.mark.skipif(SFTP is None, reason="no sftp here")
class TestOpenSSHsClient:
    """``sftp -D`` starts the server by itself and speaks to it."""

    def run(self, root: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = " ".join([*SERVER, str(root), *options])
        return subprocess.run(
            ["sftp", "-q", "-b", "-", "-D", command],
            input=script,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=root.parent,
        )

    def test_it_puts_gets_and_lists(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "up").write_bytes(os.urandom(3 * MEGABYTE + 17))
        script = """
            pwd
            put up big
            mkdir folder
            rename big folder/moved
            ln folder/moved folder/second
            ln -s moved folder/link
            chmod 600 folder/moved
            ls -la folder
            get folder/second down
            rm folder/second
            df folder
        """
        ran = self.run(root, script)
        assert ran.returncode == 0, ran.stderr
        assert "Remote working directory: /" in ran.stdout
        assert "-rw-------    2 " in ran.stdout
        assert (tmp_path / "down").read_bytes() == (tmp_path / "up").read_bytes()
        assert sorted(os.listdir(root / "folder")) == ["link", "moved"]

    def test_it_gets_nothing_from_outside(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("CANARY")
        (root / "link").symlink_to("../secret")
        for what in ("get ../secret down", f"get {tmp_path}/secret down", "get link down"):
            ran = self.run(root, what, "--follow-symlinks")
            assert ran.returncode == 1, what
            assert not (tmp_path / "down").exists()

    def test_read_only_is_said(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "up").touch()
        ran = self.run(root, "put up", "--ro")
        assert ran.returncode == 1
        assert "Permission denied" in ran.stderr
        assert os.listdir(root) == []
