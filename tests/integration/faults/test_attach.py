"""F15, F52: kernels that outlive who started them, and the verbs that find, fetch and end them again.

Each test has an account of its own, so an agent of its own, and two "laptops": two hubs, each with a
link of its own, as two machines have them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jupyter_client import BlockingKernelClient

from tests.integration.kernels import (
    PATIENCE_S,
    SSHPYK,
    AddKernel,
    Running,
    eventually,
    started,
)
from tests.integration.lifecycle_helpers import OwnHub, hub_of, outcome_of
from tests.integration.machines import Lab
from tests.integration.printing import EXPECTED, LINES, PRINTING, client_text_up_to

SERVER = """
import sys, time
from jupyter_client import KernelManager
manager = KernelManager(kernel_name=sys.argv[1], connection_file=sys.argv[3])
manager.start_kernel()
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=60)
client.execute(sys.argv[2])
while "line 5\\n" not in client.get_iopub_msg(timeout=60)["content"].get("text", ""):
    pass
print("ready", flush=True)
time.sleep(600)
"""


@dataclass
class Laptop:
    """One of the machines from which the account is used."""

    hub: OwnHub
    add_kernel: AddKernel

    def sshpyk(self, verb: str, *words: str, expect: int = 0) -> str:
        """Run a verb on the host; return what it printed."""
        argv = [SSHPYK, verb, *self.hub.options, self.hub.host, *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
        return done.stdout if expect == 0 else done.stderr

    def kernels(self) -> list[dict[str, Any]]:
        """Return what ``ps`` says about the kernels on the host."""
        hosts: Any = json.loads(self.sshpyk("ps", "--json"))["hosts"]
        found: list[dict[str, Any]] = hosts[0]["on_host"]
        return found

    def add(self, *options: str) -> str:
        """Add a kernel of the host."""
        return self.add_kernel(self.hub.host, *self.hub.options, *options)

    @contextlib.contextmanager
    def attached(self, kernel_id: str, *options: str) -> Iterator[BlockingKernelClient]:
        """Attach, and connect as ``jupyter console --existing`` does."""
        said = json.loads(self.sshpyk("attach", kernel_id[:8], "--json", *options))
        client = BlockingKernelClient(connection_file=said["connection_file"])
        client.load_connection_file()
        client.start_channels()
        # A heartbeat stopped before it has begun beats for ever.
        eventually(client.hb_channel.is_beating, "the heartbeat")
        try:
            yield client
        finally:
            client.stop_channels()


@pytest.fixture
def laptops(
    lab: Lab, account: str, add_kernel: AddKernel, tmp_path: Path
) -> Iterator[tuple[Laptop, Laptop]]:
    """Two machines of one person, who has an account of her own on the host."""
    user = f"Host remote\n    User {account}\n"
    with contextlib.ExitStack() as stack:
        hubs = [
            stack.enter_context(hub_of(lab, "remote", tmp_path / name, user))
            for name in ("one", "two")
        ]
        yield Laptop(hubs[0], add_kernel), Laptop(hubs[1], add_kernel)


def the_one(kernels: list[dict[str, Any]], **expected: Any) -> dict[str, Any]:
    (kernel,) = kernels
    assert {key: kernel[key] for key in expected} == expected, kernel
    return kernel


def result(client: BlockingKernelClient, code: str) -> str | None:
    """Run a cell, whatever still comes of others'."""
    return outcome_of(client, client.execute(code)).result


def lines_from(text: str) -> str:
    """Return the expected text from the first line of ``text`` on."""
    first = text.partition("\n")[0] + "\n"
    return EXPECTED[EXPECTED.index(first) :]


def test_f15_persistent_kernel_of_a_killed_server_is_attached_with_its_backlog(
    laptops: tuple[Laptop, Laptop], tmp_path: Path
) -> None:
    one, two = laptops
    argv = [sys.executable, "-c", SERVER, one.add("--persistent"), PRINTING]
    server = subprocess.Popen(
        [*argv, str(tmp_path / "killed.json")],
        env={**os.environ, "JPY_SESSION_NAME": "work/plot.ipynb"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout
    with server.stdout as said:
        assert said.readline() == "ready\n"
    server.kill()
    server.wait()
    eventually(lambda: two.kernels()[0]["carried"] == "left", "that the kernel is left")
    left = the_one(two.kernels(), state="busy", persistent=True, name="python3", mine=False)
    assert left["memory_bytes"] > 10_000_000
    assert 6 * 86400 < left["lease_s"] <= 7 * 86400
    time.sleep(2)  # it prints on
    with two.attached(left["kernel_id"]) as client:
        text = client_text_up_to(client, f"line {LINES - 1}\n")
        assert text == lines_from(text)
        assert text.count("\n") >= LINES - 60  # it was left early
        assert result(client, "number") == str(LINES - 1)
        the_one(two.kernels(), state="idle", mine=True)
        assert f"Stopped kernel {left['kernel_id'][:8]}" in two.sshpyk("stop", "plot.ipynb")
    assert two.kernels() == []


GATED = """
import os, time
for number in range(200):
    print("line", number, flush=True)
    time.sleep(0.01)
    while number in (60, 120, 160) and not os.path.exists(f"{gate}-{number}"):
        time.sleep(0.02)
"""


def test_f52_two_laptops_attach_to_one_kernel(
    lab: Lab, laptops: tuple[Laptop, Laptop], account: str
) -> None:
    one, two = laptops
    gate = f"/home/{account}/gate"
    with started(lab, one.add("--persistent")) as kernel:
        kernel.run(f"mark, gate = 41, {gate!r}")
        kernel.client.execute(GATED)
        mine = client_text_up_to(kernel.client, "line 20\n")
        kernel_id = the_one(two.kernels(), carried="connected", mine=False)["kernel_id"]
        refused = two.sshpyk("attach", kernel_id[:8], expect=1)
        assert "is in use by lab@" in refused
        assert "--takeover" in refused
        assert kernel.manager.is_alive()
        with two.attached(kernel_id, "--takeover") as client:
            gates = [f"{gate}-{number}" for number in (60, 120, 160)]
            lab.remote.run(["touch", *gates], user=account)
            theirs = client_text_up_to(client, f"line {LINES - 1}\n")
            assert theirs == lines_from(theirs)
            eventually(lambda: not kernel.manager.is_alive(), "that the loser's kernel has ended")
            mine += _rest(kernel)
            # At the loser an unbroken beginning; at the winner all that it had not acknowledged.
            assert EXPECTED.startswith(mine)
            assert len(mine) + len(theirs) >= len(EXPECTED)
            assert result(client, "mark + 1") == "42"
            the_one(one.kernels(), carried="connected", mine=False)
            two.sshpyk("stop", kernel_id[:8])
        assert two.kernels() == []


def _rest(kernel: Running) -> str:
    """Return the text that a client was still handed."""
    text = ""
    while kernel.client.iopub_channel.msg_ready():
        message = kernel.client.get_iopub_msg(timeout=1)
        text += message["content"]["text"] if message["msg_type"] == "stream" else ""
    return text


def test_kernel_that_is_left_and_fetched_again_and_again_loses_no_line(
    lab: Lab, laptops: tuple[Laptop, Laptop], account: str
) -> None:
    one, two = laptops
    gate = f"/home/{account}/gate"

    def go_on_from(number: int) -> None:
        lab.remote.run(["touch", f"{gate}-{number}"], user=account)

    with started(lab, one.add("--persistent")) as kernel:
        pid = kernel.remote_pid()
        kernel_id = one.kernels()[0]["kernel_id"]
        kernel.run(f"gate = {gate!r}")
        kernel.client.execute(GATED)
        text = client_text_up_to(kernel.client, "line 20\n")
        assert "sshpyk attach" in one.sshpyk("leave", kernel_id[:8])
        eventually(lambda: not kernel.manager.is_alive(), "the end of the stand-in")
        text += _rest(kernel)
        assert "line 61\n" not in text
    with two.attached(kernel_id) as client:
        text += "" if "line 60\n" in text else client_text_up_to(client, "line 60\n")
        os.kill(two.hub.pid, signal.SIGKILL)  # as F14: the process that holds it starts another
        go_on_from(60)
        text += client_text_up_to(client, "line 120\n")
        eventually(lambda: two.hub.status()["kernels"], "that the next hub has the kernel")
        two.sshpyk("leave", kernel_id[:8])
        eventually(lambda: two.kernels()[0]["carried"] == "left", "that the kernel is left")
        go_on_from(120)  # what comes up to the next gate waits on the host
    with one.attached(kernel_id) as client:
        text += client_text_up_to(client, "line 160\n")
        go_on_from(160)
        text += client_text_up_to(client, "line 199\n")
        assert text == EXPECTED
        assert result(client, "import os; os.getpid()") == str(pid)
        one.sshpyk("stop", "--all", "--yes")


def test_logs_follow_a_kernel_to_its_end_and_gc_ends_what_nobody_needs(
    lab: Lab, laptops: tuple[Laptop, Laptop]
) -> None:
    one, two = laptops
    with started(lab, one.add("--persistent")) as kernel:
        kernel_id = one.kernels()[0]["kernel_id"]
        # ipykernel sends to its clients what comes on 1 and 2.
        kernel.run("import os, sys; log = sys.stderr._original_stdstream_copy")
        kernel.run("os.write(log, b'first words\\n');")
        argv = [SSHPYK, "logs", "-f", *two.hub.options, two.hub.host, kernel_id[:8]]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout
            lines = iter(following.stdout.readline, "")
            assert any("first words" in line for line in lines)
            kernel.run("os.write(log, b'more words\\n');")
            assert any("more words" in line for line in lines)
            kernel.client.execute("os.abort()")
            assert any("Fatal Python error: Aborted" in line for line in lines)
            assert following.wait(PATIENCE_S) == 0
        assert "ended (-6)" in two.sshpyk("logs")
        assert "Fatal Python error" in two.sshpyk("logs", kernel_id[:8])
        # Jupyter's autorestart is not at work here.
        assert two.kernels() == []
    with started(lab, one.add("--persistent")) as kernel:
        kernel_id = one.kernels()[0]["kernel_id"]
        assert "nothing to do" in two.sshpyk("gc", "--idle", "0")
        one.sshpyk("leave", kernel_id[:8])
        eventually(lambda: two.kernels()[0]["carried"] == "left", "that the kernel is left")
        assert "nothing to do" in two.sshpyk("gc")
        assert "would be ended" in two.sshpyk("gc", "--idle", "0", "--dry-run")
        assert len(two.kernels()) == 1
        assert "ended: idle" in two.sshpyk("gc", "--idle", "0")
        assert two.kernels() == []
