"""The little of Jupyter's wire format that the link's ends need to speak in a kernel's place.

Signed with the key of the connection file like the kernel's own.
https://jupyter-client.readthedocs.io/en/stable/messaging.html#the-wire-protocol
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import uuid
from typing import Any, NamedTuple, Sequence

from sshpyk.wire.kernel_messages import Part

DELIMITER = b"<IDS|MSG>"
PROTOCOL_VERSION = "5.3"

# Places of the frames behind the delimiter; the signature is the first.
HEADER, PARENT_HEADER, METADATA, CONTENT = range(2, 6)


def frame_of(parts: Sequence[Part], place: int) -> bytes:
    """Return one frame of a message, signed or not; empty where there is no such frame."""
    try:
        return bytes(parts[parts.index(DELIMITER) + place])
    except (ValueError, IndexError):
        return b""


class Request(NamedTuple):
    """A message that came from a client and carries a valid signature."""

    identities: list[bytes]
    header_bytes: bytes
    header: dict[str, Any]


class Signer:
    """Reads and makes messages with one connection file's key."""

    def __init__(self, key: str, scheme: str) -> None:
        self._key = key.encode()
        self._digest = getattr(hashlib, scheme.replace("hmac-", "", 1) or "sha256")

    def sign(self, frames: Sequence[bytes]) -> bytes:
        """Return the hexadecimal HMAC of the four JSON frames; empty when there is no key."""
        if not self._key:
            return b""
        signature = hmac.new(self._key, digestmod=self._digest)
        for frame in frames:
            signature.update(frame)
        return signature.hexdigest().encode()

    def read(self, parts: Sequence[bytes]) -> Request | None:
        """Return the message's header, or None where anything is malformed or not signed right."""
        try:
            start = list(parts).index(DELIMITER)
            frames = parts[start + 2 : start + 6]
            if len(frames) < 4 or not hmac.compare_digest(self.sign(frames), parts[start + 1]):
                return None
            header = json.loads(frames[0])
        except (ValueError, IndexError, RecursionError):
            return None
        return Request(list(parts[:start]), frames[0], header) if isinstance(header, dict) else None

    def message(
        self,
        msg_type: str,
        content: dict[str, Any],
        *,
        identities: Sequence[bytes] = (),
        parent_header: bytes = b"{}",
        session: str = "sshpyk",
    ) -> list[bytes]:
        """Return the parts of a new, signed message."""
        return self.message_of(
            msg_type,
            json.dumps(content).encode(),
            identities=identities,
            parent_header=parent_header,
            session=session,
        )

    def message_of(
        self,
        msg_type: str,
        content: bytes,
        *,
        identities: Sequence[bytes] = (),
        parent_header: bytes = b"{}",
        session: str = "sshpyk",
    ) -> list[bytes]:
        """Return the parts of a new, signed message whose content is JSON already."""
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": msg_type,
            "username": "sshpyk",
            "session": session,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(),
            "version": PROTOCOL_VERSION,
        }
        frames = [json.dumps(header).encode(), parent_header, b"{}", content]
        return [*identities, DELIMITER, self.sign(frames), *frames]
