"""What kernels write to stdout and stderr, with the traces of crashes: kept on the host, and bounded.

One file per kernel, into which the kernel itself writes, so that it goes on without an agent. When a
file has grown, its end is copied to a second one and it is cut to nothing (the kernel appends). A note
beside it says whose it is. Those of the latest kernels stay after these have ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from typing import Any, Callable

from sshpyk.errors import KernelError
from sshpyk.wire.rpc import Operation, Params

KEPT_LOGS = 50
LIMIT_BYTES = 4 * 1024 * 1024  # of each of a kernel's two files
READ_BYTES = 256 * 1024
_ID = re.compile("[0-9A-Za-z-]{1,64}")

log = logging.getLogger(__name__)


class KernelLogs:
    """The logs in one folder; ``alive`` gives the state of each kernel and server that lives, by id."""

    def __init__(self, folder: str, alive: Callable[[], dict[str, Any]]) -> None:
        self._folder = folder
        self.alive = alive

    def path(self, kernel_id: str) -> str:
        """Return where a kernel writes."""
        return os.path.join(self._folder, f"{kernel_id}.log")

    def _note_path(self, kernel_id: str) -> str:
        # A machine may be a host and a laptop, and a laptop's notes of kernels lie here, too.
        return os.path.join(self._folder, f"{kernel_id}.log.json")

    def begin(self, kernel_id: str, **note: Any) -> str:
        """Make room for a new kernel's log, note whose it is, and return its path."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self.prune()
        self._write_note(kernel_id, {**note, "rotations": 0, "dropped": 0})
        return self.path(kernel_id)

    def end(self, kernel_id: str, status: int | None) -> None:
        """Note how a kernel ended; forget one that wrote nothing."""
        with contextlib.suppress(OSError):
            if os.path.getsize(self.path(kernel_id)) or self._note(kernel_id).get("rotations"):
                ended = {"status": status, "ended_s": time.time()}
                self._write_note(kernel_id, {**self._note(kernel_id), **ended})
                return
        self._remove(kernel_id)

    def _note(self, kernel_id: str) -> dict[str, Any]:
        try:
            with open(self._note_path(kernel_id)) as file:
                note = json.load(file)
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def _write_note(self, kernel_id: str, note: dict[str, Any]) -> None:
        path = self._note_path(kernel_id)
        with contextlib.suppress(OSError):  # a full disk costs the note, not the kernel
            fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(fd, "w") as file:
                json.dump(note, file)
            os.replace(path + ".new", path)

    def _remove(self, kernel_id: str) -> None:
        for path in (self.path(kernel_id), self.path(kernel_id) + ".1", self._note_path(kernel_id)):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _known(self) -> list[str]:
        """Return the ids of all kernels with a log, the one that wrote last first."""
        found = {}
        for name in os.listdir(self._folder):
            if name.endswith(".log"):
                with contextlib.suppress(OSError):
                    found[name[:-4]] = os.path.getmtime(os.path.join(self._folder, name))
        return sorted(found, key=lambda kernel_id: -found[kernel_id])

    def prune(self) -> None:
        """Keep the logs of the latest kernels, and of those that live: a quiet one has its log still."""
        for kernel_id in set(self._known()[KEPT_LOGS:]) - set(self.alive()):
            self._remove(kernel_id)

    def rotate(self, kernel_id: str) -> None:
        """Cut a log that has grown; called every second for each kernel that lives."""
        path = self.path(kernel_id)
        try:
            size = os.path.getsize(path)
        except OSError:  # somebody removed it; to say so each second would fill the log of ours
            return
        if size <= LIMIT_BYTES:
            return
        try:
            with open(path, "rb") as source:
                source.seek(size - LIMIT_BYTES)
                fd = os.open(path + ".1", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with open(fd, "wb") as target:
                    target.write(source.read(LIMIT_BYTES))
        except OSError as error:
            # A disk that is full: what is left of the log is the new text, not the old.
            log.warning("a log could not be kept: %s", error)
        note = self._note(kernel_id)
        rotations = note.get("rotations", 0) + 1
        with contextlib.suppress(OSError):
            os.truncate(path, 0)
            dropped = max(0, size - LIMIT_BYTES)
            self._write_note(kernel_id, {**note, "rotations": rotations, "dropped": dropped})

    # What is asked

    def list(self) -> list[dict[str, Any]]:
        """Describe the log of each kernel, the latest first."""
        found = []
        for kernel_id in self._known():
            with contextlib.suppress(OSError):
                status = os.stat(self.path(kernel_id))
                known = {"kernel_id": kernel_id, "size_bytes": status.st_size}
                found.append({**self._note(kernel_id), **known, "written_s": status.st_mtime})
        return found

    def read(self, kernel_id: str, place: Any) -> dict[str, Any]:
        """Return text from a place on, and the place behind it.

        A place is how often the log was rotated, and an offset; None is the beginning of what is kept.
        Raises KernelError where there is no log.
        """
        if not os.path.exists(self.path(kernel_id)):
            raise KernelError(
                "there is no log of that kernel: it wrote nothing, or it is long ago",
                phase="reading a kernel's log",
            )
        note = self._note(kernel_id)
        rotations, dropped = note.get("rotations", 0), note.get("dropped", 0)
        number, offset = place if _is_place(place) else (rotations - 1, dropped)
        if number < rotations:
            start = max(0, offset - dropped) if number == rotations - 1 else 0
            data = _read(self.path(kernel_id) + ".1", start)
            if data:
                lost = number < rotations - 1 or offset < dropped
                place = [rotations - 1, dropped + start + len(data)]
                return _piece(data, place, lost=lost, more=True)
            offset = 0
        data = _read(self.path(kernel_id), offset)
        return _piece(data, [rotations, offset + len(data)], more=len(data) == READ_BYTES)


def _is_place(place: Any) -> bool:
    return (
        isinstance(place, list)
        and len(place) == 2
        and all(isinstance(number, int) and number >= 0 for number in place)
    )


def _read(path: str, offset: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(READ_BYTES)
    except OSError:
        return b""


def _piece(data: bytes, place: list[int], *, more: bool, lost: bool = False) -> dict[str, Any]:
    # Any bytes, also half a character at the end.
    text = data.decode("utf-8", "surrogateescape")
    return {"text": text, "place": place, "more": more, "lost": lost}


def operations(logs: KernelLogs) -> dict[str, Operation]:
    """Return what a hub may ask about logs."""

    async def list_logs(_params: Params) -> Params:
        states = logs.alive()
        return {
            "logs": [{**one, "state": states.get(one["kernel_id"], "ended")} for one in logs.list()]
        }

    async def read_log(params: Params) -> Params:
        kernel_id = params["kernel_id"]
        if not (isinstance(kernel_id, str) and _ID.fullmatch(kernel_id)):
            raise KernelError("that is no kernel's id", phase="reading a kernel's log")
        state = logs.alive().get(kernel_id, "ended")
        return {**logs.read(kernel_id, params.get("place")), "state": state}

    return {"logs": list_logs, "read_log": read_log}
