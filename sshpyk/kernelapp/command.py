"""The command ``sshpyk-kernel``: from words to a request, from an error to text and exit code."""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass
from typing import Any

import click

from sshpyk.errors import InvalidInput, SshpykError
from sshpyk.hub import client
from sshpyk.kernelapp.files import Note, find_note, new_connection_file, remove
from sshpyk.kernelapp.keyboard import Keyboard
from sshpyk.kernelapp.legacy import modern, unquoted
from sshpyk.kernelapp.screen import Screen
from sshpyk.kernelapp.session import Session, Wish
from sshpyk.kernelspecs import load
from sshpyk.launch import launch_record
from sshpyk.ssh.command import SshTarget
from sshpyk.standin import Request

EXIT_DEFECT = 70
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
    host: str | None
    ssh_config: str | None
    ssh: str | None
    persistent_file: str | None
    remote_kernel_pythonhome: str | None
    verbose: int

    @property
    def started_by_program(self) -> bool:
        """Whether a program made a connection file for us, as kernel.json's argv asks for."""
        return bool(self.connection_file and os.path.exists(self.connection_file))


def _path(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    # The hub works in another folder.
    return None if value is None else os.path.abspath(unquoted(value))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-k", "--kernel", metavar="NAME", help="The kernel, as `sshpyk list` shows it.")
@click.option(
    "-f",
    "--connection-file",
    metavar="FILE",
    callback=_path,
    help="Serve this connection file; without it one is made in Jupyter's folder.",
)
@click.option("-p", "--persistent", is_flag=True, help="Keep the kernel when this process ends.")
@click.option("-l", "--leave", is_flag=True, help="Launch a persistent kernel and leave at once.")
@click.option(
    "-e",
    "--existing",
    is_flag=False,
    flag_value="",
    metavar="[ID|FILE]",
    help="Come back to a kernel: by its id, by its connection file; alone: the one left last.",
)
@click.option("--host", metavar="HOST", help="With --existing: where the kernel runs.")
@click.option("--ssh-config", metavar="FILE", help="With --host: as given to `sshpyk add`.")
@click.option("--ssh", metavar="PATH", help="With --host: as given to `sshpyk add`.")
@click.option("--persistent-file", callback=_path, hidden=True)  # 1.x
@click.option("--remote-kernel-pythonhome", hidden=True)  # 1.x
@click.option("-v", "--verbose", count=True, help="Show the hub's log: what ssh and the host say.")
@click.version_option(package_name="sshpyk")
def command(**given: Any) -> Words:
    """Launch a remote kernel and stand for it until it ends.

    In a terminal, without a connection file, one is made: `jupyter console --existing FILE` connects.

    \b
    Keys:     Ctrl+C interrupts, Ctrl+D opens a menu (interrupt, restart, shut down, leave),
              Ctrl+\\ leaves: the kernel runs on, `sshpyk-kernel --existing` comes back.
    Signals:  INT interrupt; TERM, HUP shut down (a persistent kernel is left); USR1 restart;
              USR2 shut down even if persistent; QUIT leave.
    Exit code: the kernel's own (its signal, if one ended it); 0 when it was left or another
              client took it over; 1 there is no kernel, or it was lost; 2 the input cannot be;
              70 a defect of sshpyk's own.

    \b
    Examples:
      sshpyk-kernel --kernel gpu1                 until it ends
      sshpyk-kernel --kernel gpu1 --persistent    closing the terminal keeps it
      sshpyk-kernel --kernel gpu1 --leave         only launch it
      sshpyk-kernel --existing                    back to the one that was left last
      sshpyk-kernel --existing 3fa9c0 --host gpu1
    """
    return Words(**given)


def run(arguments: list[str]) -> int:
    """Do what the command line says and return the exit status, negative for a kernel's signal."""
    try:
        words: object = command.main(
            args=modern(arguments), prog_name="sshpyk-kernel", standalone_mode=False
        )
        return _stand(words) if isinstance(words, Words) else 0  # else it was --help
    except click.ClickException as error:
        click.echo(f"sshpyk-kernel: {error.format_message()} (see sshpyk-kernel --help)", err=True)
        return 2
    except SshpykError as error:
        click.echo(error, err=True)
        return error.exit_code
    except Exception:  # noqa: BLE001  (the outermost: there is nobody else to tell)
        traceback.print_exc()
        return EXIT_DEFECT


def _stand(words: Words) -> int:
    wish = read_wish(words)
    keyboard = None if wish.by_program or wish.leave_at_once else Keyboard.of_terminal()
    screen = Screen(is_silent=wish.by_program)
    target = Request(wish.record).target
    try:
        screen.progress(f"{target.host}: starting the local hub")
        session = Session(wish, screen, keyboard, client.reach_hub(target))
    except SshpykError:
        screen.close()
        if wish.removes_file:
            remove(wish.connection_file)
        raise
    return session.stand()


def read_wish(words: Words) -> Wish:
    """Return what is to be done, with a connection file that exists. Raises InvalidInput."""
    by_program = words.started_by_program
    given_file = words.connection_file or words.persistent_file
    note = find_note(words.existing) if words.existing is not None else None
    existing = _kernel_id(words, note)
    kernel = words.kernel or (note.kernel if note is not None else "")
    record = _record(words, kernel, note)
    if by_program:
        assert given_file is not None
        file = given_file
    elif given_file is None and note is not None:
        note.restore_connection_file()
        file = note.connection_file
    else:
        file = new_connection_file(kernel or record["target"]["host"], given_file)
    record["launch"]["connection_file"] = file
    return Wish(
        record=record,
        kernel=kernel,
        existing=existing,
        persistent=bool(words.persistent or words.leave or words.persistent_file or existing),
        leave_at_once=words.leave,
        by_program=by_program,
        removes_file=given_file is None,
        verbose=words.verbose > 0,
    )


def _kernel_id(words: Words, note: Note | None) -> str | None:
    if words.existing is None:
        return None
    if note is not None:
        return note.kernel_id
    if not words.existing:
        raise InvalidInput(
            "no kernel was left here", advice="name its id: --existing ID --host HOST"
        )
    return words.existing


def _record(words: Words, kernel: str, note: Note | None) -> dict[str, Any]:
    """Return the request, for :class:`sshpyk.standin.Request`; its connection file is not known yet."""
    if kernel:
        spec = load(kernel)
        if spec.remote is None:
            raise InvalidInput(f"{kernel} is not a kernel of sshpyk's; see sshpyk list")
        record = launch_record(spec.remote, "", dict(spec.env))
        if words.remote_kernel_pythonhome:
            record["launch"]["env"]["PYTHONHOME"] = words.remote_kernel_pythonhome
        return record
    if words.existing is None:
        raise InvalidInput("name a kernel: sshpyk-kernel --kernel NAME; see sshpyk list --remote")
    host = words.host or (note.host if note is not None else "")
    if not host:
        raise InvalidInput(
            f"no kernel {words.existing} was left here", advice="say where it runs: --host HOST"
        )
    target = SshTarget.parse(
        host,
        ssh=words.ssh or (note.ssh if note is not None else None),
        ssh_config=words.ssh_config or (note.ssh_config if note is not None else None),
    )
    return {
        "target": {"host": target.host, "ssh": target.ssh, "ssh_config": target.ssh_config},
        "shutdown_timeout_s": _SHUTDOWN_TIMEOUT_S,
        "launch": {"python": "python3", "kernel_name": "", "launch_timeout_s": _LAUNCH_TIMEOUT_S},
    }
