from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sshpyk.doctor.finding import Mark
from sshpyk.doctor.kernel_checks import cwd_items, kernel_items, question_for
from sshpyk.doctor.probe import HostAnswer, Interpreter, Packages, RemoteSpec
from sshpyk.errors import Unreachable
from sshpyk.kernelconfig import Mount, RemoteKernel

REMOTE = RemoteKernel("gpu1", "python3", remote_python="/e/bin/python")
GOOD = Packages("ipykernel_launcher", True, "7.1.0", "27.0.0")
ARGV = ("python", "-m", "ipykernel_launcher", "-f", "{connection_file}")
SPEC = RemoteSpec("/k", ARGV, "signal", "/e/bin/python", "python", GOOD)


def look(python: Interpreter, remote: RemoteKernel = REMOTE) -> dict[str, Any]:
    items = kernel_items("mine", remote, HostAnswer("Linux", {remote.python: python}))
    return {item.label: item for item in items}


def with_spec(**changes: Any) -> Interpreter:
    return Interpreter(
        "/e/bin/python",
        "3.12.1",
        "",
        ("python3",),
        {"python3": RemoteSpec(**{**vars(SPEC), **changes})},
    )


def test_all_is_well() -> None:
    items = look(with_spec())
    assert not any(item.is_broken for item in items.values())
    assert items["Remote Packages"].value == "ipykernel 7.1.0, pyzmq 27.0.0"


@pytest.mark.parametrize("answer", [None, Unreachable("x", host="gpu1")])
def test_host_that_did_not_answer_leaves_all_unchecked(answer: Unreachable | None) -> None:
    assert {item.mark for item in kernel_items("mine", REMOTE, answer)} == {Mark.UNCHECKED}


@pytest.mark.parametrize(
    ("python", "code", "says"),
    [
        (Interpreter(reason="was not found"), "HOST-NO-INTERPRETER", "was not found"),
        (Interpreter(reason="Fatal Python error"), "HOST-PYTHON-BROKEN", "Fatal Python error"),
        (Interpreter("/e/bin/python", "3.6.8"), "HOST-PYTHON-TOO-OLD", "Python 3.6.8"),
        (Interpreter("/e/bin/python", "2.7.18"), "HOST-PYTHON-TOO-OLD", "Python 2.7.18"),
    ],
)
def test_interpreter_that_will_not_do(python: Interpreter, code: str, says: str) -> None:
    items = look(python)
    item = items["Remote Python"]
    assert (item.mark, item.code) == (Mark.BROKEN, code)
    assert says in item.value
    assert item.parts[-1].value == "sshpyk edit mine --remote-python PATH"
    assert items["Remote Kernel Name"].mark is Mark.UNCHECKED


def test_kernelspec_that_is_not_there() -> None:
    item = look(Interpreter("/e/bin/python", "3.12.1", known=("ir",)))["Remote Kernel Name"]
    assert (item.mark, item.code) == (Mark.BROKEN, "KERNELSPEC-NOT-FOUND")
    assert item.parts[0].value == "ir"
    assert item.parts[-1].value == "ssh gpu1 '/e/bin/python -m pip install ipykernel'"
    r = RemoteKernel("gpu1", "r", remote_python="/e/bin/python", ssh_config="/my config")
    item = look(Interpreter("/e/bin/python", "3.12.1", known=("ir",)), r)["Remote Kernel Name"]
    assert item.parts[-1].value == "sshpyk edit mine --remote-kernel-name NAME"


def test_kernelspec_that_cannot_be_read() -> None:
    python = Interpreter("/e/bin/python", "3.12.1", broken={"python3": "/k: no JSON"})
    assert "/k: no JSON" in look(python)["Remote Kernel Name"].value


def test_program_that_is_not_there() -> None:
    item = look(with_spec(program="", argv=("/no/R", "--slave"), packages=None))["Remote Command"]
    assert (item.mark, item.code) == (Mark.BROKEN, "KERNEL-NO-PROGRAM")
    assert "there is no /no/R" in item.value
    assert look(with_spec(program="", argv=()))["Remote Command"].is_broken


@pytest.mark.parametrize(
    ("packages", "mark", "code", "run"),
    [
        (Packages("ipykernel_launcher", False), Mark.BROKEN, "KERNEL-NO-IPYKERNEL", "ipykernel"),
        (Packages("bash_kernel.x", False), Mark.BROKEN, "KERNEL-NO-MODULE", "bash_kernel"),
        (
            Packages("ipykernel_launcher", True, "7", "", "ModuleNotFoundError"),
            *(Mark.BROKEN, "KERNEL-NO-PYZMQ", "--force-reinstall pyzmq"),
        ),
        (Packages("xpython", True, zmq_error="x"), Mark.ADVICE, "", "--force-reinstall pyzmq"),
        (Packages("x", False, failed="Timeout"), Mark.ADVICE, "", ""),
    ],
)
def test_packages_of_the_kernels_own_interpreter(
    packages: Packages, mark: Mark, code: str, run: str
) -> None:
    item = look(with_spec(program="/f/bin/python", packages=packages))["Remote Packages"]
    assert (item.mark, item.code) == (mark, code)
    if run:
        assert item.parts[-1].value == f"ssh gpu1 '/f/bin/python -m pip install {run}'"


@pytest.mark.parametrize(
    ("state", "mark"),
    [("full", Mark.OK), ("forbidden", Mark.OK), ("missing", Mark.BROKEN), ("", Mark.UNCHECKED)],
)
def test_working_folder(state: str, mark: Mark) -> None:
    remote = RemoteKernel("gpu1", "python3", remote_python="python3", remote_cwd="~/x")
    answer = HostAnswer("Linux", {}, folders={"~/x": state} if state else {})
    (item,) = cwd_items("mine", remote, answer)
    assert item.mark is mark
    assert list(cwd_items("mine", REMOTE, answer)) == []
    mounted = replace(remote, mount_local_on_remote=(Mount("/x", "~/x"),))
    (item,) = cwd_items("mine", mounted, answer)
    assert item.mark is Mark.INFO


def test_question_leaves_a_folder_that_is_not_known_yet() -> None:
    remote = RemoteKernel("gpu1", "python3", remote_python="python3", remote_cwd="{notebook_dir}")
    assert question_for(remote).cwd == ""


def test_what_an_activation_may_bring_is_left_to_the_launch() -> None:
    activated = RemoteKernel("gpu1", "python3", remote_python="python3", activate="module load py")
    item = look(Interpreter("/usr/bin/python3", "3.12.1"), activated)["Remote Kernel Name"]
    assert (item.mark, item.value) == (Mark.UNCHECKED, "python3: comes with --activate")
    r = RemoteKernel("gpu1", "python3", remote_python="/e/bin/python", activate="module load R")
    assert look(with_spec(program=""), r)["Remote Command"].mark is Mark.UNCHECKED
