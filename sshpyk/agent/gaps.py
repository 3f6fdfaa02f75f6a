"""Which of a kernel's messages may be dropped when nothing else helps, and what the user is told."""

from __future__ import annotations

import json
import socket

from sshpyk.agent.segments import Gap
from sshpyk.link.backlog import Joined, Unnumbered
from sshpyk.wire import kernel_messages
from sshpyk.wire.jupyter_messages import DELIMITER, Signer
from sshpyk.wire.kernel_messages import IOPUB

_TOPIC = b"stream.stderr"


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
            frames = [bytes(part) for part in parts]
            start = frames.index(DELIMITER) if channel == IOPUB else len(frames)
            header, parent, content = frames[start + 2], frames[start + 3], frames[start + 5]
            # Cheap, and wrong only for a message that says so elsewhere: parsing tells.
            if b'"stream"' not in header or json.loads(header)["msg_type"] != "stream":
                return None
            text = json.loads(content)["text"]
            size = len(text.encode("utf-8", "surrogatepass"))
        except (ValueError, LookupError, TypeError, AttributeError):
            return None
        return Gap(message.place, message.seen, parent, text.count("\n"), size)

    def notice(self, gap: Gap) -> bytes:
        """Return the payload of a line on stderr in the cell that printed what was dropped."""
        text = (
            f"[sshpyk: {_lines(gap.lines)} ({_size(gap.size_bytes)}) of output"
            f" {'was' if gap.lines == 1 else 'were'} dropped here:"
            " the connection was down for longer than the backlog on"
            f" {socket.gethostname()} could hold]\n"
        )
        return kernel_messages.pack(IOPUB, self.words(text, gap.parent_header))

    def words(self, text: str, parent_header: bytes) -> list[bytes]:
        """Return a message that shows ``text`` on stderr."""
        content = {"name": "stderr", "text": text}
        return self._signer.message(
            "stream", content, identities=[_TOPIC], parent_header=parent_header
        )


def _lines(count: int) -> str:
    return f"{count:,} line{'' if count == 1 else 's'}"


def _size(size_bytes: int) -> str:
    if size_bytes < 1000:
        return f"{size_bytes} bytes"
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1000:.1f} kB"
    return f"{size_bytes / 1_000_000:,.1f} MB"
