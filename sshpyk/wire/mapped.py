"""Small files in memory: what is written to them outlives the process that is killed, at no cost.

The kernel of the system keeps the pages; they need not survive the machine. A file gets its blocks when
it is made, so that a disk which fills up later cannot fault a write to it.
"""

from __future__ import annotations

import logging
import mmap
import os

log = logging.getLogger(__name__)


def map_file(path: str, size_bytes: int) -> mmap.mmap:
    """Map the file, made where it is missing; its content stays.

    A disk without room costs nothing but the succession: the notes are then in memory only.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, size_bytes)
            else:
                os.ftruncate(fd, size_bytes)  # macOS has no such call
            return mmap.mmap(fd, size_bytes)
        finally:
            os.close(fd)
    except OSError as error:
        log.warning("nobody will be able to take over from this process: %s: %s", path, error)
        return mmap.mmap(-1, size_bytes)
