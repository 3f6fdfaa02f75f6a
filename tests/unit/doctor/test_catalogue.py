from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshpyk import errors
from sshpyk.doctor import catalogue
from sshpyk.doctor.catalogue import ENTRIES, SECTIONS, causes
from sshpyk.ssh.causes_remote import ENDED, EXIT_STATUS, STOPPED, UNKNOWN
from sshpyk.ssh.diagnose import CAUSES

ROOT = Path(__file__).parents[3]
CODE = re.compile(
    r"(SSH|HOST|KERNEL|KERNELSPEC|MOUNT|LOCAL|JUPYTER|HUB|LINK|AGENT|PROTOCOL|LAUNCH|TUNNEL|SERVER)(-[A-Z]+)+"
)


def sources() -> Iterator[ast.Module]:
    for path in (ROOT / "sshpyk").rglob("*.py"):
        if path.name != "catalogue.py":
            yield ast.parse(path.read_text(encoding="utf-8"))


def texts() -> Iterator[str]:
    """Yield every string of the source, those that are filled in with ``…`` in each place."""
    for tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                parts = (
                    str(part.value) if isinstance(part, ast.Constant) else "…"
                    for part in node.values
                )
                yield re.sub(r"…(?:, …)*", "…", "".join(parts))


def test_every_code_has_its_row_and_every_row_its_code() -> None:
    used = {text for text in texts() if CODE.fullmatch(text)}
    assert used == set(ENTRIES)
    assert len(ENTRIES) == sum(map(len, SECTIONS.values()))


def test_every_error_that_is_not_about_input_has_a_code_or_gets_one() -> None:
    from_rows = {row.kind for row in (*CAUSES, STOPPED, UNKNOWN, ENDED, EXIT_STATUS)}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.SshpykError):
            assert kind.code in ENTRIES or kind in {*from_rows, errors.SshpykError}, kind


def test_the_words_are_those_of_the_source() -> None:
    known = set(texts())
    for code, entry in ENTRIES.items():
        for text in (entry.says, entry.remedy):
            assert not text or any(re.sub("…(?:, …)*", "…", text) in one for one in known), (
                code,
                text,
            )
        assert entry.says or causes(code) or entry.test, code
        assert not (entry.says and causes(code)) or code in ("SSH-JUMP-LOOP", "HOST-PYTHON-BROKEN")


def test_every_row_names_a_test_that_is_there() -> None:
    for code in ENTRIES:
        file, _, name = catalogue.test_of(code).partition("::")
        text = (ROOT / "tests" / file).read_text()
        assert re.search(rf'(?:def {re.escape(name)}\(|"{re.escape(name)}")', text), code


def test_why_is_one_short_line() -> None:
    assert all(0 < len(entry.why) < 100 and "\n" not in entry.why for entry in ENTRIES.values())
    assert catalogue.why("SSH-REFUSED")
    assert catalogue.why("FROM-THE-FUTURE") == ""


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="only with the documentation at hand")
def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "errors.md").read_text() == catalogue.page(), "run: make docs"
