from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sshpyk.doctor.finding import Item, Mark
from sshpyk.doctor.mount_checks import mount_items
from sshpyk.doctor.probe import FOLDER_STATES, Fuse, HostAnswer
from sshpyk.hub import private_sshd
from sshpyk.kernelconfig import Mount, RemoteKernel
from sshpyk.ssh.config import read_resolved

FUSE = Fuse("usable", allow_other=True, fusermount="/usr/bin/fusermount3")


def look(
    local: Path | str, *, options: tuple[str, ...] = (), optional: bool = False, **answer: Any
) -> dict[str, Item]:
    remote = RemoteKernel(
        *("gpu1", "python3"),
        remote_python="python3",
        mount_optional=optional,
        mount_local_on_remote=(Mount(str(local), "~/m", options),),
    )
    facts = {"fuse": FUSE, "sshfs": {"sshfs": "SSHFS 3.7"}, "folders": {"~/m": "missing"}, **answer}
    (item,) = mount_items(remote, HostAnswer("Linux 6", {}, **facts))
    return {part.label: part for part in (item, *item.parts)}


def broken(items: dict[str, Item]) -> list[str]:
    return [item.code for item in items.values() if item.mark is Mark.BROKEN]


def test_all_is_there(tmp_path: Path) -> None:
    items = look(tmp_path, options=("allow_other",))
    assert broken(items) == []
    assert {items[label].mark for label in ("local folder", "sshfs", "fuse", "mount point")} == {
        Mark.OK
    }


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"sshfs": {"sshfs": ""}}, "MOUNT-NO-SSHFS"),
        ({"fuse": Fuse("missing", True, "x")}, "MOUNT-NO-FUSE"),
        ({"fuse": Fuse("forbidden", True, "x")}, "MOUNT-NO-FUSE"),
        ({"fuse": Fuse("usable", True, "")}, "MOUNT-NO-FUSE"),
        ({"fuse": Fuse("usable", False, "x"), "options": ("allow_other",)}, "MOUNT-ALLOW-OTHER"),
        ({"folders": {"~/m": "no-parent"}}, "MOUNT-POINT"),
        ({"folders": {"~/m": "forbidden"}}, "MOUNT-POINT"),
        ({"folders": {"~/m": "full"}}, "MOUNT-POINT"),
    ],
)
def test_what_is_missing_has_a_code(tmp_path: Path, answer: dict[str, Any], code: str) -> None:
    assert broken(look(tmp_path, **answer)) == [code, code]  # of the mount, and of its line


def through(alias: str, answer: HostAnswer | None, folder: Path) -> dict[str, Item]:
    remote = RemoteKernel(
        *("gpu1", "python3"),
        remote_python="python3",
        mount_local_on_remote=(Mount(str(folder), "~/m"),),
        ssh_host_alias_local_on_remote=alias,
    )
    (item,) = mount_items(remote, answer)
    return {part.label: part for part in item.parts}


def answer_of(alias: str, said: str) -> HostAnswer:
    resolved = read_resolved(alias, said)
    facts: dict[str, Any] = {"fuse": FUSE, "sshfs": {"sshfs": "3"}, "folders": {"~/m": "missing"}}
    return HostAnswer("Linux 6", {}, aliases={alias: resolved}, **facts)


@pytest.fixture
def _sshd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_sshd, "find_sshd", lambda named: named or "/usr/sbin/sshd")


@pytest.mark.usefixtures("_sshd")
@pytest.mark.parametrize(
    ("hostname", "user", "code"),
    [
        ("localhost", "", ""),
        ("laptop", "", "MOUNT-NO-ALIAS"),
        ("192.0.2.7", "", "MOUNT-ALIAS-NOT-LOOPBACK"),
        ("localhost", "somebody-else", "MOUNT-ALIAS-USER"),
    ],
)
def test_an_alias_of_the_hosts_is_looked_at(
    tmp_path: Path, hostname: str, user: str, code: str
) -> None:
    user = user or private_sshd.local_user()
    said = f"hostname {hostname}\nuser {user}\nport 2222\n"
    items = through("laptop", answer_of("laptop", said), tmp_path)
    assert items["way"].mark is Mark.INFO
    assert "laptop" in items["way"].value
    assert items["sshd"].mark is Mark.OK
    assert items["alias"].code == code
    assert items["alias"].is_broken is bool(code)


def test_a_missing_sshd_is_found_without_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_sshd, "_SBIN", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    items = through("laptop", None, tmp_path)
    assert items["sshd"].code == "MOUNT-NO-SSHD"
    assert "--sshd" in items["advice"].value
    assert through("", None, tmp_path)["way"].value == "over the link"


def test_what_is_missing_is_advice_where_the_kernel_starts_without_it(tmp_path: Path) -> None:
    items = look(tmp_path, optional=True, sshfs={"sshfs": ""})
    assert broken(items) == []
    assert items["Mount"].mark is Mark.ADVICE
    assert items["mount_optional"].value == "the kernel starts without it"


def test_local_folder_is_looked_at_without_an_answer() -> None:
    remote = RemoteKernel(
        "h", "k", remote_python="p", mount_local_on_remote=(Mount("/no/such", "/x"),)
    )
    (item,) = mount_items(remote, None)
    assert (item.mark, item.code) == (Mark.BROKEN, "MOUNT-LOCAL-FOLDER")


def test_every_state_of_a_mount_point_is_known(tmp_path: Path) -> None:
    for state in FOLDER_STATES:
        assert look(tmp_path, folders={"~/m": state})["mount point"].mark is not Mark.UNCHECKED
    assert look(tmp_path, folders={"~/m": "odd"})["mount point"].mark is Mark.UNCHECKED
