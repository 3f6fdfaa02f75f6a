"""What a check says: one line with a mark, and the lines below it.

A check is a pure function from facts to findings. Whoever shows them (``sshpyk list``, ``sshpyk
doctor``) decides when the facts are gathered and where to stop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from sshpyk.errors import SshpykError

_SAID_LINES = 3


class Mark(Enum):
    """What a check found out about an item."""

    OK = "(v)"
    BROKEN = "(x)"
    ADVICE = "(!)"
    UNCHECKED = "(?)"
    INFO = "(i)"


@dataclass(frozen=True)
class Item:
    """One finding; ``parts`` are the lines below it, ``code`` is a row of docs/errors.md.

    A part labelled "advice" says what to do, one labelled "run" is the command to paste.
    """

    label: str
    value: str
    mark: Mark | None = None
    parts: tuple[Item, ...] = ()
    code: str = ""

    @property
    def is_broken(self) -> bool:
        """Whether this, or a part of it, is why something does not work."""
        return self.mark is Mark.BROKEN or any(part.is_broken for part in self.parts)


def advice(text: str, run: str = "") -> tuple[Item, ...]:
    """Return the parts that say what to do, and the command that does it."""
    command = (Item("run", run, Mark.INFO),) if run else ()
    return (Item("advice", text, Mark.ADVICE), *command)


def failure(label: str, value: str, error: SshpykError) -> Item:
    """Return what an error says about ``value``, with what was said and what to do."""
    said = tuple(Item("said", line, Mark.INFO) for line in error.said.splitlines()[-_SAID_LINES:])
    todo = advice(error.advice) if error.advice else ()
    text = f"{value}: {error.what}" if value else error.what
    return Item(label, text, Mark.BROKEN, said + todo, error.code)


def worst(parts: Iterable[Item]) -> Mark:
    """Return the mark of an item that is fine itself and has these parts."""
    found = {part.mark for part in parts}
    return next((mark for mark in (Mark.BROKEN, Mark.ADVICE) if mark in found), Mark.OK)


def plain(item: Item) -> dict[str, object]:
    """Return a finding as JSON holds it."""
    return {
        "label": item.label,
        "value": item.value,
        "mark": item.mark.name.lower() if item.mark else None,
        "code": item.code,
        "parts": [plain(part) for part in item.parts],
    }
