"""Messages that are very large, very many, or made of what text should not contain."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest

from lab.faultproxy import DOWN, UP
from tests.integration.faults.bench import (
    Bench,
    assert_exact,
    bench_to,
    session,
)
from tests.integration.kernels import (
    PATIENCE_S,
    AddKernel,
    Running,
    eventually,
    started,
)
from tests.integration.lifecycle_helpers import (
    REMOTE_PYTHON,
    InstallKernelspec,
    outcome_of,
)
from tests.integration.machines import Lab

pytestmark = pytest.mark.timeout(300)

LARGE_BYTES = 100_000_000
# Slow enough for something to happen meanwhile.
RATE_BYTES_PER_S = 25_000_000
TAKE_COMMS = """
import hashlib, threading
from ipykernel.comm import Comm
got = []
def opened(comm, message):
    got.append(hashlib.sha256(message['buffers'][0]).hexdigest())
get_ipython().kernel.comm_manager.register_target('large', opened)
"""
BURST = 100_000
BURST_KERNEL = Path(__file__).with_name("burst_kernel.py")


def peak_mb(pid: int) -> int:
    """Return the most memory that a process on this machine ever had."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(status["VmHWM"].split()[0]) // 1000


def assert_control_answers(kernel: Running) -> float:
    """Check that a request on the control channel is answered while others wait."""
    client, began_s = kernel.client, time.monotonic()
    message = client.session.msg("kernel_info_request", {})
    client.control_channel.send(message)
    reply = client.control_channel.get_msg(timeout=PATIENCE_S)
    assert reply["parent_header"]["msg_id"] == message["header"]["msg_id"]
    return time.monotonic() - began_s


def test_f43_large_message_from_the_kernel_resumes_where_it_was_cut(bench: Bench) -> None:
    with bench.kernel() as kernel:
        kernel.run(f"import hashlib, os; data = os.urandom(1000) * {LARGE_BYTES // 1000}")
        expected = kernel.run("hashlib.sha256(data).hexdigest()").result
        kernel.run("from comm import create_comm; c = create_comm('t')")
        bench.proxy.rate(RATE_BYTES_PER_S)
        before = bench.proxy.passed_bytes(DOWN)
        cut = bench.proxy.cut(LARGE_BYTES * 6 // 10, DOWN)
        msg_id = kernel.client.execute("c.send({}, buffers=[data])")
        eventually(lambda: bench.proxy.passed_bytes(DOWN) > before + LARGE_BYTES // 5, "a fifth")
        answered_s = assert_control_answers(kernel)
        arrived = bench.proxy.passed_bytes(DOWN) - before
        outcome = outcome_of(kernel.client, msg_id)
        passed = bench.proxy.passed_bytes(DOWN) - before
        bench.proxy.rate(0)
        peak = peak_mb(bench.hub.pid)
    (message,) = [m for m in outcome.iopub if m["msg_type"] == "comm_msg"]
    assert repr(hashlib.sha256(message["buffers"][0]).hexdigest()) == expected
    cut.wait(1)
    print(f"{passed - LARGE_BYTES} bytes more than the message; hub's peak {peak} MB")
    print(f"control answered in {answered_s:.2f} s, {arrived} bytes had come by then")
    assert passed < 1.1 * LARGE_BYTES
    assert arrived < 0.6 * LARGE_BYTES
    assert answered_s < 2


def test_f43_large_message_to_the_kernel_resumes_where_it_was_cut(bench: Bench) -> None:
    data = hashlib.sha256(b"seed").digest() * (LARGE_BYTES // 32)
    with bench.kernel() as kernel:
        kernel.run(TAKE_COMMS)
        bench.proxy.rate(RATE_BYTES_PER_S)
        before = bench.proxy.passed_bytes(UP)
        cut = bench.proxy.cut(LARGE_BYTES * 6 // 10, UP)
        content = {"comm_id": "c", "target_name": "large", "data": {}}
        message = kernel.client.session.msg("comm_open", content)
        kernel.client.session.send(kernel.client.shell_channel.socket, message, buffers=[data])
        eventually(lambda: bench.proxy.passed_bytes(UP) > before + LARGE_BYTES // 5, "a fifth")
        answered_s = assert_control_answers(kernel)
        arrived = bench.proxy.passed_bytes(UP) - before
        outcome = outcome_of(kernel.client, kernel.client.execute("got"))
        passed = bench.proxy.passed_bytes(UP) - before
        bench.proxy.rate(0)
        peak = peak_mb(bench.hub.pid)
    assert outcome.result == repr([hashlib.sha256(data).hexdigest()])
    cut.wait(1)
    print(f"{passed - LARGE_BYTES} bytes more than the message; hub's peak {peak} MB")
    print(f"control answered in {answered_s:.2f} s, {arrived} bytes had gone by then")
    assert passed < 1.1 * LARGE_BYTES
    assert arrived < 0.6 * LARGE_BYTES
    assert answered_s < 2


def test_f43_interrupt_passes_a_large_message(bench: Bench) -> None:
    """Behind 100 MB that the kernel has sent, another cell runs; it notes when it was interrupted."""
    code = """
import time
try:
    time.sleep(60)
except KeyboardInterrupt:
    interrupted_s = time.time()"""
    with bench.kernel() as kernel:
        kernel.run(
            f"from comm import create_comm; c = create_comm('t'); data = bytes({LARGE_BYTES})"
        )
        bench.proxy.rate(RATE_BYTES_PER_S)
        before = bench.proxy.passed_bytes(DOWN)
        kernel.client.execute("c.send({}, buffers=[data])")
        msg_id = kernel.client.execute(code)
        eventually(lambda: bench.proxy.passed_bytes(DOWN) > before + LARGE_BYTES // 4, "a quarter")
        asked_s = time.time()
        kernel.manager.interrupt_kernel()
        assert outcome_of(kernel.client, msg_id).reply["content"]["status"] == "ok"
        took_s = float(kernel.run("interrupted_s").result or 0) - asked_s
    print(f"interrupted after {took_s:.2f} s")
    assert took_s < 2


def test_f44_burst_of_small_messages_is_delivered_whole(
    lab: Lab, bench: Bench, remote_kernelspec: InstallKernelspec
) -> None:
    """From a kernel whose own queue has no limit: what it sends, the agent receives."""
    argv = [REMOTE_PYTHON, "{resource_dir}/burst_kernel.py", "{connection_file}"]
    name = remote_kernelspec(argv, files={BURST_KERNEL.name: BURST_KERNEL.read_text()})
    kernel_name = bench.add_kernel(bench.hub.host, *bench.hub.options, remote_kernel_name=name)
    with started(lab, kernel_name) as kernel:
        began_s = time.monotonic()
        msg_id = kernel.client.execute(str(BURST))
        numbers: list[int] = []
        while True:
            # Not by get_iopub_msg: it takes longer for a message than all others together.
            parts = kernel.client.iopub_channel.socket.recv_multipart()
            content = json.loads(parts[parts.index(b"<IDS|MSG>") + 5])
            if "text" in content:
                numbers.append(int(content["text"]))
                if len(numbers) == BURST // 2:
                    bench.proxy.reset()
            elif content.get("execution_state") == "idle":
                break
        took_s = time.monotonic() - began_s
        assert kernel.client.get_shell_msg(timeout=PATIENCE_S)["parent_header"]["msg_id"] == msg_id
        peak = peak_mb(bench.hub.pid)
    assert numbers == list(range(BURST))
    print(f"{BURST} messages in {took_s:.1f} s; hub's peak {peak} MB")


ODD_CELLS = [
    "import time\nfor number in range(30):\n    print('line', number, flush=True)\n    time.sleep(0.02)",
    "print('nul \\0 unicode \\u2028 é \\U0001f40d'); 'é\\0'",
    "print('lone \\udc80 surrogate', flush=True)",
    "display({'text/plain': '\\udcff', 'text/html': '\\x7f\\x1b[0m'}, raw=True)",
    "# 'lone \udc80 in the code'\n'é\U0001f40d'",
    "from comm import create_comm; c = create_comm('t', {'d': 'é'}, buffers=[bytes(range(256)), b''])",
    "c.send({'\\0': '\\0'}, buffers=[bytes(range(255, -1, -1)) * 300, b'\\0' * 70_000])",
    "input('é\\0? ')",
]


def test_f47_odd_text_and_every_byte_across_cuts(
    lab: Lab, bench: Bench, add_kernel: AddKernel
) -> None:
    def cut() -> None:
        for offset in (1, 9_000, 40_000, 80_000):
            bench.proxy.cut(offset, DOWN)

    with started(lab, add_kernel("remote")) as kernel:
        control = session(kernel, cells=ODD_CELLS)
    with bench.kernel() as kernel:
        recorder = session(kernel, cut, cells=ODD_CELLS)
    assert_exact(recorder, control)
    assert bench.proxy.total_connections == 5


@pytest.mark.parametrize("locale", ["unset LANG LC_ALL", "unset LANG; export LC_ALL=C"])
def test_f38_locale_without_unicode_leaves_it_intact(
    lab: Lab, account: str, add_kernel: AddKernel, tmp_path: Path, locale: str
) -> None:
    lab.remote.run(f"echo '{locale}' > ~/.bashrc", user=account)
    text = "é ü 日本 \U0001f40d"
    with (
        bench_to(lab, "remote", add_kernel, tmp_path, user=account) as bench,
        bench.kernel() as kernel,
    ):
        seen = kernel.run("import os; [os.environ.get('LANG'), os.environ.get('LC_ALL')]").result
        assert kernel.run(f"print({text!r}); {text!r}").text() == f"{text}\n"
        assert kernel.run(f"{text!r}").result == repr(text)
        assert kernel.run(f"# {text}\n!printf %s '{text}'").text() == text
        kernel.run(f"open({text!r}, 'w', encoding='utf-8').write({text!r})")
        assert text in (kernel.run("os.listdir('.')").result or "")
        assert kernel.run("input('é? ')", answers=[text]).result == repr(text)
    assert seen == ("[None, None]" if "export" not in locale else "[None, 'C']")
