"""``mount``, ``unmount`` and ``mounts`` as typed; what they do is tested in the lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import CompletionItem

from sshpyk.cli import main as cli_main
from sshpyk.cli import tunnels as tunnels_module
from sshpyk.cli import unmount as unmount_module
from sshpyk.cli.complete import open_mounts
from sshpyk.cli.mount import host_and_remote, request_for
from sshpyk.errors import InvalidInput


@pytest.mark.parametrize(
    ("place", "host", "remote"),
    [
        ("gpu1:/code", "gpu1", "/code"),
        ("gpu1:~/code", "gpu1", "~/code"),
        ("me@gpu1:22:/a:/b", "me@gpu1:22", "/a:/b"),
        ("[::1]:/a b", "[::1]", "/a b"),
    ],
)
def test_a_place_as_typed(place: str, host: str, remote: str):
    assert host_and_remote(place) == (host, remote)


def test_a_request_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a:b").mkdir()
    monkeypatch.chdir(tmp_path)
    request = request_for("a:b", "~/x", ("ro,cache=no", "follow_symlinks"), "")
    assert request.local == str(tmp_path / "a:b")
    assert request.options == ("ro", "cache=no", "follow_symlinks")


@pytest.mark.parametrize(
    ("local", "place", "said"),
    [
        (".", "gpu1:code", "/ or ~/"),
        (".", "gpu1", "/ or ~/"),
        (".", ":/code", "not HOST:REMOTE"),
        (".", "gpu1:/a\nb", "newline"),
        (".", "gpu1:~root/x", "another user's home"),
        (".", "-oProxyCommand=x:/a", "-oProxyCommand"),
        ("nowhere", "gpu1:/a", "there is no folder"),
        ("a\nb", "gpu1:/a", "newline"),
        ("", "gpu1:/a", "must not be empty"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    local: str, place: str, said: str, capsys: pytest.CaptureFixture[str]
):
    assert cli_main.main(["mount", "--", local, place]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_an_option_that_is_not_on_the_list_is_refused():
    with pytest.raises(InvalidInput, match="ssh_command"):
        request_for(".", "/a", ("ro,ssh_command=sh",), "")


class FakeHub:
    """A hub with mounts; those that commands let go of are gone when it is asked again."""

    def __init__(self, host: str, *mounts: dict[str, Any]) -> None:
        self.host = host
        self.mounts = list(mounts)
        self.closed: list[str] = []
        self._record: dict[str, Any] = {}

    def say(self, op: str, **params: Any) -> None:
        if op == "close_mount":
            self.closed.append(params["id"])
            for mount in list(self.mounts):
                mount["commands"] = [one for one in mount["commands"] if one != params["id"]]
                if not (mount["commands"] or mount["kernels"]):
                    self.mounts.remove(mount)
        link = {"host": self.host, "link": "dialing", "away_s": 12.0, "reason": "no route"}
        mounts = [dict(mount) for mount in self.mounts]
        self._record = {"event": "mounts", "link": link, "mounts": mounts}

    def hear(self) -> dict[str, Any]:
        return self._record

    def close(self) -> None:
        pass


def mount(local: str, remote: str, *commands: str, kernels: int = 0) -> dict[str, Any]:
    return {
        "local": local,
        "remote": remote,
        "options": ["ro"],
        "state": "mounted",
        "error": "",
        "commands": list(commands),
        "kernels": [{"kernel_id": "3f2a" * 8, "name": "py", "session": "a.ipynb"}] * kernels,
    }


@pytest.fixture
def hubs(monkeypatch: pytest.MonkeyPatch) -> list[FakeHub]:
    made = [
        FakeHub("gpu1", mount("/l/a", "/r/a", "m1", kernels=1), mount("/l/b", "~/b", "m2", "m3")),
        FakeHub("gpu2", mount("/l/a", "/r/a", "m4"), mount("/l/k", "/r/k", kernels=1)),
        FakeHub("idle"),
    ]
    for module in (unmount_module, tunnels_module):
        monkeypatch.setattr(module, "all_hubs", lambda: made)
    return made


def test_mounts_lists_who_uses_them_and_the_link(
    hubs: list[FakeHub], capsys: pytest.CaptureFixture[str]
):
    assert cli_main.main(["mounts"]) == 0
    out = capsys.readouterr().out
    assert "gpu1: link dialing for 12 s (no route)" in out
    assert "/l/a -> gpu1:/r/a (ro)" in out
    assert "mounted; sshpyk mount, kernel 3f2a3f2a a.ipynb" in out
    assert "idle" not in out
    assert cli_main.main(["mounts", "gpu2", "--json"]) == 0
    (hub,) = json.loads(capsys.readouterr().out)["hosts"]
    assert hub["link"]["host"] == "gpu2"


def test_unmount_by_either_name_and_all(hubs: list[FakeHub], capsys: pytest.CaptureFixture[str]):
    assert cli_main.main(["unmount", "gpu1:~/b/"]) == 0
    assert capsys.readouterr().out == "Unmounted /l/b -> gpu1:~/b (ro)\n"
    assert hubs[0].closed == ["m2", "m3"]
    assert cli_main.main(["unmount", "gpu2:/r/a"]) == 0
    assert cli_main.main(["unmount", "/l/a"]) == 0
    said = "Let go of /l/a -> gpu1:/r/a (ro): it stays for kernel 3f2a3f2a a.ipynb"
    assert said in capsys.readouterr().out
    assert cli_main.main(["unmount", "--all"]) == 0
    assert [hub.closed for hub in hubs] == [["m2", "m3", "m1"], ["m4"], []]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/l/a"], "gpu1:/r/a, gpu2:/r/a"),
        (["/l/none"], "not mounted"),
        (["gpu2:/r/k"], "the last kernel"),
        ([], "--all"),
        (["/l/a", "--all"], "--all"),
    ],
)
def test_unmount_of_what_is_not_clear_is_refused(
    hubs: list[FakeHub], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    assert cli_main.main(["unmount", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not any(hub.closed for hub in hubs)


def test_what_the_shell_offers_to_unmount(hubs: list[FakeHub]):
    ctx = click.Context(unmount_module.unmount)
    offered: list[CompletionItem] = open_mounts(ctx, ctx.command.params[0], "gpu")
    assert [item.value for item in offered] == ["gpu1:/r/a", "gpu1:~/b", "gpu2:/r/a"]
