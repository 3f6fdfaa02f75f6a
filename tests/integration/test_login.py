"""Hosts that want a person: ``sshpyk login`` on a terminal, and what waits for it.

A link that a person must bring back keeps its kernels, dials no more by itself, and says what to do. The
remote's second sshd (``remote-otp``) wants a password and a one-time code.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import signal
import struct
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest
from jupyter_client import KernelManager

from tests.integration.kernels import (
    PATIENCE_S,
    SSHPYK,
    AddKernel,
    Running,
    add_kernel,
    eventually,
    jupyter_folders,
    marked,
    started,
)
from tests.integration.lifecycle_helpers import OwnHub, hub_of, outcome_of, own_hub, put
from tests.integration.machines import Lab
from tests.integration.printing import EXPECTED, LINES, PRINTING, text_up_to
from tests.integration.test_resume import kill_ssh

PASSWORD = "lab-password"  # lab/Dockerfile
CODE_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEH"  # lab/google_authenticator
PASSPHRASE = "open sesame"
# The other sshd as a jump host: then it is ProxyJump's ssh that asks.
BEHIND_OTP = """
Host behind-otp
    HostName localhost
    HostKeyAlias remote
    ProxyJump remote-otp
"""


def one_time_code() -> str:
    """Return the code of this half minute (RFC 6238)."""
    key = base64.b32decode(CODE_SECRET + "=" * (-len(CODE_SECRET) % 8))
    digest = hmac.new(key, struct.pack(">Q", int(time.time()) // 30), hashlib.sha1).digest()
    start = digest[-1] & 15
    number = struct.unpack(">I", digest[start : start + 4])[0] & 0x7FFFFFFF
    return f"{number % 10**6:06}"


def typing(hub: OwnHub) -> pexpect.spawn[str]:
    """Type ``sshpyk login`` into a terminal."""
    words = ["login", hub.host, *hub.options]
    return pexpect.spawn(SSHPYK, words, encoding="utf-8", timeout=PATIENCE_S)


def finish(terminal: pexpect.spawn[str]) -> str:
    """Wait for the end of what was typed, close the terminal, and return what was shown last."""
    terminal.expect(pexpect.EOF)
    shown: str = terminal.before or ""
    terminal.close()
    assert terminal.exitstatus == 0, shown
    return shown


def answer(terminal: pexpect.spawn[str]) -> None:
    """Answer the questions of ``remote-otp``."""
    terminal.expect("Password: ")
    terminal.sendline(PASSWORD)
    terminal.expect("code: ")
    terminal.sendline(one_time_code())


def log_in(hub: OwnHub) -> str:
    terminal = typing(hub)
    answer(terminal)
    return finish(terminal)


def await_state(hub: OwnHub, state: str) -> None:
    eventually(lambda: hub.link_state() == state, f"the state {state!r}", timeout_s=PATIENCE_S)


@dataclass
class Acts:
    """What breaks a link, and what a person does about it."""

    break_link: Callable[[], object]
    mend: Callable[[], object]


def exact_across(hub: OwnHub, kernel: Running, lab: Lab, state: str, act: Acts) -> None:
    """Break the link while a cell prints; the kernel is kept, and after ``act.mend`` no line is lost."""
    msg_id = kernel.client.execute(PRINTING)
    text = text_up_to(kernel, "line 20\n")
    act.break_link()
    await_state(hub, state)
    assert marked(lab.remote, kernel.mark), "the kernel has ended"
    assert kernel.manager.is_alive()
    act.mend()
    outcome = outcome_of(kernel.client, msg_id)
    assert text + outcome.text() == EXPECTED
    assert outcome.result == str(LINES - 1)
    assert hub.link_state() == "up"
    assert hub.status()["reason"] is None


@pytest.fixture
def otp_hub(lab: Lab, tmp_path: Path) -> Iterator[OwnHub]:
    """A hub of the test's own to the host that wants a password and a code."""
    with hub_of(lab, "remote-otp", tmp_path / "ssh_config", BEHIND_OTP) as hub:
        yield hub


def test_launch_says_what_to_type_and_succeeds_once_that_was_typed(
    lab: Lab, add_kernel: AddKernel, otp_hub: OwnHub
) -> None:
    name = add_kernel(otp_hub.host, *otp_hub.options)
    manager = KernelManager(kernel_name=name)
    with pytest.raises(Exception, match="in a terminal, run: ") as failed:
        manager.start_kernel()
    manager.cleanup_resources()
    assert f"run: sshpyk login remote-otp --ssh-config {otp_hub.config} " in str(failed.value)
    await_state(otp_hub, "needs login")
    terminal = typing(otp_hub)
    terminal.expect("Password: ")
    terminal.sendline("not the password")
    answer(terminal)
    shown = finish(terminal)
    assert "The link to remote-otp is up: no kernel yet." in shown
    assert "kept for 8 h" in shown
    first = otp_hub.connection().pid
    with started(lab, name) as kernel:
        assert kernel.run("6 * 7").result == "42"
        assert otp_hub.connection().pid == first
        again = subprocess.run(
            [SSHPYK, "login", otp_hub.host, *otp_hub.options],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "is up already: 1 kernel goes on." in again.stdout
        assert otp_hub.connection().pid == first


@pytest.mark.parametrize("silent", [False, True], ids=["no-answer", "answered"])
def test_interrupt_at_a_prompt_cancels_and_leaves_nothing(otp_hub: OwnHub, silent: bool) -> None:
    terminal = typing(otp_hub)
    terminal.expect("Password: ")
    if silent:
        terminal.sendline(PASSWORD)
        terminal.expect("code: ")
    terminal.sendintr()
    terminal.expect("the login was cancelled")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 1
    eventually(otp_hub.only_hubs, "the end of ssh")
    assert otp_hub.link_state() == "down"


def test_terminal_closed_at_a_prompt_ends_ssh(otp_hub: OwnHub) -> None:
    terminal = typing(otp_hub)
    terminal.expect("Password: ")
    terminal.close()
    eventually(otp_hub.only_hubs, "the end of ssh")
    assert otp_hub.link_state() == "down"
    log_in(otp_hub)


def test_wrong_answers_are_a_refusal(otp_hub: OwnHub) -> None:
    terminal = typing(otp_hub)
    for _ in range(3):
        terminal.expect("Password: ")
        terminal.sendline("not the password")
    terminal.expect("permission denied")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 1
    assert otp_hub.link_state() == "needs login"


def test_without_a_terminal_nobody_is_asked(otp_hub: OwnHub) -> None:
    argv = [SSHPYK, "login", otp_hub.host, *otp_hub.options]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, start_new_session=True)
    assert done.returncode == 1
    assert "permission denied" in done.stderr.lower()
    eventually(otp_hub.only_hubs, "the end of ssh")


def test_a_jump_host_asks_on_the_same_terminal(lab: Lab, otp_hub: OwnHub) -> None:
    hub = OwnHub(lab, "behind-otp", otp_hub.config)
    assert "The link to behind-otp is up" in log_in(hub)
    assert hub.link_state() == "up"


def test_a_connection_lost_on_the_way_waits_for_a_login_and_no_line_is_lost(
    lab: Lab, add_kernel: AddKernel, otp_hub: OwnHub
) -> None:
    log_in(otp_hub)
    acts = Acts(lambda: kill_ssh(lab, otp_hub), lambda: log_in(otp_hub))
    with started(lab, add_kernel(otp_hub.host, *otp_hub.options)) as kernel:
        kernel.run("number = None")
        exact_across(otp_hub, kernel, lab, "needs login", acts)
        assert kernel.run("6 * 7").result == "42"


def test_f14_hub_killed_behind_a_login_waits_for_another_and_keeps_the_kernel(
    lab: Lab, add_kernel: AddKernel, otp_hub: OwnHub
) -> None:
    log_in(otp_hub)
    with started(lab, add_kernel(otp_hub.host, *otp_hub.options)) as kernel:
        kernel.run("mark = 41")
        old = otp_hub.pid
        os.kill(old, signal.SIGKILL)
        eventually(lambda: otp_hub.hub_pids() not in ([], [old]), "another hub")
        await_state(otp_hub, "needs login")
        assert "1 kernel goes on" in log_in(otp_hub)
        # Not kernel.run: a client that subscribes again late is greeted again.
        assert outcome_of(kernel.client, kernel.client.execute("mark + 1")).result == "42"


# F42: the key


@dataclass
class KeyRing:
    """A key with a passphrase that the remote accepts, and an ssh-agent of the test's own."""

    key: Path
    agent: Path

    def add(self) -> None:
        self._run("ssh-add", str(self.key))

    def remove(self) -> None:
        self._run("ssh-add", "-D")

    def _run(self, *words: str) -> None:
        environment = {**os.environ, "SSH_AUTH_SOCK": str(self.agent)}
        said, status = pexpect.run(
            " ".join(words),
            env=environment,
            events={"passphrase": f"{PASSPHRASE}\n"},
            withexitstatus=True,
        )
        assert status == 0, said


@pytest.fixture
def key_ring(lab: Lab, own_hub: OwnHub, tmp_path: Path) -> Iterator[KeyRing]:
    ring = KeyRing(tmp_path / "key", tmp_path / "agent")
    comment = f"test-{uuid.uuid4().hex}"
    words = ["-q", "-t", "ed25519", "-N", PASSPHRASE, "-C", comment, "-f", str(ring.key)]
    subprocess.run(["ssh-keygen", *words], check=True)
    public = ring.key.with_suffix(".pub").read_text().strip()
    lab.remote.run(["sh", "-c", 'echo "$0" >> .ssh/authorized_keys', public])
    only = f"IdentitiesOnly yes\n IdentityFile {ring.key}\n IdentityAgent {ring.agent}"
    own_hub.config.write_text(f"Host {own_hub.host}\n {only}\n{own_hub.config.read_text()}")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(ring.agent)], stdout=subprocess.DEVNULL)
    eventually(ring.agent.exists, "the ssh-agent")
    yield ring
    agent.terminate()
    agent.wait()
    lab.remote.run(f"sed -i /{comment}/d .ssh/authorized_keys")


def test_f42_key_gone_from_the_agent_waits_for_a_login_and_no_line_is_lost(
    lab: Lab, add_kernel: AddKernel, own_hub: OwnHub, key_ring: KeyRing
) -> None:
    def lose_key_and_connection() -> None:
        key_ring.remove()
        kill_ssh(lab, own_hub)

    def load_key() -> None:
        key_ring.add()
        finish(typing(own_hub))

    def type_passphrase() -> None:
        terminal = typing(own_hub)
        terminal.expect("passphrase")
        terminal.sendline(PASSPHRASE)
        finish(terminal)

    key_ring.add()
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        for mend in (load_key, type_passphrase):
            kernel.run("number = None")
            acts = Acts(lose_key_and_connection, mend)
            exact_across(own_hub, kernel, lab, "needs login", acts)


def test_logout_closes_what_login_has_opened_and_asks_first_where_a_kernel_would_end(
    lab: Lab, add_kernel: AddKernel, own_hub: OwnHub
) -> None:
    def logout(*words: str) -> tuple[int, str]:
        argv = [SSHPYK, "logout", own_hub.host, *own_hub.options, *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S)
        return done.returncode, done.stdout + done.stderr

    finish(typing(own_hub))
    assert logout() == (0, f"The link to {own_hub.host} is closed.\n")
    eventually(lambda: not own_hub.processes(), "the end of hub and ssh")
    assert logout() == (0, f"There is no link to {own_hub.host}.\n")
    with started(lab, add_kernel(own_hub.host, *own_hub.options)) as kernel:
        code, said = logout()
        assert (code, "1 kernel(s) would end" in said) == (2, True), said
        assert kernel.run("1 + 1").result == "2"
        code, said = logout("--yes")
        assert (code, "1 kernel(s) ended with it" in said) == (0, True), said
        eventually(lambda: not kernel.manager.is_alive(), "the end of the kernel here")
    eventually(lambda: not own_hub.processes(), "the end of hub and ssh")


# F41: the host key


@dataclass
class OwnSshd:
    """An sshd on the remote, run by the user, whose host key can be swapped."""

    lab: Lab
    folder: str
    port: int

    def start(self) -> None:
        config = f"{self.folder}/sshd_config"
        self.lab.remote.run(f"/usr/sbin/sshd -f {config} -E {self.folder}/log")

    def stop(self) -> None:
        """End the listener; its sessions stay."""
        self.lab.remote.run(f"kill $(cat {self.folder}/pid); rm -f {self.folder}/pid", check=False)

    def use_key(self, name: str) -> str:
        """Start anew with the host key of that name, made if need be; return its public part."""
        key = f"{self.folder}/{name}"
        self.lab.remote.run(f"[ -e {key} ] || ssh-keygen -q -t ed25519 -N '' -f {key}")
        text = f"Port {self.port}\nHostKey {key}\nPidFile {self.folder}/pid\nLogLevel VERBOSE\n"
        put(self.lab.remote, f"{self.folder}/sshd_config", text)
        self.stop()
        self.start()
        public = self.lab.remote.run(f"cat {key}.pub").split()
        return " ".join(public[:2])

    def dials(self) -> int:
        """Return how many connections there were."""
        log = self.lab.remote.run(f"cat {self.folder}/log")
        return log.count("Connection from ")


@pytest.fixture
def own_sshd(lab: Lab) -> Iterator[OwnSshd]:
    folder = f"/tmp/test-{uuid.uuid4().hex[:8]}"
    lab.remote.run(["mkdir", "-m", "700", folder])
    code = "import socket; s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[1])"
    sshd = OwnSshd(lab, folder, int(lab.remote.run(["python3", "-c", code])))
    yield sshd
    sshd.stop()
    lab.remote.run(["rm", "-rf", folder])


def test_f41_host_key_changed_stops_hard_and_the_link_goes_on_with_the_right_key(
    lab: Lab, add_kernel: AddKernel, own_sshd: OwnSshd, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"[remote]:{own_sshd.port} {own_sshd.use_key('right')}\n")
    config = f"Host swapped\n HostName remote\n Port {own_sshd.port}\n UserKnownHostsFile {known}\n"
    before = known.read_bytes()

    with hub_of(lab, "swapped", tmp_path / "ssh_config", config) as hub:

        def swap() -> None:
            own_sshd.use_key("wrong")
            dials = own_sshd.dials()
            kill_ssh(lab, hub)
            await_state(hub, "host key changed")
            reason = hub.status()["reason"]
            assert reason["kind"] == "HostKeyChanged"
            assert "SECURITY: the host key of [remote]" in reason["what"]
            with contextlib.suppress(AssertionError):  # the time in which others would dial again
                eventually(lambda: own_sshd.dials() > dials + 1, "never", timeout_s=3)
            assert own_sshd.dials() == dials + 1

        def log_in_to_the_wrong_and_the_right_one() -> None:
            terminal = typing(hub)
            terminal.expect("IDENTIFICATION HAS CHANGED")
            terminal.expect("SECURITY: the host key")
            terminal.expect(pexpect.EOF)
            terminal.close()
            assert terminal.exitstatus == 1
            assert hub.link_state() == "host key changed"
            own_sshd.use_key("right")
            finish(typing(hub))

        with started(lab, add_kernel(hub.host, *hub.options)) as kernel:
            kernel.run("number = None")
            acts = Acts(swap, log_in_to_the_wrong_and_the_right_one)
            exact_across(hub, kernel, lab, "host key changed", acts)
    assert known.read_bytes() == before
