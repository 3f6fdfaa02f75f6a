"""Which of a kernel's messages may be dropped when nothing else helps, and what the user is told."""

from __future__ import annotations

import json
import socket

from sshpyk.agent.segments import Gap
from sshpyk.agent.spokesman import remark
from sshpyk.link.backlog import Joined, Unnumbered
from sshpyk.wire import kernel_messages
from sshpyk.wire.jupyter_messages import CONTENT, HEADER, PARENT_HEADER, Signer, frame_of
from sshpyk.wire.kernel_messages import IOPUB


class StreamTextPolicy:
    """Text that cells print may be dropped (``stream`` messages on iopub), and nothing else."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def gap_for(self, message: Unnumbered) -> Gap | None:
        """Return what is lost when ``message`` is dropped; None where it must not be."""
        payload = message.payload
        if isinstance(payload, Joined):
            payload = bytes(payload)
        if not isinstance(payload, bytes):
            return None
        try:
            channel, parts = kernel_messages.unpack(payload)
            header = frame_of(parts, HEADER) if channel == IOPUB else b""
            # Cheap, and wrong only for a message that says so elsewhere: parsing tells.
            if b'"stream"' not in header or json.loads(header)["msg_type"] != "stream":
                return None
            text = json.loads(frame_of(parts, CONTENT))["text"]
            size = len(text.encode("utf-8", "surrogatepass"))
        except (ValueError, LookupError, TypeError, AttributeError):
            return None
        return Gap(
            message.place, message.seen, frame_of(parts, PARENT_HEADER), text.count("\n"), size
        )

    def notice(self, gap: Gap) -> bytes:
        """Return the payload of a line on stderr in the cell that printed what was dropped."""
        text = (
            f"{_lines(gap.lines)} ({_size(gap.size_bytes)}) of output"
            f" {'was' if gap.lines == 1 else 'were'} dropped here:"
            " the connection was down for longer than the backlog on"
            f" {socket.gethostname()} could hold"
        )
        return kernel_messages.pack(IOPUB, remark(self._signer, text, gap.parent_header))


def _lines(count: int) -> str:
    return f"{count:,} line{'' if count == 1 else 's'}"


def _size(size_bytes: int) -> str:
    if size_bytes < 1000:
        return f"{size_bytes} bytes"
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1000:.1f} kB"
    return f"{size_bytes / 1_000_000:,.1f} MB"
