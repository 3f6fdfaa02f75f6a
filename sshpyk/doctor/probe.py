"""What is asked of a host for ``sshpyk list``: the script that one ``ssh`` runs, and its answer.

Pure: text in, records out. The script is POSIX sh, read by ``sh`` from stdin, so that any login
shell will do; it writes nothing on the host. Each line of the answer begins with a random mark,
since rc files may print anything.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Question:
    """Does this interpreter run on the host, and does it know this kernel?"""

    python: str
    kernel_name: str


@dataclass(frozen=True)
class RemoteSpec:
    """A kernelspec found on the host."""

    folder: str
    argv: tuple[str, ...]
    interrupt_mode: str


@dataclass(frozen=True)
class Interpreter:
    """What an interpreter on the host said; ``reason`` says why it said nothing else.

    ``known`` are the names of the kernels that it finds.
    """

    path: str = ""
    version: str = ""
    reason: str = ""
    known: tuple[str, ...] = ()
    specs: Mapping[str, RemoteSpec] = field(default_factory=dict)


@dataclass(frozen=True)
class HostAnswer:
    """What a host said: its ``uname -srm``, and each interpreter by its path as asked."""

    system: str
    interpreters: Mapping[str, Interpreter]


# Runs under each remote interpreter (3.8 or later); argv: the mark, its index, the kernels' names.
# The search path is the one that https://docs.jupyter.org/en/latest/use/jupyter-directories.html
# documents, in the agent's order; importing jupyter_client would take 0.2 s, if it is there at all.
_PYTHON_PROBE = """
import importlib.util, json, os, sys
def read(folder):
    with open(os.path.join(folder, "kernel.json"), encoding="utf-8") as stream:
        spec = json.load(stream)
    return {"folder": folder, "argv": spec.get("argv", []),
            "interrupt_mode": spec.get("interrupt_mode", "signal")}
home, env = os.path.expanduser("~"), os.environ
mac = sys.platform == "darwin"
share = os.path.join(env.get("XDG_DATA_HOME") or home + "/.local/share", "jupyter")
user = env.get("JUPYTER_DATA_DIR") or (home + "/Library/Jupyter" if mac else share)
roots = [d for d in env.get("JUPYTER_PATH", "").split(os.pathsep) if d]
roots += [sys.prefix + "/share/jupyter", user, "/usr/local/share/jupyter", "/usr/share/jupyter"]
folders = [os.path.join(d, "kernels") for d in roots]
folders.append(os.path.join(env.get("IPYTHONDIR") or home + "/.ipython", "kernels"))
specs = {}
for parent in folders:
    for entry in sorted(os.listdir(parent)) if os.path.isdir(parent) else []:
        folder = os.path.join(parent, entry)
        if entry.lower() not in specs and os.path.isfile(os.path.join(folder, "kernel.json")):
            specs[entry.lower()] = folder
found = {}
for name in sys.argv[3:]:
    try:
        found[name] = read(specs[name.lower()])
    except (KeyError, OSError, ValueError, AttributeError):
        pass
if "python3" in sys.argv[3:] and "python3" not in specs and importlib.util.find_spec("ipykernel"):
    found["python3"] = {"folder": "", "interrupt_mode": "signal", "argv": [
        sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
print(sys.argv[1], "python", sys.argv[2], json.dumps({
    "path": sys.executable, "version": "%d.%d.%d" % sys.version_info[:3],
    "known": sorted(specs)[:50], "specs": found}))
"""


def _sh_word(path: str) -> str:
    """Quote a path for sh; a leading ``~/`` means the home folder."""
    return '"$HOME"/' + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)


def end_line(mark: str) -> str:
    """Return the answer's last line."""
    return f"{mark} end"


def script_for(mark: str, questions: Iterable[Question]) -> str:
    """Return the sh script that answers ``questions``; ``mark`` is a random word."""
    names: dict[str, list[str]] = {}
    for question in questions:
        names.setdefault(question.python, []).append(question.kernel_name)
    # -B: Python is to write no .pyc files there.
    lines = [f'echo; echo {mark} system "$(uname -srm)"', f"probe={shlex.quote(_PYTHON_PROBE)}"]
    for index, (python, kernels) in enumerate(names.items()):
        arguments = " ".join(map(shlex.quote, sorted(set(kernels))))
        run = f'"$p" -B -c "$probe" {mark} {index} {arguments} </dev/null 2>&1'
        # printf, since dash's echo would interpret the backslashes of JSON.
        lines += [
            f"p={_sh_word(python)}",
            'if command -v "$p" >/dev/null 2>&1; then',
            f"  if r=$({run}); then printf '%s\\n' \"$r\"",
            f"  else printf '%s\\n' \"{mark} failed {index} $(printf '%s' \"$r\" | tail -n 1)\"; fi",
            f'elif [ -e "$p" ]; then echo {mark} failed {index} is not executable',
            f"else echo {mark} failed {index} was not found; fi",
        ]
    return "\n".join([*lines, f"echo {end_line(mark)}", ""])


def read_answer(mark: str, questions: Sequence[Question], output: str) -> HostAnswer:
    """Read what the script printed."""
    pythons = list(dict.fromkeys(question.python for question in questions))
    system = ""
    found: dict[str, Interpreter] = {}
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        if word != mark:
            continue
        kind, _, rest = rest.partition(" ")
        system = rest if kind == "system" else system
        index, _, rest = rest.partition(" ")
        if kind in ("python", "failed") and index.isdecimal() and int(index) < len(pythons):
            read = _interpreter if kind == "python" else _failed
            found[pythons[int(index)]] = read(rest)
    silent = Interpreter(reason="said nothing that could be understood")
    return HostAnswer(system, {p: found.get(p, silent) for p in pythons})


def _failed(text: str) -> Interpreter:
    return Interpreter(reason=text.strip() or "failed without a word")


def _interpreter(text: str) -> Interpreter:
    """Read the JSON of the Python probe. A host may send anything: what is odd becomes a reason."""
    try:
        answer: dict[str, Any] = json.loads(text)
        specs = {
            str(name): RemoteSpec(
                str(spec["folder"]), tuple(map(str, spec["argv"])), str(spec["interrupt_mode"])
            )
            for name, spec in answer["specs"].items()
        }
        known = tuple(map(str, answer["known"]))
        return Interpreter(str(answer["path"]), str(answer["version"]), "", known, specs)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Interpreter(reason=f"gave an answer that could not be read ({error!r})")
