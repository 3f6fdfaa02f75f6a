"""When to dial again during an outage, and how long each try may wait for the host's first answer.

Two kinds of failure want opposite answers. Where something *answers* that it does not want us (refused,
reset, an sshd that is still starting), trying often is a burden to it: the pauses grow. Where nothing
answers at all (a cable is out, a laptop is between two networks), a try burdens nobody, but one that was
begun too early hangs in TCP's retransmissions long after the line is back: tries are short, and follow
each other closely.
"""

from __future__ import annotations

import random

_FIRST_PAUSE_S = 0.2
_SILENT_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0
_LATER_PAUSE_S = 30.0
_LATER_AFTER_S = 600.0  # an outage that lasts longer than this is nobody's hurry any more

_SHORTEST_PATIENCE_S = 4
_LONGEST_PATIENCE_S = 15
_PATIENT_EVERY = 16  # one try in so many is patient: the host may have become slow


class Redial:
    """One outage's tries; ``usual_s`` is what a successful dial to this host took, if known."""

    def __init__(self, usual_s: float | None = None) -> None:
        self._usual_s = usual_s
        self._tries = 0
        self._pause_s = _FIRST_PAUSE_S

    def connect_timeout_s(self) -> int | None:
        """Return ssh's ConnectTimeout for the next try: until keys are exchanged. None: as configured.

        A link that never was has no outage: whoever launches waits as long as ssh does.
        """
        if self._usual_s is None:
            return None
        self._tries += 1
        if self._tries % _PATIENT_EVERY == 0:
            return _LONGEST_PATIENCE_S
        return min(_LONGEST_PATIENCE_S, max(_SHORTEST_PATIENCE_S, round(4 * self._usual_s)))

    def pause_s(self, outage_s: float, *, answered: bool) -> float:
        """Return how long to wait after a try failed, ``outage_s`` after the connection was lost."""
        longest_s = _LONGEST_PAUSE_S if outage_s < _LATER_AFTER_S else _LATER_PAUSE_S
        pause_s = min(self._pause_s, longest_s) if answered else _SILENT_PAUSE_S
        if outage_s >= _LATER_AFTER_S and not answered:
            pause_s = _LONGEST_PAUSE_S
        self._pause_s = min(_LATER_PAUSE_S, self._pause_s * 2) if answered else _FIRST_PAUSE_S
        return pause_s * random.uniform(0.75, 1.25)  # noqa: S311
