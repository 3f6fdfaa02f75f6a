"""What the hub answers in the kernel's place: ``kernel_info_request``.

Every client asks it first, and waits for the answer. The agent has asked it as the kernel began to
listen, and the answer came with the word that the kernel is there: so until anybody asks for more, that
is the answer, without another round trip.

And while the link is away.
A Jupyter server that opens a page asks a kernel that is silent up to 240 times a minute (``nudge``), and
opens nothing before it has an answer. None of that helps a kernel behind a cut line, and all of it would
arrive there at once later. The answer is the kernel's own last one, with its last known state.
"""

from __future__ import annotations

from collections.abc import Sequence

from sshpyk.wire.jupyter_messages import CONTENT, HEADER, Signer, frame_of
from sshpyk.wire.kernel_messages import CONTROL, IOPUB, SHELL, Part

_STATUS_BYTES = 64
_IDLE = b'{"execution_state": "idle"}'
_UNKNOWN_STATE = b'{"execution_state": "busy"}'


class KernelInfo:
    """One kernel's latest answer, and its latest state."""

    def __init__(self, signer: Signer, first: str = "") -> None:
        """``first`` is what a new kernel has answered already, JSON."""
        self._signer = signer
        self._untouched = bool(first)  # nobody has asked it for anything else
        self._content = first.encode()
        self._state = _UNKNOWN_STATE

    def note(self, channel: int, parts: Sequence[Part]) -> None:
        """Look at a message of the kernel's that is passed on."""
        if channel == IOPUB:
            if len(parts[-1]) <= _STATUS_BYTES and b'"execution_state"' in bytes(parts[-1]):
                self._state = bytes(parts[-1])
        elif channel in (SHELL, CONTROL) and b'"kernel_info_reply"' in frame_of(parts, HEADER):
            self._content = frame_of(parts, CONTENT)

    def answer(
        self, channel: int, parts: Sequence[bytes], *, away: bool
    ) -> list[tuple[int, list[bytes]]]:
        """Return what to send for a client's request, as (channel, parts); nothing where it must pass."""
        asked = b'"kernel_info_request"' in frame_of(parts, HEADER)
        self._untouched = self._untouched and asked
        if not (asked and self._content and (away or self._untouched)):
            return []
        request = self._signer.read(parts)
        if request is None:
            return []
        parent = request.header_bytes
        reply = self._signer.message_of(
            "kernel_info_reply", self._content, identities=request.identities, parent_header=parent
        )
        # A new kernel may have said "starting" last, behind which it has answered the agent.
        state = _IDLE if self._untouched else self._state
        status = self._signer.message_of(
            "status", state, identities=[b"status"], parent_header=parent
        )
        return [(IOPUB, status), (channel, reply)]
