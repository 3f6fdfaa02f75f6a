"""The code of the agent, as it travels to a host that has none running."""

from __future__ import annotations

import ast
import functools
import io
import json
import tokenize
import zlib
from importlib import resources

PACKAGES = ("sshpyk.link", "sshpyk.wire", "sshpyk.agent")
_ALONE = "sshpyk.agent.locate"  # sent as text before everything else


def locate_program(socket_name: str) -> bytes:
    """Return the program that finds or starts the agent: two modules, joined into one text."""
    private = resources.files("sshpyk.wire").joinpath("private.py").read_text(encoding="utf-8")
    locate = resources.files("sshpyk.agent").joinpath("locate.py").read_text(encoding="utf-8")
    lines = [
        line
        for line in (private + locate).splitlines()
        if not line.startswith(("from __future__", "from sshpyk."))
    ]
    text = "\n".join(["from __future__ import annotations", *lines, f"locate({socket_name!r})"])
    return text.encode() + b"\n"


@functools.cache
def agent_bundle() -> bytes:
    """Return the agent's modules, compressed: a JSON object of module name to source.

    Half of a module is for readers, who are not on the host.
    """
    modules = {
        "sshpyk": '"""The part of sshpyk that runs on a host."""\n',
        "sshpyk.errors": resources.files("sshpyk").joinpath("errors.py").read_text("utf-8"),
    }
    for package in PACKAGES:
        for file in resources.files(package).iterdir():
            if file.name.endswith(".py"):
                stem = file.name[:-3]
                name = package if stem == "__init__" else f"{package}.{stem}"
                if name != _ALONE:
                    modules[name] = file.read_text(encoding="utf-8")
    lean = {name: without_prose(source) for name, source in modules.items()}
    return zlib.compress(json.dumps(lean).encode(), 9)


def without_prose(source: str) -> str:
    """Return a module without comments and docstrings, each line where it was: tracebacks name them."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            prose = node.body[0]
            assert prose.end_lineno is not None
            for row in range(prose.lineno, prose.end_lineno + 1):
                lines[row - 1] = ""
            if len(node.body) == 1:
                lines[prose.lineno - 1] = " " * prose.col_offset + "pass"
    return "\n".join(lines)
