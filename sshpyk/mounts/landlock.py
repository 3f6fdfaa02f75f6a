"""Landlock: the Linux kernel keeps this process, for ever, from touching files outside one folder.

A second fence behind the walk of :mod:`.walk`, which does not depend on it: whatever a mistake there
might open, the kernel refuses. It cannot be taken back, so it belongs into a process of its own.
Source: the kernel's userspace-api/landlock.rst. Not on other systems, on kernels before 5.19, or
where it is switched off.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

# The same numbers on every architecture that came after it; these are the ones we know of.
KNOWN_MACHINES = {"x86_64", "aarch64", "arm64", "riscv64", "ppc64le", "s390x"}
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_WRITE_FILE = 1 << 1
_REMOVE_FOLDER, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_FOLDER, _MAKE_REGULAR, _MAKE_SYMLINK = 1 << 7, 1 << 8, 1 << 12
_REFER = 1 << 13  # from 2: rename and link from one folder into another; before, always refused
_TRUNCATE = 1 << 14  # from 3
_NETWORK = 0b11  # from 4: bind and connect
_SCOPES = 0b11  # from 6: abstract sockets and signals stay inside
_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15}  # the number of bits; from 5 there are 16

_READ = _READ_FILE | _READ_FOLDER
_WRITE = (
    *(_WRITE_FILE, _REMOVE_FOLDER, _REMOVE_FILE, _MAKE_FOLDER, _MAKE_REGULAR),
    *(_MAKE_SYMLINK, _REFER, _TRUNCATE),
)
_FIRST_USEFUL_ABI = 2


def machine() -> str:
    """Return the architecture by which system calls are numbered."""
    return platform.machine() if struct.calcsize("P") == 8 else f"{platform.machine()}, 32 bit"


def abi() -> int:
    """Return the version of Landlock that this kernel offers; 0 where there is none."""
    if sys.platform != "linux" or machine() not in KNOWN_MACHINES:
        return 0
    return max(_syscall(_CREATE_RULESET, None, 0, _ASK_VERSION), 0)


def confine(root_fd: int, *, read_only: bool) -> bool:
    """Confine this thread, and all that it starts, to the folder; False where that is impossible.

    Call it before any other thread is started. From then on modules outside cannot be imported.
    """
    version = abi()
    if version < _FIRST_USEFUL_ABI:
        return False
    handled = (1 << _RIGHTS_BY_ABI.get(version, 16)) - 1
    allowed = (_READ if read_only else _READ | sum(_WRITE)) & handled
    ruleset_fd = _ruleset(handled, version)
    if ruleset_fd < 0:
        return False
    try:
        rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, root_fd))
        if _syscall(_ADD_RULE, ruleset_fd, _PATH_BENEATH, rule, 0):
            return False
        if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            return False
        return _syscall(_RESTRICT_SELF, ruleset_fd, 0) == 0
    finally:
        os.close(ruleset_fd)


def _ruleset(handled: int, version: int) -> int:
    fields = [handled]
    if version >= 4:
        fields.append(_NETWORK)
    if version >= 6:
        fields.append(_SCOPES)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    return _syscall(_CREATE_RULESET, ctypes.create_string_buffer(attributes), len(attributes), 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: object) -> int:
    wide = [
        ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments
    ]
    call = _libc().syscall
    call.restype = ctypes.c_long
    return int(call(ctypes.c_long(number), *wide))
