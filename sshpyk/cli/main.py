"""The command ``sshpyk``: finds the verb, prints its result, turns errors into text and exit code.

Exit codes: 0 done, 1 the operation failed, 2 invalid arguments or settings, 70 a bug in sshpyk
(BSD's EX_SOFTWARE; the traceback is in the log).
"""

from __future__ import annotations

import sshpyk.import_path  # noqa: F401  # before all others

# isort: split
import importlib
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import IO, Any

import click

from sshpyk.errors import SshpykError

EXIT_DEFECT = 70
_LOG_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

# Each verb: where its command is, and its line in `sshpyk --help`, which thus imports no verb.
_VERBS = {
    "add": (
        "sshpyk.cli.add:add",
        "Add kernels that run on a host: find them there, choose, check.",
    ),
    "close": ("sshpyk.cli.close:close", "Close a tunnel, and what goes through it."),
    "completion": ("sshpyk.cli.completion:completion", "Print the completion for your shell."),
    "delete": ("sshpyk.cli.delete:delete", "Delete an SSH kernel."),
    "doctor": (
        "sshpyk.cli.doctor:doctor",
        "Find out why a kernel, a host or this machine does not work.",
    ),
    "edit": ("sshpyk.cli.edit:edit", "Change an SSH kernel; what is not named stays."),
    "attach": ("sshpyk.cli.attach:attach", "Bring a kernel that runs on a host here."),
    "gc": ("sshpyk.cli.gc:gc", "End kernels on hosts that nobody needs any more."),
    "lab": ("sshpyk.cli.lab:lab", "Open JupyterLab of a host in the browser here."),
    "leave": ("sshpyk.cli.leave:leave", "Let a kernel go on without this machine."),
    "logs": ("sshpyk.cli.logs:logs", "Show what a kernel wrote to its stdout and stderr."),
    "stop": ("sshpyk.cli.stop:stop", "End kernels and Jupyter servers on a host."),
    "ps": ("sshpyk.cli.ps:ps", "Show links to hosts, and the kernels behind them."),
    "forward": (
        "sshpyk.cli.forward:forward",
        "Reach a port or unix socket of a host here, or one of ours there.",
    ),
    "list": ("sshpyk.cli.list_:list_kernels", "List local and SSH kernels, and check the latter."),
    "login": (
        "sshpyk.cli.login:login",
        "Open the link to a host that asks for a password or a code.",
    ),
    "logout": ("sshpyk.cli.logout:logout", "Close the link to a host."),
    "servers": ("sshpyk.cli.servers:servers", "Show the Jupyter servers that run on hosts."),
    "mount": ("sshpyk.cli.mount:mount", "Show a folder of this machine on a host."),
    "mounts": ("sshpyk.cli.mounts:mounts", "Show which folders are mounted on hosts."),
    "unmount": ("sshpyk.cli.unmount:unmount", "End what sshpyk mount began."),
    "tunnels": ("sshpyk.cli.tunnels:tunnels", "Show the tunnels that are open."),
}


class Failure(click.ClickException):
    """How click learns the text and the exit code of a failure."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # a class variable there

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message to stderr, or to ``file``."""
        click.echo(self.message, file=file, err=file is None)


def failure_from(error: SshpykError) -> Failure:
    """Turn an error of ours into text and exit code: on one line when the input is at fault."""
    text = str(error)
    if error.exit_code == 2:
        text = " ".join(line.strip() for line in text.splitlines())
    return Failure(f"sshpyk: {text}", error.exit_code)


def _usage_failure(error: click.UsageError) -> Failure:
    path = error.ctx.command_path if error.ctx else "sshpyk"
    what = error.format_message().strip().rstrip(".").replace("\n", " ")
    return Failure(f"{path}: {what} (see {path} --help)", error.exit_code)


class VerbGroup(click.Group):
    """A group that imports a verb when it is called, and turns its errors into failures."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the verbs (called by click for help and completion)."""
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a verb; None if there is none of that name (called by click)."""
        if cmd_name not in _VERBS:
            return None
        module, _, attribute = _VERBS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs into the help (called by click)."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(_VERBS.items())])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb (called by click)."""
        try:
            return super().invoke(ctx)
        except SshpykError as error:
            raise failure_from(error) from error
        except click.UsageError as error:
            if type(error).__name__ == "NoArgsIsHelpError":  # click 8.2 and later: it is the help
                raise
            raise _usage_failure(error) from error


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-v",
    "--verbose",
    count=True,
    help="Before the command: log warnings; -vv progress; -vvv everything.",
)
@click.version_option(package_name="sshpyk")
@click.pass_context
def cli(ctx: click.Context, verbose: int) -> None:
    """Jupyter kernels on remote machines over plain OpenSSH.

    \b
    Examples:
      sshpyk add gpu1                      find kernels on gpu1 and add them to Jupyter
      sshpyk login gpu1                    first, if gpu1 asks for a password or a code
      sshpyk ps                            is the link up, do the kernels live
      sshpyk doctor gpu1                   why something does not work
      sshpyk lab gpu1                      JupyterLab of gpu1 in the browser here
      sshpyk delete ssh_gpu1_analysis      remove a kernel that was added

    sshpyk-kernel --help: a kernel in a terminal, without Jupyter.
    """
    ctx.obj = verbose
    logging.basicConfig(level=_LOG_LEVELS[min(verbose, 3)], format=_LOG_FORMAT)


@cli.result_callback()
def _print_result(result: object, **_options: Any) -> None:
    # Imported here: `--help` needs no renderer.
    from sshpyk.cli.render import render

    render(result)
    if status := getattr(result, "exit_code", 0):
        raise click.exceptions.Exit(status)


def _report_defect(error: Exception, *, with_traceback: bool) -> int:
    """Say that sshpyk itself failed, and where the traceback is; return the exit code."""
    text = "".join(traceback.format_exception(error))
    head = f"sshpyk: internal error: {type(error).__name__}: {error}".splitlines()[0]
    try:
        from sshpyk.paths import cli_log

        log_file = cli_log()
        with log_file.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"sshpyk {' '.join(sys.argv[1:])!r}\n{text}\n")
        where = f" (traceback in {log_file})"
    except OSError as unwritable:
        where = f" (no log: {unwritable})"
    click.echo(head + where, err=True)
    if with_traceback:
        click.echo(text, err=True)
    return EXIT_DEFECT


def _wants_traceback(arguments: Sequence[str]) -> bool:
    return any(word == "--verbose" or word.startswith("-v") for word in arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (the script ``sshpyk``, ``python -m``)."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a display name may not fit the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        status: object = cli.main(args=words, prog_name="sshpyk")
    except SystemExit as end:  # how click ends, also when all went well
        status = end.code
    except Exception as error:  # noqa: BLE001  (the outermost: there is nobody else to tell)
        return _report_defect(error, with_traceback=_wants_traceback(words))
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    sys.exit(main())
