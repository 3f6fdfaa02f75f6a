"""``forward``, ``tunnels`` and ``close`` as typed; what they do is tested in the lab."""

from __future__ import annotations

from typing import Any

import pytest

from sshpyk.cli import close as close_module
from sshpyk.cli import main as cli_main
from sshpyk.cli import tunnels as tunnels_module
from sshpyk.cli.forward import request_for
from sshpyk.errors import InvalidInput
from sshpyk.wire.endpoint import Endpoint

LOCALHOST = "localhost"


@pytest.mark.parametrize(
    ("text", "listen", "target"),
    [
        ("8888", Endpoint(LOCALHOST, 8888), Endpoint(LOCALHOST, 8888)),
        ("9999:8888", Endpoint(LOCALHOST, 9999), Endpoint(LOCALHOST, 8888)),
        ("0:8888", Endpoint(LOCALHOST, 0), Endpoint(LOCALHOST, 8888)),
        ("db.inside:5432", Endpoint(LOCALHOST, 5432), Endpoint("db.inside", 5432)),
        ("15432:db.inside:5432", Endpoint(LOCALHOST, 15432), Endpoint("db.inside", 5432)),
        ("80:[::1]:8080", Endpoint(LOCALHOST, 80), Endpoint("::1", 8080)),
        ("/run/app.sock", Endpoint(LOCALHOST, 0), Endpoint(path="/run/app.sock")),
        ("0:~/app.sock", Endpoint(LOCALHOST, 0), Endpoint(path="~/app.sock")),
        ("/tmp/a:/run/b", Endpoint(path="/tmp/a"), Endpoint(path="/run/b")),
        ("/tmp/a:10.0.0.1:22", Endpoint(path="/tmp/a"), Endpoint("10.0.0.1", 22)),
    ],
)
def test_a_tunnel_as_typed(text: str, listen: Endpoint, target: Endpoint):
    request = request_for(text, "python3", reverse=False, bind=None)
    assert (request.listen, request.target) == (listen, target)
    named = text.partition(":")[0]
    assert request.any_port is not ((named.isdigit() and ":" in text) or text.startswith("/tmp"))


@pytest.mark.parametrize(
    "text", ["", ":", "x", "8888:", "70000", "0", "1:0", "a:b", "-1", "1:2:3:4", "[::1]", "1:[x]:2"]
)
def test_what_is_no_tunnel_is_refused_in_one_line(text: str):
    with pytest.raises(InvalidInput, match=r"tunnel|port"):
        request_for(text, "python3", reverse=False, bind=None)


def test_another_address_to_listen_on():
    request = request_for("1:2", "python3", reverse=True, bind="0.0.0.0")
    assert request.reverse
    assert request.listen == Endpoint("0.0.0.0", 1)
    with pytest.raises(InvalidInput, match="--bind"):
        request_for("/tmp/a:2", "python3", reverse=False, bind="::")


class FakeHub:
    def __init__(self, host: str, *tunnels: dict[str, Any]) -> None:
        self.host = host
        self.tunnels = list(tunnels)
        self.closed: list[str] = []
        self._record: dict[str, Any] = {}

    def say(self, op: str, **params: Any) -> None:
        if op == "close_tunnel":
            self.closed.append(params["id"])
        link = {"host": self.host, "link": "up", "away_s": None, "reason": ""}
        self._record = {"event": "tunnels", "link": link, "tunnels": self.tunnels}

    def hear(self) -> dict[str, Any]:
        return self._record

    def close(self) -> None:
        pass


def summary(name: str, port: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": name,
        "reverse": False,
        "listens": Endpoint(LOCALHOST, port).to_record(),
        "target": Endpoint(LOCALHOST, 80).to_record(),
        "open": 2,
        "connections": 7,
        "sent_bytes": 1234,
        "received_bytes": 5_600_000,
        "ready": True,
        "error": "",
        **changes,
    }


@pytest.fixture
def hubs(monkeypatch: pytest.MonkeyPatch) -> list[FakeHub]:
    made = [
        FakeHub("gpu1", summary("t1a2b", 8888), summary("t3c4d", 9999, error="refused")),
        FakeHub("gpu2", summary("t5e6f", 9999, reverse=True)),
        FakeHub("idle"),
    ]
    for module in (close_module, tunnels_module):
        monkeypatch.setattr(module, "all_hubs", lambda: made)
    return made


def test_tunnels_lists_bytes_and_what_is_wrong(
    hubs: list[FakeHub], capsys: pytest.CaptureFixture[str]
):
    assert cli_main.main(["tunnels"]) == 0
    out = capsys.readouterr().out
    assert "t1a2b  localhost:8888 -> gpu1: localhost:80" in out
    assert "2 open of 7, 1.2 kB to the host, 5.6 MB from it" in out
    assert "latest failure: refused" in out
    assert "t5e6f  gpu2: localhost:9999 -> localhost:80" in out
    assert "idle" not in out


def test_close_by_port_by_id_and_all(hubs: list[FakeHub], capsys: pytest.CaptureFixture[str]):
    assert cli_main.main(["close", "8888"]) == 0
    assert cli_main.main(["close", "t5e6f"]) == 0
    assert [hub.closed for hub in hubs] == [["t1a2b"], ["t5e6f"], []]
    assert cli_main.main(["close", "--all"]) == 0
    assert hubs[0].closed == ["t1a2b", "t1a2b", "t3c4d"]
    assert "Closed t3c4d" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["1"], ["9999"], [], ["1", "--all"]])
def test_close_of_what_is_not_clear_is_refused(
    hubs: list[FakeHub], words: list[str], capsys: pytest.CaptureFixture[str]
):
    assert cli_main.main(["close", *words]) == 2
    assert not any(hub.closed for hub in hubs)
    assert len(capsys.readouterr().err.splitlines()) == 1
