"""What a client had seen when it sent something, and what that makes of it.

Locally a request reaches the kernel at once. Across an outage it may arrive minutes after it was sent,
and would mean something else then. Each message on the link says how far its sender had been handed the
kernel's messages (``seen``); from that follows:

- *Run All*: cells that were sent before the error of an earlier one was seen are aborted, as the kernel
  itself aborts those that wait in its queue.
- *input()*: an answer that was typed before the latest prompt was seen is for an earlier prompt.
- *interrupt*: one that was pressed for a cell which has ended long since must not hit the next one.

No clock of the other machine is involved.
"""

from __future__ import annotations

import enum
import json
from typing import Any, Sequence

from sshpyk.wire.jupyter_messages import CONTENT, HEADER, PARENT_HEADER, frame_of
from sshpyk.wire.kernel_messages import IOPUB, SHELL, STDIN

# A cell that ended within this time is a local race: whoever interrupts means what runs now.
LATE_S = 2.0
# Interrupts that were pressed again and again during an outage arrive together and count once.
TOGETHER_S = 0.5
_STATUS_BYTES = 64
_NEVER = -(1 << 63)  # before all places, also those of an agent that was replaced


class Verdict(enum.Enum):
    """What becomes of a client's message."""

    TAKE = "take"
    ABORT = "abort"  # an execute_request: answer it with ``aborted``
    DROP = "drop"


def _record(data: bytes) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


class ClientView:
    """One kernel's clients, as far as the kernel's main stream has been handed to them."""

    def __init__(self) -> None:
        self.running: bytes | None = None  # the header of the request that the kernel executes
        self._stops: dict[str, bool] = {}  # execute requests under way: whether their error aborts
        self._last_stop = _NEVER  # the number of the latest reply that aborts what follows
        self._prompts: dict[bytes, int] = {}  # client -> the number of its latest prompt
        self._last_idle = (_NEVER, 0.0)  # the number of the latest end of a cell, and when
        self._last_interrupt = (_NEVER, 0.0)

    def forget_clients(self) -> None:
        """Judge nothing by what other clients have been handed."""
        self._stops.clear()
        self._prompts.clear()
        self._last_stop = _NEVER
        self._last_idle = (_NEVER, 0.0)
        self._last_interrupt = (_NEVER, 0.0)

    # From the kernel

    def published(self, channel: int, number: int, parts: Sequence[bytes], now_s: float) -> None:
        """Note what goes to the clients as message ``number`` of the main stream."""
        if channel == IOPUB:
            self._note_status(number, parts, now_s)
        elif channel == STDIN:
            self._prompts[bytes(parts[0])] = number
        elif channel == SHELL and self._stops:
            self._note_reply(number, parts)

    def _note_status(self, number: int, parts: Sequence[bytes], now_s: float) -> None:
        if len(parts[-1]) > _STATUS_BYTES or b'"execution_state"' not in parts[-1]:
            return
        parent, content = frame_of(parts, PARENT_HEADER), frame_of(parts, CONTENT)
        if b'"execute_request"' not in parent:
            return
        if b'"busy"' in content:
            self.running = parent
        elif b'"idle"' in content:
            self.running = None
            self._last_idle = (number, now_s)

    def _note_reply(self, number: int, parts: Sequence[bytes]) -> None:
        if b'"execute_reply"' not in frame_of(parts, HEADER):
            return
        parent = _record(frame_of(parts, PARENT_HEADER))
        stops = self._stops.pop(str(parent.get("msg_id")), False)
        if stops and _record(frame_of(parts, CONTENT)).get("status") == "error":
            self._last_stop = number

    # From a client

    def judge(self, channel: int, seen: int, parts: Sequence[bytes]) -> Verdict:
        """Decide about a message whose sender had been handed the messages below ``seen``."""
        if channel == STDIN:
            late = seen <= self._prompts.get(bytes(parts[0]), _NEVER)
            return Verdict.DROP if late else Verdict.TAKE
        header = frame_of(parts, HEADER) if channel == SHELL else b""
        if b'"execute_request"' not in header:
            return Verdict.TAKE
        if seen <= self._last_stop:
            return Verdict.ABORT
        content = _record(frame_of(parts, CONTENT))
        stops = bool(content.get("stop_on_error", True)) and not content.get("silent")
        self._stops[str(_record(header).get("msg_id"))] = stops
        return Verdict.TAKE

    def judge_interrupt(self, seen: int, now_s: float) -> Verdict:
        """Decide about an interrupt whose sender had been handed the messages below ``seen``."""
        last_seen, last_s = self._last_interrupt
        if seen == last_seen and now_s - last_s < TOGETHER_S:
            return Verdict.DROP
        if self.is_late(seen, now_s):
            return Verdict.DROP
        self._last_interrupt = (seen, now_s)
        return Verdict.TAKE

    def is_late(self, seen: int, now_s: float) -> bool:
        """Tell whether the cell that an interrupt was meant for has ended long since."""
        idle, idle_s = self._last_idle
        return seen <= idle and now_s - idle_s > LATE_S
