"""The command ``sshpyk-kernel``: from words to a request, from an error to text and exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from typing import Any

import click

from sshpyk.errors import (
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyRejected,
    HubError,
    SshpykError,
)
from sshpyk.kernelapp.files import remove
from sshpyk.kernelapp.keyboard import Keyboard
from sshpyk.kernelapp.legacy import modern, unquoted
from sshpyk.kernelapp.screen import Screen
from sshpyk.kernelapp.session import Session
from sshpyk.kernelapp.wish import Wish, Words, read_wish
from sshpyk.standin import Request

EXIT_DEFECT = 70
_BINDING = "binding local sockets"  # hub.endpoints, which imports zmq


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
@click.option("--takeover", is_flag=True, help="With --existing: also from whoever has it now.")
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
    Keys:
      Ctrl+C   interrupt the cell; during the launch: give it up
      Ctrl+D   menu: interrupt, restart, shut down, leave
      Ctrl+\\   leave: the kernel runs on, `sshpyk-kernel --existing` comes back

    \b
    Signals:
      INT         interrupt
      TERM, HUP   shut down; a persistent kernel is left
      USR1        restart, with the same connection file and clients
      USR2        shut down, persistent or not
      QUIT        leave

    \b
    Exit codes:
      the kernel's own, or the signal that ended it
      0    it was left, or somebody took it over
      1    there is no kernel, or it was lost
      2    invalid arguments or settings
      70   a bug in sshpyk

    \b
    Examples:
      sshpyk-kernel --kernel ssh_gpu1_analysis               until it ends
      sshpyk-kernel --kernel ssh_gpu1_analysis --persistent  outlives the terminal
      sshpyk-kernel --kernel ssh_gpu1_analysis --leave       only launch it
      sshpyk-kernel --existing                               the one that was left last
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
    except KeyboardInterrupt:  # before there was a session, which heeds signals itself
        click.echo("given up", err=True)
        return 1
    except Exception:  # noqa: BLE001  (the outermost: there is nobody else to tell)
        traceback.print_exc()
        return EXIT_DEFECT


def _stand(words: Words) -> int:
    screen = Screen(is_silent=words.by_program)
    if words.existing is not None:
        screen.progress("looking for the kernel")
    try:
        return _stand_with(words, screen)
    finally:
        screen.close()


def _stand_with(words: Words, screen: Screen) -> int:
    wish = read_wish(words)
    try:
        return _session(wish, screen).stand()
    except HostKeyChanged:
        raise
    except (AuthenticationFailed, HostKeyRejected) as error:
        if wish.by_program or Keyboard.of_terminal() is None:
            raise
        if not _log_in(wish, error):  # which has said why
            return error.exit_code
        wish = read_wish(words)
    except HubError as error:
        # The ports of a kernel that was left may be another program's by now.
        if error.phase != _BINDING or wish.existing is None or not wish.removes_file:
            raise
        wish = wish.with_another_file()
    return _session(wish, screen).stand()


def _session(wish: Wish, screen: Screen) -> Session:
    keyboard = None if wish.by_program or wish.leave_at_once else Keyboard.of_terminal()
    request = Request(wish.record)
    target = request.target
    if wish.made_file:  # until the session heeds them, signals must not leave it behind
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)
    try:
        screen.progress(f"{target.host}: starting the local hub")
        return Session(wish, screen, keyboard, request.reach_hub())
    except (SshpykError, KeyboardInterrupt):
        if wish.made_file:
            remove(wish.connection_file)
        raise


def _log_in(wish: Wish, error: SshpykError) -> bool:
    """Run `sshpyk login` where somebody sits who can answer; return whether the link is up."""
    target = Request(wish.record).target
    click.echo(f"{target.host}: {error.what}; logging in, as sshpyk login does", err=True)
    words = [sys.executable, "-m", "sshpyk.cli.main", "login", target.host, "--ssh", target.ssh]
    config = ["--ssh-config", target.ssh_config] if target.ssh_config else []
    return subprocess.run([*words, *config], check=False).returncode == 0
