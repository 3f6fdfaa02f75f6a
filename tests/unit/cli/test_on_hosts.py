"""``attach``, ``leave``, ``logs``, ``stop``, ``gc``: what they ask the hub, and what they show."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from sshpyk.cli import asking
from sshpyk.cli import attach as attach_module
from sshpyk.errors import KernelInUse, Unreachable
from sshpyk.paths import hub_log
from sshpyk.ssh.command import SshTarget

Run = Callable[..., Result]

ONE: dict[str, Any] = {
    "kernel_id": "0123456789abcdef",
    "name": "python3",
    "session": "work/plot.ipynb",
    "owner": "ann@laptop",
    "state": "idle",
    "idle_s": 7300.0,
    "mine": True,
}
TWO = {**ONE, "kernel_id": "01ffffffffffffff", "name": "ir", "session": ""}


class FakeHub:
    """Answers each operation with what ``answers`` has for it, or calls that."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.said: list[dict[str, Any]] = []
        self.socket = self

    def settimeout(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s

    def say(self, op: str, **params: Any) -> None:
        self.said.append({"op": op, **params})

    def hear(self) -> dict[str, Any] | None:
        record = self.said[-1]
        answer = self.answers[record.get("what", record["op"])]
        answer = answer(record) if callable(answer) else answer
        if isinstance(answer, Exception):
            return {"event": "failed", "error": answer.to_record()}  # type: ignore[attr-defined]
        return {"answer": answer} if record["op"] == "ask" else answer

    def close(self) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeHub]:
    def make(**answers: Any) -> FakeHub:
        hub = FakeHub({"list": {"kernels": [ONE, TWO]}, "servers": {"servers": []}, **answers})
        monkeypatch.setattr(asking, "reach_hub", lambda target: hub)
        return hub

    return make


# stop


@pytest.mark.parametrize("named", ["0123", "0123456789abcdef", "python3", "plot.ipynb"])
def test_stop_one_by_id_name_or_notebook(run: Run, serve: Callable[..., FakeHub], named: str):
    hub = serve(stop={})
    assert run("stop", "gpu1", named).stdout == "Stopped kernel 01234567 (python3) on gpu1\n"
    asked = hub.said[-1]
    assert (asked["op"], asked["what"]) == ("ask", "stop")
    assert asked["params"] == {"kernel_id": ONE["kernel_id"], "grace_s": 5.0}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["01"], "may be any of these kernels on gpu1: 01234567, 01ffffff"),
        (["nope"], "no kernel 'nope' on gpu1; there are: 01234567 (python3), 01ffffff (ir)"),
        ([], "name the kernels, or give --all"),
        (["0123", "--all"], "name the kernels, or give --all"),
        (["--all"], "--all needs --yes where nobody can be asked"),
        (["0123", "--grace", "-1"], "--grace must not be below 0"),
        (["0123", "--timeout", "0"], "--timeout must be above 0"),
    ],
)
def test_stop_what_is_not_clear_is_refused(
    refused: Callable[..., str], serve: Callable[..., FakeHub], words: list[str], said: str
):
    hub = serve()
    assert said in refused("stop", "gpu1", *words)
    assert not [one for one in hub.said if one.get("what") == "stop"]


def test_stop_all(run: Run, serve: Callable[..., FakeHub]):
    hub = serve(stop={})
    assert len(run("stop", "gpu1", "--all", "--yes").stdout.splitlines()) == 2
    stopped = {one["params"]["kernel_id"] for one in hub.said if one.get("what") == "stop"}
    assert stopped == {ONE["kernel_id"], TWO["kernel_id"]}
    serve(list={"kernels": []})
    assert run("stop", "gpu1", "--all", "--yes").stdout == "No kernels on gpu1\n"


# gc


def test_gc_says_what_it_did_or_would_do(run: Run, serve: Callable[..., FakeHub]):
    hub = serve(gc={"ended": [ONE], "swept": ["kdead"]})
    assert run("gc", "gpu1", "--idle", "1.5").stdout.splitlines() == [
        "gpu1: kernel 01234567 (python3, ann@laptop) ended: idle, nothing passed for 2 h",
        "gpu1: stale folder kdead removed",
    ]
    assert hub.said[-1]["params"] == {"idle_s": 5400.0, "dry_run": False}
    assert "would be ended" in run("gc", "gpu1", "--dry-run").stdout
    serve(gc={"ended": [], "swept": []})
    assert run("gc", "gpu1").stdout == "gpu1: nothing to do\n"


def test_gc_of_a_host_that_is_away_fails(run: Run, serve: Callable[..., FakeHub]):
    serve(gc=Unreachable("cannot connect", host="gpu1"))
    result = run("gc", "gpu1")
    assert (result.exit_code, "cannot connect" in result.stderr) == (1, True)


# leave


def test_leave_a_kernel_that_is_carried_here(run: Run, serve: Callable[..., FakeHub]):
    mounts = [
        {"remote": "~/code", "kernels": [{"kernel_id": ONE["kernel_id"]}]},
        {"remote": "/other", "kernels": [{"kernel_id": "another's"}]},
    ]
    hub = serve(
        status={"kernels": [ONE]},
        leave={"event": "leaving", "found": True},
        mounts={"event": "mounts", "mounts": mounts},
    )
    left, place = run("leave", "gpu1", "0123").stdout.splitlines()
    assert left == "Left kernel 01234567 on gpu1: sshpyk attach gpu1 01234567"
    assert place == "  ~/code goes, with files that it has open and its working folder there"
    assert hub.said[-1] == {"op": "leave", "kernel_id": ONE["kernel_id"]}


def test_leave_what_another_machine_carries_is_refused(
    refused: Callable[..., str], serve: Callable[..., FakeHub]
):
    serve(status={"kernels": []})
    assert "that this machine carries" in refused("leave", "gpu1", "0123")


# logs


def log_of(*texts: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Answer ``read_log`` with one text after the other; the kernel ends with the last."""
    left = list(texts)

    def read(record: dict[str, Any]) -> dict[str, Any]:
        text = left.pop(0)
        place = [0, len(texts) - len(left)]
        return {
            "text": text,
            "place": place,
            "more": False,
            "lost": False,
            "state": "idle" if left else "ended",
        }

    return read


LOGS = {"logs": [{**ONE, "size_bytes": 1234, "status": -6, "state": "ended"}]}


def test_logs_are_listed(run: Run, serve: Callable[..., FakeHub]):
    serve(logs=LOGS)
    assert run("logs", "gpu1").stdout.splitlines() == [
        "  KERNEL    STATE       OWNER       SIZE     NAME",
        "  01234567  ended (-6)  ann@laptop  1.23 kB  python3 work/plot.ipynb",
    ]
    assert json.loads(run("logs", "gpu1", "--json").stdout)["logs"] == LOGS["logs"]
    serve(logs={"logs": []})
    assert "No logs on gpu1" in run("logs", "gpu1").stdout


def test_log_is_followed_to_the_end_of_its_kernel(
    run: Run, serve: Callable[..., FakeHub], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sshpyk.cli.logs._FOLLOW_S", 0.0)
    hub = serve(logs=LOGS, read_log=log_of("a\nb\n", "", "c\n"))
    assert run("logs", "-f", "gpu1", "python3").stdout == "a\nb\nc\n"
    places = [one["params"]["place"] for one in hub.said if one.get("what") == "read_log"]
    assert places == [None, [0, 1], [0, 2]]


def test_last_lines_of_a_log(run: Run, serve: Callable[..., FakeHub]):
    serve(logs=LOGS, read_log=log_of("a\nb\nc\n"))
    assert run("logs", "gpu1", "0123", "-n", "2").stdout == "b\nc\n"


def test_log_of_the_hub_is_here(run: Run, refused: Callable[..., str], home: Path):
    assert "no log of a link to gpu1" in refused("logs", "gpu1", "--hub")
    target = SshTarget.parse("gpu1")
    hub_log(f"gpu1-{target.identity[:6]}").write_text("up\n")
    assert run("logs", "gpu1", "--hub").stdout == "up\n"


@pytest.mark.parametrize("words", [["-f"], ["-n", "3"], ["--hub", "0123"], ["0123", "-n", "-1"]])
def test_logs_bad_input_is_refused(
    refused: Callable[..., str], serve: Callable[..., FakeHub], words: list[str]
):
    serve(logs=LOGS)
    refused("logs", "gpu1", *words)


def test_terminal_does_not_obey_a_log():
    from sshpyk.cli.text import safe_lines

    assert safe_lines("\x1b[31mred\x1b[0m\n\x1b]0;title\x07\tx\r\n") == (
        "\x1b[31mred\x1b[0m\n\\x1b]0;title\\x07\tx\n"
    )


# attach

STAND_IN = """
import json, os, socket, sys, time
report = socket.socket(fileno=int(sys.argv[sys.argv.index("--provisioner-fd") + 1]))
record = json.loads(report.makefile("rb").readline())
outcome = {outcome}
own_session = os.getsid(0) == os.getpid()
noted = {{"pid": os.getpid(), "record": record, "sid": own_session, "env": dict(os.environ)}}
with open({noted!r}, "w") as file:
    json.dump(noted, file)
report.sendall(json.dumps(outcome).encode() + b"\\n")
time.sleep(60 if "ready" in outcome else 0)
"""


class StandIn:
    """A process in the place of the stand-in, which notes what it was asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch
        self.pids: list[int] = []

    def answers(self, outcome: dict[str, Any]) -> None:
        code = STAND_IN.format(outcome=repr(outcome), noted=str(self._folder / "noted"))
        (self._folder / "python").write_text(f"#!{sys.executable}\n{code}")
        (self._folder / "python").chmod(0o755)
        self._monkeypatch.setattr(attach_module.sys, "executable", str(self._folder / "python"))

    @property
    def noted(self) -> dict[str, Any]:
        noted: dict[str, Any] = json.loads((self._folder / "noted").read_text())
        return noted


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    made = StandIn(tmp_path, monkeypatch)
    yield made
    for pid in made.pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_attach_starts_a_process_of_its_own_and_says_how_to_connect(
    run: Run, serve: Callable[..., FakeHub], stand_in: StandIn, tmp_path: Path
):
    serve(list={"kernels": [{**ONE, "waiting_bytes": 2_500_000}]})
    stand_in.answers({"ready": True})
    said = json.loads(run("attach", "gpu1", "0123", "--json").stdout)
    stand_in.pids.append(said["pid"])
    path = tmp_path / "runtime" / "kernel-gpu1-01234567.json"
    assert said["connection_file"] == str(path)
    record = stand_in.noted["record"]
    assert record["attach_to"] == ONE["kernel_id"]
    assert record["launch"]["persistent"]
    assert not record["launch"]["takeover"]
    assert stand_in.noted["sid"]
    assert "JPY_PARENT_PID" not in stand_in.noted["env"]
    link = tmp_path / "runtime" / "external_kernels" / path.name
    assert os.readlink(link) == str(path)
    assert record["links"] == [str(link)]
    assert stat.S_IMODE(link.parent.stat().st_mode) == 0o700
    said = run("attach", "gpu1", "0123", "--takeover", "-f", str(tmp_path / "f.json")).stdout
    stand_in.pids.append(stand_in.noted["pid"])
    assert "2.5 MB wait for the first client" in said
    assert f"jupyter console --existing {tmp_path / 'f.json'}" in said
    assert stand_in.noted["record"]["launch"]["takeover"]
    assert stand_in.noted["record"]["links"] == []


def test_attach_that_is_refused_says_who_has_the_kernel(
    run: Run, serve: Callable[..., FakeHub], stand_in: StandIn, tmp_path: Path
):
    serve()
    error = KernelInUse("kernel 01234567 is in use by ann@laptop", host="gpu1", advice="--takeover")
    stand_in.answers({"error": error.to_record()})
    result = run("attach", "gpu1", "0123")
    assert result.exit_code == 1
    assert "in use by ann@laptop" in result.stderr
    assert not (tmp_path / "runtime" / "external_kernels").exists()


def test_attach_where_no_file_can_be_is_refused(
    refused: Callable[..., str], serve: Callable[..., FakeHub]
):
    serve()
    assert "no folder" in refused("attach", "gpu1", "0123", "-f", "/no/such/folder/x.json")
