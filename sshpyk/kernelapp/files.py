"""Connection files of kernels started in a terminal, and the notes by which these are found again.

A note is kept for as long as its kernel may run: ``--existing`` finds the host in it, and the ports
and the key, so that a console which stayed open goes on. Notes hold that key and are ours alone (0600).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sshpyk.errors import InvalidInput
from sshpyk.paths import state_dir

_KERNEL_ID = re.compile(r"[0-9a-f]{4,32}")


def unused_path(kernel: str) -> str:
    """Return where a connection file may be made: in Jupyter's folder, which exists then."""
    from jupyter_core.paths import jupyter_runtime_dir  # here: a program's file has its place

    folder = Path(jupyter_runtime_dir())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # "kernel-": jupyter console --existing looks for these.
    return str(folder / f"kernel-{_plain(kernel)}-{secrets.token_hex(3)}.json")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def new_connection_file(kernel: str, path: str | None = None) -> str:
    """Write a connection file with free ports and return its path: in Jupyter's folder, or ``path``."""
    from jupyter_client.connect import write_connection_file  # here: it costs 0.2 s

    path = path or unused_path(kernel)
    try:
        write_connection_file(path, key=secrets.token_hex(32).encode(), kernel_name=kernel)
    except OSError as error:
        raise InvalidInput(f"cannot write the connection file {path}: {error.strerror}") from error
    return path


def remove(path: str | Path) -> None:
    """Remove a file that may be gone."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def write_private(path: Path, record: dict[str, Any]) -> None:
    """Write JSON that nobody else may read, whole or not at all."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")  # 0600
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(fd)
    os.replace(temporary, path)


@dataclass(frozen=True)
class Note:
    """A kernel that may run: where, under which name it was launched, and how clients were connected."""

    kernel_id: str
    kernel: str  # the local kernelspec; "" when none was named
    host: str
    python: str  # there
    ssh: str | None
    ssh_config: str | None
    connection_file: str
    connection: dict[str, Any] = field(repr=False)  # the key is among it

    @property
    def path(self) -> Path:
        """Where the note is kept."""
        return _folder() / f"{self.kernel_id}.json"

    def save(self) -> None:
        """Write the note."""
        write_private(self.path, asdict(self))

    def restore_connection_file(self) -> bool:
        """Write the connection file again; return False if it is there."""
        path = Path(self.connection_file)
        if path.exists():
            return False
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, self.connection)
        return True


def forget(kernel_id: str) -> None:
    """Remove the note of a kernel that does not run any more, if there is one."""
    remove(_folder() / f"{kernel_id}.json")


def _folder() -> Path:
    folder = state_dir() / "kernels"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def read_connection(path: str) -> dict[str, Any]:
    """Return what a connection file says. Raises InvalidInput when it is none."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read the connection file {path}: {error}") from error
    if not isinstance(record, dict) or "shell_port" not in record:
        raise InvalidInput(f"{path} is not a connection file")
    return record


def notes() -> list[Note]:
    """Return all notes, the latest first."""
    paths = sorted(_folder().glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [note for note in map(_read, paths) if note is not None]


def _read(path: Path) -> Note | None:
    try:
        return Note(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # of another version, or half gone
        return None


def find_note(named: str, *, host: str | None = None, kernel: str | None = None) -> Note | None:
    """Return the note of a kernel: by its id, the beginning of it, or its connection file.

    "" is the latest, of that host and kernelspec if they are given. Raises InvalidInput when several
    kernels are meant.
    """
    known = [
        note
        for note in notes()
        if host in (None, note.host) and (named or kernel in (None, note.kernel))
    ]
    if not named:
        return known[0] if known else None
    file = os.path.abspath(named)
    found = [note for note in known if note.connection_file == file]
    found = found or [note for note in known if os.path.basename(note.connection_file) == named]
    if not found and _KERNEL_ID.fullmatch(named):
        found = [note for note in known if note.kernel_id.startswith(named)]
    if len(found) > 1:
        ids = ", ".join(note.kernel_id for note in found)
        raise InvalidInput(f"{named} may be any of these kernels: {ids}")
    return found[0] if found else None
