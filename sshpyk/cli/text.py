"""Text that another machine chose a part of, and figures for people."""

from __future__ import annotations

import re
from typing import Any

_STYLING = re.compile(r"(\x1b\[[0-9;]*m)")


def safe(text: str) -> str:
    """Show control characters instead of obeying them: a host chose part of the text."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def safe_lines(text: str) -> str:
    """The same for text of many lines, which may have colours."""
    pieces = _STYLING.split(text)
    for place in range(0, len(pieces), 2):
        kept = (c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in pieces[place])
        pieces[place] = "".join(kept).replace("\\r\n", "\n")
    return "".join(pieces)


def duration(seconds: float) -> str:
    """Return a duration in its largest unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def size(count_bytes: float) -> str:
    """Return a size in bytes in its largest unit."""
    for one, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count_bytes >= one:
            return f"{count_bytes / one:.3g} {unit}"
    return f"{count_bytes:.0f} bytes"


def link_line(link: dict[str, Any]) -> str:
    """Return a link's state as ``tunnels`` and ``mounts`` show it above what goes through it."""
    away = "" if link["away_s"] is None else f" for {link['away_s']:.0f} s"
    reason = f" ({safe(link['reason'])})" if link["link"] != "up" and link["reason"] else ""
    return f"{link['host']}: link {link['link']}{away}{reason}"
