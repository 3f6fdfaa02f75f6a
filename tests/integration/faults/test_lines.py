"""Lines that are slow, far away, uneven, or reached from another address than before."""

from __future__ import annotations

import hashlib
import time
import unittest
from pathlib import Path

import jupyter_kernel_test
import pytest

from lab.faultproxy import DOWN, stall_steps
from tests.integration.faults.bench import (
    Bench,
    assert_exact,
    session,
)
from tests.integration.kernels import (
    AddKernel,
    await_ready,
    eventually,
    started,
)
from tests.integration.lifecycle_helpers import await_text, hub_of, outcome_of
from tests.integration.machines import Lab
from tests.integration.recorder import Recorder
from tests.integration.test_kernel_suite import RemoteKernelTests

pytestmark = pytest.mark.timeout(240)

SLOW_BYTES_PER_S = 10_000


def test_f28_slow_line_makes_progress_across_drops(bench: Bench) -> None:
    size = 160_000
    with bench.kernel() as kernel:
        kernel.run(f"import os; text = os.urandom({size // 2}).hex()")
        digest = kernel.run("import hashlib; hashlib.sha256(text.encode()).hexdigest()").result
        before = bench.proxy.passed_bytes(DOWN)
        bench.proxy.rate(SLOW_BYTES_PER_S)
        began_s = time.monotonic()
        cuts = [bench.proxy.cut(size * part // 3, DOWN) for part in (1, 2)]
        (shown,) = kernel.run("display({'text/plain': text}, raw=True)").of_type("display_data")
        took_s = time.monotonic() - began_s
        passed = bench.proxy.passed_bytes(DOWN) - before
        bench.proxy.rate(0)
    text = shown["content"]["data"]["text/plain"]
    assert repr(hashlib.sha256(text.encode()).hexdigest()) == digest
    assert all(cut.done for cut in cuts)
    print(f"{took_s:.1f} s; {passed - size} bytes more than the message, for 2 cuts and logins")
    # Two logins, and what each cut caught under way; from its beginning it would be twice as much.
    assert passed < 1.75 * size


def test_f28_slow_line_lets_interrupts_pass(lab: Lab, bench: Bench) -> None:
    """The cell itself notes when it was interrupted; both machines have one clock."""
    code = """
import time
print('begun', flush=True)
try:
    while True:
        print('x' * 1000, flush=True)
        time.sleep(0.01)
except KeyboardInterrupt:
    interrupted_s = time.time()"""
    with bench.kernel() as kernel:
        bench.proxy.rate(SLOW_BYTES_PER_S)
        msg_id = kernel.client.execute(code)
        await_text(kernel.client, "begun")
        time.sleep(4)  # the line is full by now
        asked_s = time.time()
        kernel.manager.interrupt_kernel()
        time.sleep(3)
        bench.proxy.rate(0)
        assert outcome_of(kernel.client, msg_id).reply["content"]["status"] == "ok"
        took_s = float(kernel.run("interrupted_s").result or 0) - asked_s
    print(f"interrupted after {took_s:.2f} s")
    assert took_s < 2


def test_f29_half_a_second_of_round_trip(bench: Bench, control: Recorder) -> None:
    bench.proxy.delay(0.25)
    began_s = time.monotonic()
    with bench.kernel() as kernel:
        print(f"started in {time.monotonic() - began_s:.1f} s")
        began_s = time.monotonic()
        assert kernel.run("1 + 1").result == "2"
        print(f"1 + 1 in {time.monotonic() - began_s:.2f} s")
    with bench.kernel() as kernel:
        assert_exact(session(kernel), control)
    assert bench.proxy.total_connections == 1


def test_f29_kernel_suite_over_half_a_second_of_round_trip(bench: Bench) -> None:
    """jupyter_kernel_test, the field's own suite."""
    bench.proxy.delay(0.25)

    class FarAway(RemoteKernelTests):
        kernel_name = bench.add()

        @classmethod
        def setUpClass(cls) -> None:
            jupyter_kernel_test.KernelTests.setUpClass.__func__(cls)
            await_ready(cls.kc)

        def flush_channels(self) -> None:
            time.sleep(0.6)  # the suite's own patience is for kernels that are near
            super().flush_channels()

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(FarAway).run(result)
    print(f"{result.testsRun} tests, {len(result.skipped)} skipped")
    assert result.testsRun > 10
    failed = result.failures + result.errors
    assert not failed, "\n".join(f"{case}\n{trace}" for case, trace in failed)


def test_f30_stalls_and_jitter_cause_no_flapping(bench: Bench, control: Recorder) -> None:
    bench.proxy.delay(0.04, 0.03)
    steps = stall_steps(bench.proxy.seed, 60)
    print(f"seed {bench.proxy.seed}")
    recorder = bench.exactly_as(control, lambda: bench.proxy.play(steps))
    print(f"silent for {recorder.longest_silence_s:.2f} s at most")
    assert bench.proxy.total_connections == 1


@pytest.mark.exclusive
def test_f10_laptop_with_another_address_goes_on(
    lab: Lab, add_kernel: AddKernel, control: Recorder, tmp_path: Path
) -> None:
    markers, addresses = [], []

    def move() -> None:
        markers.append(hub.marker())
        addresses.append(lab.laptop.address_in("direct"))
        lab.laptop.take_another_address("direct", lab.bastion)
        addresses.append(lab.laptop.address_in("direct"))
        assert addresses[0] != addresses[1]

    with (
        hub_of(lab, "remote", tmp_path / "ssh_config") as hub,
        started(lab, add_kernel(hub.host, *hub.options)) as kernel,
    ):
        recorder = session(kernel, move)
        eventually(lambda: len(hub.connections()) == 1, "one connection")
        eventually(
            lambda: not lab.remote.processes(containing=markers[0]),
            "the end of the old session on the remote",
        )
    assert_exact(recorder, control)
    print(f"{addresses}; silent for {recorder.longest_silence_s:.2f} s")
