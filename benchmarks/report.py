"""How figures are shown: a table on the terminal, and the same in Markdown for the documentation."""

from __future__ import annotations

from rich import box
from rich.table import Table

from benchmarks.aims import aim_of, floor_of
from benchmarks.figures import HANDSHAKE, ROUND_TRIP, Figures, Key, Spread
from benchmarks.subjects import BEFORE, LOCAL, OTHER, OURS

HEADINGS = ["median (min-max)", LOCAL, OURS, "x floor", OTHER, "x ours", "aim", ""]


def headings_of(figures: Figures) -> list[str]:
    """Return the table's; a column more where a version before was measured too."""
    before = any(key.subject == BEFORE for key in figures.values)
    return [*HEADINGS[:4], BEFORE, *HEADINGS[4:]] if before else HEADINGS


def unit_of(row: str) -> str:
    """Return what the values of a row are: "s", "MB", or "" for counts."""
    if "memory" in row:
        return "MB"
    counts = ("received", "started", "ssh processes", "bytes")
    return "" if row.endswith(counts) else "s"


def shown(spread: Spread | None, unit: str) -> str:
    """Return a cell's text; all of its values are in the unit of the median."""
    if spread is None:
        return ""
    factor, digits = 1.0, 0
    if unit == "s" and spread.median < 1:
        unit, factor, digits = "ms", 1000.0, 0 if spread.median >= 0.1 else 1
    elif unit:
        digits = 2 if unit == "s" else 1
    median, least, most = (f"{value * factor:.{digits}f}" for value in spread)
    text = median if least == most else f"{median} ({least}-{most})"
    return f"{text} {unit}".strip()


def rows_of(figures: Figures) -> list[list[str]]:
    """Return the cells of the table, line by line."""
    cells = dict.fromkeys((key.row, key.rtt_ms) for key in [*figures.values, *figures.failures])
    several = {row for row, rtt_ms in cells if rtt_ms}
    found = []
    for row, rtt_ms in sorted(cells, key=lambda cell: _place(cell, list(cells))):
        if (row, rtt_ms) not in {(key.row, key.rtt_ms) for key in figures.values}:
            continue
        title = f"{row}, {rtt_ms} ms away" if row in several else row
        line = [title, *_line(figures, row, rtt_ms)]
        if BEFORE in headings_of(figures):
            line.insert(4, shown(figures.spread(row, BEFORE, rtt_ms), unit_of(row)))
        found.append(line)
    return found


def _place(cell: tuple[str, int], cells: list[tuple[str, int]]) -> tuple[int, int]:
    """Sort by row, then by distance."""
    rows = list(dict.fromkeys(row for row, _ in cells))
    return rows.index(cell[0]), cell[1]


def _line(figures: Figures, row: str, rtt_ms: int) -> list[str]:
    unit = unit_of(row)
    local, ours, other = (figures.spread(row, one, rtt_ms) for one in (LOCAL, OURS, OTHER))
    floor = floor_of(row, figures, rtt_ms) if row not in (HANDSHAKE, ROUND_TRIP) else None
    aim = aim_of(row, rtt_ms)
    met = aim and aim.met(figures)
    mark = "" if met is None else "yes" if met else "NO"
    texts = [shown(one, unit) for one in (local, ours, other)]
    if other is None and Key(row, rtt_ms, OTHER) in figures.failures:
        texts[2] = "failed"
    more = _ratio(other, ours and ours.median) if unit else ""
    over_floor = _ratio(ours, floor) if unit else ""
    return [texts[0], texts[1], over_floor, texts[2], more, aim.text if aim else "", mark]


def _ratio(spread: Spread | None, base: float | None) -> str:
    return "" if spread is None or not base else f"{spread.median / base:.2f}"


def table_of(figures: Figures) -> Table:
    """Return what the terminal shows."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for heading in headings_of(figures):
        table.add_column(heading, justify="left" if heading in ("aim", HEADINGS[0]) else "right")
    for row in rows_of(figures):
        style = "red" if row[-1] == "NO" else "green" if row[-1] == "yes" else ""
        table.add_row(*row[:-1], f"[{style}]{row[-1]}[/]" if style else "")
    return table


def markdown_of(figures: Figures) -> str:
    """Return the same table for the documentation."""
    headings = headings_of(figures)
    lines = [headings, ["---"] * len(headings), *rows_of(figures)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
