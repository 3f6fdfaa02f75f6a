"""What the agent says in a kernel's name, read by jupyter_client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from jupyter_client.session import Session

from sshpyk.agent.spokesman import OUR_SESSION, Spokesman
from sshpyk.wire.jupyter_messages import Request, Signer
from sshpyk.wire.kernel_messages import CONTROL, IOPUB, SHELL

KEY = "0123456789abcdef"


class Heard:
    """An outlet that reads what goes to the hub and to the kernel, as a client would."""

    def __init__(self) -> None:
        self.session = Session(key=KEY.encode())
        self.published: list[tuple[int, list[bytes], dict[str, Any]]] = []
        self.injected: list[tuple[int, dict[str, Any]]] = []

    def publish(self, channel: int, parts: Sequence[bytes]) -> None:
        identities, frames = self.session.feed_identities(list(parts))
        self.published.append((channel, identities, self.session.deserialize(frames)))

    def inject(self, parts: Sequence[bytes], channel: int = CONTROL) -> None:
        _, frames = self.session.feed_identities(list(parts))
        self.injected.append((channel, self.session.deserialize(frames)))

    def request(self, msg_type: str) -> Request:
        parts = self.session.serialize(self.session.msg(msg_type), ident=[b"client"])
        read = Signer(KEY, "hmac-sha256").read(parts)
        assert read is not None
        return read


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def spokesman(heard: Heard) -> Spokesman:
    return Spokesman(Signer(KEY, "hmac-sha256"), heard)


def test_remark_is_a_line_of_ours_on_the_stderr_of_the_cell(heard: Heard, spokesman: Spokesman):
    request = heard.request("execute_request")
    spokesman.remark("the line was away", request.header_bytes)
    ((channel, topic, message),) = heard.published
    assert (channel, topic) == (IOPUB, [b"stream.stderr"])
    assert message["msg_type"] == "stream"
    assert message["content"] == {"name": "stderr", "text": "[sshpyk: the line was away]\n"}
    assert message["parent_header"]["msg_id"] == request.header["msg_id"]


@pytest.mark.parametrize(
    ("channel", "asked"), [(SHELL, "execute"), (SHELL, "history"), (CONTROL, "interrupt")]
)
def test_answer_goes_to_the_client_and_ends_the_request(
    heard: Heard, spokesman: Spokesman, channel: int, asked: str
):
    request = heard.request(f"{asked}_request")
    spokesman.busy(request)
    spokesman.answer(channel, request, {"status": "aborted"})
    said = [
        (where, topic, one["msg_type"], one["content"]) for where, topic, one in heard.published
    ]
    assert said == [
        (IOPUB, [b"status"], "status", {"execution_state": "busy"}),
        (channel, [b"client"], f"{asked}_reply", {"status": "aborted"}),
        (IOPUB, [b"status"], "status", {"execution_state": "idle"}),
    ]
    parents = {one["parent_header"]["msg_id"] for _, _, one in heard.published}
    assert parents == {request.header["msg_id"]}


def test_failure_is_an_error_that_a_cell_shows_too(heard: Heard, spokesman: Spokesman):
    spokesman.fail(SHELL, heard.request("complete_request"), "Lost", "it was lost")
    kinds = [one["msg_type"] for _, _, one in heard.published]
    assert kinds == ["complete_reply", "status"]
    spokesman.fail(SHELL, heard.request("execute_request"), "Lost", "it was lost")
    remark, reply, idle = [one for _, _, one in heard.published[2:]]
    assert remark["content"]["text"] == "[sshpyk: it was lost]\n"
    expected = {"status": "error", "ename": "Lost", "evalue": "it was lost", "traceback": []}
    assert reply["content"] == expected
    assert idle["content"] == {"execution_state": "idle"}


def test_orders_take_control_and_questions_shell_under_our_session(
    heard: Heard, spokesman: Spokesman
):
    spokesman.order("interrupt_request", {})
    spokesman.ask()
    (control, order), (shell, question) = heard.injected
    assert (control, order["msg_type"]) == (CONTROL, "interrupt_request")
    assert (shell, question["msg_type"]) == (SHELL, "kernel_info_request")
    assert question["header"]["session"] == OUR_SESSION.decode()
    assert heard.published == []
