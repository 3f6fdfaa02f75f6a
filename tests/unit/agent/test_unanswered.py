"""The requests that a kernel has not answered, as the next agent finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sshpyk.agent import unanswered as unanswered_module
from sshpyk.agent.unanswered import UnansweredRequests
from sshpyk.wire.jupyter_messages import Signer

SIGNER = Signer("key", "hmac-sha256")


def request(msg_type: str = "execute_request", identity: bytes = b"client") -> list[bytes]:
    return SIGNER.message(msg_type, {}, identities=[identity])


def answer_to(parts: list[bytes]) -> list[bytes]:
    return SIGNER.message("any_reply", {}, identities=[parts[0]], parent_header=parts[3])


def test_requests_are_found_in_the_order_in_which_they_were_asked(tmp_path: Path):
    path = str(tmp_path / "requests")
    first = UnansweredRequests(path)
    asked = [request(identity=b"%d" % number) for number in range(5)]
    for seq, parts in enumerate(asked[:4]):
        first.asked(parts, seq)
    first.answered(answer_to(asked[1]), 7)
    first.heard(7)
    first.asked(asked[4], 4)  # in a slot that was used before
    found = list(UnansweredRequests(path).waiting())
    assert [one.identity for one in found] == [b"0", b"2", b"3", b"4"]
    assert [one.header_bytes for one in found] == [asked[number][3] for number in (0, 2, 3, 4)]
    assert all(one.is_cell and not one.answer_place for one in found)


def test_answered_request_is_kept_until_the_hub_has_heard_the_answer(tmp_path: Path):
    path = str(tmp_path / "requests")
    made = UnansweredRequests(path)
    parts = request("kernel_info_request")
    made.asked(parts, 0)
    made.answered(answer_to(parts), 7)
    made.heard(6)
    (found,) = UnansweredRequests(path).waiting()
    assert (found.msg_type, found.is_cell, found.answer_place) == ("kernel_info_request", False, 7)
    made.heard(7)
    assert not list(UnansweredRequests(path).waiting())


@pytest.mark.parametrize(
    "parts",
    [
        request("comm_msg"),
        [b"client"],
        [b"client", b"<IDS|MSG>", b"", b"[]"],
        [b"client", b"<IDS|MSG>", b"", b"_request {"],
        request(identity=b"x" * 2000),
    ],
    ids=["no request", "no message", "no header", "no JSON", "too large"],
)
def test_what_needs_no_answer_or_does_not_fit_is_not_kept(tmp_path: Path, parts: list[bytes]):
    path = str(tmp_path / "requests")
    made = UnansweredRequests(path)
    made.asked(parts, 0)
    made.answered(parts, 1)
    assert not list(made.waiting())
    assert not list(UnansweredRequests(path).waiting())


def test_more_requests_than_slots_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unanswered_module, "_SLOTS", 2)
    made = UnansweredRequests(str(tmp_path / "requests"))
    asked = [request() for _ in range(3)]
    for parts in asked:
        made.asked(parts, 0)
    for place, parts in enumerate(asked):
        made.answered(answer_to(parts), place + 1)
    made.heard(3)
    assert not list(made.waiting())
    made.asked(asked[2], 0)
    assert len(list(made.waiting())) == 1


def test_request_that_was_noted_but_not_taken_will_come_again(tmp_path: Path):
    path = str(tmp_path / "requests")
    made = UnansweredRequests(path)
    taken, untaken = request(), request()
    made.asked(taken, 6)
    made.asked(untaken, 7)
    found = UnansweredRequests(path)
    found.forget_untaken(7)
    assert [one.header_bytes for one in found.waiting()] == [taken[3]]
    found.asked(untaken, 7)
    assert [one.header_bytes for one in found.waiting()] == [taken[3], untaken[3]]


def test_what_was_taken_over_another_link_stays_taken(tmp_path: Path):
    path = str(tmp_path / "requests")
    made = UnansweredRequests(path)
    parts = request()
    made.asked(parts, 6)
    made.moved()
    found = UnansweredRequests(path)
    found.forget_untaken(0)
    assert [one.header_bytes for one in found.waiting()] == [parts[3]]
