"""What the hub answers in the kernel's place while the link is away: ``kernel_info_request``.

A Jupyter server that opens a page asks a kernel that is silent up to 240 times a minute (``nudge``), and
opens nothing before it has an answer. None of that helps a kernel behind a cut line, and all of it would
arrive there at once later. The answer is the kernel's own last one, with its last known state.
"""

from __future__ import annotations

from collections.abc import Sequence

from sshpyk.wire.jupyter_messages import CONTENT, HEADER, Signer, frame_of
from sshpyk.wire.kernel_messages import CONTROL, IOPUB, SHELL, Part

_STATUS_BYTES = 64
_UNKNOWN_STATE = b'{"execution_state": "busy"}'


class KernelInfo:
    """One kernel's latest answer, and its latest state."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._content: bytes | None = None
        self._state = _UNKNOWN_STATE

    def note(self, channel: int, parts: Sequence[Part]) -> None:
        """Look at a message of the kernel's that is passed on."""
        if channel == IOPUB:
            if len(parts[-1]) <= _STATUS_BYTES and b'"execution_state"' in bytes(parts[-1]):
                self._state = bytes(parts[-1])
        elif channel in (SHELL, CONTROL) and b'"kernel_info_reply"' in frame_of(parts, HEADER):
            self._content = frame_of(parts, CONTENT)

    def answer(self, channel: int, parts: Sequence[bytes]) -> list[tuple[int, list[bytes]]]:
        """Return what to send for a client's request, as (channel, parts); nothing for all others."""
        if self._content is None or b'"kernel_info_request"' not in frame_of(parts, HEADER):
            return []
        request = self._signer.read(parts)
        if request is None:
            return []
        parent = request.header_bytes
        reply = self._signer.message_of(
            "kernel_info_reply", self._content, identities=request.identities, parent_header=parent
        )
        status = self._signer.message_of(
            "status", self._state, identities=[b"status"], parent_header=parent
        )
        return [(IOPUB, status), (channel, reply)]
