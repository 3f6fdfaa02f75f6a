"""Which Jupyter to run on the host: the applications that are known, and where one is found.

Without an interpreter that somebody named, the first of these counts: the application's own command on
the PATH of a login shell (what a person there would type), a Python on that PATH which has it, one of
the interpreters that the client knows of this host. The client looks further itself (``discovery``).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from typing import Iterator, NamedTuple, Sequence

from sshpyk.agent.environment import login_shell
from sshpyk.errors import ServerError

SEARCH = "looking for Jupyter"
_LOGIN_PATIENCE_S = 10.0
_ASK_PATIENCE_S = 10.0
_ASK = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
_MARK = "SSHPYK-PATH="
_PYTHONS = ("python3", "python")


class App(NamedTuple):
    """A Jupyter application: its module, its command, its name for people, the page that it shows."""

    module: str
    command: str
    title: str
    page: str


APPS = {
    "lab": App("jupyterlab", "jupyter-lab", "JupyterLab", "lab"),
    "notebook": App("notebook", "jupyter-notebook", "Jupyter Notebook", "tree"),
    "nbclassic": App("nbclassic", "jupyter-nbclassic", "the classic notebook", "tree"),
    "server": App("jupyter_server", "jupyter-server", "Jupyter Server", ""),
}

# What runs behind --activate without --python: as typed there, else with the Python that is there.
_AFTER_LINES = """
command=$1 module=$2
shift 2
if command -v "$command" >/dev/null; then exec "$command" "$@"; fi
for python in python3 python; do
    if command -v "$python" >/dev/null; then exec "$python" -m "$module" "$@"; fi
done
echo "neither $command nor a Python is on PATH after --activate" >&2
exit 127
"""


class Launcher(NamedTuple):
    """The words that begin the server's command, and the program that names its environment."""

    words: Sequence[str]
    program: str  # bare for what only the lines of --activate bring


def launcher(app: App, python: str, activate: str, known: Sequence[str]) -> Launcher:
    """Return how to run an application; ``python`` may be empty. Blocks; raises ServerError."""
    if python:
        program = os.path.expanduser(python)
        if os.sep in program or activate:
            return Launcher([program, "-m", app.module], program)
        found = _which(program, _login_path())
        if not found:
            raise not_found(app, [f"{program}: not on the PATH of a login shell"])
        return Launcher([found, "-m", app.module], found)
    if activate:
        words = ["/bin/sh", "-c", _AFTER_LINES, "sh", app.command, app.module]
        return Launcher(words, app.command)
    return _look(app, known)


def _look(app: App, known: Sequence[str]) -> Launcher:
    path = _login_path()
    command = _which(app.command, path)
    if command:
        return Launcher([command], command)
    looked = [f"{app.command}: not on the PATH of a login shell ({os.pathsep.join(path)})"]
    for python in _candidates(path, known):
        if _has(python, app.module):
            return Launcher([python, "-m", app.module], python)
        looked.append(f"{python}: has no {app.module}")
    raise not_found(app, looked)


def not_found(app: App, looked: Sequence[str]) -> ServerError:
    """Return the error that says what was looked at, and how to name an interpreter."""
    return ServerError(
        f"{app.title} was not found",
        phase=SEARCH,
        said="\n".join(looked),
        advice="name the environment that has it: --prefix PATH, --python PATH or --activate "
        f"'conda activate NAME'; or install it there: python3 -m pip install {app.module}",
        code="SERVER-NOT-FOUND",
    )


def _candidates(path: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    named = [_which(os.path.expanduser(python), path) for python in (*_PYTHONS, *known)]
    yield from dict.fromkeys(python for python in named if python)


def _which(name: str, path: Sequence[str]) -> str:
    """Return where a program is; empty when it is nowhere."""
    places = [name] if os.sep in name else [os.path.join(folder, name) for folder in path]
    for place in places:
        if os.access(place, os.X_OK) and os.path.isfile(place):
            return place
    return ""


def _has(python: str, module: str) -> bool:
    try:
        done = subprocess.run(
            [python, "-c", _ASK, module],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            timeout=_ASK_PATIENCE_S,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _login_path() -> list[str]:
    """Return the folders of PATH as a login shell has them, then those that the agent has itself."""
    shell, found = login_shell(), ""
    login = ["-l"] if os.path.basename(shell) in ("bash", "zsh") else []
    with tempfile.TemporaryFile() as said, contextlib.suppress(OSError, subprocess.SubprocessError):
        # A file, not a pipe: what a profile leaves in the background would hold that open.
        subprocess.run(
            [shell, *login, "-c", f'echo "{_MARK}$PATH"'],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.DEVNULL,
            timeout=_LOGIN_PATIENCE_S,
            start_new_session=True,
        )
        said.seek(0)
        for line in said.read(1 << 20).decode("utf-8", "replace").splitlines():
            if line.startswith(_MARK):
                found = line[len(_MARK) :]
    folders = [*found.split(os.pathsep), *os.get_exec_path(), os.path.expanduser("~/.local/bin")]
    return list(dict.fromkeys(folder for folder in folders if os.path.isabs(folder)))
