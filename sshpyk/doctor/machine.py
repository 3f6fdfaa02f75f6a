"""Checks of this machine: which Jupyter there is, whether it sees the provisioner, our folders, hubs.

The functions that gather facts look and change nothing; what they return goes to pure finders.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sshpyk.doctor.finding import Item, Mark, advice, worst
from sshpyk.hub.client import all_hubs
from sshpyk.kernelspecs import PROVISIONER, BrokenKernelspec, LocalKernelspec
from sshpyk.paths import state_path
from sshpyk.wire.private import HUB_FOLDER, candidates, is_private

ENTRY_POINTS = "jupyter_client.kernel_provisioners"
PACKAGES = (
    *("sshpyk", "jupyter_client", "jupyter_core", "jupyter_server", "jupyterlab", "notebook"),
    *("ipykernel", "pyzmq", "tornado", "traitlets", "click", "rich", "platformdirs"),
)
_PROGRAMS = ("jupyter-lab", "jupyter-notebook", "jupyter")
_ASK_TIMEOUT_S = 20
_HUB_TIMEOUT_S = 3.0
_FULL_KB = 1024

_ASK = (
    "import json, importlib.metadata as m\n"
    f"points = m.entry_points().select(group={ENTRY_POINTS!r})\n"
    "print(json.dumps([point.name for point in points]))"
)


@dataclass(frozen=True)
class JupyterProgram:
    """A Jupyter on PATH: the interpreter that its script names, and whether that sees ours.

    ``sees`` is None where the interpreter could not be asked.
    """

    path: str
    python: str
    sees: bool | None


@dataclass(frozen=True)
class Folder:
    """One of our folders: ``state`` is a word of :data:`_FOLDER_WORDS`; ``free_kb`` its disk's room."""

    what: str
    path: str
    state: str
    free_kb: int


_FOLDER_WORDS = {
    "private": (Mark.OK, ""),
    "missing": (Mark.OK, "to be made"),
    "foreign": (Mark.BROKEN, "belongs to somebody else"),
    "open": (Mark.ADVICE, "others may enter it; sshpyk closes it when it next writes there"),
    "read-only": (Mark.BROKEN, "cannot be written to"),
    "no-folder": (Mark.BROKEN, "is no folder"),
}


def versions() -> dict[str, str]:
    """Return the versions of the packages that matter, of those that are here."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def sees_provisioner() -> bool:
    """Tell whether a Jupyter of this very interpreter finds the provisioner."""
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return PROVISIONER in {point.name for point in points}


def jupyter_programs() -> list[JupyterProgram]:
    """Return the Jupyter programs on PATH that run under other interpreters than this one."""
    found: dict[str, JupyterProgram] = {}
    for name in _PROGRAMS:
        path = shutil.which(name)
        python = _interpreter_of(path) if path else ""
        # Compared by folder: every environment's python may be a link to the same program.
        if path and python and os.path.dirname(python) != os.path.dirname(sys.executable):
            found.setdefault(python, JupyterProgram(path, python, _sees(python)))
    return list(found.values())


def _interpreter_of(script: str) -> str:
    try:
        with open(script, "rb") as stream:
            line = stream.readline(4096).decode(errors="replace").strip()
    except OSError:
        return ""
    words = line[2:].split() if line.startswith("#!") else []
    return words[0] if words and "python" in os.path.basename(words[0]) else ""


def _sees(python: str) -> bool | None:
    try:
        done = subprocess.run(
            [python, "-c", _ASK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",  # where nothing can be imported from
            timeout=_ASK_TIMEOUT_S,
        )
        names: object = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return isinstance(names, list) and PROVISIONER in names


def jupyter_items(
    found: Mapping[str, str], *, sees: bool, programs: Sequence[JupyterProgram]
) -> Iterator[Item]:
    """Yield which Jupyter there is, and whether it can start our kernels."""
    shown = ("sshpyk", "jupyter_client", "jupyter_server", "jupyterlab", "pyzmq")
    parts = tuple(Item(name, found[name], Mark.INFO) for name in shown if name in found)
    yield Item("Python", f"{sys.executable} ({platform.python_version()})", Mark.INFO, parts)
    if sees:
        yield Item("Provisioner", f"{PROVISIONER} is known to this Jupyter", Mark.OK)
    else:
        todo = advice(
            "install sshpyk where Jupyter is, not from its folder of sources alone",
            f"{sys.executable} -m pip install sshpyk",
        )
        what = f"this Jupyter does not know {PROVISIONER}"
        yield Item("Provisioner", what, Mark.BROKEN, todo, "JUPYTER-NO-PROVISIONER")
    for program in programs:
        yield _program_item(program)


def _program_item(program: JupyterProgram) -> Item:
    label, text = "Jupyter", f"{program.path} runs under {program.python}"
    if program.sees:
        return Item(label, text, Mark.OK)
    if program.sees is None:
        return Item(label, f"{text}, which gave no answer", Mark.ADVICE)
    todo = advice(
        "to use it with hosts, install it there too", f"{program.python} -m pip install sshpyk"
    )
    return Item(label, f"{text}, which has no sshpyk", Mark.ADVICE, todo)


def our_folders() -> list[Folder]:
    """Return the folders that sshpyk writes to on this machine, as they are."""
    state = state_path()
    first = next(candidates(HUB_FOLDER))
    private = next((path for path in candidates(HUB_FOLDER) if is_private(path)), first)
    return [
        Folder("Logs", str(state), _state_of(state), _free_kb(state)),
        Folder("Sockets", private, _state_of(Path(private)), _free_kb(Path(private))),
    ]


def _state_of(path: Path) -> str:
    if not os.path.lexists(path):
        parent = next(parent for parent in path.parents if parent.exists())
        return "missing" if os.access(parent, os.W_OK) else "read-only"
    if not path.is_dir():
        return "no-folder"
    status = path.lstat()
    if status.st_uid != os.getuid():
        return "foreign"
    if not os.access(path, os.W_OK | os.X_OK):
        return "read-only"
    return "open" if status.st_mode & 0o077 else "private"


def _free_kb(path: Path) -> int:
    there = next(one for one in (path, *path.parents) if one.exists())
    status = os.statvfs(there)
    return status.f_bavail * status.f_frsize // 1024


def folder_item(folder: Folder) -> Item:
    """Return whether one of our folders can be used."""
    mark, what = _FOLDER_WORDS[folder.state]
    text = f"{folder.path}: {what}" if what else folder.path
    if folder.free_kb < _FULL_KB:
        todo = advice("make room on that disk", f"df -h {folder.path}")
        return Item(folder.what, f"{text}: the disk is full", Mark.BROKEN, todo, "LOCAL-DISK-FULL")
    todo = advice("make it a folder of your own", f"ls -ld {folder.path}")
    if mark is Mark.BROKEN:
        return Item(folder.what, text, mark, todo, "LOCAL-FOLDER")
    return Item(folder.what, text, mark)


def hub_answers() -> list[dict[str, Any] | None]:
    """Return what each hub process says of itself; None for one that gives no answer in time."""
    answers: list[dict[str, Any] | None] = []
    for client in all_hubs():
        client.socket.settimeout(_HUB_TIMEOUT_S)
        try:
            client.say("status")
            answers.append(client.hear())
        except OSError:
            answers.append(None)
        finally:
            client.close()
    return answers


def hub_items(answers: Sequence[dict[str, Any] | None]) -> Iterator[Item]:
    """Yield the links that are kept on this machine, and why one is down."""
    if not answers:
        yield Item("Links", "none: no kernel runs on a host", Mark.INFO)
    for answer in answers:
        if answer is None:
            todo = advice("its log is in the folder of logs above; end that process if it stays so")
            yield Item("Link", "a hub process gives no answer", Mark.ADVICE, todo, "HUB-FAILED")
            continue
        kernels = len(answer["kernels"])
        text = f"{answer['host']}: {answer['link']}, {kernels} kernel{'s' * (kernels != 1)}"
        reason = answer.get("reason") or {}
        why = answer["away_reason"] or reason.get("what", "")
        if answer["link"] == "up" or not why:
            yield Item("Link", text, Mark.OK if answer["link"] == "up" else Mark.INFO)
        else:
            code = reason.get("code", "")
            todo = advice(reason.get("advice") or "see why", f"sshpyk doctor {answer['host']}")
            yield Item("Link", f"{text}: {why}", Mark.ADVICE, todo, code)


def spec_items(specs: Sequence[LocalKernelspec | BrokenKernelspec]) -> Iterator[Item]:
    """Yield the kernelspecs that cannot be used, and how many can."""
    ours = [spec for spec in specs if isinstance(spec, LocalKernelspec) and spec.remote]
    for spec in specs:
        if isinstance(spec, BrokenKernelspec):
            path = f"{spec.resource_dir}/kernel.json"
            # Another's broken file is no reason for ours to fail.
            mark = Mark.BROKEN if spec.sshpyk else Mark.ADVICE
            todo = advice("correct it, or remove that kernel", f"cat {path}")
            text = f"{spec.name}: {spec.reason}"
            yield Item("Kernelspec", text, mark, todo, "KERNELSPEC-BROKEN")
    for spec in ours:
        yield from argv_items(spec)
    names = ", ".join(spec.name for spec in ours) or "none yet: sshpyk add HOST"
    yield Item("SSH Kernels", names, Mark.OK if ours else Mark.INFO)


def argv_items(spec: LocalKernelspec) -> Iterator[Item]:
    """Yield what programs without provisioners (VS Code, Quarto) would stumble over."""
    if not spec.argv or shutil.which(spec.argv[0]) is None:
        program = spec.argv[0] if spec.argv else "(nothing)"
        todo = advice(f"write {sys.executable} there, in {spec.resource_dir}/kernel.json")
        what = f"{spec.name}: its argv begins with {program}, which is not there"
        yield Item("Kernelspec", what, worst(todo), todo)
