"""What was measured: every value, by row, subject and round trip, with the load of the machine then."""

from __future__ import annotations

import os
import platform
import statistics
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

HANDSHAKE = "ssh handshake"
ROUND_TRIP = "round trip of the line itself"


class Key(NamedTuple):
    """One cell of the table."""

    row: str
    rtt_ms: int
    subject: str


class Spread(NamedTuple):
    """Several measurements of one thing."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Summarise at least one measurement."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass
class Figures:
    """Values by cell, in the order in which they came."""

    values: dict[Key, list[float]] = field(default_factory=dict)
    loads: dict[Key, list[float]] = field(default_factory=dict)
    failures: dict[Key, list[str]] = field(default_factory=dict)

    def add(self, row: str, subject: str, value: float, rtt_ms: int = 0) -> None:
        """Note one measurement."""
        key = Key(row, rtt_ms, subject)
        self.values.setdefault(key, []).append(value)
        self.loads.setdefault(key, []).append(round(os.getloadavg()[0], 1))

    def fail(self, row: str, subject: str, reason: str, rtt_ms: int = 0) -> None:
        """Note that a subject could not do it."""
        self.failures.setdefault(Key(row, rtt_ms, subject), []).append(reason)

    def spread(self, row: str, subject: str, rtt_ms: int = 0) -> Spread | None:
        """Return the summary of a cell; None where nothing was measured."""
        values = self.values.get(Key(row, rtt_ms, subject))
        return Spread.of(values) if values else None

    def median(self, row: str, subject: str, rtt_ms: int = 0) -> float | None:
        """Return the median of a cell; None where nothing was measured."""
        spread = self.spread(row, subject, rtt_ms)
        return None if spread is None else spread.median

    def record(self, place: str) -> dict[str, Any]:
        """Return everything, for a file."""
        system = f"{platform.system()} {platform.release()}"
        return {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "place": place,
            "machine": f"{system}, {os.cpu_count()} processors, Python {platform.python_version()}",
            "figures": [
                {
                    **key._asdict(),
                    **Spread.of(values)._asdict(),
                    "values": values,
                    "load": self.loads[key],
                }
                for key, values in self.values.items()
            ],
            "failures": [
                {**key._asdict(), "reasons": reasons} for key, reasons in self.failures.items()
            ],
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Figures:
        """Return what :meth:`record` made a record of."""
        made = cls()
        for one in record["figures"]:
            key = Key(one["row"], one["rtt_ms"], one["subject"])
            made.values[key], made.loads[key] = one["values"], one["load"]
        for one in record["failures"]:
            made.failures[Key(one["row"], one["rtt_ms"], one["subject"])] = one["reasons"]
        return made
