"""How a dial begins: the words that ssh runs on the host, and an ssh process that runs them.

Light to import: a hub that is started for a launch starts ssh by this first of all, and imports what it
needs for the rest while ssh connects (``main``).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from sshpyk.ssh.command import (
    NOT_FROM_HOME,
    SshTarget,
    batch_environment,
    remote_python_command,
    ssh_argv,
)

# Runs under any Python from 2.6 on, so that one that is too old can say so. Reads its program from
# stdin byte-exactly: what follows belongs to the program. Double quotes only, no newline: it travels
# as one single-quoted word through whatever login shell the account has.
_FIRST_WORDS = (
    NOT_FROM_HOME + 'os.write(1,("%s %d.%d "%((sys.argv[1],)+sys.version_info[:2])).encode());'
    "sys.version_info>(3,8)and list(map(__import__,sys.argv[2:]));"
    'f=lambda n:(lambda d:d+f(n-len(d)) if d else sys.exit(9))(os.read(0,n)) if n else "".encode();'
    'exec(compile(f(int(f(8),16)),"<sshpyk:locate>","exec",0,1))'
)
# What an agent imports of Python's own library. It does so while its code is on the way.
_AGENT_IMPORTS = ("asyncio", "logging.handlers", "tempfile", "ipaddress", "urllib.parse")


class Pipes(NamedTuple):
    """The hub's ends of ssh's stdin, stdout and stderr."""

    stdin_fd: int
    stdout_fd: int
    stderr_fd: int


class SshStart(NamedTuple):
    """An ssh that nobody sees, and what it will run on the host: ``python``, which says ``marker``."""

    process: subprocess.Popen[bytes]
    pipes: Pipes
    python: str
    marker: str


def new_marker() -> str:
    """Return a word that no start-up file of a shell prints."""
    return os.urandom(8).hex()


def first_command(python: str, marker: str, *, starts_agent: bool) -> list[str]:
    """Return the words that have ``python`` say ``marker`` and its version, and run a program.

    Eight hexadecimal digits in front of the program, on stdin, are its length. ``starts_agent``: it
    most likely will. Raises :class:`~sshpyk.errors.InvalidInput` for an impossible ``python``.
    """
    imports = _AGENT_IMPORTS if starts_agent else ()
    return remote_python_command(python, _FIRST_WORDS, marker, *imports)


def framed(program: bytes) -> bytes:
    """Return a program as the first command reads it."""
    return b"%08x" % len(program) + program


def start_ssh(target: SshTarget, python: str, *, starts_agent: bool) -> SshStart:
    """Start an ssh for ``python`` that nobody sees. Raises OSError, and as :func:`first_command`."""
    marker = new_marker()
    argv = ssh_argv(target, first_command(python, marker, starts_agent=starts_agent))
    return SshStart(*_spawned(argv), python, marker)


def _spawned(argv: Sequence[str]) -> tuple[subprocess.Popen[bytes], Pipes]:
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=batch_environment(os.environ),
        start_new_session=True,  # a Ctrl+C in the user's terminal is not for ssh
    )
    ends = (process.stdin, process.stdout, process.stderr)
    pipes = Pipes(*(os.dup(end.fileno()) for end in ends if end))
    for end in ends:
        if end:
            end.close()
    return process, pipes
