"""SFTP version 3 on the wire: numbers, and the coding of what packets are made of.

Source: draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL file for the names that end in
``@openssh.com``. Nothing here touches a file.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from enum import IntEnum
from typing import NamedTuple

VERSION = 3
# What OpenSSH's own client and server allow for one packet, without its length.
LARGEST_PACKET_BYTES = 256 * 1024
# What is left of it for a READ's or a WRITE's data.
LARGEST_DATA_BYTES = LARGEST_PACKET_BYTES - 1024

U32 = struct.Struct(">I")
U64 = struct.Struct(">Q")
_unpack_u32 = U32.unpack_from
_ATTRIBUTES = struct.Struct(">IQIIIII")
_ATTRIBUTES_PACKET = struct.Struct(">IBIIQIIIII")
_STATUS_HEAD = struct.Struct(">IBIII")
_LARGEST_U32 = (1 << 32) - 1


class Request(IntEnum):
    """What a client sends."""

    INIT = 1
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    SETSTAT = 9
    FSETSTAT = 10
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    REALPATH = 16
    STAT = 17
    RENAME = 18
    READLINK = 19
    SYMLINK = 20
    EXTENDED = 200


class Reply(IntEnum):
    """What a server sends."""

    VERSION = 2
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED_REPLY = 201


class Status(IntEnum):
    """How a request ended."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    OP_UNSUPPORTED = 8


# Flags of OPEN.
OPEN_READ = 0x01
OPEN_WRITE = 0x02
OPEN_APPEND = 0x04
OPEN_CREATE = 0x08
OPEN_TRUNCATE = 0x10
OPEN_EXCLUSIVE = 0x20

# Flags of attributes.
_HAS_SIZE = 0x01
_HAS_OWNER = 0x02
_HAS_PERMISSIONS = 0x04
_HAS_TIMES = 0x08
_HAS_EXTENDED = 0x80000000
_HAS_ALL = _HAS_SIZE | _HAS_OWNER | _HAS_PERMISSIONS | _HAS_TIMES


_ATTRS = int(Reply.ATTRS)  # an IntEnum is slow to pack


class SftpProtocolError(Exception):
    """The client sent what is no SFTP: its fault, and the end of this server."""


class Attributes(NamedTuple):
    """What a client wants a file to have; None where it does not say."""

    size: int | None = None
    owner: tuple[int, int] | None = None  # user and group, as numbers
    permissions: int | None = None
    times: tuple[int, int] | None = None  # of the last access and modification, in seconds


class Fields:
    """Reads one packet from its front to its end. Whatever is missing is a SftpProtocolError."""

    __slots__ = ("_at", "_packet")

    def __init__(self, packet: memoryview) -> None:
        self._packet = packet
        self._at = 0

    def byte(self) -> int:
        """Return the next byte."""
        at = self._at
        if at >= len(self._packet):
            raise SftpProtocolError("a packet ends too early")
        self._at = at + 1
        return self._packet[at]

    def u32(self) -> int:
        """Return the next 32-bit number."""
        number: int
        try:
            (number,) = _unpack_u32(self._packet, self._at)
        except struct.error:
            raise SftpProtocolError("a packet ends too early") from None
        self._at += 4
        return number

    def u64(self) -> int:
        """Return the next 64-bit number."""
        return self.u32() << 32 | self.u32()

    def view(self) -> memoryview:
        """Return the next string where it lies: good only until more is received."""
        start = self._at + 4
        end = start + self.u32()
        if end > len(self._packet):
            raise SftpProtocolError("a string is longer than its packet")
        self._at = end
        return self._packet[start:end]

    def string(self) -> bytes:
        """Return a copy of the next string."""
        return bytes(self.view())

    def attributes(self) -> Attributes:
        """Return the next attributes; extended ones are read and ignored."""
        flags = self.u32()
        size = self.u64() if flags & _HAS_SIZE else None
        owner = (self.u32(), self.u32()) if flags & _HAS_OWNER else None
        permissions = self.u32() if flags & _HAS_PERMISSIONS else None
        times = (self.u32(), self.u32()) if flags & _HAS_TIMES else None
        if flags & _HAS_EXTENDED:
            for _ in range(self.u32()):
                self.view()
                self.view()
        return Attributes(size, owner, permissions, times)


def encode_string(text: bytes) -> bytes:
    """Return a string as it travels."""
    return U32.pack(len(text)) + text


def _attribute_numbers(status: os.stat_result) -> tuple[int, ...]:
    """Return what version 3 can say: seconds of 32 bits, no number of links."""
    # By index the times are whole seconds.
    accessed, modified = int(status[7]), int(status[8])
    if not (0 <= accessed <= _LARGEST_U32 and 0 <= modified <= _LARGEST_U32):
        accessed, modified = (min(max(second, 0), _LARGEST_U32) for second in (accessed, modified))
    return _HAS_ALL, status[6], status[4], status[5], status[0], accessed, modified


def encode_attributes(status: os.stat_result) -> bytes:
    """Return attributes as a part of a packet."""
    return _ATTRIBUTES.pack(*_attribute_numbers(status))


def encode_attributes_packet(request_id: int, status: os.stat_result) -> bytes:
    """Return a whole ATTRS packet."""
    size_bytes = _ATTRIBUTES_PACKET.size - 4
    return _ATTRIBUTES_PACKET.pack(size_bytes, _ATTRS, request_id, *_attribute_numbers(status))


def encode_status(request_id: int, status: Status, text: bytes) -> bytes:
    """Return a whole STATUS packet; the text is English, without a language tag."""
    size_bytes = _STATUS_HEAD.size - 4 + len(text) + 4
    head = _STATUS_HEAD.pack(size_bytes, Reply.STATUS, request_id, status, len(text))
    return head + text + b"\0\0\0\0"


def long_name(name: bytes, status: os.stat_result) -> bytes:
    """Return the line that ``ls -l`` would print, which ``sftp`` shows as it is."""
    modified = time.localtime(min(max(status.st_mtime, 0), _LARGEST_U32))
    fields = "%s %4d %-8d %-8d %8d %s " % (
        stat.filemode(status.st_mode),
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_size,
        time.strftime("%b %d %Y", modified),
    )
    return fields.encode() + name
