"""The layering of the package, read from the source: who may import whom."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "sshpyk"
# What runs on hosts, under Python 3.8 as well.
ON_HOST = ("__init__", "errors", "link", "wire", "agent")
OLDEST_ON_HOST = (3, 8)

STDLIB_ONLY: frozenset[str] = frozenset()
ANY_LIBRARY = None

# Component (a package or module of sshpyk): what of sshpyk it may import, and which libraries.
RULES: dict[str, tuple[set[str], frozenset[str] | None]] = {
    "__init__": (set(), STDLIB_ONLY),
    "errors": (set(), STDLIB_ONLY),
    "import_path": (set(), STDLIB_ONLY),
    "paths": ({"wire.private"}, frozenset({"platformdirs"})),
    "link": ({"link"}, STDLIB_ONLY),
    "wire": ({"errors", "link", "wire"}, STDLIB_ONLY),
    "agent": ({"errors", "link", "wire", "agent"}, STDLIB_ONLY),
    "ssh": ({"errors", "ssh"}, STDLIB_ONLY),
    # A process of its own, that is to start quickly and to hold little.
    "mounts": ({"mounts"}, STDLIB_ONLY),
    "kernelconfig": ({"errors", "ssh"}, STDLIB_ONLY),
    "kernelspecs": ({"errors", "ssh", "kernelconfig"}, frozenset({"jupyter_core"})),
}
# For every other component: all but these.
TOP_LEVEL = {"provisioner", "standin", "kernelapp", "cli"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    """Return the module's name below sshpyk: ``link.frames``, ``errors``, ``hub`` for a package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def absolute(node: ast.ImportFrom, path: Path) -> str:
    """Return the module that ``from X import ...`` in ``path`` names."""
    if not node.level:
        return node.module or ""
    parents = ["sshpyk", *path.relative_to(PACKAGE).parts[:-1]]
    base = parents[: len(parents) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def imports_of(path: Path) -> Iterator[str]:
    """Yield every imported name, also those inside functions; not those for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node) for block in ast.walk(tree) if is_type_checking(block) for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = absolute(node, path)
            if module == "sshpyk" or (PACKAGE / Path(*module.split(".")[1:])).is_dir():
                yield from (f"{module}.{alias.name}" for alias in node.names)
            else:
                yield module


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def allowed_inside(component: str, imported: str) -> bool:
    """Tell whether ``component`` may import ``imported`` (below sshpyk)."""
    if component == "cli":
        return True
    if component in RULES:
        return any(
            imported == rule or imported.startswith(f"{rule}.") for rule in RULES[component][0]
        )
    head = imported.partition(".")[0]
    return head == component or head not in TOP_LEVEL or (component in TOP_LEVEL and head != "cli")


def violations(path: Path) -> Iterator[str]:
    component = dotted(path).partition(".")[0]
    libraries = RULES.get(component, (set(), ANY_LIBRARY))[1]
    for imported in imports_of(path):
        head, _, below = imported.partition(".")
        if head == "sshpyk":
            if not allowed_inside(component, below):
                yield f"{dotted(path)} imports {imported}"
        elif libraries is not None and head not in sys.stdlib_module_names | libraries:
            yield f"{dotted(path)} imports the library {imported}"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_only_what_its_layer_may(path: Path) -> None:
    assert list(violations(path)) == []


@pytest.mark.parametrize(
    "path", [path for path in modules() if dotted(path).partition(".")[0] in ON_HOST], ids=dotted
)
def test_code_for_hosts_is_valid_for_the_oldest_python_there(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST_ON_HOST)
    code = [node for node in tree.body if not isinstance(node, ast.Expr)]  # without the docstring
    assert not code or "from __future__ import annotations" in map(ast.unparse, code)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from sshpyk.hub import main", 1),
        ("from ..hub import main", 1),
        ("from .. import hub", 1),
        ("import sshpyk.hub.main", 1),
        ("def f():\n    import zmq", 1),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import zmq", 0),
        ("import os\nfrom . import frames\nfrom .stream import Stream", 0),
    ],
)
def test_the_check_itself_sees(
    source: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").mkdir()
    (tmp_path / "hub").mkdir()
    path = tmp_path / "link" / "module.py"
    path.write_text(source)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    assert len(list(violations(path))) == expected
