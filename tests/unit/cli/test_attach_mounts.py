"""Which folders of this machine ``sshpyk attach`` mounts again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sshpyk.cli.attach_mounts import folders_for
from sshpyk.errors import InvalidInput

Add = Callable[..., Path]
KERNEL = {"name": "python3", "mounts": ["~/code", "/data"]}


def test_the_host_names_places_and_this_machine_the_folders(add: Add, tmp_path: Path):
    add("other", "--mount-local-on-remote", "/wrong:~/code", "--remote-kernel-name", "ir")
    add(
        "mine",
        "--mount-local-on-remote",
        f"{tmp_path}:~/code:ro",
        "--mount-local-on-remote",
        "/x:/y",
    )
    found = folders_for("gpu1", KERNEL, [])
    assert [(one["local"], one["remote"], one["options"]) for one in found.mounts] == [
        (str(tmp_path), "~/code", ["ro"])
    ]
    assert found.unknown == ["/data"]


def test_the_command_line_comes_first(add: Add):
    add("mine", "--mount-local-on-remote", "/a:~/code")
    found = folders_for("gpu1", KERNEL, ["/b:~/code", "/d:/data", "/e:/more"])
    assert {one["remote"]: one["local"] for one in found.mounts} == {
        "~/code": "/b",
        "/data": "/d",
        "/more": "/e",
    }
    assert found.unknown == []


def test_a_host_cannot_name_a_folder_of_this_machine(add: Add):
    add("mine", "--mount-local-on-remote", "/a:~/code")
    found = folders_for("gpu1", {"name": "python3", "mounts": ["/a", 3]}, [])
    assert found.mounts == []
    assert found.unknown == ["/a", "3"]


def test_what_cannot_be_mounted_is_refused(add: Add):
    with pytest.raises(InvalidInput, match="--mount-local-on-remote"):
        folders_for("gpu1", KERNEL, ["/b"])
    with pytest.raises(InvalidInput, match="ssh_command"):
        folders_for("gpu1", KERNEL, ["/b:/c:ssh_command=sh"])
