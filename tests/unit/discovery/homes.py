"""Home folders as users have them, with environments that real Pythons run in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from sshpyk.discovery.finder import Findings, read_findings, script_for

BASE = Path(sys.executable).resolve()
VERSION = "%d.%d.%d" % sys.version_info[:3]
MARK = "sshpyk-test"
IPYKERNEL = ["{python}", "-m", "ipykernel_launcher", "-f", "{connection_file}"]


def environment(prefix: Path, *, conda: bool = False, ipykernel: bool = True) -> Path:
    """Make an environment whose Python runs and knows its prefix; return the prefix.

    A conda environment has no pyvenv.cfg; here it has one too, or the Python would not know where it is.
    """
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "python").symlink_to(BASE)
    (prefix / "pyvenv.cfg").write_text(f"home = {BASE.parent}\n")
    if conda:
        (prefix / "conda-meta").mkdir()
    if ipykernel:
        folder = "python%d.%d" % sys.version_info[:2]
        package = prefix / "lib" / folder / "site-packages" / "ipykernel"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        kernelspec(prefix / "share" / "jupyter", "python3", python=str(prefix / "bin" / "python"))
    return prefix


def kernelspec(data: Path, name: str, *, python: str = "", **members: object) -> Path:
    """Write a kernelspec below a data folder of Jupyter's."""
    folder = data / "kernels" / name
    folder.mkdir(parents=True)
    argv = [word.replace("{python}", python) for word in IPYKERNEL]
    spec = {"argv": argv, "display_name": name, "language": "python", **members}
    (folder / "kernel.json").write_text(json.dumps(spec))
    return folder


def program(path: Path, text: str) -> Path:
    """Write something that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def found_in(
    home: Path,
    *,
    python: str | None = None,
    changes: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    path: str = "/usr/bin:/bin",
) -> Findings:
    """Run the script as sshd would, with that home; ``changes``: text of the script to replace."""
    script = script_for(MARK, python)
    for old, new in (changes or {}).items():
        assert old in script
        script = script.replace(old, new)
    done = subprocess.run(
        ["sh"],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        env={"HOME": str(home), "PATH": path, **(variables or {})},
        cwd=home,
        check=True,
    )
    assert done.stdout.rstrip().endswith(f"{MARK} end"), done
    return read_findings(MARK, done.stdout)


def tree(folder: Path) -> set[str]:
    """Return every path below a folder."""
    return {
        os.path.join(top, name) for top, dirs, files in os.walk(folder) for name in dirs + files
    }
