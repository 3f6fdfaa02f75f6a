"""Kernel information from the hub: what a new kernel has said already, and its last word while away."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.session import Session

from sshpyk.hub.kernel_info import KernelInfo
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
        answers = dict(info.answer(channel, [b"client", *session.serialize(request)], away=True))
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
    assert info.answer(SHELL, [b"c", *message(session, "kernel_info_request", {})], away=True) == []


@pytest.mark.parametrize("kind", ["execute_request", "comm_info_request", "interrupt_request"])
def test_other_requests_wait_for_the_link(info: KernelInfo, session: Session, kind: str):
    info.note(SHELL, [b"client", *message(session, "kernel_info_reply", INFO)])
    assert info.answer(SHELL, [b"c", *message(session, kind, {})], away=True) == []


def test_request_with_a_wrong_signature_is_left_to_the_kernel(info: KernelInfo, session: Session):
    info.note(SHELL, [b"client", *message(session, "kernel_info_reply", INFO)])
    forged = message(Session(key=b"another"), "kernel_info_request", {})
    assert info.answer(SHELL, [b"c", *forged], away=True) == []


@pytest.fixture
def fresh() -> KernelInfo:
    return KernelInfo(Signer("key", "hmac-sha256"), json.dumps(INFO))


def test_first_questions_to_a_new_kernel_are_answered_with_what_it_said_already(
    fresh: KernelInfo, session: Session
):
    fresh.note(IOPUB, [b"topic", *message(session, "status", {"execution_state": "starting"})])
    for channel in (SHELL, CONTROL, SHELL):
        request = message(session, "kernel_info_request", {})
        answers = dict(fresh.answer(channel, [b"client", *request], away=False))
        assert json.loads(answers[channel][-1]) == INFO
        assert json.loads(answers[IOPUB][-1]) == {"execution_state": "idle"}


def test_kernel_that_was_asked_for_more_answers_for_itself(fresh: KernelInfo, session: Session):
    """It may be busy now, and whoever asks wants to know."""
    execution = message(session, "execute_request", {"code": "1"})
    assert fresh.answer(SHELL, [b"client", *execution], away=False) == []
    request = message(session, "kernel_info_request", {})
    assert fresh.answer(SHELL, [b"client", *request], away=False) == []


def test_nothing_is_answered_for_a_new_kernel_that_has_not_said_it(
    info: KernelInfo, session: Session
):
    info.note(SHELL, [b"client", *message(session, "kernel_info_reply", INFO)])
    request = message(session, "kernel_info_request", {})
    assert info.answer(SHELL, [b"client", *request], away=False) == []


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


@in_loop
async def test_new_kernels_answer_waits_until_its_state_is_heard_too(short_folder: Path):
    connection = ipc_info(short_folder)
    session = Session(key=connection["key"].encode())
    async with bench(connection) as made, client_of(made) as client:
        made.attach(json.dumps(INFO))
        client.open("shell").send_multipart(message(session, "kernel_info_request", {}))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.receive("shell"), 0.2)
        client.open("iopub")
        assert json.loads((await client.receive("shell"))[-1]) == INFO
        assert json.loads((await client.receive("iopub"))[-1]) == {"execution_state": "idle"}
        assert not made.got[made.main]


@in_loop
async def test_client_that_hears_no_output_is_answered_too(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sshpyk.hub.endpoints._SUBSCRIBES_WITHIN_S", 0.1)
    connection = ipc_info(short_folder)
    session = Session(key=connection["key"].encode())
    async with bench(connection) as made, client_of(made) as client:
        made.attach(json.dumps(INFO))
        client.open("shell").send_multipart(message(session, "kernel_info_request", {}))
        assert json.loads((await client.receive("shell"))[-1]) == INFO


@in_loop
async def test_request_that_comes_while_a_held_answer_is_sent_is_read(short_folder: Path):
    """Sending swallows the edge by which the loop would learn of it."""
    connection = ipc_info(short_folder)
    session = Session(key=connection["key"].encode())
    async with bench(connection) as made, client_of(made) as client:
        made.attach(json.dumps(INFO))
        shell = client.open("shell")
        shell.send_multipart(message(session, "kernel_info_request", {}))
        await until(lambda: made.endpoints._held_answers)
        shell.send_multipart(message(session, "comm_info_request", {}))
        time.sleep(0.1)  # it arrives while the loop does something else
        made.endpoints._release_answers()
        await until(lambda: made.got[made.main])
