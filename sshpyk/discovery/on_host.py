"""Looks for Pythons and kernelspecs on the host: this file is the program that runs there.

It travels as text inside the script of :mod:`.finder` and runs under the first Python (3.8 or later) that
sh finds: standard library only. It writes nothing, looks at known places only, never walks a tree, and
bounds everything in number and in time; a network file system that hangs costs what hangs on it.

Each line that it prints begins with the mark, ``sys.argv[1]``:

    MARK python {"order": 1, "path": …, "kind": …, "prefix": …, "version": …, "specs": […], …}
    MARK broken {"order": 2, "path": …, "reason": …, "kind": …}
    MARK specs  […]                  those that belong to no environment
    MARK note   {"text": …}          what was left out, and why
"""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys
import threading
import time
from itertools import islice
from typing import Any, Dict, Iterator

MAX_ENTRIES = 200  # of one folder
MAX_PYTHONS = 120  # that are asked
MAX_SPECS = 100  # of one folder
AT_ONCE = 6
PATIENCE_S = 10.0  # for one Python: a cold environment on a network file system
LOOK_S = 8.0  # for the search of the folders
TOTAL_S = 25.0

Json = Dict[str, Any]

# Runs under each Python found, however old: nothing that Python 2 cannot read.
ASK = r"""
import json, os, sys
def has(name):
    try:
        from importlib.util import find_spec
        return find_spec(name) is not None
    except Exception:
        try:
            import imp
            imp.find_module(name)
            return True
        except Exception:
            return False
base = getattr(sys, "base_prefix", getattr(sys, "real_prefix", sys.prefix))
apps = [name for name in ("jupyterlab", "notebook", "nbclassic", "jupyter_server") if has(name)]
try:
    import sysconfig
    managed = os.path.exists(os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED"))
except Exception:
    managed = False
print("SSHPYK" + json.dumps({
    "prefix": sys.prefix, "version": "%d.%d.%d" % sys.version_info[:3],
    "real": os.path.realpath(sys.executable), "ipykernel": has("ipykernel"), "pip": has("pip"),
    "apps": apps, "managed": managed and base == sys.prefix}))
"""

# Where the installers of conda and its kin, and of pyenv, put what a shell is to find.
_STARTUP_FILES = [".bashrc", ".bash_profile", ".profile", ".zshrc", ".tcshrc", ".cshrc"]
_STARTUP_FILES += [".config/fish/config.fish"]
_CONDA_IN_STARTUP = re.compile(
    r"""(?:["'\s(=](/[^"'\s:$]+)/(?:bin|condabin)/(?:conda|mamba)\b)"""
    r"""|MAMBA_ROOT_PREFIX["'\s=]+(/[^"'\s]+)"""
)
_CONDA_NAMES = ["miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba", "miniconda"]
_CONDA_NAMES += ["anaconda", "conda"]
_CONDA_IN_HOME = [*_CONDA_NAMES, "opt/miniconda3", "opt/anaconda3", ".local/share/mamba"]
_VENV_NAMES = (".venv", "venv", "env", ".env")


def home() -> str:
    """Return the home folder, as sshpyk's other programs on the host see it."""
    return os.path.expanduser("~")


def variable(name: str) -> list[str]:
    """Return the paths in a variable like PATH."""
    return [path for path in os.environ.get(name, "").split(os.pathsep) if path]


def below(folder: str) -> list[str]:
    """Return the entries of a folder, a bounded number of them."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in islice(entries, MAX_ENTRIES))
    except OSError:
        return []


def read(path: str, limit: int = 65536) -> str:
    """Return the beginning of a text file; empty when there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


# Environments: (kind, prefix). Pythons that are none: (kind, path of the interpreter).


def conda() -> Iterator[tuple[str, str]]:
    """Yield the environments of conda, mamba and micromamba."""
    roots = [os.path.join(home(), name) for name in _CONDA_IN_HOME]
    roots += [os.path.join("/opt", name) for name in _CONDA_NAMES]
    roots += variable("MAMBA_ROOT_PREFIX")
    for name in _STARTUP_FILES:
        for groups in _CONDA_IN_STARTUP.findall(read(os.path.join(home(), name))):
            roots += [path for path in groups if path]
    listed = read(os.path.join(home(), ".conda", "environments.txt")).splitlines()[:MAX_ENTRIES]
    listed = [line.strip() for line in listed if line.startswith("/")]
    parents = variable("CONDA_ENVS_PATH") + variable("CONDA_ENVS_DIRS")
    parents += [os.path.join(home(), ".conda", "envs"), *condarc_folders()]
    for root in dict.fromkeys(roots):
        if os.path.isdir(root):
            yield "conda", root
            parents.append(os.path.join(root, "envs"))
    for parent in dict.fromkeys(parents):
        for prefix in below(os.path.expanduser(parent)):
            yield "conda", prefix
    for prefix in listed:
        yield "conda", prefix


def condarc_folders() -> list[str]:
    """Return the ``envs_dirs`` of ~/.condarc, without a YAML reader."""
    found, inside = [], False
    for line in read(os.path.join(home(), ".condarc")).splitlines():
        item = re.match(r"\s*-\s+[\"']?([^\"'#]+?)[\"']?\s*$", line)
        if item and inside:
            found.append(item.group(1))
        elif line.strip():
            inside = bool(re.match(r"envs_(dirs|path)\s*:", line))
    return found


def venvs() -> Iterator[tuple[str, str]]:
    """Yield virtual environments where people and tools put them."""
    work = os.environ.get("WORKON_HOME") or "~/.virtualenvs"
    collections = [work, "~/venvs", "~/.venvs", "~/envs", "~/.local/share/virtualenvs"]
    collections.append("~/.cache/pypoetry/virtualenvs")
    for folder in _VENV_NAMES:
        yield "venv", os.path.join(home(), folder)
    for collection in collections:
        for prefix in below(os.path.expanduser(collection)):
            yield "venv", prefix
    for parent in (home(), "/opt", "/srv"):
        for project in below(parent):
            for folder in _VENV_NAMES:
                yield "venv", os.path.join(project, folder)
    for prefix in below("/opt"):
        yield "venv", prefix


def pyenv() -> Iterator[tuple[str, str]]:
    """Yield pyenv's versions, and the environments of pyenv-virtualenv."""
    root = os.environ.get("PYENV_ROOT") or os.path.join(home(), ".pyenv")
    versions = below(os.path.join(root, "versions"))
    for version in versions:
        for prefix in below(os.path.join(version, "envs")):
            yield "venv", prefix
    for version in versions:
        yield "pyenv", version


def uv() -> Iterator[tuple[str, str]]:
    """Yield uv's Pythons, and the environments of tools, uv's and pipx's."""
    share = os.environ.get("XDG_DATA_HOME") or os.path.join(home(), ".local", "share")
    for parent in ("UV_TOOL_DIR", "PIPX_HOME"):
        for folder in variable(parent):
            collection = folder if parent == "UV_TOOL_DIR" else os.path.join(folder, "venvs")
            for prefix in below(collection):
                yield "tool", prefix
    for collection in ("uv/tools", "pipx/venvs"):
        for prefix in below(os.path.join(share, collection)):
            yield "tool", prefix
    pythons = variable("UV_PYTHON_INSTALL_DIR") or [os.path.join(share, "uv", "python")]
    for prefix in below(pythons[0]):
        yield "uv", prefix


def on_path() -> Iterator[tuple[str, str]]:
    """Yield the interpreters on PATH, and the system's other versions."""
    folders = [*variable("PATH"), "/usr/local/bin", "/usr/bin"]
    for folder in dict.fromkeys(folders):
        if os.path.basename(folder) != "shims":  # of pyenv or asdf: what is behind is found itself
            for name in ("python3", "python"):
                yield "system", os.path.join(folder, name)
    for folder in ("/usr/local/bin", "/usr/bin"):
        for path in sorted(glob.glob(os.path.join(folder, "python3.*"))):
            if re.match(r"python3\.\d+$", os.path.basename(path)):
                yield "system", path
    for prefix in below("/opt/python"):
        yield "system", os.path.join(prefix, "bin", "python3")


def interpreter_in(prefix: str) -> str | None:
    """Return the interpreter of an environment, if it has one."""
    for name in ("python", "python3"):
        path = os.path.join(prefix, "bin", name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def candidates() -> Iterator[tuple[str, str]]:
    """Yield (kind, interpreter), the likeliest first."""
    for search in (conda, venvs, pyenv, uv):
        for kind, prefix in search():
            path = interpreter_in(prefix)
            if path is not None:
                yield kind, path
    for kind, path in on_path():
        if os.access(path, os.X_OK) and os.path.isfile(path):
            yield kind, path


# Kernelspecs: https://docs.jupyter.org/en/latest/use/jupyter-directories.html


def common_folders() -> list[str]:
    """Return the folders of kernelspecs that are no environment's own."""
    mac = os.path.join(home(), "Library", "Jupyter")
    share = os.environ.get("XDG_DATA_HOME") or os.path.join(home(), ".local", "share")
    user = mac if sys.platform == "darwin" else os.path.join(share, "jupyter")
    data = [*variable("JUPYTER_PATH"), os.environ.get("JUPYTER_DATA_DIR") or user]
    data += ["/usr/local/share/jupyter", "/usr/share/jupyter"]
    ipython = os.environ.get("IPYTHONDIR") or os.path.join(home(), ".ipython")
    return [os.path.join(path, "kernels") for path in [*data, ipython]]


def specs_in(folder: str) -> Iterator[Json]:
    """Yield what is in a folder of kernelspecs."""
    for path in below(folder)[:MAX_SPECS]:
        try:
            spec = json.loads(read(os.path.join(path, "kernel.json")))
            argv = [str(word)[:500] for word in spec["argv"][:30]]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if argv:
            yield {
                "name": os.path.basename(path).lower(),
                "folder": path,
                "argv": argv,
                "display_name": str(spec.get("display_name", ""))[:200],
                "language": str(spec.get("language", ""))[:50],
                "env": bool(spec.get("env")),
                "ours": "sshpyk" in str(spec.get("metadata", "")),
            }


# The work


class Report:
    """Prints whole lines, from any thread, until it is closed."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._lock = threading.Lock()
        self._closed = False

    def say(self, kind: str, record: Any) -> None:
        """Print one line."""
        with self._lock:
            if not self._closed:
                sys.stdout.write("%s %s %s\n" % (self._mark, kind, json.dumps(record)))
                sys.stdout.flush()

    def close(self) -> None:
        """Print nothing from now on."""
        with self._lock:
            self._closed = True


_running: dict[int, subprocess.Popen[bytes]] = {}


def output_of(argv: list[str]) -> tuple[int, str, str]:
    """Return the exit status and what was said; raise OSError or TimeoutExpired."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"),
        cwd="/",
    )
    _running[process.pid] = process
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        del _running[process.pid]
    return process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


def ask(kind: str, path: str) -> tuple[str, Json]:
    """Return what an interpreter says of itself: ("python", …) or ("broken", …)."""
    about: Json = {"path": path, "kind": kind}
    try:
        status, out, err = output_of([path, "-c", ASK])
    except subprocess.TimeoutExpired:
        return "broken", dict(about, reason="no answer within %g s" % PATIENCE_S)
    except OSError as error:
        return "broken", dict(about, reason=error.strerror or "cannot be run")
    for line in out.splitlines():
        if line.startswith("SSHPYK{"):
            found: Json = json.loads(line[6:])
            prefix = found["prefix"]
            conda_made = os.path.isdir(os.path.join(prefix, "conda-meta"))
            if kind in ("conda", "system", "venv"):
                is_venv = os.path.isfile(os.path.join(prefix, "pyvenv.cfg"))
                found["kind"] = "conda" if conda_made else "venv" if is_venv else "system"
            specs = list(specs_in(os.path.join(prefix, "share", "jupyter", "kernels")))
            return "python", {**about, **found, "specs": specs}
    last = err.strip().splitlines()[-1:]
    return "broken", dict(about, reason=(last or ["ended with %d" % status])[0][:300])


class Look:
    """Asks the candidates, several at once; see the module."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, str, str]] = []
        self._all_known = threading.Event()
        self._asked: dict[str, None] = {}
        self.left_out = 0

    def collect(self, only: str) -> None:
        """Find what to ask, for the workers to take."""
        for kind, path in [("system", only)] if only else candidates():
            # A venv's python is a link to the system's: the folder is what tells them apart.
            place = os.path.join(os.path.realpath(os.path.dirname(path)), "python")
            name = os.path.basename(path)
            key = place if kind != "system" else place + name
            with self._lock:
                if key in self._asked:
                    continue
                if len(self._asked) >= MAX_PYTHONS:
                    self.left_out += 1
                    continue
                self._asked[key] = None
                self._waiting.append((len(self._asked), kind, path))
        self._all_known.set()

    def work(self) -> None:
        """Ask until all has been asked."""
        while True:
            known = self._all_known.is_set()
            with self._lock:
                task = self._waiting.pop(0) if self._waiting else None
            if task is None:
                if known:
                    return
                time.sleep(0.005)
                continue
            order, kind, path = task
            outcome, record = ask(kind, path)
            self._report.say(outcome, dict(record, order=order))


def main(mark: str, only: str = "") -> None:
    """Look, at the interpreter ``only`` if that is given; leave in time whatever hangs."""
    report = Report(mark)
    look = Look(report)
    deadline_s = time.monotonic() + TOTAL_S

    def common() -> None:
        found = [spec for folder in common_folders() for spec in specs_in(folder)]
        report.say("specs", found[:MAX_SPECS])

    first = [
        threading.Thread(target=common, daemon=True),
        threading.Thread(target=look.collect, args=(only,), daemon=True),
    ]
    workers = [threading.Thread(target=look.work, daemon=True) for _ in range(AT_ONCE)]
    for thread in first + workers:
        thread.start()
    for thread in first + workers:
        bound_s = LOOK_S if thread in first else TOTAL_S
        left_s = deadline_s - TOTAL_S + bound_s - time.monotonic()
        thread.join(max(0.0, left_s))
    if any(thread.is_alive() for thread in first + workers):
        report.say("note", {"text": "some folders or Pythons did not answer in time"})
    if look.left_out:
        report.say("note", {"text": "%d more Pythons were not looked at" % look.left_out})
    report.close()
    for process in list(_running.values()):
        process.kill()
    os._exit(0)  # what cannot be killed, on a file system that hangs, is left to itself


if __name__ == "__main__":
    main(*sys.argv[1:])
