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
    (
        "--ssh-host-alias",
        str,
        "The host, as you type it after `ssh` (with `add`: the same as HOST).",
    ),
    ("--remote-python-prefix", str, "An environment on the host: PREFIX/bin/python is used."),
    ("--remote-python", str, "An interpreter on the host, instead of a prefix."),
    ("--remote-kernel-name", str, "The kernel's name on the host (`jupyter kernelspec list`)."),
    ("--launch-timeout", float, "Seconds until a launch is given up (60)."),
    ("--shutdown-timeout", float, "Seconds until a shutdown becomes a kill (10)."),
    ("--ssh", str, "The ssh to run, instead of the one on PATH."),
    ("--ssh-config", str, "A file for `ssh -F`, instead of ssh's own."),
    (
        "--remote-cwd",
        str,
        "The kernel's working directory, instead of the home folder; {notebook_dir} is the notebook's.",
    ),
    ("--activate", str, "Shell lines before the kernel: 'module load cuda; conda activate x'."),
    ("--remote-command", str, "Words in front of the kernel's command: 'apptainer exec x.sif'."),
    ("--remote-kernel-pythonhome", str, "PYTHONHOME for the kernel."),
    (
        "--sshd",
        str,
        "The local sshd for mounts by a login from the host, instead of the one on PATH.",
    ),
    ("--remote-sshfs", str, "The host's sshfs, instead of the one on PATH."),
    (
        "--ssh-host-alias-local-on-remote",
        str,
        "This machine in the host's ssh config: mounts log in by it, instead of using the link.",
    ),
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
    """What the user named: None, or no key in ``config``, for what was not.

    ``fresh_env``: the variables named are to be all that there are.
    """

    kernel_name: str | None = None
    display_name: str | None = None
    language: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    fresh_env: bool = False

    @classmethod
    def from_options(cls, given: Mapping[str, Any]) -> Wanted:
        """Read click's parameters: the config is what remains. Raises InvalidInput."""
        names = ("kernel_name", "display_name", "language")
        config = {key: given[key] for key in given if key not in names and given[key] is not None}
        mounts = list(config.pop("mount_local_on_remote", ()))
        if mounts:
            config["mount_local_on_remote"] = [mount for mount in mounts if mount]
        pairs, patterns = config.pop("env", ()), config.pop("pass_env", ())
        if pairs:
            config["env"] = dict(_pair(pair) for pair in pairs if pair)
        if patterns:
            config["pass_env"] = [pattern for pattern in patterns if pattern]
        for key in ("ssh", "ssh_config", "sshd"):
            if config.get(key):
                config[key] = _anchored(config[key], is_program=key != "ssh_config")
        for key in ("launch_timeout", "shutdown_timeout"):
            if key in config and float(config[key]).is_integer():
                config[key] = int(config[key])
        if config.get("remote_python") and config.get("remote_python_prefix"):
            raise InvalidInput("give either --remote-python or --remote-python-prefix, not both")
        return cls(**{key: given.get(key) for key in names}, config=config, fresh_env="" in pairs)


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise InvalidInput(
            f"--env {name!r}: must be NAME=VALUE",
            advice="--pass-env NAME takes the value from where the kernel is launched",
        )
    return name, value


def kernel_flags(function: _Function) -> _Function:
    """Give a verb the flags of :class:`Wanted` (a decorator, nearest to the function)."""
    mounts = click.option(
        "--mount-local-on-remote",
        multiple=True,
        metavar="LOCAL:REMOTE[:OPTIONS]",
        help="A local folder for the kernel to see: ~/code:/home/me/code:ro (repeatable).",
    )
    variables = click.option(
        "--env",
        multiple=True,
        metavar="NAME=VALUE",
        help="A variable for the kernel, as it stands (repeatable).",
    )
    passed = click.option(
        "--pass-env",
        multiple=True,
        metavar="NAME",
        help="A variable to take from where the kernel is launched; AWS_* means all such (repeatable).",
    )
    function = click.option(
        "--mount-optional/--no-mount-optional",
        default=None,
        help="Start the kernel also where a folder cannot be mounted; say so.",
    )(function)
    function = mounts(function)
    function = variables(passed(function))
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
