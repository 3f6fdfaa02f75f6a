"""The figures as pictures: SVG files that change only where a figure has changed."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

from benchmarks.aims import Aim, aim_of, floor_of
from benchmarks.figures import Figures
from benchmarks.rows import DISPLAY_MB, LINES
from benchmarks.subjects import LOCAL, OTHER, OURS

_COLOURS = {LOCAL: "#9a9a9a", OURS: "#1f77b4", OTHER: "#d9822b"}
_LIFE = ("launch, cold", "launch, warm", "restart", "shutdown", "interrupt", "1+1")
_STYLE = {
    "svg.hashsalt": "sshpyk",  # the same ids every time
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}


def write_plots(figures: Figures, folder: Path, place: str) -> list[Path]:
    """Write a picture for each group of rows that was measured; return the files."""
    written = []
    with mpl.rc_context(_STYLE):
        for name, draw in (("life", _life), ("output", _output), ("many", _many)):
            picture = draw(figures)
            if picture is not None:
                written.append(folder / f"{place}-{name}.svg")
                picture.savefig(written[-1], metadata={"Date": None, "Creator": None})
                plt.close(picture)
    return written


def _panels(count: int, columns: int) -> tuple[Any, list[Any]]:
    lines = -(-count // columns)
    picture, axes = plt.subplots(lines, columns, figsize=(8, 2.3 * lines), squeeze=False)
    return picture, list(axes.flat)


def _measured(figures: Figures, rows: tuple[str, ...]) -> list[str]:
    return [row for row in rows if any(key.row == row for key in figures.values)]


def _life(figures: Figures) -> Any:
    """Draw each step of a kernel's life over the round trip time, with the floor."""
    rows = _measured(figures, _LIFE)
    if not rows:
        return None
    picture, axes = _panels(len(rows), 3)
    for axis, row in zip(axes, rows, strict=False):
        distances = sorted({key.rtt_ms for key in figures.values if key.row == row})
        for subject in _COLOURS:
            _curve(axis, figures, (row, subject), distances)
        floors = [floor_of(row, figures, rtt_ms) for rtt_ms in distances]
        if row in ("launch, cold", "launch, warm", "1+1") and None not in floors:
            axis.plot(distances, floors, "k:", linewidth=1, label="floor")
        axis.set(title=row, xlabel="round trip, ms", xticks=distances, ylim=(0, None))
    axes[0].set_ylabel("s")
    return _finished(picture, axes[0], len(rows), axes)


def _curve(axis: Any, figures: Figures, cell: tuple[str, str], distances: list[int]) -> None:
    row, subject = cell
    found = [(rtt_ms, figures.spread(row, subject, rtt_ms)) for rtt_ms in distances]
    points = [(rtt_ms, spread) for rtt_ms, spread in found if spread is not None]
    if points:
        middles = [spread.median for _, spread in points]
        below = [spread.median - spread.least for _, spread in points]
        above = [spread.most - spread.median for _, spread in points]
        axis.errorbar(
            [rtt_ms for rtt_ms, _ in points],
            middles,
            yerr=[below, above],
            color=_COLOURS[subject],
            marker="o",
            markersize=3,
            capsize=2,
            label=subject,
        )


def _output(figures: Figures) -> Any:
    """Draw what is compared at 0 ms only: bars, with the aim as a line."""
    wanted = (
        f"{DISPLAY_MB} MB of display_data",
        f"{LINES} flushed prints",
        f"{LINES} lines of 1 KB over 1 MB/s: received",
        "10 idle kernels, 30 s: processor time",
        "10 idle kernels, 30 s: processes started",
        "longest stall of the server's loop",
    )
    rows = _measured(figures, wanted)
    if not rows:
        return None
    picture, axes = _panels(len(rows), 3)
    for axis, row in zip(axes, rows, strict=False):
        _bars(axis, figures, row)
    return _finished(picture, None, len(rows), axes)


def _bars(axis: Any, figures: Figures, row: str) -> None:
    found = {subject: figures.spread(row, subject) for subject in _COLOURS}
    there = {subject: spread for subject, spread in found.items() if spread is not None}
    heights = [spread.median for spread in there.values()]
    bars = axis.bar(list(there), heights, color=[_COLOURS[subject] for subject in there])
    axis.bar_label(bars, [_short(height) for height in heights])
    line = _aim_line(aim_of(row, 0), figures)
    if line:
        axis.axhline(line, color="black", linestyle=":", linewidth=1)
    counts = row.endswith(("received", "started"))
    axis.set(title=textwrap.fill(row, 28), ylabel="" if counts else "s")


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _aim_line(aim: Aim | None, figures: Figures) -> float | None:
    if aim is None:
        return None
    floor = floor_of(aim.row, figures, aim.rtt_ms) if aim.of_floor else 1.0
    return None if floor is None else aim.most * floor


def _many(figures: Figures) -> Any:
    """Draw the time to start kernels, and how many of them started, over their number."""
    counts = sorted(
        {int(key.row.split()[0]) for key in figures.values if "kernels: time" in key.row}
    )
    if not counts:
        return None
    panels = (("time", "s until all answer"), ("started", "kernels that answer"),
              ("ssh processes", "ssh processes here"))  # fmt: skip
    picture, axes = _panels(len(panels), 3)
    for axis, (what, title) in zip(axes, panels, strict=True):
        for subject, colour in _COLOURS.items():
            found = [(n, figures.median(f"{n} kernels: {what}", subject)) for n in counts]
            points = [(n, value) for n, value in found if value is not None]
            if points:
                axis.plot(
                    *zip(*points, strict=True), "o-", color=colour, label=subject, markersize=3
                )
        axis.set(title=title, xlabel="kernels", xticks=counts, ylim=(0, None))
    return _finished(picture, axes[0], len(panels), axes)


def _finished(picture: Any, legend: Any, used: int, axes: list[Any]) -> Any:
    for axis in axes[used:]:
        axis.remove()
    if legend is not None:
        legend.legend(frameon=False)
    picture.tight_layout()
    return picture
