"""The script that looks for kernels on a host, and the reading of its answer. Pure: text in, records out.

POSIX sh, read by ``sh`` from stdin, so that any login shell will do. It looks for a Python that can run
:mod:`.on_host`, which does the rest. Nothing is written on the host.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from sshpyk.ssh.command import NOT_FROM_HOME

OLDEST_PYTHON = (3, 8)

# In the order in which they are tried: whatever runs the search need not be what is found.
_DRIVERS = (
    "python3",
    "python",
    *(f"/{place}/bin/python3" for place in ("usr", "usr/local", "opt/conda", "opt/homebrew")),
    *(
        f"~/{place}/bin/python3"
        for place in ("miniconda3", "anaconda3", "miniforge3", "mambaforge", ".venv", "venv")
    ),
)
_MAX_SHOWN = 300
_RUN = NOT_FROM_HOME + "exec(sys.argv.pop(1))"


@dataclass(frozen=True)
class RemoteSpec:
    """A kernelspec on the host. ``has_env``: it sets variables for its kernel."""

    name: str
    folder: str
    argv: tuple[str, ...]
    display_name: str = ""
    language: str = ""
    has_env: bool = False


@dataclass(frozen=True)
class Environment:
    """A Python on the host and the kernelspecs that are its own.

    ``kind``: conda, venv, pyenv, uv, tool (an application's own environment) or system. ``managed``: its
    distributor forbids pip there (PEP 668). ``reason``: why it cannot be used, else empty. ``apps``: the
    Jupyter applications that it has, by module.
    """

    path: str
    kind: str
    prefix: str = ""
    version: str = ""
    ipykernel: bool = False
    pip: bool = False
    managed: bool = False
    reason: str = ""
    specs: tuple[RemoteSpec, ...] = ()
    apps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Findings:
    """What a host has. ``specs`` belong to no environment; ``notes`` say what was left out.

    ``driver`` is the Python that did the search; empty when none could.
    """

    system: str
    home: str
    driver: str
    environments: tuple[Environment, ...]
    specs: tuple[RemoteSpec, ...]
    notes: tuple[str, ...] = ()


@cache
def _program() -> str:
    return resources.files("sshpyk.discovery").joinpath("on_host.py").read_text(encoding="utf-8")


def end_line(mark: str) -> str:
    """Return the answer's last line."""
    return f"{mark} end"


def script_for(mark: str, python: str | None = None) -> str:
    """Return the sh script that looks; ``mark`` is a random word that begins each line it prints.

    ``python``: an interpreter that the user named (it may begin with ``~/``); it alone is asked then.
    """
    drivers = " ".join(map(_sh_word, (*((python,) if python else ()), *_DRIVERS)))
    only = _sh_word(python) if python else ""
    check = "import sys; sys.exit(sys.version_info < (%d, %d))" % OLDEST_PYTHON
    return "\n".join(
        (
            f'echo; echo {mark} system "$(uname -srm)"; printf \'%s\\n\' "{mark} home $HOME"',
            f"program={shlex.quote(_program())}",
            f"for p in {drivers}; do",
            f'  if p=$(command -v "$p") && "$p" -c {shlex.quote(check)} </dev/null >/dev/null 2>&1',
            f"  then printf '%s\\n' \"{mark} driver $p\"",
            f'    "$p" -B -c {shlex.quote(_RUN)} "$program" {mark} {only} </dev/null 2>/dev/null; break',
            "  fi",
            "done",
            f"echo; echo {end_line(mark)}",
            "",
        )
    )


def _sh_word(path: str) -> str:
    return '"$HOME"/' + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)


def read_findings(mark: str, output: str) -> Findings:
    """Read what the script printed. A host may send anything: what is odd is left out."""
    words = {"system": "", "home": "", "driver": ""}
    found: list[tuple[int, Environment, tuple[str, str]]] = []
    specs: list[RemoteSpec] = []
    notes: list[str] = []
    for kind, rest in _lines(mark, output):
        try:
            if kind in words:
                words[kind] = _text(rest)
            elif kind in ("python", "broken"):
                found.append(_environment(json.loads(rest)))
            elif kind == "specs":
                specs += _specs(json.loads(rest))
            elif kind == "note":
                notes.append(_text(json.loads(rest)["text"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            notes.append("a part of the host's answer could not be read")
    unique: dict[tuple[str, str], Environment] = {}
    for _, environment, twin in sorted(found, key=lambda item: item[0]):
        unique.setdefault(twin, environment)  # /usr/bin/python3 and /usr/bin/python3.11 are one
    return Findings(
        **words, environments=tuple(unique.values()), specs=tuple(specs), notes=tuple(notes)
    )


def _lines(mark: str, output: str) -> Iterator[tuple[str, str]]:
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        if word == mark:
            kind, _, rest = rest.partition(" ")
            yield kind, rest


def _text(value: object) -> str:
    """Return text that a terminal may show: the host chose it."""
    text = str(value)[:_MAX_SHOWN].strip()
    return "".join(c if c.isprintable() else "?" for c in text)


def _specs(records: Iterable[dict[str, Any]]) -> list[RemoteSpec]:
    return [
        RemoteSpec(
            _text(record["name"]),
            _text(record["folder"]),
            tuple(str(word) for word in record["argv"]),
            _text(record["display_name"]),
            _text(record["language"]),
            bool(record["env"]),
        )
        for record in records
        if not record["ours"]  # a kernel of the host that is itself somewhere else
    ]


def _environment(record: dict[str, Any]) -> tuple[int, Environment, tuple[str, str]]:
    """Return an environment with its place in the search, and what tells whether it is another."""
    # Paths as they are: what cannot be shown or quoted is refused when it is to be used.
    path, prefix = str(record["path"]), str(record.get("prefix", ""))
    environment = Environment(
        path=path,
        kind=_text(record["kind"]),
        prefix=prefix,
        version=_text(record.get("version", "")),
        ipykernel=bool(record.get("ipykernel")),
        pip=bool(record.get("pip")),
        managed=bool(record.get("managed")),
        reason=_text(record.get("reason", "")),
        specs=tuple(_specs(record.get("specs", ()))),
        apps=tuple(map(_text, record.get("apps", ()))),
    )
    return int(record["order"]), environment, (prefix or path, str(record.get("real", "")))


def version_numbers(version: str) -> tuple[int, ...]:
    """Return ``3.12.1`` as numbers; what is no number is left out."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdecimal())
