"""Jupyter's wire format, against jupyter_client's own Session in both directions."""

from __future__ import annotations

from typing import Any

import pytest
from jupyter_client.session import DELIM, Session

from sshpyk.wire.jupyter_messages import CONTENT, HEADER, PARENT_HEADER, Signer, frame_of

KEY = "0123456789abcdef"


def session(key: str = KEY, scheme: str = "hmac-sha256") -> Session:
    return Session(key=key.encode(), signature_scheme=scheme)


def serialized(writer: Session, msg_type: str, ident: list[bytes] | None = None) -> list[bytes]:
    content = {"text": "é"}
    parts: list[bytes] = writer.serialize(writer.msg(msg_type, content), ident=ident)
    return parts


@pytest.mark.parametrize("scheme", ["hmac-sha256", "hmac-sha512", "hmac-md5"])
@pytest.mark.parametrize("key", [KEY, ""])
def test_what_jupyter_client_writes_is_read(key: str, scheme: str):
    parts = serialized(session(key, scheme), "interrupt_request", [b"ident", b"\0\xff"])
    request = Signer(key, scheme).read(parts)
    assert request is not None
    assert request.identities == [b"ident", b"\0\xff"]
    assert request.header["msg_type"] == "interrupt_request"
    assert request.header_bytes == parts[4]


@pytest.mark.parametrize("scheme", ["hmac-sha256", "hmac-sha512"])
@pytest.mark.parametrize("key", [KEY, ""])
def test_what_is_made_is_accepted_by_jupyter_client(key: str, scheme: str):
    reader = session(key, scheme)
    request = Signer(key, scheme).read(serialized(reader, "interrupt_request", [b"who"]))
    assert request is not None
    parts = Signer(key, scheme).message(
        "interrupt_reply",
        {"status": "ok"},
        identities=request.identities,
        parent_header=request.header_bytes,
    )
    identities, frames = reader.feed_identities(parts)
    message: dict[str, Any] = reader.deserialize(frames)
    assert identities == [b"who"]
    assert message["content"] == {"status": "ok"}
    assert message["msg_type"] == "interrupt_reply"
    assert message["parent_header"]["msg_id"] == request.header["msg_id"]


def test_messages_never_repeat_a_signature():
    reader = session()
    signer = Signer(KEY, "hmac-sha256")
    for _ in range(3):  # a repeated one makes Session raise
        _, frames = reader.feed_identities(signer.message("interrupt_request", {}))
        reader.deserialize(frames)


def test_a_foreign_key_is_refused():
    assert Signer("other", "hmac-sha256").read(serialized(session(), "execute_request")) is None


@pytest.mark.parametrize("changed", range(2, 6))
def test_a_changed_frame_is_refused(changed: int):
    parts = serialized(session(), "execute_request")
    parts[changed] = parts[changed][:-1] + b" }"
    assert Signer(KEY, "hmac-sha256").read(parts) is None


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"no delimiter"],
        [DELIM],
        [DELIM, b""],
        [DELIM, b"", b"{}", b"{}", b"{}"],
        [DELIM, b"", b"{", b"{}", b"{}", b"{}"],
        [DELIM, b"", b"[]", b"{}", b"{}", b"{}"],
        [DELIM, b"", b"\xff", b"{}", b"{}", b"{}"],
        [DELIM, b"not hexadecimal \xff", b"{}", b"{}", b"{}", b"{}"],
    ],
)
def test_malformed_messages_are_refused(parts: list[bytes]):
    assert Signer("", "hmac-sha256").read(parts) is None


def test_frames_are_found_behind_identities_and_in_views():
    parts = serialized(session(), "execute_reply", [b"who", b"\0\xff"])
    for message in (parts, [memoryview(part) for part in parts], tuple(parts)):
        assert b'"execute_reply"' in frame_of(message, HEADER)
        assert frame_of(message, PARENT_HEADER) == b"{}"
        assert frame_of(message, CONTENT) == parts[-1]
        assert type(frame_of(message, CONTENT)) is bytes


def test_frame_that_is_not_there_is_empty():
    assert frame_of([], HEADER) == frame_of([b"a", b"b"], HEADER) == b""
    assert frame_of([b"who", DELIM, b"signature", b"header"], CONTENT) == b""
