"""``openat2`` of Linux 5.6: a whole walk in one system call, with the kernel's word that it stays below.

What :mod:`.walk` does step by step, quicker: RESOLVE_BENEATH refuses to leave the root at any moment,
RESOLVE_NO_SYMLINKS refuses every link on the way. Python has no function for it.
Source: openat2(2).
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Callable

from .landlock import KNOWN_MACHINES, machine

_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08


def open_folder() -> Callable[[int, bytes], int] | None:
    """Return the function that opens a folder below another by its path; None where there is none.

    It raises OSError: ELOOP at a link, EXDEV at a way out.
    """
    if sys.platform != "linux" or machine() not in KNOWN_MACHINES:
        return None
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
    how = ctypes.create_string_buffer(struct.pack("=QQQ", flags, 0, resolve), 24)
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_long]
    address = ctypes.addressof(how)

    def beneath(root_fd: int, path: bytes, _keep: object = how) -> int:
        fd: int = call(_OPENAT2, root_fd, path, address, 24)
        if fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return fd

    return beneath if _works(beneath) else None


def _works(beneath: Callable[[int, bytes], int]) -> bool:
    """Whether this kernel, and whatever filters its calls, lets us: else the steps are walked."""
    try:
        fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.close(beneath(fd, b"."))
        finally:
            os.close(fd)
    except OSError:
        return False
    return True
