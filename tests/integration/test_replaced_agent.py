"""F16: the agent on the host is killed; the next one adopts its kernels, and says what may be missing.
F21: the host is rebooted; the kernels on it are gone, and so it is said.

All links to a host share its agent, so these tests run alone and begin without any hub.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import os
import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import leftovers
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
from tests.integration.lifecycle_helpers import OwnHub, agents, outcome_of, own_hub
from tests.integration.machines import Lab, Process
from tests.integration.printing import EXPECTED, LINES, PRINTING, text_up_to
from tests.integration.test_resume import kill_ssh

# They kill the one agent that all tests share, also under kernels that live for a whole class: not
# beside others, so only when asked for.
pytestmark = [pytest.mark.slow, pytest.mark.exclusive, pytest.mark.timeout(600)]

NOTICE = re.compile(r"agent on \S+ was killed.* up to (\d+) s may be missing")
LINE_S = 0.05  # between two lines of PRINTING
# What is printed right before an _exit may still be in the kernel.
LAST_WORDS = "print('last words', flush=True); import os, time; time.sleep(1); os._exit(0)"


@pytest.fixture(autouse=True)
def no_other_hub(lab: Lab) -> None:
    """End the hubs that other tests have left idle: they would dial, and start an agent, as well."""
    leftovers.stop_hubs()
    eventually(lambda: not agents(lab), "the end of every agent")


def agent(lab: Lab) -> Process:
    """Return the one agent on the remote."""
    (found,) = agents(lab)
    return found


def kill_agent(lab: Lab, hub: OwnHub) -> None:
    """Kill the agent and wait until the link is up with the next one."""
    old = agent(lab).pid
    lab.remote.kill(old)
    eventually(lambda: [one.pid for one in agents(lab)] not in ([], [old]), "another agent")
    eventually(lambda: hub.link_state() == "up", "the link")
    assert len(agents(lab)) == 1


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
    lab: Lab, add_kernel: AddKernel, own_hub: OwnHub
) -> None:
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        kernel.run("mark = 41")
        pid = kernel.remote_pid()
        msg_id = kernel.client.execute(PRINTING)
        text = ""
        for line in (30, 100):
            text += text_up_to(kernel, f"line {line}\n")
            kill_agent(lab, own_hub)
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
    lab: Lab, add_kernel: AddKernel, own_hub: OwnHub
) -> None:
    name = add_kernel(own_hub.host, *own_hub.options)
    with started(lab, name) as kernel, started(lab, name) as beside:
        kernel.run("mark = 41")
        beside.run("mark = 42")
        kill_agent(lab, own_hub)
        msg_id = kernel.client.execute("print('sleeping', flush=True); import time; time.sleep(60)")
        text_up_to(kernel, "sleeping\n")
        kernel.manager.interrupt_kernel()
        assert outcome_of(kernel.client, msg_id).reply["content"]["ename"] == "KeyboardInterrupt"
        assert kernel.client.execute("mark")
        old = agent(lab).pid
        kernel.manager.restart_kernel()
        await_ready(kernel.client)
        assert kernel.run("'mark' in globals()").result == "False"
        assert beside.client.execute_interactive("assert mark == 42", timeout=PATIENCE_S)[
            "content"
        ]["status"] == ("ok")
        assert agent(lab).pid == old


def test_f16_adopted_kernel_that_ends_is_told_of_without_a_claim_of_success(
    lab: Lab, add_kernel: AddKernel, own_hub: OwnHub
) -> None:
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        kill_agent(lab, own_hub)
        kernel.client.execute(LAST_WORDS)
        text_up_to(kernel, "last words\n")
        eventually(lambda: not kernel.manager.is_alive(), "the kernel's end", timeout_s=30)
        assert kernel.manager.provisioner.process.returncode == 255


def test_f16_kernel_that_ends_while_no_agent_lives_is_told_of(
    lab: Lab, add_kernel: AddKernel, own_hub: OwnHub
) -> None:
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        pid = kernel.remote_pid()
        lab.remote.run(["bash", "-c", f"kill -9 {agent(lab).pid} {pid}"])
        eventually(lambda: not kernel.manager.is_alive(), "the kernel's end", timeout_s=30)
        assert kernel.manager.provisioner.process.returncode == 255


def test_f16_answers_that_were_lost_are_replaced_by_an_error(
    lab: Lab, add_kernel: AddKernel, own_hub: OwnHub
) -> None:
    """The cell ends, and another is asked for, while the agent is dead and nobody knows it."""
    gate = f"/tmp/test-gate-{uuid.uuid4().hex[:8]}"
    code = f"""
import os, time
print("begun", flush=True)
while not os.path.exists({gate!r}):
    time.sleep(0.01)
os.rename({gate!r}, {gate + "-passed"!r})
mark = 43
"""
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        msg_id = kernel.client.execute(code)
        text_up_to(kernel, "begun\n")
        ssh = own_hub.connection()
        os.kill(ssh.pid, signal.SIGSTOP)  # nothing passes, and nobody dials yet
        lab.remote.run(f"kill -9 {agent(lab).pid}; touch {gate}")
        later = kernel.client.execute("mark")
        eventually(lambda: lab.remote.files(gate + "-passed"), "the cell's end")
        os.kill(ssh.pid, signal.SIGCONT)
        outcomes = outcomes_of(kernel, msg_id, later)
        lab.remote.run(["rm", gate + "-passed"])
        assert outcomes[msg_id].reply["content"]["ename"] == "AnswerLost"
        assert "the answer was lost" in outcomes[msg_id].text("stderr")
        assert outcomes[later].result == "43"
        assert outcomes[later].reply["content"]["status"] == "ok"


def test_f16_agent_and_link_and_hub_killed_at_once(
    lab: Lab, add_kernel: AddKernel, own_hub: OwnHub
) -> None:
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        kernel.run("mark = 41")
        pid = kernel.remote_pid()
        msg_id = kernel.client.execute(PRINTING)
        text = text_up_to(kernel, "line 20\n")
        doomed = agent(lab).pid
        os.kill(own_hub.pid, signal.SIGKILL)
        lab.remote.kill(doomed)
        outcome = outcome_of(kernel.client, msg_id)
        missing = missing_lines(text + outcome.text())
        assert LINES - 1 not in missing
        assert outcome.result == str(LINES - 1)
        assert len(notices(outcome)) == 1
        assert kernel.run("mark + 1").result == "42"
        assert kernel.remote_pid() == pid


def test_f16_agent_killed_while_large_messages_are_under_way_both_ways(
    lab: Lab, add_kernel: AddKernel, own_hub: OwnHub
) -> None:
    """20 MB each way: the answer is whole or declared lost, and the next request finds a sane kernel."""
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        kernel.run("mark = 41")
        first = kernel.client.execute("'x' * 20_000_000")
        second = kernel.client.execute(f"len({'y' * 20_000_000!r})")
        kill_agent(lab, own_hub)
        outcomes = outcomes_of(kernel, first, second)
        for msg_id, length in ((first, 20_000_002), (second, 8)):
            outcome = outcomes[msg_id]
            content = outcome.reply["content"]
            if content["status"] == "ok":
                assert outcome.result is None or len(outcome.result) == length
            else:
                assert content["ename"] == "AnswerLost"
        assert kernel.run("mark + 1").result == "42"


def reboot(lab: Lab, boot_id_file: str, kernel_pid: int) -> None:
    """Do to the remote's processes and to /tmp what a reboot does, and to the file that tells of it."""
    lab.remote.run(f"echo another-boot > {boot_id_file}")
    lab.remote.run(f"rm -rf /tmp/sshpyk-$(id -u); kill -9 {agent(lab).pid} {kernel_pid}")


@pytest.fixture
def boot_id_file(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Make the agents of the hub to come read the boot id from a file of the test's on the remote.

    The lab's machines are containers: their boot id is that of the machine below, which stays.
    """
    path = f"/tmp/test-boot-id-{os.getpid()}"
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
    lab: Lab,
    add_kernel: AddKernel,
    boot_id_file: str,
    own_hub: OwnHub,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        kernel.run("mark = 41")
        reboot(lab, boot_id_file, kernel.remote_pid())
        eventually(lambda: not kernel.manager.is_alive(), "the kernel's end", timeout_s=30)
        eventually(lambda: own_hub.link_state() == "down", "no endless reconnect")
        said = capfd.readouterr().err  # the stand-in's, which is what a user sees
        assert "the host was rebooted, and the kernels on it are gone" in said
        kernel.manager.restart_kernel(now=True)
        await_ready(kernel.client)
        assert kernel.run("'mark' in globals()").result == "False"
