from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from sshpyk.cli import asking
from sshpyk.cli import ps as ps_module
from sshpyk.errors import Unreachable

Run = Callable[..., Result]

KERNEL = {
    "kernel_id": "0123456789abcdef",
    "name": "python3",
    "pid": 4711,
    "session": "/home/me/plot.ipynb",
    "state": "alive",
}
STATUS: dict[str, Any] = {
    "host": "gpu1",
    "link": "up",
    "reason": None,
    "away_reason": "",
    "away_s": None,
    "kernels": [KERNEL],
}


class FakeHub:
    def __init__(self, answer: dict[str, Any] | None) -> None:
        self.said: list[dict[str, Any]] = []
        self.closed = False
        self._answer = answer
        self.host = (answer or {}).get("host", "")
        self.socket = self

    def settimeout(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s

    def say(self, op: str, **params: Any) -> None:
        self.said.append({"op": op, **params})

    def hear(self) -> dict[str, Any] | None:
        return self._answer

    def close(self) -> None:
        self.closed = True


def serve(monkeypatch: pytest.MonkeyPatch, *answers: dict[str, Any] | None) -> list[FakeHub]:
    hubs = [FakeHub(answer) for answer in answers]
    monkeypatch.setattr(ps_module, "all_hubs", lambda: hubs)
    by_host = {hub.host: hub for hub in hubs}
    monkeypatch.setattr(asking, "reach_hub", lambda target: by_host.get(target.host, hubs[0]))
    return hubs


def test_link_that_is_up_and_its_kernel(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (hub,) = serve(monkeypatch, STATUS)
    lines = run("ps").stdout.splitlines()
    assert lines == [
        "gpu1: link up",
        "  01234567  alive        pid 4711     python3  /home/me/plot.ipynb",
    ]
    assert hub.said == [{"op": "status"}]
    assert hub.closed


def test_link_that_is_away_says_for_how_long_and_why(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {"link": "dialing", "away_reason": "Connection timed out", "away_s": 75.2}
    unreachable = {"kernels": [{**KERNEL, "state": "unreachable"}]}
    serve(monkeypatch, {**STATUS, **away, **unreachable})
    first, second = run("ps").stdout.splitlines()
    assert first == "gpu1: link dialing for 75 s (Connection timed out)"
    assert "unreachable" in second


def test_no_link_and_a_hub_that_leaves_just_now(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, None)
    assert run("ps").stdout == "No links: no kernel runs on a host\n"


def test_json_holds_what_the_hubs_say(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, STATUS, {**STATUS, "host": "gpu2"})
    assert [hub["host"] for hub in json.loads(run("ps", "--json").stdout)["hosts"]] == [
        "gpu1",
        "gpu2",
    ]


ON_HOST = {
    **KERNEL,
    "state": "busy",
    "owner": "ann@laptop",
    "idle_s": 7300.0,
    "memory_bytes": 123_456_789,
    "lease_s": 600_000.0,
    "carried": "left",
    "mine": False,
}


def test_named_hosts_show_all_kernels_there_side_by_side(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {**ON_HOST, "kernel_id": "ff" * 8, "state": "idle", "idle_s": 1, "mine": True}
    hubs = serve(
        monkeypatch,
        {**STATUS, "on_host": [ON_HOST, mine]},
        {**STATUS, "host": "gpu2", "on_host": []},
    )
    lines = run("ps", "gpu1", "gpu2").stdout.splitlines()
    assert [hub.said for hub in hubs] == [[{"op": "survey", "python": "python3"}]] * 2
    assert lines == [
        "gpu1: link up",
        "  KERNEL    STATE  OWNER       IDLE  MEMORY  LEASE  CARRIED  NAME",
        "  01234567  busy   ann@laptop  2 h   123 MB  7 d    left     python3 /home/me/plot.ipynb",
        "  ffffffff  idle   ann@laptop  1 s   123 MB  7 d    here     python3 /home/me/plot.ipynb",
        "gpu2: link up",
        "  no kernels",
    ]


def test_hosts_that_fail_are_told_beside_those_that_answer(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = Unreachable("cannot connect", host="gpu2").to_record()
    failed = {"event": "failed", "error": error, "host": "gpu2"}
    serve(monkeypatch, {**STATUS, "on_host": [ON_HOST]}, failed)
    result = run("ps", "gpu1", "gpu2")
    assert result.exit_code == 1
    assert "01234567  busy" in result.stdout
    assert "host gpu2: cannot connect" in result.stderr
    serve(monkeypatch, {**STATUS, "on_host": [ON_HOST]}, failed)
    printed = json.loads(run("ps", "gpu1", "gpu2", "--json").stdout)
    assert printed["hosts"][0]["on_host"][0]["owner"] == "ann@laptop"
    assert printed["failures"][0]["what"] == "cannot connect"


def test_a_host_that_cannot_be_reached_fails_with_the_reason(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = Unreachable("cannot connect", host="gpu1", said="Connection refused")
    serve(monkeypatch, {"event": "failed", "error": error.to_record()})
    result = run("ps", "gpu1")
    assert result.exit_code == 1
    assert "Connection refused" in result.stderr


@pytest.mark.parametrize("words", [["-x"], ["--ssh-config", "x"], ["a b"], ["--timeout", "3"]])
def test_bad_input_is_refused(refused: Callable[..., str], words: list[str]) -> None:
    refused("ps", *words)


def test_names_from_a_host_are_shown_not_obeyed(
    run: Run, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    serve(monkeypatch, {**STATUS, "kernels": [{**KERNEL, "name": "a\x1b[31m"}]})
    assert "\x1b" not in run("ps").stdout
