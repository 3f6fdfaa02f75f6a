"""Find a kernelspec on the host for an interpreter, as Jupyter would from there.

The documented search path is walked with the standard library; importing jupyter_client takes 0.2 s
and happens (in a process of its own, with the user's interpreter) only when the walk finds nothing.
https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from sshpyk.errors import KernelspecNotFound

_ASK_TIMEOUT_S = 20
_ASK = (
    "import sys, json; from jupyter_client.kernelspec import get_kernel_spec as get;"
    "spec = get(sys.argv[1]); print(json.dumps(dict(spec.to_dict(), resource_dir=spec.resource_dir)))"
)


@dataclass(frozen=True)
class RemoteKernelspec:
    """The parts of a kernel.json that starting the kernel needs."""

    argv: list[str]
    resource_dir: str
    language: str = ""
    interrupt_mode: str = "signal"
    env: dict[str, str] = field(default_factory=dict)

    @property
    def speaks_ipc(self) -> bool:
        """Whether the kernel is known to accept unix sockets: those for Python are.

        Kernels for other languages bring ZeroMQ bindings of their own, some of them TCP only.
        """
        return self.language.lower() == "python" or any("ipykernel" in word for word in self.argv)


def search_path(prefix: str) -> list[str]:
    """Return the folders that may hold kernelspecs, first match wins."""
    home = os.path.expanduser("~")
    data = [path for path in os.environ.get("JUPYTER_PATH", "").split(os.pathsep) if path]
    data.append(os.path.join(prefix, "share", "jupyter"))
    data.append(os.environ.get("JUPYTER_DATA_DIR") or _user_data(home))
    data += ["/usr/local/share/jupyter", "/usr/share/jupyter"]
    folders = [os.path.join(path, "kernels") for path in data]
    return [*folders, os.path.join(home, ".ipython", "kernels")]


def _user_data(home: str) -> str:
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Jupyter")
    return os.path.join(
        os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share"), "jupyter"
    )


def find_kernelspec(name: str, python: str) -> RemoteKernelspec:
    """Return the kernelspec ``name`` as the interpreter ``python`` sees it.

    Raises :class:`KernelspecNotFound` with what was searched, and what there is instead.
    """
    prefix = os.path.dirname(os.path.dirname(os.path.abspath(python)))
    names: list[str] = []
    for folder in search_path(prefix):
        try:
            names += os.listdir(folder)
        except OSError:
            continue
        spec = _read(os.path.join(folder, name))
        if spec is not None:
            return spec
    asked = _ask(name, python)
    if asked is not None:
        return asked
    there = ", ".join(sorted(set(names))) or "none"
    raise KernelspecNotFound(
        f"no kernelspec {name!r} for {python}",
        phase="finding the kernelspec",
        said="searched:\n" + "\n".join(search_path(prefix)) + f"\nfound there: {there}",
        advice=f"install the kernel in that environment (for Python: {python} -m pip install "
        "ipykernel) or name another one: sshpyk edit … --remote-kernel-name NAME",
    )


def _read(folder: str) -> RemoteKernelspec | None:
    try:
        with open(os.path.join(folder, "kernel.json"), encoding="utf-8") as file:
            return from_json(json.load(file), folder)
    except (OSError, ValueError):
        return None


def _ask(name: str, python: str) -> RemoteKernelspec | None:
    try:
        done = subprocess.run(
            [python, "-c", _ASK, name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_TIMEOUT_S,
        )
        record = json.loads(done.stdout)
        return from_json(record, record["resource_dir"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return None


def from_json(record: Any, resource_dir: str) -> RemoteKernelspec:
    """Return the typed form of a kernel.json. Raises ValueError when it cannot start anything."""
    if not isinstance(record, dict):
        raise ValueError("kernel.json is no JSON object")
    argv, env = record.get("argv"), record.get("env") or {}
    if not (isinstance(argv, list) and argv and all(isinstance(word, str) for word in argv)):
        raise ValueError("kernel.json without argv")
    if not isinstance(env, dict):
        raise ValueError("kernel.json with an env that is no JSON object")
    return RemoteKernelspec(
        argv=argv,
        resource_dir=resource_dir,
        language=str(record.get("language", "")),
        interrupt_mode=str(record.get("interrupt_mode", "signal")),
        env={str(key): str(value) for key, value in env.items()},
    )


def command(spec: RemoteKernelspec, python: str, connection_file: str) -> list[str]:
    """Return the argv to run, with the placeholders filled in as jupyter_client does it."""
    values = {
        "connection_file": connection_file,
        "resource_dir": spec.resource_dir,
        "prefix": os.path.dirname(os.path.dirname(os.path.abspath(python))),
    }
    argv = [
        re.sub(r"\{([A-Za-z0-9_]+)\}", lambda m: values.get(m.group(1), m.group(0)), word)
        for word in spec.argv
    ]
    if re.match(r"python(3(\.\d+)?)?$", argv[0]):
        argv[0] = python
    return argv
