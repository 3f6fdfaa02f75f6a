"""Connections that end: inside a frame, cleanly, by a killed process, during the next handshake."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from itertools import accumulate

import psutil
import pytest

from lab.faultproxy import DOWN, UP, flap_steps
from sshpyk.paths import hub_log
from sshpyk.ssh.command import SshTarget
from tests.integration.faults.bench import (
    BOTH_WAYS,
    Bench,
    assert_exact,
    session,
)
from tests.integration.kernels import eventually
from tests.integration.machines import Lab
from tests.integration.recorder import Recorder

pytestmark = pytest.mark.timeout(240)

# A connection's end is seen at once; no clock is asked.
NOTICED_WITHIN_S = 10.0


@pytest.mark.parametrize(
    ("bench", "seed"), [("remote", 1), ("remote", 2), ("remote-jump", 3)], indirect=["bench"]
)
@pytest.mark.parametrize("way", [UP, DOWN])
def test_f02_resets_inside_frames_and_handshakes(
    bench: Bench, control: Recorder, way: str, seed: int
) -> None:
    """Each cut falls some bytes after the one before: into a frame, or a login, or the HELLO."""
    chance = random.Random(seed)
    gaps = [1, *(chance.choice([chance.randrange(1, 300), chance.randrange(9000)]) for _ in "1234")]
    cuts = []

    def cut() -> None:
        cuts.extend(bench.proxy.cut(offset, way) for offset in accumulate(gaps))

    with bench.kernel() as kernel:
        recorder = session(kernel, cut)
        for one in cuts:  # those that the session did not reach
            while not one.done:
                kernel.run("'x' * 1000", store_history=False)
        bench.await_one_connection()
    assert_exact(recorder, control)
    print(f"cuts after {gaps} bytes {way}; {bench.proxy.total_connections} connections")
    assert bench.proxy.total_connections == 1 + len(gaps)


def test_f02_large_message_continues_at_its_offset(bench: Bench) -> None:
    size = 8_000_000
    with bench.kernel() as kernel:
        kernel.run("import os; text = os.urandom(4_000_000).hex()")
        before = bench.proxy.passed_bytes(DOWN)
        cuts = [bench.proxy.cut(size * part // 4, DOWN) for part in (1, 2, 3)]
        outcome = kernel.run("display({'text/plain': text}, raw=True)")
        passed = bench.proxy.passed_bytes(DOWN) - before
        (shown,) = outcome.of_type("display_data")
        digest = kernel.run("import hashlib; hashlib.sha256(text.encode()).hexdigest()").result
    sent = shown["content"]["data"]["text/plain"]
    assert len(sent) == size
    assert repr(hashlib.sha256(sent.encode()).hexdigest()) == digest
    assert all(cut.done for cut in cuts)
    print(f"{passed - size} bytes more than the message, for 3 cuts")
    # From its beginning again it would be 2.5 times the size.
    assert passed < size * 1.75


def test_f03_clean_close_is_dialled_again_at_once(bench: Bench, control: Recorder) -> None:
    recorder = bench.exactly_as(control, bench.proxy.close)
    assert bench.proxy.total_connections == 2
    print(f"silent for {recorder.longest_silence_s:.2f} s")
    assert recorder.longest_silence_s < NOTICED_WITHIN_S


@pytest.mark.parametrize("bench", BOTH_WAYS, indirect=True)
def test_f04_killed_sshd_session_leaves_agent_and_kernel_alone(
    lab: Lab, bench: Bench, control: Recorder
) -> None:
    recorder = bench.exactly_as(control, lambda: lab.remote.kill(bench.hub.session().pid))
    assert bench.proxy.total_connections == 2
    print(f"silent for {recorder.longest_silence_s:.2f} s")


@pytest.mark.parametrize("bench", BOTH_WAYS, indirect=True)
def test_f06_killed_ssh_is_followed_by_one_connection(bench: Bench, control: Recorder) -> None:
    recorder = bench.exactly_as(
        control, lambda: os.kill(bench.hub.connection().pid, signal.SIGKILL)
    )
    assert bench.proxy.total_connections == 2
    print(f"silent for {recorder.longest_silence_s:.2f} s")
    assert recorder.longest_silence_s < NOTICED_WITHIN_S


def test_f04_f06_session_and_ssh_killed_one_after_the_other(
    lab: Lab, bench: Bench, control: Recorder
) -> None:
    def kill_both() -> None:
        lab.remote.kill(bench.hub.session().pid)
        eventually(lambda: bench.proxy.total_connections == 2, "the second connection")
        bench.await_one_connection()
        os.kill(bench.hub.connection().pid, signal.SIGKILL)

    bench.exactly_as(control, kill_both)
    assert bench.proxy.total_connections in (3, 4)  # a login slower than usual gets one beside it


def test_f05_absent_listener_does_not_touch_the_link_and_is_not_hammered(
    bench: Bench, control: Recorder
) -> None:
    with bench.kernel() as kernel:
        bench.proxy.refuse()
        assert_exact(session(kernel), control)
        assert bench.proxy.total_connections == 1
        bench.proxy.reset()
        time.sleep(10)
        bench.proxy.accept()
        accepted_s = time.monotonic()
        assert kernel.run("6 * 7").result == "42"
        print(f"answered {time.monotonic() - accepted_s:.2f} s after the listener's return")
        target = SshTarget.parse(bench.hub.host, ssh_config=str(bench.hub.config))
        refused = hub_log(f"{target.host}-{target.identity[:6]}").read_text().count("refused")
        print(f"{refused} lines of the log say that it was refused")
    # 0.2, 0.4, 0.8, 1.6, 2 … s between two dials, of which each takes a moment and says it thrice.
    assert bench.proxy.total_connections == 2
    assert 3 <= refused <= 36


@pytest.mark.parametrize(
    "seconds", [15, pytest.param(600, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_flapping_line_loses_and_leaks_nothing(bench: Bench, seconds: float) -> None:
    """Not a row of its own: cuts of every kind, one after the other, as a seed draws them."""
    lines = int(seconds * 20)
    code = f"import time\nfor n in range({lines}):\n    print(n, flush=True)\n    time.sleep(0.05)"
    print(f"seed {bench.proxy.seed}")
    with bench.kernel() as kernel:
        recorder = Recorder(kernel.client)
        recorder.execute("0")
        hub = psutil.Process(bench.hub.pid)
        before = hub.num_fds(), hub.memory_info().rss
        bench.proxy.play(flap_steps(bench.proxy.seed, seconds))
        recorder.execute(code)
        recorder.execute("1")
        bench.proxy.accept()
        bench.await_one_connection()
        after = hub.num_fds(), hub.memory_info().rss
    texts = [message["content"].get("text", "") for message in recorder.heard["iopub"]]
    assert "".join(texts) == "".join(f"{n}\n" for n in range(lines))
    assert recorder.repeated == []
    print(f"{bench.proxy.total_connections} connections; hub before and after: {before} {after}")
    assert after[0] <= before[0] + 2
    assert after[1] - before[1] < 16_000_000
