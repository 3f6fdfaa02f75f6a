"""The code of the agent, as it travels to a host that has none running."""

from __future__ import annotations

import functools
import json
import re
import zlib
from importlib import resources

PACKAGES = ("sshpyk.link", "sshpyk.wire", "sshpyk.agent")
_ALONE = "sshpyk.agent.locate"  # sent as text before everything else
_ZLIB_LEVEL = 6  # 9 takes three times as long for 1 % less
# A line of its own, or behind code where no quote follows: then it is in no string.
_COMMENT = re.compile(r"""^[ \t]*#.*$|[ \t]+# [^'"\n]*$""", re.MULTILINE)
# A statement of its own; what ends a string of several lines is followed by no word.
_DOCSTRING = re.compile(
    r'^([ ]*)"""(?=\w|[`*])(?:[^"\\]|\\.|"(?!""))*"""$', re.MULTILINE | re.DOTALL
)


def locate_program(socket_name: str, *, bundle_follows: bool = False) -> bytes:
    """Return the program that finds or starts the agent: two modules, joined into one text.

    ``bundle_follows``: it reads the agent's modules whether they are needed or not.
    """
    private = resources.files("sshpyk.wire").joinpath("private.py").read_text(encoding="utf-8")
    locate = resources.files("sshpyk.agent").joinpath("locate.py").read_text(encoding="utf-8")
    lines = [
        line
        for line in (private + locate).splitlines()
        if not line.startswith(("from __future__", "from sshpyk."))
    ]
    call = f"locate({socket_name!r}, {int(bundle_follows)})"
    text = "\n".join(["from __future__ import annotations", *lines, call])
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
    return zlib.compress(json.dumps(lean).encode(), _ZLIB_LEVEL)


def without_prose(source: str) -> str:
    """Return a module without comments and docstrings, each line where it was: tracebacks name them.

    Python's own parser would be exact and take a quarter of a second for all, its tokenizer half of
    one; a test holds that these expressions change no module of ours.
    """
    return _COMMENT.sub("", _DOCSTRING.sub(_as_long, source))


def _as_long(docstring: re.Match[str]) -> str:
    """Return what takes as many lines; where it was all of a body, that needs a statement."""
    indent = docstring[1]
    return (f"{indent}pass" if indent else "") + "\n" * docstring[0].count("\n")
