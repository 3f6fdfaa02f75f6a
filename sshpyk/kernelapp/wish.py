"""From the command line to what is to be done, with a connection file for it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from sshpyk.errors import InvalidInput
from sshpyk.kernelapp.existing import id_on_host
from sshpyk.kernelapp.files import Note, find_note, new_connection_file, unused_path
from sshpyk.kernelspecs import load
from sshpyk.launch import Caller, launch_record
from sshpyk.ssh.command import SshTarget

_LAUNCH_TIMEOUT_S = 60.0  # where no kernelspec names one
_SHUTDOWN_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Words:
    """The command line."""

    kernel: str | None
    connection_file: str | None
    persistent: bool
    leave: bool
    existing: str | None  # "" for the kernel that was left last
    takeover: bool
    host: str | None
    ssh_config: str | None
    ssh: str | None
    persistent_file: str | None
    remote_kernel_pythonhome: str | None
    verbose: int

    @property
    def file(self) -> str | None:
        """The connection file that was named."""
        return self.connection_file or self.persistent_file

    @property
    def by_program(self) -> bool:
        """Whether a program made a connection file for us, as kernel.json's argv asks for."""
        return bool(self.connection_file and os.path.exists(self.connection_file))


@dataclass(frozen=True)
class Wish:
    """What is to be done."""

    record: dict[str, Any]  # for sshpyk.standin.Request
    kernel: str  # the local kernelspec, "" when only a host was named
    existing: str | None  # the id of a kernel that runs
    takeover: bool
    persistent: bool
    leave_at_once: bool
    by_program: bool
    made_file: bool  # the connection file was not there before
    removes_file: bool  # it is ours: nobody named it
    verbose: bool

    @property
    def connection_file(self) -> str:
        """The path of the connection file."""
        return str(self.record["launch"]["connection_file"])

    def with_another_file(self) -> Wish:
        """Return the same with a connection file that is not there; the hub makes it."""
        launch = {
            **self.record["launch"],
            "connection_file": unused_path(self.kernel or "existing"),
        }
        return replace(self, record={**self.record, "launch": launch}, made_file=True)


def read_wish(words: Words) -> Wish:
    """Return what is to be done. Raises InvalidInput, and what looking for a kernel on its host meets."""
    by_program = words.by_program
    note = None
    if words.existing is not None:
        note = find_note(words.existing, host=words.host, kernel=words.kernel)
    kernel, record = _record(words, note)
    existing = None
    if words.existing is not None:
        existing = note.kernel_id if note is not None else id_on_host(record, words.existing)
    persistent = bool(words.persistent or words.leave or words.persistent_file or existing)
    if persistent:
        record["launch"]["persistent"] = True
    file, made = _connection_file(words, note, kernel, attaches=existing is not None)
    record["launch"]["connection_file"] = file
    return Wish(
        record=record,
        kernel=kernel,
        existing=existing,
        takeover=words.takeover,
        persistent=persistent,
        leave_at_once=words.leave,
        by_program=by_program,
        made_file=made,
        removes_file=words.file is None,
        verbose=words.verbose > 0,
    )


def _connection_file(
    words: Words, note: Note | None, kernel: str, *, attaches: bool
) -> tuple[str, bool]:
    """Return the connection file, and whether it was not there before.

    That of a kernel which is attached to is the hub's to make.
    """
    if words.file is not None:
        made = not os.path.exists(words.file)
        return (
            new_connection_file(kernel, words.file) if made and not attaches else words.file
        ), made
    if note is not None:
        made = note.restore_connection_file()
        return note.connection_file, made
    return (unused_path(kernel or "existing") if attaches else new_connection_file(kernel)), True


def _record(words: Words, note: Note | None) -> tuple[str, dict[str, Any]]:
    """Return the kernelspec's name, and the request but for its connection file."""
    if words.kernel:
        return words.kernel, _record_of_kernel(words.kernel, words)
    if words.existing is None:
        raise InvalidInput("name a kernel: sshpyk-kernel --kernel NAME; see sshpyk list --remote")
    if note is not None and note.kernel:
        try:
            return note.kernel, _record_of_kernel(note.kernel, words)
        except InvalidInput:  # deleted or changed since then; its host will do
            pass
    return "", _record_of_host(words, note)


def _record_of_kernel(kernel: str, words: Words) -> dict[str, Any]:
    spec = load(kernel)
    if spec.remote is None:
        raise InvalidInput(f"{kernel} is not a kernel of sshpyk's; see sshpyk list")
    caller = Caller(env=dict(spec.env), surroundings=os.environ, folder=os.getcwd())
    record = launch_record(spec.remote, "", caller)
    if words.remote_kernel_pythonhome:
        record["launch"]["env"]["PYTHONHOME"] = words.remote_kernel_pythonhome
    return record


def _record_of_host(words: Words, note: Note | None) -> dict[str, Any]:
    host = words.host or (note.host if note is not None else "")
    if not host:
        raise InvalidInput(
            f"no kernel {words.existing} was left here".replace("  ", " "),
            advice="say where it runs: --host HOST, or --kernel NAME",
        )
    target = SshTarget.parse(
        host,
        ssh=words.ssh or (note.ssh if note is not None else None),
        ssh_config=words.ssh_config or (note.ssh_config if note is not None else None),
    )
    return {
        "target": {"host": target.host, "ssh": target.ssh, "ssh_config": target.ssh_config},
        "shutdown_timeout_s": _SHUTDOWN_TIMEOUT_S,
        "launch": {
            "python": note.python if note is not None else "python3",
            "kernel_name": "",
            "launch_timeout_s": _LAUNCH_TIMEOUT_S,
        },
    }
