"""Which offers a user means: by number, range, name or pattern. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from sshpyk.discovery.offers import Offer, State
from sshpyk.errors import InvalidInput

_RANGE = re.compile(r"(\d{1,6})(?:\s*-\s*(\d{1,6}))?")

# The kernel name that an offer would get here: users may type that as well.
Name = Callable[[Offer], str]


def pick(text: str, offers: Sequence[Offer], name_of: Name) -> list[Offer]:
    """Return what ``all``, ``1,3-5``, ``analysis base`` or ``ml*`` mean, in the order of the table.

    ``all`` means all that are ready. Raises InvalidInput for what means nothing.
    """
    chosen: set[int] = set()
    for item in filter(None, (part.strip() for part in text.split(","))):
        whole = _one(item, offers, name_of)
        for word in [item] if whole else item.split():
            found = _one(word, offers, name_of)
            if not found:
                raise InvalidInput(f"{word!r} is no number, name or pattern of the table")
            chosen |= found
    return [offer for place, offer in enumerate(offers) if place in chosen]


def match(patterns: Iterable[str], offers: Sequence[Offer], name_of: Name) -> list[Offer]:
    """Return the offers that any of the patterns means. Raises InvalidInput for one without any."""
    chosen: set[int] = set()
    for pattern in patterns:
        found = _matching(pattern, offers, name_of)
        if not found:
            known = ", ".join(offer.label for offer in offers[:20]) or "nothing"
            raise InvalidInput(f"--match {pattern!r} fits nothing on the host; there is: {known}")
        chosen |= found
    return [offer for place, offer in enumerate(offers) if place in chosen]


def _one(word: str, offers: Sequence[Offer], name_of: Name) -> set[int]:
    if word.lower() in ("all", "a", "*"):
        return {place for place, offer in enumerate(offers) if offer.state is State.READY}
    numbers = _RANGE.fullmatch(word)
    if numbers:
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if not 1 <= first <= last <= len(offers):
            raise InvalidInput(f"{word!r} is not between 1 and {len(offers)}")
        return set(range(first - 1, last))
    return _matching(word, offers, name_of)


def _matching(pattern: str, offers: Sequence[Offer], name_of: Name) -> set[int]:
    low = pattern.lower()
    return {
        place
        for place, offer in enumerate(offers)
        if any(
            fnmatchcase(text.lower(), low)
            for text in (offer.label, name_of(offer), offer.kernel_name, offer.place)
            # Every Python environment's kernel is called python3: the name of none.
            if text != "python3"
        )
    }
