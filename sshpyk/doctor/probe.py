"""What is asked of a host: the script that one ``ssh`` runs, and its answer.

Pure: text in, records out. The script is POSIX sh, read by ``sh`` from stdin, so that any login
shell will do; it writes nothing on the host. Each line of the answer begins with a random mark,
since rc files may print anything.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sshpyk.doctor.python_probe import (
    PYTHON_PROBE,
    TOO_SLOW,
    Interpreter,
    Packages,
    RemoteSpec,
    read_interpreter,
)
from sshpyk.ssh.command import NOT_FROM_HOME
from sshpyk.ssh.config import ResolvedHost, read_resolved

__all__ = [
    "Fuse",
    "HostAnswer",
    "Interpreter",
    "Packages",
    "Question",
    "RemoteSpec",
    "end_line",
    "read_answer",
    "script_for",
]


@dataclass(frozen=True)
class Question:
    """Does this interpreter run on the host, and does it know this kernel?

    ``folders``: the paths to mount on, ``sshfs``: the program that does it, ``alias``: the host's name
    for this machine where it logs in for that, ``cwd``: the kernel's folder.
    """

    python: str
    kernel_name: str
    folders: tuple[str, ...] = ()
    sshfs: str = "sshfs"
    cwd: str = ""
    alias: str = ""


@dataclass(frozen=True)
class Fuse:
    """What a host has for mounts. ``device``: usable, forbidden or missing."""

    device: str = ""
    allow_other: bool = False
    fusermount: str = ""


@dataclass(frozen=True)
class HostAnswer:
    """What a host said.

    ``system``: ``uname -srm``. ``interpreters`` by their paths as asked. ``free_kb``: room in the home
    folder and in /tmp. ``sshfs``: program as asked -> its version, empty where there is none.
    ``folders``: mount point or working folder as asked -> its state, a word of :data:`FOLDER_STATES`.
    ``aliases``: what the host's own ssh makes of the names that it has for this machine.
    """

    system: str
    interpreters: Mapping[str, Interpreter]
    free_kb: Mapping[str, int] = field(default_factory=dict)
    fuse: Fuse = Fuse()
    sshfs: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, ResolvedHost] = field(default_factory=dict)


FOLDER_STATES = (
    "empty",
    "full",
    "missing",
    "no-parent",
    "no-folder",
    "forbidden",
    "stale",
    "mounted",
)

_FUSE = r"""
d=missing; [ -e /dev/fuse ] && d=forbidden; [ -r /dev/fuse ] && [ -w /dev/fuse ] && d=usable
a=no; grep -q '^[[:space:]]*user_allow_other' /etc/fuse.conf 2>/dev/null && a=yes
echo {mark} fuse 0 $d $a "$(command -v fusermount3 || command -v fusermount)"
"""
_SSHFS = r"""
s={path}; v=$("$s" --version 2>&1 </dev/null) || v=
l=$(printf '%s\n' "$v" | grep -i '^sshfs'); [ -n "$l" ] || l=$v
printf '%s\n' "{mark} sshfs {index} $l" | head -n 1
"""
# A mount whose other end has gone gives an error to every look at it, and is no folder to `test`.
_FOLDER = r"""
f={path}; w=no-folder; q=$(cd "$(dirname "$f")" 2>/dev/null && pwd -P)/$(basename "$f")
if ls -d "$f" 2>&1 | grep -q 'not connected'; then w=stale
elif {{ cat /proc/mounts 2>/dev/null || mount; }} | grep -qF -e "sshpyk $q fuse" -e "sshpyk on $q ("; then
    w=mounted
elif [ -d "$f" ]; then
    if l=$(ls -A "$f" 2>/dev/null); then w=empty; [ -n "$l" ] && w=full; else w=forbidden; fi
    [ -O "$f" ] || [ -w "$f" ] || w=forbidden
elif [ ! -e "$f" ]; then
    p=$f; while [ ! -e "$p" ] && [ "$p" != / ]; do p=$(dirname "$p"); done
    w=no-parent; [ -d "$p" ] && [ -w "$p" ] && w=missing
fi
echo {mark} folder {index} $w
"""
_ALIAS = r"""
printf '%s\n' "{mark} alias {index} $(ssh -G -- {alias} 2>/dev/null </dev/null |
    grep -E '^(hostname|port|user|proxyjump|proxycommand) ' | tr '\n' ';')"
"""
_SPACE = r"""
for p in "$HOME" /tmp; do
    echo {mark} space 0 "$(df -Pk "$p" 2>/dev/null | awk 'NR==2 {{print $4}}')" "$p"
done
"""


def _sh_word(path: str) -> str:
    """Quote a path for sh; a leading ``~/`` means the home folder."""
    return '"$HOME"/' + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)


def end_line(mark: str) -> str:
    """Return the answer's last line."""
    return f"{mark} end"


def has_begun(mark: str, output: str) -> bool:
    """Tell whether the script has run at all: it got to its first line."""
    return f"{mark} system " in output


def script_for(mark: str, questions: Iterable[Question]) -> str:
    """Return the sh script that answers ``questions``; ``mark`` is a random word."""
    asked = list(questions)
    lines = [
        f'echo; echo {mark} system 0 "$(uname -srm)"',
        _SPACE.format(mark=mark),
        f"probe={shlex.quote(NOT_FROM_HOME + PYTHON_PROBE)}",
    ]
    for index, python in enumerate(_pythons(asked)):
        kernels = sorted({question.kernel_name for question in asked if question.python == python})
        lines += _ask_python(mark, index, python, kernels)
    folders = _folders(asked)
    programs = _programs(asked)
    if programs:
        lines.append(_FUSE.format(mark=mark))
        for index, program in enumerate(programs):
            lines.append(_SSHFS.format(mark=mark, index=index, path=_sh_word(program)))
    for index, folder in enumerate(folders):
        lines.append(_FOLDER.format(mark=mark, index=index, path=_sh_word(folder)))
    for index, alias in enumerate(_aliases(asked)):
        lines.append(_ALIAS.format(mark=mark, index=index, alias=shlex.quote(alias)))
    return "\n".join([*lines, f"echo {end_line(mark)}", ""])


def _pythons(questions: Sequence[Question]) -> list[str]:
    return list(dict.fromkeys(question.python for question in questions))


def _folders(questions: Sequence[Question]) -> list[str]:
    paths = (path for question in questions for path in (*question.folders, question.cwd))
    return list(dict.fromkeys(filter(None, paths)))


def _programs(questions: Sequence[Question]) -> list[str]:
    return list(dict.fromkeys(question.sshfs for question in questions if question.folders))


def _aliases(questions: Sequence[Question]) -> list[str]:
    return list(dict.fromkeys(question.alias for question in questions if question.alias))


def _ask_python(mark: str, index: int, python: str, kernels: Sequence[str]) -> list[str]:
    # -B: Python is to write no .pyc files there.
    run = f'"$p" -B -c "$probe" {mark} {index} {shlex.join(kernels)} </dev/null 2>&1'
    # printf, since dash's echo would interpret the backslashes of JSON.
    return [
        f"p={_sh_word(python)}",
        'if command -v "$p" >/dev/null 2>&1; then',
        f"  if r=$({run}); then printf '%s\\n' \"$r\"",
        f"  else printf '%s\\n' \"{mark} failed {index} $(printf '%s' \"$r\" | tail -n 1)\"; fi",
        f'elif [ -e "$p" ]; then echo {mark} failed {index} is not executable',
        f"else echo {mark} failed {index} was not found; fi",
    ]


class _Answer:
    """Collects an answer line by line; what it does not know is skipped."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.pythons = _pythons(questions)
        self.folders = _folders(questions)
        self.programs = _programs(questions)
        self.aliases = _aliases(questions)
        self.resolved: dict[str, ResolvedHost] = {}
        self.system = ""
        self.fuse = Fuse()
        self.interpreters: dict[str, Interpreter] = {}
        self.free_kb: dict[str, int] = {}
        self.sshfs: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self.readers: Mapping[str, Callable[[int, str], None]] = {
            "system": self._read_system,
            "space": self._read_space,
            "python": self._read_python,
            "failed": self._read_failed,
            "fuse": self._read_fuse,
            "sshfs": self._read_sshfs,
            "folder": self._read_folder,
            "alias": self._read_alias,
        }

    def _read_system(self, _index: int, rest: str) -> None:
        self.system = rest

    def _read_space(self, _index: int, rest: str) -> None:
        number, _, path = rest.partition(" ")
        if number.isdecimal() and len(number) < 20:
            self.free_kb[path] = int(number)

    def _read_python(self, index: int, rest: str) -> None:
        self.interpreters[self.pythons[index]] = read_interpreter(rest)

    def _read_failed(self, index: int, rest: str) -> None:
        reason = rest.strip() or "failed without a word"
        self.interpreters[self.pythons[index]] = Interpreter(reason=reason)

    def _read_fuse(self, _index: int, rest: str) -> None:
        words = [*rest.split(" "), "", "", ""]
        self.fuse = Fuse(words[0], words[1] == "yes", words[2])

    def _read_sshfs(self, index: int, rest: str) -> None:
        self.sshfs[self.programs[index]] = rest.strip()

    def _read_alias(self, index: int, rest: str) -> None:
        alias = self.aliases[index]
        if rest.strip():  # else there is no ssh, or one that refuses its config
            with contextlib.suppress(ValueError):
                self.resolved[alias] = read_resolved(alias, rest.replace(";", "\n"))

    def _read_folder(self, index: int, rest: str) -> None:
        self.states[self.folders[index]] = rest


def read_answer(mark: str, questions: Sequence[Question], output: str) -> HostAnswer:
    """Read what the script printed."""
    answer = _Answer(questions)
    for line in output.splitlines():
        words = [*line.split(" ", 3), "", "", ""]
        reader = answer.readers.get(words[1])
        if words[0] == mark and reader and words[2].isdecimal() and len(words[2]) < 6:
            try:
                reader(int(words[2]), words[3])
            except IndexError:  # a number that we did not give
                continue
    odd = "said nothing that could be understood"
    silent = Interpreter(reason=odd if end_line(mark) in output else TOO_SLOW)
    return HostAnswer(
        answer.system,
        {python: answer.interpreters.get(python, silent) for python in answer.pythons},
        answer.free_kb,
        answer.fuse,
        answer.sshfs,
        answer.states,
        answer.resolved,
    )
