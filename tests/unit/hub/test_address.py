from __future__ import annotations

import os
from pathlib import Path

import pytest

from sshpyk.errors import HubError
from sshpyk.hub.address import HUB_PROTOCOL, hub_socket
from sshpyk.ssh.command import SshTarget
from sshpyk.wire import private


def test_the_path_tells_target_and_version_and_its_folder_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(private, "_ROOT", str(tmp_path))
    target = SshTarget("gpu1")
    path = Path(hub_socket(target))
    assert path.name == f"{target.identity}-{HUB_PROTOCOL}.sock"
    assert private.is_private(str(path.parent))
    assert hub_socket(SshTarget("gpu1", ssh_config="/c")) != str(path)


def test_the_path_is_short_enough_for_a_socket():
    assert len(hub_socket(SshTarget("x" * 500))) < 100
    private.remove_if_empty(os.path.dirname(hub_socket(SshTarget("x"))))


def test_no_folder_is_an_error_of_the_hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(private, "_ROOT", f"{tmp_path}/missing")
    with pytest.raises(HubError, match="no private folder"):
        hub_socket(SshTarget("gpu1"))
