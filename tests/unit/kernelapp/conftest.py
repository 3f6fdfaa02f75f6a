from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.staged_hub import stage  # noqa: F401


@pytest.fixture(autouse=True)
def _no_nohup() -> Iterator[None]:
    """The programs under test honour a nohup; that of whoever runs the tests is none of theirs."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def kernelspecs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, with a kernel of sshpyk's and one that is not."""
    ssh = tmp_path / "ssh"
    ssh.touch(mode=0o755)
    folder = tmp_path / "jupyter" / "kernels"
    config = {
        "ssh": str(ssh),
        "ssh_host_alias": "gpu1",
        "remote_kernel_name": "python3",
        "remote_python": "python3",
        "shutdown_timeout": 3,
    }
    remote = {"provisioner_name": "sshpyk-provisioner", "config": config}
    for name, metadata in (("remote", {"kernel_provisioner": remote}), ("local", {})):
        (folder / name).mkdir(parents=True)
        spec = {"argv": ["x"], "display_name": name, "language": "python", "metadata": metadata}
        spec["env"] = {"FROM": "spec"}
        (folder / name / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path
