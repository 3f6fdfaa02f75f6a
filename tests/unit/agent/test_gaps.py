"""Which messages may be dropped, and the message that says so."""

from __future__ import annotations

import json
import socket

import pytest
from jupyter_client.session import Session

from sshpyk.agent.gaps import StreamTextPolicy
from sshpyk.agent.segments import Gap
from sshpyk.link.backlog import Unnumbered
from sshpyk.wire import kernel_messages
from sshpyk.wire.jupyter_messages import Signer
from sshpyk.wire.kernel_messages import IOPUB, SHELL

POLICY = StreamTextPolicy(Signer("secret", "hmac-sha256"))
SESSION = Session(key=b"secret")
PARENT = SESSION.msg("execute_request")["header"]


def waiting(kind: str, content: dict[str, object], channel: int = IOPUB) -> Unnumbered:
    message = SESSION.msg(kind, content, parent={"header": PARENT})
    parts = [b"topic", *SESSION.serialize(message)]
    return Unnumbered(7, kernel_messages.pack(channel, parts), 3, False)


def test_printed_text_may_go_with_its_lines_and_bytes_counted():
    message = waiting("stream", {"name": "stdout", "text": "a\nbü\n\nrest"})
    gap = POLICY.gap_for(message)
    assert gap is not None
    assert gap[:2] == (7, 3)
    assert gap.lines == 3
    assert gap.size_bytes == len("a\nbü\n\nrest".encode())
    assert json.loads(gap.parent_header)["msg_id"] == PARENT["msg_id"]
    assert isinstance(message.payload, bytes)
    assert len(gap.parent_header) < len(message.payload)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("status", {"execution_state": "idle"}),
        ("error", {"ename": "E", "evalue": '"stream"', "traceback": []}),
        ("execute_result", {"data": {"text/plain": "1"}, "execution_count": 1}),
        ("display_data", {"data": {}, "metadata": {}}),
        ("comm_msg", {"comm_id": "stream", "data": {}}),
        ("execute_input", {"code": '"stream"', "execution_count": 1}),
        ("clear_output", {"wait": True}),
    ],
)
def test_nothing_else_may(kind: str, content: dict[str, object]):
    assert POLICY.gap_for(waiting(kind, content)) is None


def test_nor_a_reply_an_input_prompt_or_what_is_not_understood():
    assert POLICY.gap_for(waiting("stream", {"name": "stdout", "text": "a"}, SHELL)) is None
    for payload in (b"", b"nonsense", kernel_messages.pack(IOPUB, [b"a"])):
        assert POLICY.gap_for(Unnumbered(0, payload, 0, False)) is None
    no_text = waiting("stream", {"name": "stdout", "text": None})
    assert POLICY.gap_for(no_text) is None


def test_the_notice_is_signed_and_belongs_to_the_cell():
    gap = POLICY.gap_for(waiting("stream", {"name": "stdout", "text": "x\n"}))
    assert gap is not None
    payload = POLICY.notice(gap._replace(lines=12345, size_bytes=1_234_000))
    channel, parts = kernel_messages.unpack(payload)
    assert channel == IOPUB
    topic, frames = SESSION.feed_identities([bytes(part) for part in parts])
    message = SESSION.deserialize(frames)  # raises if it is not signed
    assert topic == [b"stream.stderr"]
    assert message["msg_type"] == "stream"
    assert message["parent_header"]["msg_id"] == PARENT["msg_id"]
    assert message["content"] == {
        "name": "stderr",
        "text": "[sshpyk: 12,345 lines (1.2 MB) of output were dropped here: the connection was down"
        f" for longer than the backlog on {socket.gethostname()} could hold]\n",
    }


@pytest.mark.parametrize(
    ("lines", "size", "words"),
    [
        (1, 80, "1 line (80 bytes) of output was dropped"),
        (0, 12_300, "0 lines (12.3 kB) of output were dropped"),
        (9_999_999, 2_500_000_000, "9,999,999 lines (2,500.0 MB) of output were dropped"),
    ],
)
def test_counts_in_words(lines: int, size: int, words: str):
    assert words.encode() in POLICY.notice(Gap(0, 0, b"{}", lines, size))
