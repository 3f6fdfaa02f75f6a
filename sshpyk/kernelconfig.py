"""``metadata.kernel_provisioner.config`` of a kernel.json <-> :class:`RemoteKernel`, checked.

Pure, apart from ``~`` in local paths. Whatever sshpyk 1.x wrote is read as it is. Who calls: the
provisioner and the stand-in (:meth:`RemoteKernel.from_config`), the CLI, and :mod:`.kernelspecs`,
which owns the rest of the file.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .errors import InvalidInput
from .ssh.command import SshTarget, parse_destination, remote_path_word

log = logging.getLogger(__name__)

# A minute: a cold conda environment on a network file system needs half of it.
LAUNCH_TIMEOUT_S = 60.0
# Twice what jupyter_client gives a local kernel (shutdown_wait_time).
SHUTDOWN_TIMEOUT_S = 10.0
_LONGEST_TIMEOUT_S = 7 * 24 * 3600.0

# As jupyter_client.kernelspec has it, whose import costs 0.2 s.
_KERNEL_NAME = re.compile(r"[a-z0-9._\-]+", re.ASCII | re.IGNORECASE)
_KERNEL_NAME_RULE = "only the letters a-z, digits, '.', '_' and '-' (Jupyter's rule)"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Of `--pass-env`: a name, or a pattern of the shell's that begins with a part of one.
_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_*?\[\]!-]*")
NOTEBOOK_DIR = "{notebook_dir}"  # in remote_cwd: where the notebook's folder is on the host
_MOUNT_OPTION = re.compile(r"[A-Za-z0-9_]+(=[^,]*)?")

# What earlier versions called it.
RENAMED = {
    "shutdown_time": "shutdown_timeout",
    "ssh_host": "ssh_host_alias",
    "remote_kernel_launch_timeout": "launch_timeout",
}
# Keys of 1.x that have lost their purpose: kept in the file, no reason to warn.
_OBSOLETE = (
    *("existing", "persistent_file", "independent_local_processes"),
    *("raise_on_ssh_config_error", "remote_pythonhome", "ssh_verbose"),
)
_MAX_SHOWN = 500
_MAX_LINES_CHARACTERS = 32 * 1024


def refused(key: str, value: object, rule: str) -> InvalidInput:
    """Return the error for a value that breaks a rule: it names the key, the value and the rule."""
    shown = repr(value)
    if len(shown) > _MAX_SHOWN:
        shown = f"{shown[:_MAX_SHOWN]}..."
    return InvalidInput(f"{key} {shown}: {rule}")


def check_text(key: str, value: object) -> str:
    """Return ``value`` if it is text that fits on a line and in a file; else raise InvalidInput."""
    if not isinstance(value, str):
        raise refused(key, value, "must be text")
    if not value.strip():
        raise refused(key, value, "must not be empty")
    # Line and paragraph separators, controls, and what no UTF-8 file can hold.
    if any(c < " " or c in "\x7f\x85\u2028\u2029" or "\ud800" <= c <= "\udfff" for c in value):
        raise refused(key, value, "must have no newline or other control character")
    return value


def check_kernel_name(key: str, value: object) -> str:
    """Return ``value`` if Jupyter accepts it as the name of a kernel; else raise InvalidInput."""
    text = check_text(key, value)
    if not _KERNEL_NAME.fullmatch(text) or text in (".", ".."):
        raise refused(key, value, _KERNEL_NAME_RULE)
    if len(text) > 200:
        raise refused(key, value, "must have at most 200 characters")
    return text


def _host(key: str, value: object) -> str:
    host = check_text(key, value)
    try:
        parse_destination(host)
    except InvalidInput as error:
        raise InvalidInput(f"{key}: {error.what}", advice=error.advice) from error
    return host


def _host_path(key: str, value: object) -> str:
    """Accept a path on the host; 1.x let the shell expand ``$HOME/``, which is ``~/`` here."""
    text = re.sub(r"\A(\$HOME|\$\{HOME\})/", "~/", check_text(key, value))
    remote_path_word(text, what=key)
    return text


def _program_path(key: str, value: object) -> str:
    text = check_text(key, value)
    if text.startswith("-"):
        raise refused(key, value, "must not begin with '-'")
    return text


def _local_path(key: str, value: object) -> str:
    return os.path.expanduser(_program_path(key, value))


def _seconds(key: str, value: object) -> float:
    # A bool is an int; a JSON integer may be too large for a float.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value <= _LONGEST_TIMEOUT_S:  # type: ignore[operator]
        raise refused(key, value, "must be a number of seconds above 0, at most a week")
    return float(value)  # type: ignore[arg-type]


def _folder(key: str, value: object) -> str:
    text = _host_path(key, value)
    if set(re.findall(r"\{[^}]*\}", text)) - {NOTEBOOK_DIR} or text.find(NOTEBOOK_DIR) > 0:
        raise refused(key, value, f"knows no other braces than {NOTEBOOK_DIR}, at the beginning")
    return text


def _lines(key: str, value: object) -> str:
    """Accept shell lines; they may be several."""
    if not isinstance(value, str):
        raise refused(key, value, "must be text")
    if len(value) > _MAX_LINES_CHARACTERS:
        raise refused(key, value, f"must have at most {_MAX_LINES_CHARACTERS} characters")
    for line in value.split("\n"):
        if line.strip():
            check_text(key, line.replace("\t", " "))
    return value.strip()


def _words(key: str, value: object) -> str:
    text = check_text(key, value)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise refused(key, value, f"cannot be split into words: {error}".lower()) from error
    if not words or not words[0]:
        raise refused(key, value, "must begin with a program")
    return text


def _environment(key: str, value: object) -> Mapping[str, str]:
    """Accept variables. A value may be secret, so no error shows one."""
    if not isinstance(value, dict):
        raise refused(key, type(value).__name__, "must be an object of names and texts")
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name):
            raise refused(key, name, "is no name of a variable: letters, digits and _")
        if not isinstance(text, str) or "\0" in text:
            raise refused(f"{key}.{name}", type(text).__name__, "must be text without NUL")
    return dict(value)


def _patterns(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise refused(key, value, "must be a list of names or patterns such as AWS_*")
    for item in value:
        if not isinstance(item, str) or not _PATTERN.fullmatch(item):
            raise refused(key, item, "must be a variable's name, or a pattern such as AWS_*")
    return tuple(value)


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise refused(key, value, "must be true or false")
    return value


@dataclass(frozen=True)
class Mount:
    """A local folder that the remote kernel is to see; ``str`` gives ``LOCAL:REMOTE[:OPTIONS]``."""

    local: str
    remote: str
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: object, key: str = "mount_local_on_remote") -> Mount:
        """Read ``LOCAL:REMOTE[:OPTIONS]``; raise InvalidInput when it has another shape."""
        parts = check_text(key, text).split(":")
        if len(parts) not in (2, 3):
            rule = "must be LOCAL:REMOTE or LOCAL:REMOTE:OPTIONS; no path may have a ':'"
            raise refused(key, text, rule)
        if not all(folder.startswith(("/", "~")) for folder in parts[:2]):
            raise refused(key, text, "LOCAL and REMOTE must begin with '/' or '~'")
        options = tuple(parts[2].split(",")) if len(parts) == 3 else ()
        if not all(_MOUNT_OPTION.fullmatch(option) for option in options):
            raise refused(key, text, "OPTIONS must be name or name=value, separated by commas")
        return cls(parts[0], parts[1], options)

    def __str__(self) -> str:
        options = [",".join(self.options)] if self.options else []
        return ":".join([self.local, self.remote, *options])


def _mounts(key: str, value: object) -> tuple[Mount, ...]:
    if not isinstance(value, list):
        raise refused(key, value, "must be a list of LOCAL:REMOTE[:OPTIONS]")
    return tuple(Mount.parse(_joined(item), key) for item in value)


def _joined(item: object) -> object:
    """Return the text for what early versions wrote: ``["/local", "/remote", "options"]``."""
    if isinstance(item, list) and all(isinstance(part, str) for part in item):
        return ":".join(part.strip() for part in item if part.strip())
    return item


def _current_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what is not set (1.x wrote ``"ssh": null``) and give older keys their present names."""
    given = {key: value for key, value in config.items() if value is not None and value != ""}
    for older, present in RENAMED.items():
        if older in given:
            value = given.pop(older)
            given.setdefault(present, value)
    return given


@dataclass(frozen=True)
class RemoteKernel:
    """Which kernel on which host, and how to get there: ``kernel_provisioner.config``, checked.

    Exactly one of ``remote_python`` (an interpreter) and ``remote_python_prefix`` (an environment)
    is set: :attr:`python` is the interpreter either way. Timeouts are seconds. ``mount_optional``: a
    mount that cannot be made does not fail the launch.
    """

    ssh_host_alias: str
    remote_kernel_name: str
    remote_python: str | None = None
    remote_python_prefix: str | None = None
    launch_timeout: float = LAUNCH_TIMEOUT_S
    shutdown_timeout: float = SHUTDOWN_TIMEOUT_S
    ssh: str | None = None
    ssh_config: str | None = None
    remote_cwd: str | None = None
    remote_kernel_pythonhome: str | None = None
    activate: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    pass_env: tuple[str, ...] = ()
    remote_command: str | None = None
    persistent: bool = False
    sshd: str | None = None
    remote_sshfs: str | None = None
    ssh_host_alias_local_on_remote: str | None = None
    mount_local_on_remote: tuple[Mount, ...] = ()
    sshfs_enabled: bool = True
    mount_optional: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if (self.remote_python is None) == (self.remote_python_prefix is None):
            given = "neither" if self.remote_python is None else "both"
            raise InvalidInput(
                "exactly one of remote_python and remote_python_prefix is needed, "
                f"and {given} is given"
            )

    @property
    def python(self) -> str:
        """The interpreter on the host: a path, which may begin with ``~/``, or a name."""
        if self.remote_python is not None:
            return self.remote_python
        return f"{(self.remote_python_prefix or '').rstrip('/')}/bin/python"

    @property
    def found_at_launch(self) -> bool:
        """Whether the interpreter is the one that ``activate`` leads to, known only behind it.

        The agent decides by the same rule (``agent/service.py``).
        """
        bare = "/" not in self.python and self.remote_kernel_name in ("python3", "python")
        return bool(self.activate) and bare

    @property
    def kernel_env(self) -> dict[str, str]:
        """The variables that this config (not the kernelspec's ``env``) sets for the kernel."""
        home = self.remote_kernel_pythonhome
        return {**({} if home is None else {"PYTHONHOME": home}), **self.env}

    @property
    def wrapper(self) -> list[str]:
        """The words that ``remote_command`` puts in front of the kernel's command."""
        return shlex.split(self.remote_command or "")

    def target(self) -> SshTarget:
        """Return the host and the ssh that reaches it.

        Raises InvalidInput when ssh or its config is not on this machine.
        """
        return SshTarget.parse(self.ssh_host_alias, ssh=self.ssh, ssh_config=self.ssh_config)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> RemoteKernel:
        """Read the config of a kernel.json, of this version or of 1.x.

        Keys that nobody knows are kept in ``extra`` and warned about. Raises InvalidInput that
        names the first key, its value and the rule it breaks.
        """
        given = _current_names(config)
        known = {key: rule(key, given[key]) for key, rule in _RULES.items() if key in given}
        for key in ("ssh_host_alias", "remote_kernel_name"):
            if key not in known:
                raise InvalidInput(f"{key} is missing")
        if known.get("ssh_config") == str(Path.home() / ".ssh" / "config"):
            # 1.x wrote ssh's own default down; `-F` with it would hide /etc/ssh/ssh_config.
            del known["ssh_config"]
        if "remote_python" in known and known.pop("remote_python_prefix", None) is not None:
            # 1.25's `edit --remote-python` left an older prefix beside it, and ignored that.
            log.warning("remote_python_prefix is ignored: remote_python is given as well")
        extra = {key: value for key, value in given.items() if key not in _RULES}
        for key in sorted(set(extra).difference(_OBSOLETE)):
            log.warning("unknown config key %r is ignored (and kept)", key)
        return cls(**known, extra=extra)

    @property
    def unknown_keys(self) -> list[str]:
        """The config keys that neither this version nor 1.x knows: most likely misspelt."""
        return sorted(set(self.extra).difference(_OBSOLETE))

    def to_config(self) -> dict[str, Any]:
        """Return the config for kernel.json: what differs from the defaults, and ``extra``."""
        config: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "mount_local_on_remote":
                value = [str(mount) for mount in value]
            elif item.name in ("env", "pass_env"):
                value = list(value) if item.name == "pass_env" else dict(value)
            elif isinstance(value, float) and value.is_integer():
                value = int(value)
            if item.name != "extra" and value != item.default and value not in ([], {}):
                config[item.name] = value
        return {**config, **self.extra}


_RULES: dict[str, Callable[[str, object], Any]] = {
    "ssh_host_alias": _host,
    "remote_kernel_name": check_kernel_name,
    "remote_python": _host_path,
    "remote_python_prefix": _host_path,
    "launch_timeout": _seconds,
    "shutdown_timeout": _seconds,
    "ssh": _local_path,
    "ssh_config": _local_path,
    "remote_cwd": _folder,
    "remote_kernel_pythonhome": check_text,
    "activate": _lines,
    "env": _environment,
    "pass_env": _patterns,
    "remote_command": _words,
    "persistent": _flag,
    "sshd": _local_path,
    "remote_sshfs": _host_path,
    "ssh_host_alias_local_on_remote": _program_path,
    "mount_local_on_remote": _mounts,
    "sshfs_enabled": _flag,
    "mount_optional": _flag,
}
