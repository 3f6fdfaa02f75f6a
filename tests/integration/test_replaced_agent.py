"""F16: the agent on the host is killed; the next one adopts its kernels, and says what may be missing.
F21: the host is rebooted; the kernels on it are gone, and so it is said.

Each test has an account on the host, and so an agent, of its own.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import contextlib
import os
import re
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.faults.bench import account
from tests.integration.kernels import (
    PATIENCE_S,
    AddKernel,
    Outcome,
    Running,
    add_kernel,
    await_ready,
    eventually,
    jupyter_folders,
    started,
)
from tests.integration.lifecycle_helpers import (
    OwnHub,
    agents,
    hub_of,
    interrupt_and_restart_beside_another,
    outcome_of,
)
from tests.integration.machines import Lab
from tests.integration.printing import LINES, PRINTING, text_up_to

NOTICE = re.compile(r"agent on \S+ was killed.* up to (\d+) s may be missing")
LINE_S = 0.05  # between two lines of PRINTING
# What is printed right before an _exit may still be in the kernel.
LAST_WORDS = "print('last words', flush=True); import os, time; time.sleep(1); os._exit(0)"


@dataclass(frozen=True)
class Place:
    """An account on the remote, and the hub that logs in there."""

    lab: Lab
    account: str
    hub: OwnHub
    add_kernel: AddKernel

    def agents(self) -> list[int]:
        """Return the process ids of the account's agents."""
        return [one.pid for one in agents(self.lab, user=self.account)]

    def agent(self) -> int:
        """Return the process id of the one agent."""
        (found,) = self.agents()
        return found

    def add(self) -> str:
        """Add a kernel; return its name."""
        return self.add_kernel(self.hub.host, *self.hub.options)

    @contextlib.contextmanager
    def kernel(self) -> Iterator[Running]:
        """Start a kernel."""
        with started(self.lab, self.add()) as kernel:
            yield kernel

    def kill(self, *pids: int) -> None:
        """Kill processes on the remote, all at once."""
        self.lab.remote.run(f"kill -9 {' '.join(map(str, pids))}", user="root")

    def replace_agent(self) -> None:
        """Kill the agent and wait until the link is up with the next one."""
        old = self.agent()
        self.kill(old)
        eventually(lambda: self.agents() not in ([], [old]), "another agent")
        eventually(lambda: self.hub.link_state() == "up", "the link")
        assert len(self.agents()) == 1


@pytest.fixture
def place(lab: Lab, account: str, add_kernel: AddKernel, tmp_path: Path) -> Iterator[Place]:
    """A place of this test's own."""
    config = f"Host remote\n    User {account}\n"
    with hub_of(lab, "remote", tmp_path / "ssh_config", config) as hub:
        yield Place(lab, account, hub, add_kernel)


def missing_lines(text: str) -> list[int]:
    """Return the numbers of the lines that did not come; what came must be whole and in order."""
    numbers = [int(number) for number in re.findall(r"^line (\d+)$", text, re.MULTILINE)]
    assert numbers == sorted(set(numbers))
    return sorted(set(range(LINES)) - set(numbers))


def notices(outcome: Outcome) -> list[int]:
    """Return for how many seconds each notice in a cell's stderr says that output may be missing."""
    return [int(seconds) for seconds in NOTICE.findall(outcome.text("stderr"))]


def outcomes_of(kernel: Running, *msg_ids: str) -> dict[str, Outcome]:
    """Return what several requests brought, in whatever order they are answered."""
    outcomes = {msg_id: Outcome({}) for msg_id in msg_ids}
    idle: set[str] = set()
    while len(idle) < len(msg_ids):
        message = kernel.client.get_iopub_msg(timeout=PATIENCE_S)
        msg_id = message["parent_header"].get("msg_id")
        if msg_id in outcomes:
            outcomes[msg_id].iopub.append(message)
        if msg_id in outcomes and message["content"].get("execution_state") == "idle":
            idle.add(msg_id)
    while not all(outcome.reply for outcome in outcomes.values()):
        message = kernel.client.get_shell_msg(timeout=PATIENCE_S)
        outcomes[message["parent_header"]["msg_id"]].reply = message
    return outcomes


def test_f16_agent_killed_while_a_cell_prints_loses_only_what_is_declared(
    place: Place,
) -> None:
    with place.kernel() as kernel:
        kernel.run("mark = 41")
        pid = kernel.remote_pid()
        msg_id = kernel.client.execute(PRINTING)
        text = ""
        for line in (30, 100):
            text += text_up_to(kernel, f"line {line}\n")
            place.replace_agent()
        outcome = outcome_of(kernel.client, msg_id)
        text += outcome.text()
        missing = missing_lines(text)
        declared = notices(outcome) + [int(seconds) for seconds in NOTICE.findall(text)]
        assert len(declared) == 2
        assert len(missing) <= sum(declared) / LINE_S + 2
        assert LINES - 1 not in missing
        assert outcome.result == str(LINES - 1)
        assert outcome.reply["content"]["status"] == "ok"
        assert kernel.run("mark + 1").result == "42"
        assert kernel.remote_pid() == pid


def test_f16_adopted_kernels_are_interrupted_restarted_and_shut_down_as_before(
    place: Place,
) -> None:
    with interrupt_and_restart_beside_another(place.lab, place.add(), place.replace_agent):
        assert len(place.agents()) == 1


def test_f16_client_that_stays_connected_is_answered_whatever_it_asks(place: Place) -> None:
    """Plain jupyter_client, a prompt open each time: nothing is left silent behind two agents."""
    with place.kernel() as kernel:
        client = kernel.client
        for _ in range(2):
            asking = client.execute("input('? ')", allow_stdin=True)
            assert client.get_stdin_msg(timeout=PATIENCE_S)["content"]["prompt"] == "? "
            place.replace_agent()
            client.input("typed")
            assert outcome_of(client, asking).result == "'typed'"
            for msg_id in (
                client.kernel_info(),
                client.complete("zi"),
                client.history(hist_access_type="tail", n=1),
                client.inspect("zip"),
            ):
                assert outcome_of(client, msg_id).reply["content"]["status"] == "ok"
            sleeping = client.execute("print('begun', flush=True); import time; time.sleep(60)")
            text_up_to(kernel, "begun\n")
            kernel.manager.interrupt_kernel()
            content = outcome_of(client, sleeping).reply["content"]
            assert content["ename"] == "KeyboardInterrupt"


def test_f16_adopted_kernel_that_ends_is_told_of_without_a_claim_of_success(
    place: Place,
) -> None:
    with place.kernel() as kernel:
        place.replace_agent()
        kernel.client.execute(LAST_WORDS)
        text_up_to(kernel, "last words\n")
        eventually(lambda: not kernel.manager.is_alive(), "the kernel's end", timeout_s=30)
        assert kernel.manager.provisioner.process.returncode == 255


def test_f16_kernel_that_ends_while_no_agent_lives_is_told_of(
    place: Place,
) -> None:
    with place.kernel() as kernel:
        pid = kernel.remote_pid()
        place.kill(place.agent(), pid)
        eventually(lambda: not kernel.manager.is_alive(), "the kernel's end", timeout_s=30)
        assert kernel.manager.provisioner.process.returncode == 255


def test_f16_answers_that_were_lost_are_replaced_by_an_error(
    place: Place,
) -> None:
    """The cell ends, and another is asked for, while the agent is dead and nobody knows it."""
    remote, gate = place.lab.remote, f"/tmp/test-gate-{uuid.uuid4().hex[:8]}"
    code = f"""
import os, time
print("begun", flush=True)
while not os.path.exists({gate!r}):
    time.sleep(0.01)
os.rename({gate!r}, {gate + "-passed"!r})
mark = 43
"""
    with place.kernel() as kernel:
        msg_id = kernel.client.execute(code)
        text_up_to(kernel, "begun\n")
        ssh = place.hub.connection()
        os.kill(ssh.pid, signal.SIGSTOP)  # nothing passes, and nobody dials yet
        place.kill(place.agent())
        remote.run(["touch", gate], user=place.account)
        later = kernel.client.execute("mark")
        eventually(lambda: remote.files(gate + "-passed"), "the cell's end")
        os.kill(ssh.pid, signal.SIGCONT)
        outcomes = outcomes_of(kernel, msg_id, later)
        remote.run(["rm", gate + "-passed"], user=place.account)
        assert outcomes[msg_id].reply["content"]["ename"] == "AnswerLost"
        assert "the answer was lost" in outcomes[msg_id].text("stderr")
        assert outcomes[later].result == "43"
        assert outcomes[later].reply["content"]["status"] == "ok"


def test_f16_agent_and_link_and_hub_killed_at_once(
    place: Place,
) -> None:
    with place.kernel() as kernel:
        kernel.run("mark = 41")
        pid = kernel.remote_pid()
        msg_id = kernel.client.execute(PRINTING)
        text = text_up_to(kernel, "line 20\n")
        doomed = place.agent()
        os.kill(place.hub.pid, signal.SIGKILL)
        place.kill(doomed)
        outcome = outcome_of(kernel.client, msg_id)
        missing = missing_lines(text + outcome.text())
        assert LINES - 1 not in missing
        assert outcome.result == str(LINES - 1)
        assert len(notices(outcome)) == 1
        assert kernel.run("mark + 1").result == "42"
        assert kernel.remote_pid() == pid


def test_f16_agent_killed_while_large_messages_are_under_way_both_ways(
    place: Place,
) -> None:
    """8 MB each way: the answer is whole or declared lost, and the next request finds a sane kernel."""
    with place.kernel() as kernel:
        kernel.run("mark = 41")
        first = kernel.client.execute("'x' * 8_000_000")
        second = kernel.client.execute(f"len({'y' * 8_000_000!r})")
        place.replace_agent()
        outcomes = outcomes_of(kernel, first, second)
        for msg_id, length in ((first, 8_000_002), (second, 7)):
            outcome = outcomes[msg_id]
            content = outcome.reply["content"]
            if content["status"] == "ok":
                assert outcome.result is None or len(outcome.result) == length
            else:
                assert content["ename"] == "AnswerLost"
        assert kernel.run("mark + 1").result == "42"


def reboot(place: Place, boot_id_file: str, kernel_pid: int) -> None:
    """Do to the account's processes and to /tmp what a reboot does, and to the file that tells of it."""
    remote = place.lab.remote
    remote.run(f"echo another-boot > {boot_id_file}")
    remote.run("rm -rf /tmp/sshpyk-$(id -u)", user=place.account)
    place.kill(place.agent(), kernel_pid)


@pytest.fixture
def boot_id_file(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Make the agents of the hub to come read the boot id from a file of the test's on the remote.

    The lab's machines are containers: their boot id is that of the machine below, which stays.
    """
    path = f"/tmp/test-boot-id-{uuid.uuid4().hex[:8]}"
    lab.remote.run(f"echo one-boot > {path}")
    (tmp_path / "sitecustomize.py").write_text(
        "import json, sys, zlib\n"
        "if 'sshpyk.hub.main' in sys.orig_argv:\n"
        "    import sshpyk.hub.bundle as bundle\n"
        "    modules = json.loads(zlib.decompress(bundle.agent_bundle()))\n"
        "    name = 'sshpyk.agent.record'\n"
        "    real = '/proc/sys/kernel/random/boot_id'\n"
        "    assert modules[name].count(real) == 1\n"
        f"    modules[name] = modules[name].replace(real, {path!r})\n"
        "    changed = zlib.compress(json.dumps(modules).encode())\n"
        "    bundle.agent_bundle = lambda: changed\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield path
    lab.remote.run(["rm", path])


def test_f21_rebooted_host_is_said_and_the_kernel_is_gone(
    boot_id_file: str,
    place: Place,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with place.kernel() as kernel:
        kernel.run("mark = 41")
        reboot(place, boot_id_file, kernel.remote_pid())
        eventually(lambda: not kernel.manager.is_alive(), "the kernel's end", timeout_s=30)
        eventually(lambda: place.hub.link_state() == "down", "no endless reconnect")
        said = capfd.readouterr().err  # the stand-in's, which is what a user sees
        assert "the host was rebooted, and the kernels on it are gone" in said
        kernel.manager.restart_kernel(now=True)
        await_ready(kernel.client)
        assert kernel.run("'mark' in globals()").result == "False"
