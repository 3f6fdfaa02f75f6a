"""What the kernel finds around it: variables, working folder, PATH; the host's, not the laptop's."""
# ruff: noqa: F401, F811

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager

from tests.integration.kernels import (
    AddKernel,
    Running,
    add_kernel,
    jupyter_folders,
    kernel,
    started,
)
from tests.integration.lifecycle_helpers import (
    REMOTE_PYTHON,
    InstallKernelspec,
    change_kernel_json,
    remote_kernelspec,
    standing,
)
from tests.integration.machines import Lab

SHOW = "import os; dict(os.environ)"


def environment_of(kernel: Running) -> dict[str, str]:
    found: dict[str, str] = ast.literal_eval(kernel.run(SHOW).result or "")
    return found


@pytest.fixture(autouse=True)
def _laptop_of_another_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The Jupyter server's own environment, none of which means anything on the remote."""
    monkeypatch.setenv("PATH", f"{tmp_path}/laptop-bin:{os.environ['PATH']}")
    monkeypatch.setenv("VIRTUAL_ENV", "/laptop/venv")
    monkeypatch.setenv("LAPTOP_SECRET", "for nobody else")


def test_environment_is_the_hosts_and_what_was_set_for_this_kernel(
    lab: Lab, add_kernel: AddKernel, host_alias: str, remote_kernelspec: InstallKernelspec
) -> None:
    argv = [REMOTE_PYTHON, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = remote_kernelspec(argv, env={"FROM_REMOTE_SPEC": "~${USER}~", "BOTH": "remote"})
    name = add_kernel(host_alias, remote_kernel_name=spec)
    change_kernel_json(name, env={"FROM_LOCAL_SPEC": "a b\n'\"$ü", "BOTH": "local"})
    with started(
        lab, name, env={"FROM_CALLER": "c", "JPY_SESSION_NAME": "/home/me/n.ipynb"}
    ) as kernel:
        found = environment_of(kernel)
    assert found["FROM_REMOTE_SPEC"] == "~lab~"
    assert found["FROM_LOCAL_SPEC"] == "a b\n'\"$ü"
    assert found["BOTH"] == "local"
    assert found["FROM_CALLER"] == "c"
    assert found["JPY_SESSION_NAME"] == "/home/me/n.ipynb"


def test_environment_has_nothing_of_the_laptops_or_of_the_ssh_session(kernel: Running) -> None:
    found = environment_of(kernel)
    assert found["HOME"] == "/home/lab"
    # LANG is for the user's ssh to send or not (SendEnv), as with any login.
    assert "laptop" not in json.dumps(found)
    for absent in ("VIRTUAL_ENV", "LAPTOP_SECRET", "SSHPYK_LAB", "JUPYTER_DATA_DIR"):
        assert absent not in found
    for absent in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "JPY_PARENT_PID"):
        assert absent not in found


def test_environment_of_a_program_without_provisioners(
    lab: Lab, add_kernel: AddKernel, host_alias: str, tmp_path: Path
) -> None:
    with standing(lab, add_kernel(host_alias), tmp_path) as own:
        found = ast.literal_eval(own.run(SHOW).result or "")
    assert found["SSHPYK_TEST_MARK"] == own.mark  # from the kernelspec's env
    assert "LAPTOP_SECRET" not in found
    assert "laptop" not in json.dumps(found)


def test_path_leads_with_the_interpreters_folder(kernel: Running) -> None:
    assert kernel.run("import os; os.environ['PATH'].split(':')[0]").result == "'/opt/venv/bin'"
    assert kernel.run("!which python pip").text().split() == [
        "/opt/venv/bin/python",
        "/opt/venv/bin/pip",
    ]


def test_working_folder_is_home(kernel: Running) -> None:
    assert kernel.run("import os; os.getcwd()").result == "'/home/lab'"


def test_new_files_have_the_modes_that_a_login_gives_them(lab: Lab, kernel: Running) -> None:
    look = "import os; m = os.umask(0); os.umask(m); m"
    expected = lab.remote.run(
        "umask"
    )  # of a shell that sshd has no part in, with Debian's settings
    assert int(kernel.run(look).result or "") == int(expected, 8)


def test_working_folder_of_the_notebook_stays_on_the_laptop(
    lab: Lab, add_kernel: AddKernel, host_alias: str, tmp_path: Path
) -> None:
    """jupyter_server passes the notebook's folder, which need not exist on the host."""
    with started(lab, add_kernel(host_alias), cwd=str(tmp_path)) as kernel:
        assert kernel.run("import os; os.getcwd()").result == "'/home/lab'"


@pytest.mark.parametrize(
    ("configured", "found"), [("/opt/venv", "/opt/venv"), ("~/.ssh", "/home/lab/.ssh")]
)
def test_working_folder_is_remote_cwd(
    lab: Lab, add_kernel: AddKernel, host_alias: str, configured: str, found: str
) -> None:
    with started(lab, add_kernel(host_alias, "--remote-cwd", configured)) as kernel:
        assert kernel.run("import os; os.getcwd()").result == repr(found)


def test_missing_remote_cwd_is_an_error_that_names_it(
    add_kernel: AddKernel, host_alias: str
) -> None:
    manager = KernelManager(kernel_name=add_kernel(host_alias, "--remote-cwd", "/no/such/folder"))
    with pytest.raises(Exception, match=r"no folder /no/such/folder") as caught:
        manager.start_kernel()
    assert str(caught.value).startswith(f"host {host_alias}: ")
    manager.cleanup_connection_file()
