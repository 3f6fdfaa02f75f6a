"""The script that installs ipykernel into an environment on a host, and what its answer means. Pure."""

from __future__ import annotations

import re
import shlex

from sshpyk.errors import KernelError

_SAID_LINES = 25

# What pip would say (PEP 668), for a system's Python that has no pip to say it.
_SAY_MANAGED = """
import configparser, os, sys, sysconfig
path = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
if sys.prefix != sys.base_prefix or not os.path.exists(path):
    sys.exit(1)
parser = configparser.ConfigParser(interpolation=None)
parser.read(path, encoding="utf-8")
print("error: externally-managed-environment")
print(parser.get("externally-managed", "Error", fallback=""))
"""


def command_for(python: str) -> str:
    """Return the command as a person would type it on the host."""
    return shlex.join([python, "-m", "pip", "install", "ipykernel"])


def script_for(mark: str, python: str) -> str:
    """Return the sh script: pip, or uv where an environment was made without pip."""
    word = '"$HOME"/' + shlex.quote(python[2:]) if python.startswith("~/") else shlex.quote(python)
    return f"""\
exec 2>&1 </dev/null
p={word}
cd /
PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off NO_COLOR=1
export PIP_DISABLE_PIP_VERSION_CHECK PIP_NO_INPUT PIP_PROGRESS_BAR NO_COLOR
uv=
for u in uv "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv"; do
  command -v "$u" >/dev/null && uv=$u && break
done
if "$p" -c 'import pip' 2>/dev/null; then "$p" -m pip install ipykernel
elif "$p" -c {shlex.quote(_SAY_MANAGED)}; then false
elif [ -n "$uv" ]; then "$uv" pip install --python "$p" ipykernel
else echo "$p has no pip, and there is no uv on the host"; false
fi
s=$?; echo; echo {mark} status $s
echo {mark} end
"""


def read_outcome(mark: str, output: str, *, host: str, python: str) -> str:
    """Return what pip said. Raises KernelError, with its words, when it has not installed it."""
    said, _, rest = output.partition(f"\n{mark} status ")
    words = "\n".join(said.strip().splitlines()[-_SAID_LINES:])
    status = re.match(r"\d+", rest)
    if status is not None and int(status[0]) == 0:
        return words
    managed = "externally-managed-environment" in said or "externally managed" in said
    advice = f"install it by hand on {host}: {command_for(python)}"
    if managed:
        advice = f"make an environment of your own on {host}: python3 -m venv ~/venv"
    elif "has no pip" in said:
        advice = f"on {host}: {shlex.join([python, '-m', 'ensurepip'])}   then try again"
    raise KernelError(
        "ipykernel could not be installed",
        host=host,
        phase=f"running {command_for(python)}",
        said=words,
        advice=advice,
        code="HOST-PIP-FAILED",
    )
