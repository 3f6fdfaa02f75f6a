"""A local folder that a remote kernel works in, over the link: no sshd here, no key there."""
# ruff: noqa: F401, F811

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.kernels import (
    AddKernel,
    add_kernel,
    eventually,
    jupyter_folders,
    started,
)
from tests.integration.machines import USER, Lab


@pytest.fixture
def remote_folder(lab: Lab) -> Iterator[str]:
    """A path on the remote that is not there, and must not be afterwards."""
    path = f"/tmp/mounted-{uuid.uuid4().hex[:8]}"
    yield path
    eventually(lambda: path not in mounts(lab), "unmounting", timeout_s=30)
    eventually(lambda: not lab.remote.files(path), "removal of the mount point")


def mounts(lab: Lab) -> str:
    return lab.remote.run("cat /proc/mounts")


def test_a_notebook_works_in_its_own_folder(
    lab: Lab, add_kernel: AddKernel, host_alias: str, tmp_path: Path, remote_folder: str
) -> None:
    """Two kernels share it, relative paths count from the notebook, and it goes with the last."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    name = add_kernel(host_alias, "--mount-local-on-remote", f"{tmp_path}:{remote_folder}")
    cwd = str(tmp_path / "notebooks")
    with started(lab, name, cwd=cwd) as one:
        assert one.run("import os; os.getcwd()").result == repr(f"{remote_folder}/notebooks")
        assert one.run("open('../data.csv').read()").result == repr("a,b\n1,2\n")
        one.run("open('result.txt', 'w').write('from the remote')")
        assert (tmp_path / "notebooks" / "result.txt").read_text() == "from the remote"
        with started(lab, name, cwd=cwd) as other:
            assert mounts(lab).count(remote_folder) == 1
            assert other.run("open('result.txt').read()").result == "'from the remote'"
        time.sleep(3)  # a mount that nobody uses is gone by then
        assert one.run("open('result.txt').read()").result == "'from the remote'"


def test_a_mount_that_cannot_be_fails_the_launch_in_words(
    lab: Lab, add_kernel: AddKernel, tmp_path: Path
) -> None:
    name = add_kernel("remote", "--mount-local-on-remote", f"{tmp_path}:/etc")
    with pytest.raises(Exception, match="/etc is not empty"), started(lab, name):
        pass
    name = add_kernel("remote", "--mount-local-on-remote", f"{tmp_path}/missing:/tmp/missing")
    with pytest.raises(Exception, match="there is no folder"), started(lab, name):
        pass
    assert lab.remote.files("/tmp/missing") == []


def test_a_kernel_starts_without_a_mount_that_is_optional(
    lab: Lab, add_kernel: AddKernel, tmp_path: Path
) -> None:
    option = ("--mount-local-on-remote", f"{tmp_path}:/etc", "--mount-optional")
    with started(lab, add_kernel("remote", *option, "--remote-cwd", "/etc/x")) as kernel:
        assert kernel.run("import os; os.getcwd()").result == repr(f"/home/{USER}")
