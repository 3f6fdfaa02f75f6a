"""The user's ControlMasters: found, and gone around with ssh's own word for what that means."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from sshpyk.ssh.command import SshTarget
from sshpyk.ssh.config import resolve_chain
from sshpyk.ssh.masters import around_masters, masters_on_the_way
from tests.unit.wire.harness import short_folder  # noqa: F401

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh")

CONFIG = """
Host gpu1
    HostName gpu1.example
    User bob
    ProxyJump bastion
Host *
    ControlMaster auto
    ControlPath {folder}/%n
    ServerAliveInterval 7
"""


@pytest.fixture
def target(short_folder: Path) -> SshTarget:  # noqa: F811
    folder = short_folder / "a b"
    folder.mkdir()
    config = folder / "config"
    config.write_text(CONFIG.format(folder=short_folder))
    return SshTarget.parse("gpu1", ssh_config=str(config))


def test_masters_are_the_sockets_that_there_are(target: SshTarget, short_folder: Path) -> None:  # noqa: F811
    assert masters_on_the_way(target) == []
    (short_folder / "gpu1").touch()
    with socket.socket(socket.AF_UNIX) as master:
        master.bind(str(short_folder / "bastion"))
        assert masters_on_the_way(target) == [str(short_folder / "bastion")]


def test_around_masters_all_else_is_as_it_was(target: SshTarget, short_folder: Path) -> None:  # noqa: F811
    with around_masters(target, str(short_folder)) as around:
        hops = resolve_chain(around)
        assert around.ssh_config is not None
        assert Path(around.ssh_config).stat().st_mode & 0o777 == 0o600
    assert [(hop.controlmaster, hop.controlpath) for hop in hops] == [("no", "")] * 2
    assert [hop.serveraliveinterval for hop in hops] == [7, 7]
    assert (hops[1].hostname, hops[1].user, hops[1].proxyjump) == (
        *("gpu1.example", "bob"),
        ("bastion",),
    )
    assert not Path(around.ssh_config).exists()


def test_around_masters_without_a_config_reads_the_users_and_the_systems(tmp_path: Path) -> None:
    with around_masters(SshTarget("gpu1"), str(tmp_path)) as around:
        text = Path(around.ssh_config or "").read_text()
    assert text.splitlines()[3:] == ['  Include "~/.ssh/config"', '  Include "/etc/ssh/ssh_config"']
    with around_masters(SshTarget("gpu1", ssh_config="none"), str(tmp_path)) as around:
        assert "Include" not in Path(around.ssh_config or "").read_text()
