"""What was sent while the line was down means what it meant then: Run All, input(), interrupts.

And what a person is told meanwhile.
"""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.integration.faults.bench import Bench
from tests.integration.kernels import PATIENCE_S, SSHPYK, Running, eventually
from tests.integration.lifecycle_helpers import await_text, outcome_of

pytestmark = pytest.mark.timeout(240)


def replies(kernel: Running, msg_ids: list[str]) -> dict[str, str]:
    """Return the status of the reply to each request."""
    found: dict[str, str] = {}
    while set(msg_ids) - set(found):
        reply = kernel.client.get_shell_msg(timeout=PATIENCE_S)
        found[reply["parent_header"]["msg_id"]] = reply["content"]["status"]
    return found


def test_f53_run_all_with_an_error_in_its_first_cell_aborts_the_rest_across_an_outage(
    bench: Bench,
) -> None:
    with bench.kernel() as kernel:
        failing = kernel.client.execute("import time\nprint('begun')\ntime.sleep(3)\n1 / 0")
        await_text(kernel.client, "begun")
        bench.proxy.pause()
        others = [kernel.client.execute(f"print('cell {number}')") for number in range(2, 6)]
        time.sleep(5)
        bench.proxy.resume()
        found = replies(kernel, [failing, *others])
        assert found[failing] == "error"
        assert [found[other] for other in others] == ["aborted"] * 4
        assert outcome_of(kernel.client, kernel.client.execute("'after'")).result == "'after'"


def test_f54_answer_given_in_an_outage_reaches_its_own_prompt_only(bench: Bench) -> None:
    with bench.kernel() as kernel:
        first = kernel.client.execute("one = input('one? ')")
        assert kernel.client.get_stdin_msg(timeout=PATIENCE_S)["content"]["prompt"] == "one? "
        bench.proxy.pause()
        kernel.manager.interrupt_kernel()
        time.sleep(1)
        kernel.client.input("for the first prompt")
        time.sleep(4)
        bench.proxy.resume()
        replies(kernel, [first])
        second = kernel.client.execute("two = input('two? ')")
        assert kernel.client.get_stdin_msg(timeout=PATIENCE_S)["content"]["prompt"] == "two? "
        kernel.client.input("for the second")
        assert replies(kernel, [second]) == {second: "ok"}
        assert outcome_of(kernel.client, kernel.client.execute("two")).result == "'for the second'"


def test_f55_interrupts_in_an_outage_are_applied_once_to_their_cell(bench: Bench) -> None:
    with bench.kernel() as kernel:
        sleeping = kernel.client.execute("import time\nprint('begun')\ntime.sleep(600)")
        await_text(kernel.client, "begun")
        bench.proxy.pause()
        for _ in range(4):
            kernel.manager.interrupt_kernel()
        time.sleep(3)
        bench.proxy.resume()
        outcome = outcome_of(kernel.client, sleeping)
        assert outcome.reply["content"]["ename"] == "KeyboardInterrupt"
        next_one = outcome_of(kernel.client, kernel.client.execute("time.sleep(1); 'whole'"))
        assert next_one.result == "'whole'"


def test_f55_interrupt_for_a_cell_that_ended_in_the_outage_spares_the_next_one(
    bench: Bench,
) -> None:
    with bench.kernel() as kernel:
        short = kernel.client.execute("import time\nprint('begun')\ntime.sleep(2)")
        long = kernel.client.execute("time.sleep(20)\n'whole'")
        await_text(kernel.client, "begun")
        bench.proxy.pause()
        time.sleep(1)
        kernel.manager.interrupt_kernel()
        time.sleep(6)
        bench.proxy.resume()
        outcome_of(kernel.client, short)
        outcome = outcome_of(kernel.client, long)
        assert outcome.result == "'whole'"
        assert "arrived too late" in outcome.text("stderr")


def test_long_outage_is_told_on_stderr_once_each_way_and_ps_shows_it(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    """The stand-in's stderr is ours."""
    said = ""

    def told(what: str) -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return what in said

    def seen_by_ps() -> tuple[str, str]:
        shown = subprocess.run([SSHPYK, "ps", "--json"], capture_output=True, check=True)
        hosts = json.loads(shown.stdout)["hosts"]
        (host,) = [host for host in hosts if host["ssh_config"] == str(bench.hub.config)]
        return host["link"], host["kernels"][0]["state"]

    with bench.kernel() as kernel:
        assert seen_by_ps() == ("up", "alive")
        msg_id = kernel.client.execute("import time\nfor n in range(20): print(n); time.sleep(1)")
        await_text(kernel.client, "1\n")
        bench.proxy.pause()
        eventually(lambda: told("the connection is down"), "the notice", timeout_s=30)
        assert seen_by_ps() == ("dialing", "unreachable")
        bench.proxy.resume()
        eventually(lambda: told("connected again after"), "the second notice", timeout_s=60)
        outcome_of(kernel.client, msg_id)
        assert seen_by_ps() == ("up", "alive")
    assert said.count("the connection is down") == said.count("connected again") == 1
    assert "that waited there follow" in said
