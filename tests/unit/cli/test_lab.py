"""``lab`` and ``servers`` as typed, what they ask, print and leave; no server runs here."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from sshpyk.cli import asking, browser, lab, lab_end, lab_wish, servers, stop
from sshpyk.cli.asking import Host
from sshpyk.cli.lab_wish import Wish, elsewhere
from sshpyk.cli.results import ServerOpened
from sshpyk.errors import InvalidInput, ServerError
from sshpyk.servers.lab import new_server_id, remove_page, server_url, usual_port, write_page
from sshpyk.ssh.command import SshTarget
from sshpyk.wire.endpoint import Endpoint

Run = Callable[..., Result]
TOKEN = "0123456789abcdef"
HOST = Host(SshTarget("gpu1"), 20)


def a_server(name: str = "s1a2b3", **changes: Any) -> dict[str, Any]:
    return {
        "server_id": name,
        "app": "lab",
        "folder": "/home/ann",
        "program": "/opt/venv/bin/python",
        "pid": 7,
        "state": "ready",
        "owner": "ann@laptop",
        "keep": False,
        "mine": True,
        "by_hand": False,
        "target": Endpoint(path=f"/tmp/{name}").to_record(),
        "base_url": "/",
        "secure": False,
        **changes,
    }


BY_HAND = a_server(
    "p99", app="", by_hand=True, target=Endpoint("localhost", 8888).to_record(), folder="/data"
)


class FakeHub:
    """A hub whose host has ``on_host``, and tunnels to those in ``open_here``."""

    def __init__(self) -> None:
        self.on_host = [a_server(), BY_HAND]
        self.open_here = {"s1a2b3": 23456}
        self.said: list[dict[str, Any]] = []
        self.socket = self

    def settimeout(self, timeout_s: float) -> None:
        pass

    def say(self, op: str, **params: Any) -> None:
        self.said.append({"op": op, **params})

    def hear(self) -> dict[str, Any]:
        record = self.said[-1]
        if record["op"] == "ask":
            return {"answer": self._answer(record["what"], record["params"])}
        link = {"host": "gpu1", "link": "up", "away_s": None, "reason": ""}
        found = [one for one in self.on_host if one["server_id"] in self.open_here]
        return {"link": link, "tunnels": [self._tunnel(one) for one in found]}

    def _answer(self, what: str, params: dict[str, Any]) -> dict[str, Any]:
        if what == "open_server":
            (found,) = (one for one in self.on_host if one["server_id"] == params["server_id"])
            return {**found, "token": TOKEN}
        return {"servers": self.on_host, "folder": "/home/ann", "kernels": []}

    def _tunnel(self, server: dict[str, Any]) -> dict[str, Any]:
        listens = Endpoint("localhost", self.open_here[server["server_id"]]).to_record()
        return {"id": "t1", "reverse": False, "listens": listens, "target": server["target"]}

    def close(self) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    made = FakeHub()
    monkeypatch.setattr(asking, "reach_hub", lambda target: made)
    monkeypatch.setattr(servers, "all_hubs", lambda: [made])
    return made


def wish(**given: Any) -> Wish:
    options = ("folder", "python", "prefix", "activate", "existing", "port")
    flags = ("no_browser", "keep", "background", "new")
    plain = {**dict.fromkeys(options), **dict.fromkeys(flags, False), "app": "lab", "args": ()}
    return Wish.from_options({**plain, **given}, "python3")


# servers


@pytest.mark.parametrize("words", [[], ["gpu1"]])
def test_servers_shows_where_each_can_be_reached_and_no_token(
    run: Run, hub: FakeHub, words: list[str]
):
    out = run("servers", *words).stdout
    assert "s1a2b3" in out
    assert "http://localhost:23456/lab " in out
    assert "by hand" in out
    assert TOKEN not in out
    record = json.loads(run("servers", *words, "--json").stdout)
    assert TOKEN not in str(record)
    first, second = record["hosts"][0]["servers"]
    assert (first["url"], first["tunnel"]) == ("http://localhost:23456/lab", "t1")
    assert (second["url"], second["tunnel"]) == (None, None)


@pytest.mark.parametrize("words", [[], ["gpu1"]])
def test_servers_shows_tokens_where_asked(run: Run, hub: FakeHub, words: list[str]):
    out = run("servers", *words, "--token").stdout
    assert f"http://localhost:23456/lab?token={TOKEN}" in out


def test_servers_where_there_are_none(run: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    hub.on_host = []
    assert "no servers" in run("servers", "gpu1").stdout
    monkeypatch.setattr(servers, "all_hubs", list)
    assert "No links" in run("servers").stdout


# stop


def test_stop_ends_servers_by_id_or_all_but_those_of_others(run: Run, hub: FakeHub):
    out = run("stop", "gpu1", "s1").stdout
    assert out == "Stopped server s1a2b3 (/home/ann) on gpu1\n"
    assert hub.said[-1]["params"] == {"server_id": "s1a2b3", "grace_s": 20.0}
    run("stop", "gpu1", "p99", "--grace", "0")
    assert hub.said[-1]["params"] == {"server_id": "p99", "grace_s": 0.0}
    hub.said.clear()
    assert "s1a2b3" in run("stop", "gpu1", "--all", "--yes").stdout
    ended = [one["params"] for one in hub.said if one.get("what") == "stop_server"]
    assert [one["server_id"] for one in ended] == ["s1a2b3"]
    assert stop._SERVER.fullmatch(new_server_id())


# lab


def test_lab_shows_the_one_that_is_open_already(run: Run, hub: FakeHub, home: Path):
    out = run("lab", "gpu1", "--no-browser", "--keep").stdout
    assert "JupyterLab (/opt/venv/bin/python) is open already on gpu1, in /home/ann" in out
    assert "http://localhost:23456/lab\n" in out
    assert TOKEN not in out  # it goes to no terminal
    asked = [one for one in hub.said if one.get("what") == "open_server"]
    assert asked[0]["params"] == {"server_id": "s1a2b3", "keep": True}


def test_existing_lists_where_there_are_several(run: Run, hub: FakeHub):
    out = run("lab", "gpu1", "--existing").stdout
    assert "s1a2b3" in out
    assert "p99" in out


@pytest.mark.parametrize(
    "words",
    [
        ["--python", "a", "--prefix", "b"],
        ["--existing", "p99", "--new"],
        ["--existing", "nope"],
        ["--app", "emacs"],
        ["--port", "70000"],
        ["--timeout", "-1"],
    ],
)
def test_lab_refuses_what_cannot_be(refused: Callable[..., str], hub: FakeHub, words: list[str]):
    assert refused("lab", "gpu1", *words)


def test_the_same_application_and_folder_is_the_same_server(capsys: pytest.CaptureFixture[str]):
    there = [a_server(), a_server("s2", folder="/x"), a_server("s3", app="notebook"), BY_HAND]
    listed = {"servers": there, "folder": "/home/ann"}
    running = lab._running(wish(), listed, "gpu1")
    assert running is not None
    assert running["server_id"] == "s1a2b3"
    assert lab._running(wish(new=True), listed, "gpu1") is None
    assert lab._running(wish(app="nbclassic"), listed, "gpu1") is None
    assert capsys.readouterr().err == ""
    assert lab._running(wish(), {**listed, "folder": "/y"}, "gpu1") is None
    assert "s1a2b3 in /home/ann, s2 in /x (--existing ID" in capsys.readouterr().err
    by_port = lab._running(wish(existing="8888"), listed, "gpu1")
    assert by_port is BY_HAND
    with pytest.raises(InvalidInput, match="may be any of"):
        lab._running(wish(existing="s"), listed, "gpu1")


def test_a_request_has_the_usual_port_or_the_one_asked_for():
    request = wish(prefix="/opt/ml/", args=("-x",), folder="~").request(HOST, None, "/home/ann")
    assert request["folder"] == "~"
    assert (request["python"], request["args"]) == ("/opt/ml/bin/python", ["-x"])
    assert (request["port"], request["any_port"]) == (usual_port("gpu1", "lab", "/home/ann"), True)
    assert request["start"] is True
    named = wish(port=9999).request(HOST, a_server(), "/home/ann")
    assert (named["port"], named["any_port"]) == (9999, False)
    assert "start" not in named
    assert 20000 <= usual_port("gpu1", "lab", "/x") < 30000
    assert usual_port("gpu1", "lab", "/x") != usual_port("gpu2", "lab", "/x")


class LookedAt:
    """What ``sshpyk add`` would find on the host."""

    environments: tuple[Any, ...] = ()

    def __init__(self, target: SshTarget, *, interactive: bool) -> None:
        pass

    def look(self) -> type[LookedAt]:
        return type(self)


def test_where_the_agent_finds_none_the_search_goes_on(monkeypatch: pytest.MonkeyPatch):
    from sshpyk.discovery.finder import Environment

    monkeypatch.setattr(lab_wish, "LookedAt", LookedAt)
    has = Environment("/opt/b/bin/python", "conda", apps=("jupyterlab",))
    LookedAt.environments = (Environment("/opt/a/bin/python", "venv"), has)
    failure = ServerError("not found", said="PATH", code="SERVER-NOT-FOUND")
    requests = elsewhere(HOST, wish(), None, "/home/ann")
    next(requests)["failure"] = failure
    assert next(requests)["python"] == "/opt/b/bin/python"
    LookedAt.environments = LookedAt.environments[:1] * 20
    requests = elsewhere(HOST, wish(), None, "/home/ann")
    next(requests)["failure"] = failure
    with pytest.raises(ServerError) as caught:
        next(requests)
    assert caught.value.said.startswith("PATH\n/opt/a/bin/python: has no jupyterlab")
    for other in (wish(python="/x"), wish(activate="y")):
        requests = elsewhere(HOST, other, None, "/home/ann")
        next(requests)["failure"] = failure
        with pytest.raises(ServerError, match="not found"):
            next(requests)


@pytest.mark.parametrize(
    ("server", "url"),
    [
        (a_server(), "http://localhost:1/lab?token=a%26b"),
        (a_server(app="notebook"), "http://localhost:1/tree?token=a%26b"),
        (BY_HAND, "http://localhost:1/?token=a%26b"),
        (
            a_server(base_url="/my lab/", secure=True),
            "https://localhost:1/my%20lab/lab?token=a%26b",
        ),
    ],
)
def test_urls(server: dict[str, Any], url: str):
    assert server_url({**server, "token": "a&b"}, 1, with_token=True) == url
    assert server_url(server, 1, with_token=False) == url.partition("?")[0]


def test_the_page_for_the_browser_is_private_and_goes(home: Path):
    old = write_page("old", "http://localhost:1/lab?token=x")
    os.utime(old, (1, 1))
    page = write_page("t1", 'http://localhost:1/lab?token="<x>')
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert 'href="http://localhost:1/lab?token=&quot;&lt;x&gt;"' in page.read_text()
    assert not old.exists()
    remove_page("t1")
    remove_page("t1")
    assert not page.exists()


def test_the_browser_is_told_a_files_name_only(home: Path, monkeypatch: pytest.MonkeyPatch):
    for name in browser._DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    page = write_page("t1", f"http://localhost:1/lab?token={TOKEN}")
    if sys.platform != "darwin":
        assert browser.show_page(page) is False
    program = home / "browser"
    program.write_text(f'#!/bin/sh\necho "$@" >{home}/seen\n')
    program.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{program} %s")
    assert browser.show_page(page) is True
    assert (home / "seen").read_text() == f"{page.as_uri()}\n"


class Owner:
    """A server that is shown."""

    def __init__(self, **changes: Any) -> None:
        self.server = a_server(**changes)
        self.target = SshTarget("gpu1")
        self.port = 1
        self.closed, self.reason = False, ""
        self.link = {"link": "up"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "It ends with this command (Ctrl+C)"),
        ({"keep": True}, "sshpyk stop gpu1 s1a2b3 ends it"),
        ({"by_hand": True}, "started by hand"),
        ({"mine": False}, "the sshpyk lab of ann@laptop"),
    ],
)
def test_what_it_ends_with_is_said(changes: dict[str, Any], said: str):
    owner: Any = Owner(**changes)
    assert said in lab._lasting(wish(), owner)
    assert ("sshpyk close 1" in lab._lasting(wish(background=True), owner)) is (not changes)


@pytest.mark.parametrize(
    ("changes", "link", "said"),
    [
        ({}, "up", "ends now, with its kernels"),
        ({}, "dialing", "ends when the host can be reached again"),
        ({"keep": True}, "up", "runs on"),
    ],
)
def test_ctrl_c_says_what_becomes_of_it(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], link: str, said: str
):
    def interrupted(owners: list[Any], status: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lab, "keep_in_sight", interrupted)
    owner: Any = Owner(**changes)
    owner.link = {"link": link}
    assert said in lab._until_closed(HOST, owner).what


@pytest.mark.parametrize(
    ("typed", "ends", "kept"),
    [("\n", False, False), ("y\n", True, False), ("k\n", True, True), ("", True, False)],
)
def test_ctrl_c_asks_before_kernels_are_lost(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, typed: str, ends: bool, kept: bool
):
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    monkeypatch.setattr(sys, "stderr", Terminal())
    owner: Any = Owner()
    assert lab_end.asked_at_the_end(HOST, owner) is ends
    asked = [one["params"] for one in hub.said if one.get("what") == "open_server"]
    assert asked == ([{"server_id": "s1a2b3", "keep": True}] if kept else [])


def test_a_terminal_gets_the_token(capsys: pytest.CaptureFixture[str], monkeypatch: Any):
    from sshpyk.cli.render import render

    opened = ServerOpened("gpu1", a_server(token=TOKEN), 1, "started", "It ends.", shown=True)
    render(opened)
    assert TOKEN not in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    render(opened)
    assert f"http://localhost:1/lab?token={TOKEN}" in capsys.readouterr().out
