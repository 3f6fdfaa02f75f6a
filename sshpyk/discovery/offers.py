"""From what was found on a host to what a user can choose: one row per kernel, well named. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import PurePosixPath

from sshpyk.discovery.finder import (
    OLDEST_PYTHON,
    Environment,
    Findings,
    RemoteSpec,
    version_numbers,
)

PYTHON_KERNEL = "python3"  # ipykernel's own name for its kernelspec
# The argv of a Python kernel that does nothing but run ipykernel.
_PLAIN = re.compile(r"-m|ipykernel(_launcher)?|-f|\{connection_file\}|-Xfrozen_modules=off")
_VENV_NAMES = (".venv", "venv", ".env", "env")
_LABELS_BY_PLACE = {"/usr": "system", "/usr/local": "local"}
_OUTERMOST = 3  # how much of a path may go into a label, in components
_SHORTEST_FIRST = {"conda": 0, "venv": 0, "pyenv": 1, "uv": 1, "tool": 2, "system": 3}
_ORDER = len(_SHORTEST_FIRST)


class State(Enum):
    """Whether an offer can be added."""

    READY = "yes"
    NO_IPYKERNEL = "no"
    UNUSABLE = "unusable"


@dataclass(frozen=True)
class Offer:
    """A kernel that the host has or could have.

    ``label`` names it among those of the host; ``place`` is the environment, or the kernelspec's folder.
    ``python`` is the interpreter that finds the kernelspec ``kernel_name``; ``prefix`` is set when it is
    ``prefix/bin/python``. ``version`` is Python's, empty for other languages. ``reason``: why UNUSABLE.
    ``managed``: pip would be refused there.
    """

    label: str
    language: str
    version: str
    place: str
    python: str
    prefix: str
    kernel_name: str
    state: State = State.READY
    reason: str = ""
    kind: str = ""
    managed: bool = False

    @property
    def what(self) -> str:
        """What stands in brackets in a display name: ``Python 3.12``, ``R``."""
        if self.language.lower() != "python":
            return self.language or self.kernel_name
        return " ".join(["Python", ".".join(self.version.split(".")[:2])]).strip()


def offers_from(findings: Findings) -> tuple[Offer, ...]:
    """Return every offer: kernels first, then what lacks ipykernel, then what cannot be used."""
    rows: list[Offer] = []
    known = _Known(findings)
    for environment in findings.environments:
        rows += _of_environment(environment, known)
    for spec in findings.specs:
        rows += _of_common_spec(spec, findings, known)
    unique = {(row.python, row.kernel_name, row.place): row for row in rows}
    ordered = sorted(_with_own_labels(list(unique.values())), key=_rank)
    return tuple(ordered)


def offer_for(findings: Findings, kernel_name: str) -> Offer:
    """Return the offer of an interpreter that the user named (the only one that was asked).

    A kernelspec that was not seen is no reason to refuse: the host's Jupyter may know more.
    """
    environment = findings.environments[0]
    own = [spec for spec in environment.specs if spec.name == kernel_name.lower()]
    common = [spec for spec in findings.specs if spec.name == kernel_name.lower()]
    row = _row(environment, kernel_name, findings.home)
    if environment.reason or _is_too_old(environment):
        return row
    if own or common:
        spec = (own + common)[0]
        label = row.label if own or _is_python(spec) else spec.name
        return replace(row, language=spec.language or "python", label=label, state=State.READY)
    return row if kernel_name == PYTHON_KERNEL else replace(row, state=State.READY)


def unseen_offer(python: str, prefix: str, kernel_name: str) -> Offer:
    """Return the offer of an interpreter that the user named and nobody looked at."""
    place = prefix or python
    path = PurePosixPath(python)
    guessed = str(path.parent.parent) if path.parent.name == "bin" else place
    environment = Environment(python, "", prefix or guessed, ipykernel=True)
    if kernel_name == PYTHON_KERNEL:
        return Offer(_label(environment, "~"), "python", "", place, python, prefix, kernel_name)
    return Offer(kernel_name, "", "", place, python, prefix, kernel_name)


class _Known:
    """The Pythons found, by path and by environment."""

    def __init__(self, findings: Findings) -> None:
        self.home = findings.home
        ready = [item for item in findings.environments if item.ipykernel]
        self.paths = {item.path for item in ready}
        self.folders = {f"{item.prefix}/bin" for item in ready if item.prefix}

    def runs(self, spec: RemoteSpec) -> bool:
        """Whether a kernelspec merely runs the ipykernel of an environment that has a row itself."""
        program, *rest = spec.argv
        if spec.has_env or not all(map(_PLAIN.fullmatch, rest)):
            return False
        path = PurePosixPath(program)
        if not path.is_absolute():
            return bool(re.fullmatch(r"python(3(\.\d+)?)?", program))
        return program in self.paths or str(path.parent) in self.folders


def _of_environment(environment: Environment, known: _Known) -> Iterator[Offer]:
    if environment.kind == "tool" and not environment.ipykernel:
        return
    row = _row(environment, PYTHON_KERNEL, known.home)
    yield row
    if row.state is State.UNUSABLE:
        return
    for spec in environment.specs:
        if not (_is_python(spec) and known.runs(spec)):
            label = f"{row.label} {spec.name}" if _is_python(spec) else row.label
            yield replace(
                row,
                label=label,
                language=spec.language or spec.name,
                version=row.version if _is_python(spec) else "",
                kernel_name=spec.name,
                state=State.READY,
            )


def _of_common_spec(spec: RemoteSpec, findings: Findings, known: _Known) -> Iterator[Offer]:
    """Yield the row of a kernelspec that is in nobody's environment, unless it says nothing new."""
    python = findings.driver
    if _is_python(spec):
        if known.runs(spec):
            return
        if spec.argv[0].startswith("/") and "python" in PurePosixPath(spec.argv[0]).name:
            python = spec.argv[0]
    if python:
        yield Offer(
            spec.name,
            spec.language or spec.name,
            "",
            spec.folder,
            python,
            "",
            spec.name,
            kind="spec",
        )


def _row(environment: Environment, kernel_name: str, home: str) -> Offer:
    prefix = environment.prefix
    reason = environment.reason
    if not reason and _is_too_old(environment):
        oldest = ".".join(map(str, OLDEST_PYTHON))
        reason = f"Python {environment.version}: {oldest} or later is needed"
    state = State.READY if environment.ipykernel else State.NO_IPYKERNEL
    return Offer(
        label=_label(environment, home),
        language="python",
        version=environment.version,
        place=prefix if environment.kind != "system" and prefix else environment.path,
        python=environment.path,
        prefix=prefix if environment.path == f"{prefix}/bin/python" else "",
        kernel_name=kernel_name,
        state=State.UNUSABLE if reason else state,
        reason=reason,
        kind=environment.kind,
        managed=environment.managed,
    )


def _is_python(spec: RemoteSpec) -> bool:
    return spec.language.lower() == "python" or any("ipykernel" in word for word in spec.argv)


def _is_too_old(environment: Environment) -> bool:
    return version_numbers(environment.version)[:2] < OLDEST_PYTHON


def _label(environment: Environment, home: str) -> str:
    """Return what people call an environment."""
    prefix = PurePosixPath(environment.prefix or environment.path)
    if str(prefix) in _LABELS_BY_PLACE:
        return _LABELS_BY_PLACE[str(prefix)]
    if environment.kind == "conda" and prefix.parent.name != "envs":
        return "base"
    if environment.kind in ("pyenv", "uv") or "/.pyenv/versions/" in str(prefix):
        plain = re.match(r"(?:cpython-)?(\d[\d.]*)", prefix.name)
        kind = environment.kind if environment.kind in ("pyenv", "uv") else "pyenv"
        return f"{kind}-{plain[1].rstrip('.')}" if plain else prefix.name
    if prefix.name in _VENV_NAMES and str(prefix.parent) not in (home, "/opt", "/srv", "/", "."):
        return prefix.parent.name
    return prefix.name.lstrip(".") or "python"


def _with_own_labels(rows: list[Offer]) -> list[Offer]:
    """Tell apart those that would be called the same: by more of the path, in the end by a number."""
    for depth in range(2, _OUTERMOST + 2):
        counts = Counter((row.label, row.language) for row in rows)
        rows = [
            row if counts[row.label, row.language] == 1 else replace(row, label=_longer(row, depth))
            for row in rows
        ]
    seen: Counter[tuple[str, str]] = Counter()
    told = []
    for row in rows:
        seen[row.label, row.language] += 1
        number = seen[row.label, row.language]
        told.append(row if number == 1 else replace(row, label=f"{row.label}-{number}"))
    return told


def _longer(row: Offer, depth: int) -> str:
    parts = [part for part in PurePosixPath(row.place).parts if part != "/"]
    parts = [part for part in parts if part not in (*_VENV_NAMES, "envs", "bin", "kernels")]
    return "/".join(parts[-depth:]) or row.label


def _rank(row: Offer) -> tuple[int, int, list[tuple[int, str]], str]:
    """Sort as a person would: 3.9 stands before 3.10."""
    words = re.findall(r"\d+|\D+", row.label.lower())
    natural = [(int(word), "") if word.isdecimal() else (-1, word) for word in words]
    kind = _SHORTEST_FIRST.get(row.kind, _ORDER)
    return list(State).index(row.state), kind, natural, row.kernel_name
