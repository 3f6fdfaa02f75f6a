"""F16, F21: agents that are killed, and what the next one makes of what they leave.

Real processes and kernels, no ssh.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sshpyk.agent.record import read_record, started_at
from sshpyk.link.connection import Resumed
from sshpyk.link.link import Link
from sshpyk.wire import kernel_messages
from sshpyk.wire.jupyter_messages import Signer
from sshpyk.wire.kernel_messages import EXITED, IOPUB, SHELL, UNKNOWN_STATUS
from tests.unit.agent.service_bench import alive, write_kernelspec
from tests.unit.agent.test_main import Carried, Host, carried, host, python_of, wait_for

KEY, KERNEL_ID = "0123456789abcdef", "ef" * 16
MAIN, CONTROL = 1, 3
LEASE = "LEASE_S = 7 * 24 * 3600.0"

__all__ = ["host"]


class Kept:
    """A hub by hand, with one kernel that outlives connections and agents."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.made = carried(host)
        self.epoch = 1
        self.pid = 0

    def agent(self) -> int:
        (found,) = [pid for pid in self.host.agents() if pid != self.pid]
        return found

    def start(self, name: str = "python3", **changes: object) -> None:
        params = {
            "kernel_id": KERNEL_ID,
            "kernel_name": name,
            "python": sys.executable,
            "key": KEY,
            "signature_scheme": "hmac-sha256",
            "env": {},
            "cwd": "",
            "streams": [MAIN, CONTROL],
            **changes,
        }
        answer = self.made.call("start", **params)
        self.pid = answer["result"]["pid"]  # type: ignore[index]

    def begin_to_start(self) -> None:
        """Ask for a kernel that never listens, and wait until it is a process."""
        write_kernelspec(self.host.root / "jupyter", "sleeper", ["sleep", "600"], language="python")
        params = {"python": sys.executable, "key": KEY, "signature_scheme": "hmac-sha256"}
        params |= {"env": {}, "cwd": "", "streams": [MAIN, CONTROL]}  # type: ignore[dict-item]
        record = {"id": 99, "op": "start", "kernel_id": KERNEL_ID, "kernel_name": "sleeper"}
        self.made.link.open(0)
        self.made.link.send(0, json.dumps({**record, **params}).encode())
        self.made.flush()
        while not self.pid:
            kernels = self.made.call("list")["result"]["kernels"]  # type: ignore[index]
            self.pid = kernels[0]["pid"] if kernels else 0
        path = self.folder
        wait_for(lambda: (record := read_record(str(path))) and record.pid, "the record")

    @property
    def folder(self) -> Path:
        return self.host.folder / f"k{KERNEL_ID[:12]}"

    def kill_agent(self, *also: int) -> None:
        for pid in (self.agent(), *also):
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda pid=pid: not alive(pid), "the end of a process")  # type: ignore[misc]
        self.made.session.process.wait()

    def resume(self) -> str:
        """Connect anew, as a hub does; return what was said of the agent."""
        self.epoch += 1
        session = self.host.session()
        word = session.bring_up()
        before = self.made
        self.made = Carried(session, before.link, self.epoch)
        self.made.messages = before.messages
        self.made.flush()
        while not self.made.resumed:
            assert self.made.pump()
        return word

    def send(self, msg_type: str, content: dict[str, object]) -> None:
        parts = Signer(KEY, "hmac-sha256").message(msg_type, content, identities=[b"client"])
        self.made.link.open(MAIN)
        self.made.link.send(MAIN, kernel_messages.pack(SHELL, parts))
        self.made.flush()

    def execute(self, code: str) -> None:
        self.send("execute_request", {"code": code, "silent": False, "allow_stdin": False})

    def heard(self, channel: int) -> list[list[bytes]]:
        messages = [m for m in self.made.messages if m.stream == MAIN and not m.end]
        unpacked = [kernel_messages.unpack(message.payload) for message in messages]
        return [[bytes(part) for part in one.parts] for one in unpacked if one.channel == channel]

    def contents(self, channel: int, msg_type: str) -> list[dict[str, object]]:
        mark = f'"{msg_type}"'.encode()
        return [json.loads(parts[-1]) for parts in self.heard(channel) if mark in parts[-4]]

    def hear(self, condition: Callable[[], object]) -> None:
        while not condition():
            assert self.made.pump(), "the connection ended"

    def hear_text(self, text: str) -> None:
        def said() -> bool:
            streams = self.contents(IOPUB, "stream")
            return text in "".join(str(content["text"]) for content in streams)

        self.hear(said)

    def hear_end(self) -> int:
        self.hear(lambda: self.heard(EXITED))
        return int(self.heard(EXITED)[0][0])

    def leave_nothing(self) -> None:
        """Leave the link; the agent must go and leave nothing."""
        agent = self.agent()
        self.made.session.say(self.made.connection.leave("the test is over"))
        wait_for(lambda: not alive(agent), "the end of the agent")
        assert not alive(self.pid)
        assert not self.host.folder.exists()


def test_f16_next_agent_adopts_the_kernel_and_declares_the_gap(host: Host):
    kept = Kept(host)
    kept.start()
    kept.execute("print('mark', flush=True); mark = 41")
    kept.hear(lambda: kept.contents(SHELL, "execute_reply"))
    for _ in range(2):
        kept.kill_agent()
        assert kept.resume() == "absent"
        assert kept.made.resumed[0][1:3] == (True, True)  # known, restarted
        assert alive(kept.pid)
    kept.execute("print('mark is', mark + 1, flush=True)")
    kept.hear_text("mark is 42")
    kept.hear(lambda: len(kept.contents(SHELL, "execute_reply")) == 2)
    kept.hear_text("s may be missing here")
    (kernel,) = kept.made.call("list")["result"]["kernels"]  # type: ignore[index]
    assert (kernel["pid"], kernel["mine"]) == (kept.pid, True)
    kept.made.call("stop", kernel_id=KERNEL_ID, grace_s=5)
    assert kept.hear_end() == UNKNOWN_STATUS
    kept.leave_nothing()


def test_f16_answer_that_comes_after_the_adoption_arrives(host: Host, tmp_path: Path):
    kept = Kept(host)
    kept.start()
    gate = tmp_path / "gate"
    code = f"""
import os, time
while not os.path.exists({str(gate)!r}):
    print("tick", flush=True)
    time.sleep(0.05)
"""
    kept.execute(code)
    kept.hear_text("tick")
    kept.kill_agent()
    kept.resume()
    kept.hear_text("s may be missing here]\ntick")
    gate.touch()
    kept.hear(lambda: kept.contents(SHELL, "execute_reply"))
    assert [reply["status"] for reply in kept.contents(SHELL, "execute_reply")] == ["ok"]
    kept.leave_nothing()


def test_f16_answer_that_came_while_no_agent_lived_is_replaced_by_an_error(
    host: Host, tmp_path: Path
):
    kept = Kept(host)
    kept.start()
    gate, done = tmp_path / "gate", tmp_path / "done"
    os.mkfifo(gate)
    code = (
        f"print('begun', flush=True); open({str(gate)!r}).read(); open({str(done)!r}, 'w').close()"
    )
    kept.execute(code)
    kept.hear_text("begun")
    kept.kill_agent()
    gate.write_text("go on")
    wait_for(done.exists, "the end of the cell")
    kept.resume()
    kept.hear(lambda: kept.contents(SHELL, "execute_reply"))
    assert [reply["ename"] for reply in kept.contents(SHELL, "execute_reply")] == ["AnswerLost"]
    kept.hear_text("the answer was lost")
    kept.leave_nothing()


def test_f16_kernel_that_died_beside_its_agent_is_told_of(host: Host):
    kept = Kept(host)
    kept.start()
    kept.kill_agent(kept.pid)
    kept.resume()
    assert kept.hear_end() == UNKNOWN_STATUS
    assert kept.made.call("list")["result"] == {"kernels": []}
    kept.leave_nothing()


def test_f16_exit_status_that_the_hub_had_not_heard_is_told_by_the_next_agent(host: Host):
    kept = Kept(host)
    kept.start()
    kept.execute("import os; os._exit(3)")
    wait_for(lambda: (record := read_record(str(kept.folder))) and record.status == 3, "the status")
    kept.kill_agent()
    kept.resume()
    assert kept.hear_end() == 3
    kept.leave_nothing()


def test_f16_kernel_that_was_starting_is_ended(host: Host):
    kept = Kept(host)
    kept.begin_to_start()
    kept.kill_agent()
    kept.resume()
    wait_for(lambda: not alive(kept.pid), "the end of the kernel")
    kept.hear(lambda: any(m.end for m in kept.made.messages if m.stream == MAIN))
    wait_for(lambda: not kept.folder.exists(), "the end of its folder")
    kept.leave_nothing()


def test_f16_kernel_whose_number_another_process_has_is_not_touched(host: Host):
    kept = Kept(host)
    kept.start()
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as other:
        kept.kill_agent(kept.pid)
        path = kept.folder / "agent.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "pid": other.pid}))
        kept.resume()
        assert kept.hear_end() == UNKNOWN_STATUS
        kept.leave_nothing()
        assert other.poll() is None
        other.kill()


def test_folders_that_nobody_can_reach_are_swept(host: Host):
    kept = Kept(host)
    (host.folder / "kdeadbeef").mkdir()
    (host.folder / "kdeadbeef" / "agent.json").write_text("{")
    kept.made.call("list")
    kept.kill_agent()
    kept.resume()
    assert not (host.folder / "kdeadbeef").exists()
    kept.leave_nothing()


def test_f21_after_a_reboot_the_agent_knows_no_link_and_names_another_boot(
    host: Host, tmp_path: Path
):
    boot_id = tmp_path / "boot_id"
    real = '"/proc/sys/kernel/random/boot_id"'
    name = "sshpyk.agent.record"
    assert host.modules[name].count(real) == 1
    host.modules[name] = host.modules[name].replace(real, repr(str(boot_id)))
    boot_id.write_text("one\n")
    kept = Kept(host)
    kept.start()
    assert kept.made.resumed == [Resumed(1, known=True, boot_id="one")]
    kept.kill_agent(kept.pid)
    boot_id.write_text("two\n")  # and /tmp is still there
    kept.resume()
    assert kept.made.resumed == [Resumed(2, known=False, boot_id="two")]
    assert not kept.folder.exists()
    kept.made.session.close()


def test_link_that_the_agent_never_had_is_disowned(host: Host):
    kept = Kept(host)
    kept.made.call("list")
    link = Link("cd" * 16)
    session = host.session()
    session.bring_up()
    stranger = Carried(session, link, 1)
    stranger.call("list")
    kept.made.session.say(kept.made.connection.leave(""))
    again = host.session()
    again.bring_up()
    other = Carried(again, kept.made.link, 2)
    other.flush()
    while not other.resumed:
        assert other.pump()
    assert not other.resumed[0].known


def shorten_lease(host: Host) -> None:
    for name, before, after in (
        ("sshpyk.agent.book", LEASE, "LEASE_S = 2.0"),
        ("sshpyk.agent.main", "_UPKEEP_S = 5.0", "_UPKEEP_S = 0.1"),
    ):
        assert host.modules[name].count(before) == 1
        host.modules[name] = host.modules[name].replace(before, after)


def test_kernel_of_a_link_that_is_not_heard_of_for_the_lease_is_ended(host: Host):
    shorten_lease(host)
    kept = Kept(host)
    kept.start()
    kept.kill_agent()
    kept.resume()  # the lease counts on through the agent's replacement
    agent = kept.agent()
    kept.made.session.close()
    wait_for(lambda: not alive(kept.pid), "the end of the kernel")
    wait_for(lambda: not alive(agent), "the end of the agent")
    assert not host.folder.exists()


def test_f16_adoption_under_the_oldest_python_of_hosts(host: Host):
    host.python = python_of("3.8")
    kept = Kept(host)
    kept.start()
    kept.kill_agent()
    kept.resume()
    kept.execute("print(6 * 7, flush=True)")
    kept.hear_text("42")
    os.kill(kept.pid, signal.SIGTERM)
    assert kept.hear_end() == UNKNOWN_STATUS
    kept.leave_nothing()


def test_when_a_process_began_names_it_until_it_ends():
    process = subprocess.Popen(["sleep", "600"])
    began = started_at(process.pid)
    assert began
    assert started_at(process.pid) == began
    process.kill()
    wait_for(lambda: not started_at(process.pid), "the end, though it was not waited for")
    process.wait()
    assert not started_at(process.pid)


def test_f16_left_kernel_is_adopted_and_who_attaches_is_told_what_may_be_missing(host: Host):
    kept = Kept(host)
    kept.start(persistent=True, owner="ann@here", session="nb.ipynb")
    kept.execute("mark = 41")
    kept.made.call("leave", kernel_id=KERNEL_ID, streams=[MAIN, CONTROL])
    kept.kill_agent()
    kept.resume()
    (found,) = kept.made.call("list")["result"]["kernels"]  # type: ignore[index]
    expected = {"carried": "left", "owner": "ann@here", "session": "nb.ipynb", "persistent": True}
    assert {name: found[name] for name in expected} == expected
    assert found["lease_s"] > 600_000
    kept.made.call("attach", kernel_id=KERNEL_ID, streams=[11, 13], owner="ann@here")

    def heard() -> str:
        messages = [m for m in kept.made.messages if m.stream == 11 and not m.end]
        return str([bytes(message.payload) for message in messages])

    kept.hear(lambda: "s may be missing here" in heard())
    parts = Signer(KEY, "hmac-sha256").message(
        "execute_request",
        {"code": "print(mark + 1)", "silent": False, "allow_stdin": False},
        identities=[b"client"],
    )
    kept.made.link.open(11)
    kept.made.link.send(11, kernel_messages.pack(SHELL, parts))
    kept.made.flush()
    kept.hear(lambda: "42" in heard())
    kept.made.call("leave", kernel_id=KERNEL_ID)
    kept.made.call("stop", kernel_id=KERNEL_ID, grace_s=0)
    kept.leave_nothing()


def test_persistent_kernel_of_a_link_that_leaves_is_kept_and_the_agent_with_it(host: Host):
    kept = Kept(host)
    kept.start(persistent=True)
    agent = kept.agent()
    kept.made.session.say(kept.made.connection.leave("the hub leaves"))
    kept.made.session.process.wait()
    other = carried(host, "cd" * 16)
    (found,) = other.call("list")["result"]["kernels"]  # type: ignore[index]
    assert (found["carried"], found["pid"]) == ("left", kept.pid)
    other.call("stop", kernel_id=KERNEL_ID, grace_s=0)
    assert not alive(kept.pid)
    other.session.say(other.connection.leave("the test is over"))
    wait_for(lambda: not alive(agent), "the end of the agent")
    assert not host.folder.exists()


def test_left_kernel_ends_with_its_lease_also_when_no_link_is_there(host: Host):
    shorten_lease(host)
    kept = Kept(host)
    kept.start(persistent=True)
    agent = kept.agent()
    kept.made.session.say(kept.made.connection.leave("the hub leaves"))
    wait_for(lambda: not alive(kept.pid), "the end of the kernel")
    wait_for(lambda: not alive(agent), "the end of the agent")
    assert not host.folder.exists()
