"""What each interpreter on a host is asked, and how its answer reads. Pure: text in, records out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Runs under each remote interpreter; argv: the mark, its index, the kernels' names. An interpreter
# older than 3.8 says its version and no more: until that line only what every Python can read.
# The search path is the one that https://docs.jupyter.org/en/latest/use/jupyter-directories.html
# documents, in the agent's order; importing jupyter_client would take 0.2 s, if it is there at all.
# A kernel's program is found as `sshpyk.agent.process` starts it; `-m MODULE` is looked for in it.
PYTHON_PROBE = r"""
import json, os, re, sys
def say(**answer):
    answer.update(path=sys.executable, version="%d.%d.%d" % sys.version_info[:3])
    sys.stdout.write(" ".join([sys.argv[1], "python", sys.argv[2], json.dumps(answer)]) + "\n")
    sys.stdout.flush()
    sys.exit(0)
if sys.version_info < (3, 8):
    say(known=[], specs={})
import importlib.util, shutil, subprocess
home, env = os.path.expanduser("~"), os.environ
env["PATH"] = os.path.dirname(sys.executable) + ":" + env.get("PATH", os.defpath)
ask = "import importlib.util as u, sys, json, importlib.metadata as m\nr = {}\n" \
    "try: r['found'] = u.find_spec(sys.argv[1].split('.')[0]) is not None\n" \
    "except Exception as e: r['found'] = False\n" \
    "for n in ('ipykernel', 'pyzmq'):\n" \
    "    try: r[n] = m.version(n)\n" \
    "    except Exception: r[n] = ''\n" \
    "try: import zmq\n" \
    "except Exception as e: r['zmq'] = repr(e)\n" \
    "print('=' + json.dumps(r))"
def module_in(program, name):
    try:
        said = subprocess.run([program, "-B", "-c", ask, name], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", timeout=10).stdout
        return json.loads(said.decode().rpartition("=")[2])
    except Exception as error:
        return {"failed": repr(error)}
def program_of(argv, folder):
    word = argv[0].replace("{resource_dir}", folder).replace("{prefix}", sys.prefix)
    if re.match(r"python(3(\.\d+)?)?$", word):
        return sys.executable
    return shutil.which(word) or ""
def described(folder, spec):
    argv = [str(word) for word in spec["argv"]]
    answer = {"folder": folder, "argv": argv, "program": program_of(argv, folder),
              "language": str(spec.get("language", "")),
              "interrupt_mode": spec.get("interrupt_mode", "signal")}
    if "-m" in argv[:-1] and answer["program"]:
        answer["module"] = argv[argv.index("-m") + 1]
        answer["inside"] = module_in(answer["program"], answer["module"])
    return answer
def read(folder):
    with open(os.path.join(folder, "kernel.json"), encoding="utf-8") as stream:
        return json.load(stream)
mac = sys.platform == "darwin"
share = os.path.join(env.get("XDG_DATA_HOME") or home + "/.local/share", "jupyter")
user = env.get("JUPYTER_DATA_DIR") or (home + "/Library/Jupyter" if mac else share)
roots = [d for d in env.get("JUPYTER_PATH", "").split(os.pathsep) if d]
roots += [sys.prefix + "/share/jupyter", user, "/usr/local/share/jupyter", "/usr/share/jupyter"]
folders = [os.path.join(d, "kernels") for d in roots]
folders.append(os.path.join(env.get("IPYTHONDIR") or home + "/.ipython", "kernels"))
specs = {}
for parent in folders:
    try:
        entries = sorted(os.listdir(parent))
    except OSError:
        continue
    for entry in entries:
        folder = os.path.join(parent, entry)
        if entry.lower() not in specs and os.path.isfile(os.path.join(folder, "kernel.json")):
            specs[entry.lower()] = folder
found, broken = {}, {}
for name in sys.argv[3:]:
    try:
        found[name] = described(specs[name.lower()], read(specs[name.lower()]))
    except KeyError:
        pass
    except Exception as error:
        broken[name] = "%s: %r" % (specs[name.lower()], error)
if "python3" in sys.argv[3:] and "python3" not in specs and importlib.util.find_spec("ipykernel"):
    found["python3"] = described("", {"argv": [
        sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]})
say(known=sorted(specs)[:50], specs=found, broken=broken)
"""


TOO_SLOW = "gave no answer in time"


@dataclass(frozen=True)
class Packages:
    """What the interpreter that runs a kernel has; versions are empty where there is none.

    ``module`` is what the kernelspec runs with ``-m``; ``zmq_error``: why pyzmq cannot be imported.
    """

    module: str
    module_found: bool
    ipykernel: str = ""
    pyzmq: str = ""
    zmq_error: str = ""
    failed: str = ""


@dataclass(frozen=True)
class RemoteSpec:
    """A kernelspec found on the host; ``program`` is the path of its first word, if that exists."""

    folder: str
    argv: tuple[str, ...]
    interrupt_mode: str
    program: str = ""
    language: str = ""
    packages: Packages | None = None


@dataclass(frozen=True)
class Interpreter:
    """What an interpreter on the host said; ``reason`` says why it said nothing else.

    ``known`` are the names of the kernels that it finds, ``broken`` those that cannot be read and why.
    """

    path: str = ""
    version: str = ""
    reason: str = ""
    known: tuple[str, ...] = ()
    specs: Mapping[str, RemoteSpec] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)


def read_interpreter(text: str) -> Interpreter:
    """Read the JSON of the probe. A host may send anything: what is odd becomes a reason."""
    try:
        answer: dict[str, Any] = json.loads(text)
        specs = {str(name): _spec(spec) for name, spec in answer["specs"].items()}
        known = tuple(map(str, answer["known"]))
        broken = {str(name): str(why) for name, why in answer.get("broken", {}).items()}
        return Interpreter(str(answer["path"]), str(answer["version"]), "", known, specs, broken)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Interpreter(reason=f"gave an answer that could not be read ({error!r})")


def _spec(spec: dict[str, Any]) -> RemoteSpec:
    return RemoteSpec(
        folder=str(spec["folder"]),
        argv=tuple(map(str, spec["argv"])),
        interrupt_mode=str(spec["interrupt_mode"]),
        program=str(spec.get("program", "")),
        language=str(spec.get("language", "")),
        packages=_packages(str(spec["module"]), spec["inside"]) if "module" in spec else None,
    )


def _packages(module: str, inside: dict[str, Any]) -> Packages:
    return Packages(
        module=module,
        module_found=bool(inside.get("found")),
        ipykernel=str(inside.get("ipykernel", "")),
        pyzmq=str(inside.get("pyzmq", "")),
        zmq_error=str(inside.get("zmq", "")),
        failed=str(inside.get("failed", "")),
    )
