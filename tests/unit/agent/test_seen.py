"""What becomes of requests that an outage has made stale: rows F53, F54 and F55 as pure decisions."""

from __future__ import annotations

from typing import Any

import pytest
from jupyter_client.session import Session

from sshpyk.agent.seen import LATE_S, TOGETHER_S, ClientView, Verdict
from sshpyk.wire.kernel_messages import IOPUB, SHELL, STDIN

session = Session(key=b"k")


class Stage:
    """A kernel and its clients; numbers are those of the main stream."""

    def __init__(self) -> None:
        self.view = ClientView()
        self.number = -1
        self.now_s = 100.0

    def request(self, **content: Any) -> dict[str, Any]:
        message: dict[str, Any] = session.msg("execute_request", {"code": "1", **content})
        return message

    def judge(self, message: dict[str, Any], seen: int) -> Verdict:
        parts = [b"client", *session.serialize(message)]
        return self.view.judge(SHELL, seen, parts)

    def answer(self, seen: int, client: bytes = b"client") -> Verdict:
        parts = [client, *session.serialize(session.msg("input_reply", {"value": "x"}))]
        return self.view.judge(STDIN, seen, parts)

    def publish(
        self, channel: int, kind: str, content: dict[str, Any], parent: dict[str, Any] | None = None
    ) -> int:
        """Send a message of the kernel's; return what a client that saw it has seen."""
        self.number += 1
        message = session.msg(kind, content, parent=parent)
        parts = [b"client", *session.serialize(message)]
        self.view.published(channel, self.number, parts, self.now_s)
        return self.number + 1

    def status(self, state: str, parent: dict[str, Any]) -> int:
        return self.publish(IOPUB, "status", {"execution_state": state}, parent)

    def reply(self, status: str, parent: dict[str, Any]) -> int:
        return self.publish(SHELL, "execute_reply", {"status": status}, parent)


@pytest.fixture
def stage() -> Stage:
    return Stage()


class TestRunAll:
    def test_f53_cell_sent_before_the_error_was_seen_is_aborted(self, stage: Stage) -> None:
        first = stage.request()
        assert stage.judge(first, 0) is Verdict.TAKE
        seen = stage.reply("error", first)
        assert stage.judge(stage.request(), seen - 1) is Verdict.ABORT
        assert stage.judge(stage.request(), seen) is Verdict.TAKE

    def test_error_of_a_cell_that_does_not_stop_aborts_nothing(self, stage: Stage) -> None:
        for content in ({"stop_on_error": False}, {"silent": True}):
            first = stage.request(**content)
            stage.judge(first, 0)
            stage.reply("error", first)
            assert stage.judge(stage.request(), 0) is Verdict.TAKE

    def test_cell_that_went_well_aborts_nothing(self, stage: Stage) -> None:
        first = stage.request()
        stage.judge(first, 0)
        stage.reply("ok", first)
        assert stage.judge(stage.request(), 0) is Verdict.TAKE

    def test_other_requests_are_never_aborted(self, stage: Stage) -> None:
        first = stage.request()
        stage.judge(first, 0)
        stage.reply("error", first)
        parts = [b"client", *session.serialize(session.msg("kernel_info_request", {}))]
        assert stage.view.judge(SHELL, 0, parts) is Verdict.TAKE


class TestInput:
    def test_f54_answer_to_an_earlier_prompt_is_dropped(self, stage: Stage) -> None:
        seen = stage.publish(STDIN, "input_request", {"prompt": "one"})
        stage.publish(STDIN, "input_request", {"prompt": "two"})
        assert stage.answer(seen) is Verdict.DROP

    def test_answer_to_the_latest_prompt_passes(self, stage: Stage) -> None:
        seen = stage.publish(STDIN, "input_request", {"prompt": "one"})
        assert stage.answer(seen) is Verdict.TAKE

    def test_another_clients_prompt_does_not_count(self, stage: Stage) -> None:
        stage.publish(STDIN, "input_request", {"prompt": "one"})
        assert stage.answer(0, b"another") is Verdict.TAKE


class TestInterrupt:
    def interrupt(self, stage: Stage, seen: int) -> Verdict:
        return stage.view.judge_interrupt(seen, stage.now_s)

    def test_running_cell_is_interrupted(self, stage: Stage) -> None:
        seen = stage.status("busy", stage.request())
        assert self.interrupt(stage, seen) is Verdict.TAKE

    def test_f55_cell_that_ended_long_since_leaves_the_next_one_alone(self, stage: Stage) -> None:
        first, second = stage.request(), stage.request()
        seen = stage.status("busy", first)
        stage.status("idle", first)
        seen_next = stage.status("busy", second)
        stage.now_s += LATE_S * 2
        assert self.interrupt(stage, seen) is Verdict.DROP
        assert stage.view.is_late(seen, stage.now_s)
        assert b"execute_request" in (stage.view.running or b"")
        assert self.interrupt(stage, seen_next) is Verdict.TAKE

    def test_cell_that_ended_just_now_is_a_local_race(self, stage: Stage) -> None:
        first = stage.request()
        seen = stage.status("busy", first)
        stage.status("idle", first)
        stage.now_s += LATE_S / 2
        assert self.interrupt(stage, seen) is Verdict.TAKE

    def test_f55_interrupts_that_arrive_together_count_once(self, stage: Stage) -> None:
        seen = stage.status("busy", stage.request())
        verdicts = [self.interrupt(stage, seen) for _ in range(5)]
        assert verdicts == [Verdict.TAKE] + [Verdict.DROP] * 4
        stage.now_s += TOGETHER_S * 2
        assert self.interrupt(stage, seen) is Verdict.TAKE

    def test_status_of_other_requests_does_not_count(self, stage: Stage) -> None:
        info = session.msg("kernel_info_request", {})
        seen = stage.status("busy", stage.request())
        stage.status("idle", info)
        stage.now_s += LATE_S * 2
        assert self.interrupt(stage, seen) is Verdict.TAKE


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"c"],
        [b"c", b"<IDS|MSG>"],
        [b"c", b"<IDS|MSG>", b"", b'"execute_request"', b"", b"", b"["],
    ],
)
def test_malformed_messages_pass_to_the_kernel_as_they_are(
    stage: Stage, parts: list[bytes]
) -> None:
    for channel in (SHELL, STDIN):
        assert stage.view.judge(channel, 0, parts) is Verdict.TAKE
    for channel in (SHELL, IOPUB, STDIN):
        stage.view.published(channel, 0, parts, 0.0)
