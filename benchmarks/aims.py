"""What each row is compared with: the floor that physics and a local kernel set, and the aim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.figures import HANDSHAKE, ROUND_TRIP, Figures
from benchmarks.rows import DISPLAY_MB, LINES
from benchmarks.subjects import LOCAL, OURS

Floor = Callable[[Figures, int], float | None]


def _sum(*parts: float | None) -> float | None:
    return None if None in parts else sum(part for part in parts if part is not None)


def _local(row: str) -> Floor:
    """Return the floor that a local kernel sets."""
    return lambda figures, rtt_ms: figures.median(row, LOCAL, rtt_ms)


def round_trip_s(figures: Figures, rtt_ms: int) -> float:
    """As measured: a line of 100 ms takes 101."""
    return (figures.median(ROUND_TRIP, LOCAL, rtt_ms) or rtt_ms / 1000) if rtt_ms else 0.0


def cold_floor(figures: Figures, rtt_ms: int) -> float | None:
    """The ssh handshake, a local launch, and two round trips."""
    handshake_s = figures.median(HANDSHAKE, LOCAL, rtt_ms)
    local_s = figures.median("launch, cold", LOCAL, rtt_ms)
    return _sum(handshake_s, local_s, 2 * round_trip_s(figures, rtt_ms))


def warm_floor(figures: Figures, rtt_ms: int) -> float | None:
    """A local launch, and two round trips."""
    local_s = figures.median("launch, warm", LOCAL, rtt_ms)
    return _sum(local_s, 2 * round_trip_s(figures, rtt_ms))


def execute_floor(figures: Figures, rtt_ms: int) -> float | None:
    """A local ``1+1``, and one round trip."""
    return _sum(figures.median("1+1", LOCAL, rtt_ms), round_trip_s(figures, rtt_ms))


FLOORS: dict[str, Floor] = {
    "launch, cold": cold_floor,
    "launch, warm": warm_floor,
    "1+1": execute_floor,
}


def floor_of(row: str, figures: Figures, rtt_ms: int) -> float | None:
    """Return what no remote kernel can be quicker than; for most rows, what the local one takes."""
    return FLOORS.get(row, _local(row))(figures, rtt_ms)


@dataclass(frozen=True)
class Aim:
    """``text`` is for people; what is measured must be ``most`` or less, or times the floor."""

    row: str
    rtt_ms: int
    text: str
    most: float
    of_floor: bool = False
    exactly: bool = False

    def met(self, figures: Figures) -> bool | None:
        """Whether ours reaches it; None where something was not measured."""
        ours = figures.median(self.row, OURS, self.rtt_ms)
        floor = floor_of(self.row, figures, self.rtt_ms) if self.of_floor else 1.0
        if ours is None or floor is None:
            return None
        return ours == self.most if self.exactly else ours <= self.most * floor


_IDLE = "10 idle kernels, 30 s"
_SLOW = f"{LINES} lines of 1 KB over 1 MB/s: received"
AIMS = (
    Aim("launch, cold", 100, "≤ 1.1 x floor", 1.1, of_floor=True),
    Aim("launch, warm", 100, "≤ 1.15 x floor", 1.15, of_floor=True),
    Aim("restart", 100, "≤ 0.9 s", 0.9),
    Aim("shutdown", 100, "≤ 0.4 s", 0.4),
    Aim("1+1", 100, "≤ 1.01 x floor", 1.01, of_floor=True),
    Aim("1+1", 0, "≤ 1.25 x local", 1.25, of_floor=True),
    Aim(f"{DISPLAY_MB} MB of display_data", 0, "≤ 1.3 x local", 1.3, of_floor=True),
    Aim(f"{LINES} flushed prints", 0, "≤ 1.05 x local", 1.05, of_floor=True),
    Aim(_SLOW, 0, f"{LINES}", LINES, exactly=True),
    Aim(f"{_IDLE}: processor time", 0, "≤ 0.6 s", 0.6),
    Aim(f"{_IDLE}: processes started", 0, "0", 0, exactly=True),
    Aim("50 kernels: started", 0, "50", 50, exactly=True),
    Aim("50 kernels: time", 0, "≤ 1.3 x local", 1.3, of_floor=True),
    Aim("50 kernels: ssh processes", 0, "1", 1, exactly=True),
    Aim("each kernel of 1 to 10: memory here", 0, "≤ 12 MB", 12),
    Aim("longest stall of the server's loop", 0, "≤ 20 ms", 0.020),
)


def aim_of(row: str, rtt_ms: int) -> Aim | None:
    """Return the aim of a row, if it has one."""
    return next((aim for aim in AIMS if (aim.row, aim.rtt_ms) == (row, rtt_ms)), None)
