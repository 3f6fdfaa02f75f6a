"""One row: what a code of an error means. Its place is in one of the tables beside this module."""

from __future__ import annotations

from dataclasses import dataclass

ERRORS = "integration/test_errors.py"  # where most of the tests are


@dataclass(frozen=True)
class Entry:
    """``says`` and ``remedy`` are empty where the rows about ssh have them, or where they vary.

    ``test``: ``file::name`` below ``tests/``; empty: the case in ``integration/test_errors.py`` that is
    named after the code.
    """

    why: str
    says: str = ""
    remedy: str = ""
    test: str = ""
