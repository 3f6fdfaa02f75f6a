"""An SFTP client for tests: it says whatever it is told to, right or wrong, and reads the replies."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sshpyk.mounts.confined import Folder, Rights
from sshpyk.mounts.session import Session
from sshpyk.mounts.sftp import (
    OPEN_CREATE,
    OPEN_READ,
    OPEN_TRUNCATE,
    OPEN_WRITE,
    Reply,
    Request,
    Status,
    encode_string,
)

NO_ATTRIBUTES = struct.pack(">I", 0)
INIT = struct.pack(">IBI", 5, Request.INIT, 3)


class Refused(Exception):
    """The server answered with a status that is not OK."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(f"{status.name}: {text}")
        self.status = status
        self.text = text


class Listed(NamedTuple):
    name: bytes
    mode: int
    size: int


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def u64(number: int) -> bytes:
    return struct.pack(">Q", number)


def strings(*texts: bytes) -> bytes:
    return b"".join(map(encode_string, texts))


def packet(kind: int, body: bytes, request_id: int = 7) -> bytes:
    return encode_string(bytes([kind]) + u32(request_id) + body)


def permissions(mode: int) -> bytes:
    return u32(0x04) + u32(mode)


def size(size_bytes: int) -> bytes:
    return u32(0x01) + u64(size_bytes)


def owner(user: int, group: int) -> bytes:
    return u32(0x02) + u32(user) + u32(group)


def times(accessed: int, modified: int) -> bytes:
    return u32(0x08) + u32(accessed) + u32(modified)


def feed(session: Session, data: bytes) -> list[bytes]:
    """Give bytes to a session, as a driver does, and return its replies, each whole."""
    replies = []
    rest = memoryview(data)
    while rest:
        space = session.space()
        taken = min(len(space), len(rest))
        space[:taken] = rest[:taken]
        session.received(taken)
        rest = rest[taken:]
        while (reply := session.next_reply()) is not None:
            replies.append(b"".join(reply))
    return replies


class Client:
    """Asks a session of its own, and raises :class:`Refused`."""

    def __init__(self, root: Path, rights: Rights | None = None, *, most_handles: int = 64) -> None:
        self._folder = Folder(str(root), rights or Rights())
        self.session = Session(self._folder, most_handles=most_handles)
        feed(self.session, INIT)

    def close(self) -> None:
        self.session.close()
        self._folder.close()

    def exchange(self, data: bytes) -> list[bytes]:
        """Send whole packets and return the replies. Raises SftpProtocolError when that is the end."""
        return feed(self.session, data)

    def ask(self, kind: int, body: bytes) -> bytes:
        """Send a request and return its reply: type, id and the rest, without the length."""
        (reply,) = self.exchange(packet(kind, body))
        (length,) = struct.unpack_from(">I", reply)
        assert length == len(reply) - 4
        assert reply[5:9] == u32(7)
        if reply[4] == Reply.STATUS:
            status = Status(struct.unpack_from(">I", reply, 9)[0])
            if status is not Status.OK:
                raise Refused(status, reply[17:-4].decode())
        return reply[4:]

    def extended(self, name: bytes, body: bytes) -> bytes:
        return self.ask(Request.EXTENDED, strings(name) + body)

    def open(self, path: bytes, flags: int = OPEN_READ, wanted: bytes = NO_ATTRIBUTES) -> bytes:
        reply = self.ask(Request.OPEN, strings(path) + u32(flags) + wanted)
        assert reply[0] == Reply.HANDLE
        return reply[9:]

    def close_handle(self, handle: bytes) -> None:
        self.ask(Request.CLOSE, strings(handle))

    def read_from(self, handle: bytes, offset: int = 0, count: int = 65536) -> bytes:
        reply = self.ask(Request.READ, strings(handle) + u64(offset) + u32(count))
        assert reply[0] == Reply.DATA
        return reply[9:]

    def write_to(self, handle: bytes, data: bytes, offset: int = 0) -> None:
        self.ask(Request.WRITE, strings(handle) + u64(offset) + strings(data))

    def read(self, path: bytes) -> bytes:
        handle = self.open(path)
        try:
            return self.read_from(handle)
        except Refused as refused:
            if refused.status is not Status.EOF:
                raise
            return b""
        finally:
            self.close_handle(handle)

    def write(self, path: bytes, data: bytes) -> None:
        handle = self.open(path, OPEN_WRITE | OPEN_CREATE | OPEN_TRUNCATE)
        self.write_to(handle, data)
        self.close_handle(handle)

    def list(self, path: bytes) -> list[Listed]:
        handle = self.ask(Request.OPENDIR, strings(path))[9:]
        try:
            return self.rest_of(handle)
        finally:
            self.close_handle(handle)

    def rest_of(self, handle: bytes) -> list[Listed]:
        found: list[Listed] = []
        try:
            while True:
                found += _listed(self.ask(Request.READDIR, strings(handle)))
        except Refused as refused:
            if refused.status is not Status.EOF:
                raise
        return found

    def names(self, path: bytes) -> set[bytes]:
        return {entry.name for entry in self.list(path)} - {b".", b".."}

    def mode(self, path: bytes, *, follow: bool = False) -> int:
        reply = self.ask(Request.STAT if follow else Request.LSTAT, strings(path))
        return int(struct.unpack_from(">I", reply, 25)[0])

    def readlink(self, path: bytes) -> bytes:
        (entry,) = _texts(self.ask(Request.READLINK, strings(path)))
        return entry

    def realpath(self, path: bytes) -> bytes:
        (entry,) = _texts(self.ask(Request.REALPATH, strings(path)))
        return entry

    def symlink(self, target: bytes, path: bytes) -> None:
        self.ask(Request.SYMLINK, strings(target, path))

    def hardlink(self, old: bytes, new: bytes) -> None:
        self.extended(b"hardlink@openssh.com", strings(old, new))

    def rename(self, old: bytes, new: bytes) -> None:
        self.ask(Request.RENAME, strings(old, new))

    def replace(self, old: bytes, new: bytes) -> None:
        self.extended(b"posix-rename@openssh.com", strings(old, new))

    def remove(self, path: bytes) -> None:
        self.ask(Request.REMOVE, strings(path))

    def mkdir(self, path: bytes, wanted: bytes = NO_ATTRIBUTES) -> None:
        self.ask(Request.MKDIR, strings(path) + wanted)

    def rmdir(self, path: bytes) -> None:
        self.ask(Request.RMDIR, strings(path))

    def setstat(self, path: bytes, wanted: bytes) -> None:
        self.ask(Request.SETSTAT, strings(path) + wanted)


def _texts(reply: bytes) -> Iterable[bytes]:
    """Yield the names of a NAME reply without attributes."""
    assert reply[0] == Reply.NAME
    (length,) = struct.unpack_from(">I", reply, 9)
    yield reply[13 : 13 + length]


def _listed(reply: bytes) -> Iterable[Listed]:
    assert reply[0] == Reply.NAME
    (count,) = struct.unpack_from(">I", reply, 5)
    at = 9
    for _ in range(count):
        texts = []
        for _ in range(2):
            (length,) = struct.unpack_from(">I", reply, at)
            texts.append(reply[at + 4 : at + 4 + length])
            at += 4 + length
        _, size_bytes, _, _, mode, _, _ = struct.unpack_from(">IQIIIII", reply, at)
        at += 32
        yield Listed(texts[0], mode, size_bytes)
    assert at == len(reply)
