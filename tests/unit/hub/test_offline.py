"""Kernel information while the link is away: the kernel's own last word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.session import Session

from sshpyk.hub.offline import KernelInfo
from sshpyk.wire.jupyter_messages import Signer
from sshpyk.wire.kernel_messages import CONTROL, IOPUB, SHELL
from tests.unit.hub.fakes import ipc_info
from tests.unit.hub.test_endpoints import bench, client_of
from tests.unit.wire.harness import in_loop, until

INFO = {"status": "ok", "protocol_version": "5.3", "implementation": "ipython"}


def message(session: Session, kind: str, content: dict[str, Any]) -> list[bytes]:
    return session.serialize(session.msg(kind, content))


@pytest.fixture
def session() -> Session:
    return Session(key=b"key")


@pytest.fixture
def info() -> KernelInfo:
    return KernelInfo(Signer("key", "hmac-sha256"))


def test_f58_answer_is_the_kernels_last_with_its_last_state(info: KernelInfo, session: Session):
    info.note(SHELL, [b"client", *message(session, "kernel_info_reply", INFO)])
    info.note(IOPUB, [b"topic", *message(session, "status", {"execution_state": "idle"})])
    request = session.msg("kernel_info_request", {})
    for channel in (SHELL, CONTROL):
        answers = dict(info.answer(channel, [b"client", *session.serialize(request)]))
        identities, frames = session.feed_identities(answers[channel])
        reply = session.deserialize(frames)
        assert identities == [b"client"]
        assert (reply["msg_type"], reply["content"]) == ("kernel_info_reply", INFO)
        assert reply["parent_header"]["msg_id"] == request["header"]["msg_id"]
        _, frames = session.feed_identities(answers[IOPUB])
        status = session.deserialize(frames)
        assert status["content"] == {"execution_state": "idle"}
        assert status["parent_header"]["msg_id"] == request["header"]["msg_id"]


def test_nothing_is_answered_before_the_kernel_has(info: KernelInfo, session: Session):
    assert info.answer(SHELL, [b"c", *message(session, "kernel_info_request", {})]) == []


@pytest.mark.parametrize("kind", ["execute_request", "comm_info_request", "interrupt_request"])
def test_other_requests_wait_for_the_link(info: KernelInfo, session: Session, kind: str):
    info.note(SHELL, [b"client", *message(session, "kernel_info_reply", INFO)])
    assert info.answer(SHELL, [b"c", *message(session, kind, {})]) == []


def test_request_with_a_wrong_signature_is_left_to_the_kernel(info: KernelInfo, session: Session):
    info.note(SHELL, [b"client", *message(session, "kernel_info_reply", INFO)])
    forged = message(Session(key=b"another"), "kernel_info_request", {})
    assert info.answer(SHELL, [b"c", *forged]) == []


@in_loop
async def test_f58_requests_do_not_pile_up_while_the_link_is_away(short_folder: Path):
    connection = ipc_info(short_folder)
    session = Session(key=connection["key"].encode())
    async with bench(connection) as made, client_of(made) as client:
        made.attach()
        shell = client.open("shell")
        shell.send_multipart(message(session, "kernel_info_request", {}))
        await until(lambda: made.got[made.main])
        made.say(SHELL, [b"client", *message(session, "kernel_info_reply", INFO)])
        await client.receive("shell")
        made.away = True
        for _ in range(20):
            shell.send_multipart(message(session, "kernel_info_request", {}))
            frames = await client.receive("shell")
            assert json.loads(frames[-1]) == INFO
        shell.send_multipart(message(session, "execute_request", {"code": "1"}))
        await until(lambda: len(made.got[made.main]) == 2)
