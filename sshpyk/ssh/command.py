"""Build the ssh command line and the remote command, as lists of words, never as a shell string.

All of it is pure but :func:`find_ssh` (and :meth:`SshTarget.parse` through it), which looks at the
file system. Light to import, without dataclasses and pathlib: every launch waits for it twice.
Sources: ssh(1), ssh_config(5) of OpenSSH 7.6 to 9.2.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sshpyk.errors import InvalidInput

# Allow-lists. The first character excludes '-', so that a host can never be read as an option.
_USER = r"\w[\w.@+-]*"  # '@' inside: DOMAIN accounts, ssh splits at the last one
_NAME = r"\w[\w.+-]*"
_V6 = r"(?=[^:]*:[^:]*:)[0-9A-Fa-f:.]+(?:%[\w.-]+)?"
_PORT = r"(?::(?P<port>[0-9]{1,5}))?"
_DESTINATIONS = (
    re.compile(rf"(?:(?P<user>{_USER})@)?(?P<name>{_NAME}){_PORT}"),
    re.compile(rf"(?:(?P<user>{_USER})@)?\[(?P<name>{_V6})\]{_PORT}"),
    re.compile(rf"(?:(?P<user>{_USER})@)?(?P<name>{_V6})(?P<port>)"),
)
_MAX_HOST_CHARACTERS = 512

_OPTION = re.compile(r"[A-Za-z0-9]+=[^\x00-\x1f\x7f]*")

# What a config made for a person at a terminal must not do to a connection of ours.
_SETTINGS = (
    # The user's forwardings of this host belong to another session and would clash with it.
    "ClearAllForwardings=yes",
    # Use a live master of the user's, never become one: it would outlive us with our stdio.
    "ControlMaster=no",
    # ssh refuses a command on the command line while the config has one (since 7.6).
    "RemoteCommand=none",
    # QUIET and ERROR hide why ssh failed; DEBUG floods the log.
    "LogLevel=INFO",
)

# What each login shell leaves alone inside single quotes is everything but: ``'`` ends them, ``!``
# is csh's history, a backslash is an escape in fish, control characters end a line or a word.
_UNQUOTABLE = re.compile(r"['!\\\x00-\x1f\x7f]")
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")
# Python code on a host runs in the home folder, and there may be a json.py of the user's in it.
# PYTHONPATH with an empty part, as ":/opt/x", names it too.
NOT_FROM_HOME = 'import os,sys;sys.path[:]=[d for d in sys.path if d not in ("",os.getcwd())];'
# bsd-csh says "Word too long." between 4000 and 9000 bytes (measured); the others take more.
_MAX_WORD_BYTES = 4000


class Destination(NamedTuple):
    """A host in the parts that ssh takes as separate words."""

    user: str
    name: str
    port: int | None

    def words(self) -> list[str]:
        """Return the words that end ssh's own options and name the host."""
        port = ["-p", str(self.port)] if self.port else []
        # "--" also stops ssh from reading options after the host.
        return [*port, "--", f"{self.user}@{self.name}" if self.user else self.name]


def parse_destination(host: str) -> Destination:
    """Split ``alias``, ``user@name``, ``name:port``, ``[v6]:port`` as the user would type them.

    Raises :class:`InvalidInput` for whatever the allow-list does not know: options, whitespace,
    control characters, shell metacharacters, ports out of range.
    """
    for pattern in _DESTINATIONS:
        match = pattern.fullmatch(host) if len(host) <= _MAX_HOST_CHARACTERS else None
        if match and 0 < int(match["port"] or 1) <= 65535:
            port = int(match["port"]) if match["port"] else None
            return Destination(match["user"] or "", match["name"], port)
    raise InvalidInput(
        f"{host[:80]!r} cannot be an ssh host",
        advice="write an alias of your ssh config, user@name, name:port or [v6]:port",
    )


class _Target(NamedTuple):
    host: str
    ssh: str
    ssh_config: str | None


class SshTarget(_Target):
    """A host and the ssh that reaches it. Raises :class:`InvalidInput` for an impossible host.

    Made by :meth:`parse` from what a user typed; the plain constructor is for parts that have
    already been resolved.
    """

    __slots__ = ()

    def __new__(cls, host: str, ssh: str = "ssh", ssh_config: str | None = None) -> SshTarget:
        """See the class."""
        parse_destination(host)
        if ssh_config is not None:
            _refuse_as_path(ssh_config, "ssh config")
        return super().__new__(cls, host, ssh, ssh_config)

    @classmethod
    def parse(
        cls, host: str, *, ssh: str | None = None, ssh_config: str | None = None
    ) -> SshTarget:
        """Resolve what the user typed, so that it means the same from any folder and process.

        Raises :class:`InvalidInput` for an impossible host, a missing ssh or a missing config.
        """
        parse_destination(host)
        return cls(host, find_ssh(ssh), _find_config(ssh_config))

    def at(self, host: str) -> SshTarget:
        """Return another host that the same ssh and config reach."""
        return SshTarget(host, self.ssh, self.ssh_config)

    @property
    def destination(self) -> Destination:
        """The host in parts."""
        return parse_destination(self.host)

    @property
    def identity(self) -> str:
        """A short stable name for (host, ssh, config): the hub's socket is named after it."""
        parts = json.dumps([self.host, self.ssh, self.ssh_config])
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    @property
    def typed(self) -> str:
        """What a person pastes into a terminal to log in, without a remote command."""
        import shlex  # here and below: a stand-in needs neither, and its start is waited for

        # Only a host that begins with '-' needs "--", and that cannot be: leave it out.
        words = [word for word in self.destination.words() if word != "--"]
        ssh = "ssh" if os.path.basename(self.ssh) == "ssh" else self.ssh
        return shlex.join([ssh, *_config_words(self.ssh_config), *words])

    @property
    def login_command(self) -> str:
        """What a person pastes into a terminal to open the link where ssh has to ask."""
        import shlex
        import shutil

        config = ["--ssh-config", self.ssh_config] if self.ssh_config else []
        ssh = [] if self.ssh in ("ssh", shutil.which("ssh")) else ["--ssh", self.ssh]
        return shlex.join(["sshpyk", "login", self.host, *config, *ssh])


def _refuse_as_path(path: str, what: str) -> None:
    if not path or path.startswith("-") or re.search(r"[\x00-\x1f\x7f]", path):
        raise InvalidInput(f"{path[:80]!r} cannot be the path of the {what}")


def find_ssh(configured: str | None = None) -> str:
    """Return the absolute path of the ssh client: ``configured`` (a path or a name) or PATH's.

    Absolute, because ssh starts the same program again for each jump host only if its argv[0] is a
    path. Raises :class:`InvalidInput` with the remedy.
    """
    import shutil

    wanted = configured or "ssh"
    _refuse_as_path(wanted, "ssh client")
    found = shutil.which(_absolute(wanted) if "/" in wanted else wanted)
    if found:
        return _absolute(found)
    if configured is None:
        advice = "install the OpenSSH client (package openssh-client or openssh-clients)"
    else:
        advice = "name an executable OpenSSH client, or leave it out to use the one in PATH"
    raise InvalidInput(
        f"there is no executable ssh client at {wanted!r}", advice=advice, code="SSH-MISSING"
    )


def _find_config(ssh_config: str | None) -> str | None:
    # "none" is ssh's word for "read no file at all", not a path: ssh(1), -F.
    if ssh_config is None or ssh_config.lower() == "none":
        return ssh_config
    _refuse_as_path(ssh_config, "ssh config")
    path = _absolute(ssh_config)
    if not os.access(path, os.R_OK) or os.path.isdir(path):
        raise InvalidInput(
            f"the ssh config {path!r} cannot be read",
            advice="name an existing file, or leave it out to use ~/.ssh/config",
            code="SSH-CONFIG-MISSING",
        )
    return path


def _absolute(path: str) -> str:
    from pathlib import Path  # here, as above

    return str(Path(path).expanduser().absolute())


def _config_words(ssh_config: str | None) -> list[str]:
    # -F FILE also leaves out the system-wide config: the user asked for that file alone.
    return [] if ssh_config is None else ["-F", ssh_config]


def query_argv(target: SshTarget) -> list[str]:
    """Return the argv that prints what ssh would do for this host, without connecting."""
    return [
        target.ssh,
        "-G",
        *_config_words(target.ssh_config),
        *target.destination.words(),
    ]


def ssh_argv(
    target: SshTarget,
    remote_command: Sequence[str],
    *,
    batch: bool = True,
    options: Sequence[str] = (),
) -> list[str]:
    """Return the argv of one connection whose stdin and stdout are the remote command's.

    ``options`` are ``Key=value`` for ``-o``; they come first, and ssh takes the first value that it
    meets. ``batch=False`` lets ssh ask a person. Each word of ``remote_command`` must already be
    quoted for the remote shell: ssh joins them with spaces (:func:`remote_python_command`).
    """
    for option in options:
        if not _OPTION.fullmatch(option):
            raise ValueError(f"not an ssh option: {option!r}")
    settings = [
        *options,
        # A background process has nobody to ask. Jump hosts: see batch_environment.
        f"BatchMode={'yes' if batch else 'no'}",
        *_SETTINGS,
    ]
    return [
        target.ssh,
        *_config_words(target.ssh_config),
        "-T",  # a terminal would echo and translate our bytes; also overrides RequestTTY
        *(word for setting in settings for word in ("-o", setting)),
        *target.destination.words(),
        *remote_command,
    ]


def batch_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for an ssh that must never ask: also not on the way.

    ``-o BatchMode`` does not reach the ssh processes that ProxyJump starts (measured on 9.2): with a
    display they open an askpass window. They obey this variable from OpenSSH 8.4 on. The caller also
    starts ssh in a session of its own, so that there is no terminal to ask on.
    """
    return {**environ, "SSH_ASKPASS_REQUIRE": "never"}


def shell_word(text: str, *, what: str = "argument") -> str:
    """Quote one word so that bash, dash, zsh, ksh, fish, csh and tcsh read the same.

    Raises :class:`InvalidInput` for what cannot be quoted alike in all of them.
    """
    bad = _UNQUOTABLE.search(text)
    if bad:
        raise InvalidInput(
            f"the {what} {text[:80]!r} has the character {bad[0]!r}, "
            "which login shells do not read alike",
            advice="use a path without quotes, '!', backslashes and control characters",
        )
    if len(text.encode("utf-8", "surrogateescape")) > _MAX_WORD_BYTES:
        raise InvalidInput(f"the {what} is longer than {_MAX_WORD_BYTES} bytes, csh's limit")
    return text if _PLAIN.fullmatch(text) else f"'{text}'"


def remote_path_word(path: str, *, what: str = "remote path") -> str:
    """Quote a path on the host; a leading ``~/`` stays bare, so that the remote shell expands it.

    Raises :class:`InvalidInput` for an empty path, one that reads as an option, ``~user``, and what
    :func:`shell_word` refuses.
    """
    if not path or path.startswith("-"):
        raise InvalidInput(f"{path[:80]!r} cannot be a {what}")
    if path.startswith("~/"):
        return "~/" + (shell_word(path[2:], what=what) if path[2:] else "")
    if path.startswith("~"):
        raise InvalidInput(
            f"the {what} {path[:80]!r} names another user's home",
            advice="write an absolute path, or one that begins with ~/",
        )
    return shell_word(path, what=what)


def remote_python_command(python: str, code: str, *args: str) -> list[str]:
    """Return the words that run ``code`` on the host's ``python`` (a name or a path) with ``args``.

    Raises :class:`InvalidInput` as :func:`remote_path_word` and :func:`shell_word` do.
    """
    return [
        remote_path_word(python, what="remote python"),
        "-c",
        shell_word(code, what="code"),
        *(shell_word(arg) for arg in args),
    ]
