"""What is sent to a host: complete, valid, and without anything of the laptop's."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import sshpyk
from sshpyk.hub.bundle import agent_bundle, locate_program, without_prose

PACKAGE = Path(sshpyk.__file__).parent

IMPORT_IT = """
import json, os, sys, zlib
program = sys.stdin.buffer.read(int(sys.argv[1]))
exec(compile(program.replace(b"locate('x.sock', 0)", b""), "program", "exec", 0, 1))
load(json.loads(zlib.decompress(sys.stdin.buffer.read())))
import sshpyk.agent.main
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] == "sshpyk")))
print(json.dumps(sorted(getattr(m, "__file__", None) or "" for n, m in sys.modules.items()
                        if n.split(".")[0] == "sshpyk")))
"""


def modules() -> dict[str, str]:
    found: dict[str, str] = json.loads(zlib.decompress(agent_bundle()))
    return found


def test_the_bundle_holds_every_file_of_the_host():
    found = modules()
    for package in ("link", "wire", "agent"):
        for path in (PACKAGE / package).glob("*.py"):
            stem = "" if path.stem == "__init__" else f".{path.stem}"
            name = f"sshpyk.{package}{stem}"
            if name != "sshpyk.agent.locate":
                assert found.pop(name) == without_prose(path.read_text(encoding="utf-8"))
    errors = (PACKAGE / "errors.py").read_text(encoding="utf-8")
    assert found.pop("sshpyk.errors") == without_prose(errors)
    assert list(found) == ["sshpyk"]


def test_the_bundle_is_imported_without_the_package_or_any_library(tmp_path: Path):
    program = locate_program("x.sock")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT_IT, str(len(program))],
        input=program + agent_bundle(),
        capture_output=True,
        cwd=tmp_path,
        check=True,
    )
    names, files = map(json.loads, done.stdout.splitlines())
    assert "sshpyk.agent.zmtp" in names
    assert set(names) <= set(modules())
    assert set(files) <= {""}  # nothing came from a disk
    assert os.listdir(tmp_path) == []


def test_the_program_names_the_socket_as_a_python_string():
    text = locate_program("it's.sock").decode()
    compile(text, "program", "exec")
    assert text.endswith('locate("it\'s.sock", 0)\n')


def test_the_program_imports_nothing_of_the_package():
    lines = locate_program("x.sock").decode().splitlines()
    assert not any(line.startswith(("import sshpyk", "from sshpyk")) for line in lines)


def test_it_is_small_enough_for_a_slow_line():
    assert len(locate_program("x.sock")) < 12_000
    assert len(agent_bundle()) < 84_000


PROSE = '''"""Of many
lines."""
import os  # why


class Kind:
    """Only this."""


async def act(text="# no comment"):
    """Words."""
    "not a docstring: it is the second"
    # a remark
    return f"{text} # {os.sep}", """kept
"""
'''


def test_prose_stays_at_home_and_every_line_keeps_its_number():
    lean = without_prose(PROSE)
    assert [line for line in lean.splitlines() if line] == [
        "import os",
        "class Kind:",
        "    pass",
        'async def act(text="# no comment"):',
        "    pass",
        '    "not a docstring: it is the second"',
        '    return f"{text} # {os.sep}", """kept',
        '"""',
    ]
    lines = PROSE.splitlines()
    assert lean.splitlines().index("import os") == lines.index("import os  # why")
    assert len(lean.splitlines()) == len(lines)


@pytest.mark.parametrize("file", sorted(PACKAGE.glob("[alw]*/*.py")), ids=str)
def test_what_travels_does_what_stands_in_the_source(file: Path):
    source = file.read_text(encoding="utf-8")
    assert meaning(without_prose(source)) == meaning(source)


def meaning(source: str) -> str:
    """Return a module's syntax tree, but for docstrings and ``pass``."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, kinds):
            if ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
            node.body = [part for part in node.body if not isinstance(part, ast.Pass)]
    return ast.dump(tree)
