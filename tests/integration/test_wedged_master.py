"""F08: a ControlMaster of the user's hangs; the link goes around it and leaves it alone."""
# ruff: noqa: F401, F811

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.kernels import (
    AddKernel,
    add_kernel,
    eventually,
    jupyter_folders,
    started,
)
from tests.integration.lifecycle_helpers import OwnHub, outcome_of, own_hub
from tests.integration.machines import Lab
from tests.integration.printing import EXPECTED, PRINTING, text_up_to


@dataclass
class Master:
    """A master as a user has it, to the bastion, or to the host where there is none."""

    host: str
    path: Path
    pid: int = 0

    def ask(self, word: str) -> str:
        argv = ["ssh", "-o", f"ControlPath={self.path}", "-O", word, self.host]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20)
        return done.stderr

    def start(self) -> None:
        argv = ["ssh", "-fNM", "-o", f"ControlPath={self.path}", self.host]
        subprocess.run(argv, check=True, stderr=subprocess.DEVNULL)
        self.pid = int(self.ask("check").partition("pid=")[2].split(")")[0])


@pytest.fixture
def master(own_hub: OwnHub, tmp_path: Path) -> Iterator[Master]:
    host = "bastion" if own_hub.host == "remote-jump" else own_hub.host
    made = Master(host, Path(f"/tmp/test-master-{os.getpid()}"))
    made.start()
    own_hub.config.write_text(
        f"Host {host}\n ControlPath {made.path}\n{own_hub.config.read_text()}"
    )
    yield made
    os.kill(made.pid, signal.SIGCONT)
    made.ask("exit")
    eventually(lambda: not Path(f"/proc/{made.pid}").exists(), "the master's end")


def test_f08_link_leaves_a_master_that_hangs_and_no_line_is_lost(
    lab: Lab, add_kernel: AddKernel, own_hub: OwnHub, master: Master
) -> None:
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        kernel.run("number = None")
        msg_id = kernel.client.execute(PRINTING)
        text = text_up_to(kernel, "line 20\n")
        os.kill(master.pid, signal.SIGSTOP)
        outcome = outcome_of(kernel.client, msg_id)
        assert text + outcome.text() == EXPECTED
        assert kernel.run("6 * 7").result == "42"
        os.kill(master.pid, signal.SIGCONT)
        assert f"pid={master.pid}" in master.ask("check")


def test_f08_launch_goes_around_a_master_that_hangs(
    lab: Lab, add_kernel: AddKernel, own_hub: OwnHub, master: Master
) -> None:
    name = add_kernel(own_hub.host, *own_hub.options)
    os.kill(master.pid, signal.SIGSTOP)
    with started(lab, name) as kernel:
        assert kernel.run("6 * 7").result == "42"
