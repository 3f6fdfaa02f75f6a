"""The requests that a kernel has been given and not yet answered, kept where another agent finds them.

Their replies go to connections of this process. When it is killed, the next one connects under the
same identities (the kernel's ROUTER hands the name over), so that replies to come arrive; and it knows
which replies can no longer come, because the kernel has answered a later question, and says so.

A small file in memory (``wire.mapped``), of slots that hold the number, the identity and the header of
one request each. What does not fit is not kept. A request is noted here before the link's journal says
that it was taken: if only the first was done when the process was killed, the hub sends it once more.
"""

from __future__ import annotations

import json
import struct
from typing import Iterator, NamedTuple, Sequence

from sshpyk.wire.jupyter_messages import HEADER, PARENT_HEADER, Request, frame_of
from sshpyk.wire.kernel_messages import Part
from sshpyk.wire.mapped import map_file

_SLOT_BYTES = 768
_SLOTS = 128
# number, answer_place, taken_with (of :class:`Unanswered`), size of the identity, size of the header
_HEAD = struct.Struct("<QQQHH")


class Unanswered(NamedTuple):
    """A request of a client's: who asked, and the header that the reply will name."""

    identity: bytes
    header_bytes: bytes
    answer_place: int = 0  # of the answer on the main stream, from 1 on; 0 before there is one
    taken_with: int = 0  # how many messages of the main stream were taken, with it

    @property
    def is_cell(self) -> bool:
        """Whether this is code that a user runs and whose output is shown."""
        return self.msg_type == "execute_request"

    @property
    def msg_type(self) -> str:
        """The type of the request."""
        return str(json.loads(self.header_bytes).get("msg_type", ""))

    def as_request(self) -> Request:
        """Return it as what the kernel was asked."""
        return Request([self.identity], self.header_bytes, json.loads(self.header_bytes))


class UnansweredRequests:
    """See the module."""

    def __init__(self, path: str) -> None:
        self._map = map_file(path, _SLOTS * _SLOT_BYTES)
        found = sorted((self._number(slot), slot) for slot in range(_SLOTS))
        self._slots = {  # by msg_id, the oldest first
            _msg_id(self._read(slot).header_bytes): slot for number, slot in found if number
        }
        taken = set(self._slots.values())
        self._free = [slot for slot in range(_SLOTS) if slot not in taken]
        self._last_number = found[-1][0]

    def waiting(self) -> Iterator[Unanswered]:
        """Yield what waits for an answer, the oldest first."""
        for slot in list(self._slots.values()):
            yield self._read(slot)

    def asked(self, parts: Sequence[Part], seq: int) -> None:
        """Note message ``seq`` of the main stream, for the shell channel, before it counts as taken."""
        request = Unanswered(bytes(parts[0]) if parts else b"", frame_of(parts, HEADER))
        msg_id = _msg_id(request.header_bytes)
        data = request.identity + request.header_bytes
        if not (msg_id and b"_request" in request.header_bytes and self._free):
            return
        if _HEAD.size + len(data) > _SLOT_BYTES:
            return
        slot = self._slots[msg_id] = self._free.pop()
        place = slot * _SLOT_BYTES
        self._last_number += 1
        self._map[place + _HEAD.size : place + _HEAD.size + len(data)] = data
        sizes = len(request.identity), len(request.header_bytes)
        _HEAD.pack_into(self._map, place, self._last_number, 0, seq + 1, *sizes)

    def forget_untaken(self, taken: int) -> None:
        """Forget what the agent before us had noted, but not taken: only ``taken`` messages were."""
        for request in list(self.waiting()):
            if request.taken_with > taken:
                self.forget(request)

    def moved(self) -> None:
        """The kernel's main stream is another one now, whose messages are counted anew."""
        for slot in self._slots.values():
            number, answer_place, _, *sizes = _HEAD.unpack_from(self._map, slot * _SLOT_BYTES)
            _HEAD.pack_into(self._map, slot * _SLOT_BYTES, number, answer_place, 0, *sizes)

    def answered(self, parts: Sequence[bytes], answer_place: int) -> None:
        """Note that this message answers its request, and how many the main stream has with it."""
        slot = self._slots.get(_msg_id(frame_of(parts, PARENT_HEADER))) if self._slots else None
        if slot is not None:
            number, _, *rest = _HEAD.unpack_from(self._map, slot * _SLOT_BYTES)
            _HEAD.pack_into(self._map, slot * _SLOT_BYTES, number, answer_place, *rest)

    def heard(self, acknowledged: int) -> None:
        """Forget the requests whose answers are among the first messages of the main stream."""
        for request in list(self.waiting()):
            if 0 < request.answer_place <= acknowledged:
                self.forget(request)

    def find(self, request: Unanswered) -> Unanswered | None:
        """Return what is known of a request now; None once its answer was heard."""
        slot = self._slots.get(_msg_id(request.header_bytes))
        return None if slot is None else self._read(slot)

    def forget(self, request: Unanswered) -> None:
        """Forget a request; idempotent."""
        slot = self._slots.pop(_msg_id(request.header_bytes), None)
        if slot is not None:
            _HEAD.pack_into(self._map, slot * _SLOT_BYTES, 0, 0, 0, 0, 0)
            self._free.append(slot)

    def close(self) -> None:
        """Let go of the file: the kernel has ended, and its hub knows it."""
        self._slots.clear()
        self._map.close()

    def _number(self, slot: int) -> int:
        return int(_HEAD.unpack_from(self._map, slot * _SLOT_BYTES)[0])

    def _read(self, slot: int) -> Unanswered:
        _, answer_place, taken_with, identity, header = _HEAD.unpack_from(
            self._map, slot * _SLOT_BYTES
        )
        start = slot * _SLOT_BYTES + _HEAD.size
        data = self._map[start : start + identity + header]
        return Unanswered(data[:identity], data[identity:], answer_place, taken_with)


def _msg_id(header_bytes: bytes) -> str:
    try:
        header = json.loads(header_bytes)
    except ValueError:
        return ""
    return str(header.get("msg_id", "")) if isinstance(header, dict) else ""
