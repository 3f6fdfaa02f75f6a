"""Which options a mount may have."""

from __future__ import annotations

import pytest

from sshpyk.mounts.options import sort_options


def test_each_end_is_told_its_own() -> None:
    given = [
        "ro",
        "follow_symlinks",
        "allow_other",
        "cache=no",
        "attr_timeout=3",
        "compression=yes",
    ]
    options = sort_options(given)
    assert options.read_only
    assert options.follow_symlinks
    expected = {"ro", "follow_symlinks", "allow_other", "cache=no", "attr_timeout=3", "idmap=user"}
    assert set(options.for_sshfs) == expected


def test_the_owner_is_the_one_who_mounts_unless_told_otherwise() -> None:
    assert sort_options([]).for_sshfs == ["idmap=user"]
    assert sort_options(["idmap=none"]).for_sshfs == ["idmap=none"]


@pytest.mark.parametrize(
    "option",
    [
        *("ssh_command=sh -c x", "sftp_server=/bin/sh", "directport=22", "fsname=x", "passive"),
        *("password_stdin", "ProxyCommand=x", "slave", "", "ro=1", "cache", "cache=a\\,dev", "dev"),
        *("suid", "vsock=1", "nonempty", "modules=subdir", "cache=x\ny"),
    ],
)
def test_what_is_not_on_the_list_is_refused(option: str) -> None:
    with pytest.raises(ValueError):
        sort_options([option])
