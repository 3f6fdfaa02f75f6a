"""What ``add`` and ``edit`` have in common: the flags, and the record they become."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from sshpyk.cli.complete import hosts
from sshpyk.errors import InvalidInput

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Flag, kind, help. The flags' names are the config's keys.
_CONFIG_FLAGS: tuple[tuple[str, type, str], ...] = (
    ("--ssh-host-alias", str, "The host, as you would type it after `ssh`."),
    ("--remote-python-prefix", str, "An environment on the host: PREFIX/bin/python is used."),
    ("--remote-python", str, "An interpreter on the host, instead of a prefix."),
    ("--remote-kernel-name", str, "The kernel's name on the host (`jupyter kernelspec list`)."),
    ("--launch-timeout", float, "Seconds until a launch is given up (60)."),
    ("--shutdown-timeout", float, "Seconds until a shutdown becomes a kill (10)."),
    ("--ssh", str, "The ssh to run, instead of the one on PATH."),
    ("--ssh-config", str, "A file for `ssh -F`, instead of ssh's own."),
    ("--remote-cwd", str, "The kernel's working directory, instead of the home folder."),
    ("--remote-kernel-pythonhome", str, "PYTHONHOME for the kernel."),
    ("--sshd", str, "The local sshd for mounts, instead of the one on PATH."),
    ("--remote-sshfs", str, "The host's sshfs, instead of the one on PATH."),
    ("--ssh-host-alias-local-on-remote", str, "This machine, as the host's ssh config names it."),
)


def _anchored(path: str, *, is_program: bool) -> str:
    """Make a local path independent of the working directory; a program's bare name stays one."""
    if is_program and "/" not in path:
        return path
    if path.lower() == "none":  # ssh's word for "read no config at all"
        return path
    return str(Path(path).expanduser().absolute())


@dataclass(frozen=True)
class Wanted:
    """What the user named: None, or no key in ``config``, for what was not."""

    kernel_name: str | None = None
    display_name: str | None = None
    language: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_options(cls, given: Mapping[str, Any]) -> Wanted:
        """Read click's parameters: the config is what remains. Raises InvalidInput."""
        names = ("kernel_name", "display_name", "language")
        config = {key: given[key] for key in given if key not in names and given[key] is not None}
        mounts = list(config.pop("mount_local_on_remote", ()))
        if mounts:
            config["mount_local_on_remote"] = [mount for mount in mounts if mount]
        for key in ("ssh", "ssh_config", "sshd"):
            if config.get(key):
                config[key] = _anchored(config[key], is_program=key != "ssh_config")
        for key in ("launch_timeout", "shutdown_timeout"):
            if key in config and float(config[key]).is_integer():
                config[key] = int(config[key])
        if config.get("remote_python") and config.get("remote_python_prefix"):
            raise InvalidInput("give either --remote-python or --remote-python-prefix, not both")
        return cls(**{key: given.get(key) for key in names}, config=config)


def kernel_flags(function: _Function) -> _Function:
    """Give a verb the flags of :class:`Wanted` (a decorator, nearest to the function)."""
    mounts = click.option(
        "--mount-local-on-remote",
        multiple=True,
        metavar="LOCAL:REMOTE[:OPTIONS]",
        help="A local folder for the kernel to see (repeatable).",
    )
    function = mounts(function)
    function = click.option(
        "--persistent/--no-persistent",
        default=None,
        help="Keep the kernel when Jupyter is killed: `sshpyk attach` finds it again.",
    )(function)
    for flag, kind, text in reversed(_CONFIG_FLAGS):
        offer = hosts if flag == "--ssh-host-alias" else None
        function = click.option(flag, type=kind, help=text, shell_complete=offer)(function)
    function = click.option("--language", help="The kernel's language.")(function)
    return click.option("--display-name", help="The name that a notebook shows.")(function)
