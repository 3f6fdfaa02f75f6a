"""What a hub may ask of the agent: with a real ipykernel, and with programs that are none."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from sshpyk.agent import logs as logs_module
from sshpyk.agent import seen as seen_module
from sshpyk.agent import service as service_module
from sshpyk.agent.kernelspecs import RemoteKernelspec, find_kernelspec
from sshpyk.errors import (
    KernelDied,
    KernelError,
    KernelspecNotFound,
    LaunchTimeout,
    RemoteShellFailed,
)
from sshpyk.wire import kernel_messages
from sshpyk.wire.kernel_messages import CONTROL, IOPUB, SHELL, STDIN
from tests.unit.agent.service_bench import (
    KERNEL_ID,
    ServiceBench,
    alive,
    service_bench,
    write_kernelspec,
)
from tests.unit.wire.harness import in_loop, until

PYTHON = {"language": "python", "display_name": "x"}
SLEEPS = "import time; time.sleep(600)"


@pytest.fixture(autouse=True)
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return tmp_path / "jupyter"


@in_loop
async def test_an_ipykernel_executes_asks_and_ends(short_folder: Path):
    async with service_bench(short_folder) as bench:
        started = await bench.start()
        assert alive(started["pid"])
        assert (started["transport"], started["interrupt_mode"]) == ("ipc", "signal")
        assert started["welcomes"]
        assert json.loads(started["kernel_info"])["implementation"] == "ipython"
        assert not bench.heard(SHELL, "kernel_info_reply")  # nobody's question but ours
        bench.execute("print(6 * 7); name = input('who? '); print('hi', name)")
        assert (await bench.hear(STDIN, "input_request"))["prompt"] == "who? "
        bench.ask("input_reply", {"value": "me"}, STDIN)
        assert (await bench.hear(SHELL, "execute_reply"))["status"] == "ok"
        said = "".join(content["text"] for content in bench.heard(IOPUB, "stream"))
        assert said == "42\nhi me\n"
        assert await bench.rpc.call("stop", kernel_id=KERNEL_ID, grace_s=10) == {}
        assert await bench.ended() == 0
        bench.close_streams()
        await until(bench.nothing_is_left)


@in_loop
async def test_kernel_that_its_startup_code_ends_was_never_ready_and_its_words_are_told(
    short_folder: Path, specs: Path
):
    """ipykernel listens before it runs what its user has configured."""
    code = "import os; os.write(2, b'bad startup'); os._exit(3)"
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    argv.append(f"--IPKernelApp.exec_lines={code}")
    write_kernelspec(specs, "ends", argv, **PYTHON)
    async with service_bench(short_folder) as bench:
        with pytest.raises(KernelDied, match="status 3 before it was ready") as caught:
            await bench.start(kernel_name="ends")
        assert "bad startup" in caught.value.said
        bench.close_streams()
        await until(bench.nothing_is_left)


@in_loop
async def test_interrupts_reach_a_running_cell_both_ways(short_folder: Path):
    async with service_bench(short_folder) as bench:
        await bench.start()
        for place in range(2):
            bench.execute("print('go'); import time; time.sleep(60)")
            await until(lambda place=place: len(bench.heard(IOPUB, "stream")) > place)
            if place == 0:
                await bench.rpc.call("interrupt", kernel_id=KERNEL_ID, seen=bench.seen)
            else:  # as a client whose own kernelspec says "message" does
                bench.ask("interrupt_request", {}, CONTROL)
                assert (await bench.hear(CONTROL, "interrupt_reply"))["status"] == "ok"
            await until(lambda place=place: len(bench.heard(SHELL, "execute_reply")) > place)
            assert bench.heard(SHELL, "execute_reply")[-1]["ename"] == "KeyboardInterrupt"


@in_loop
async def test_f53_cells_sent_before_an_error_was_seen_are_aborted(short_folder: Path):
    async with service_bench(short_folder) as bench:
        await bench.start()
        seen_before = bench.seen
        bench.execute("1 / 0", stop_on_error=True)
        assert (await bench.hear(SHELL, "execute_reply"))["ename"] == "ZeroDivisionError"
        for _ in range(3):
            bench.execute("print('never')", seen=seen_before)
        await until(lambda: len(bench.heard(SHELL, "execute_reply")) == 4)
        assert bench.heard(SHELL, "execute_reply")[1:] == [{"status": "aborted"}] * 3
        bench.execute("print('now')")
        await until(lambda: len(bench.heard(SHELL, "execute_reply")) == 5)
        assert [content["text"] for content in bench.heard(IOPUB, "stream")] == ["now\n"]


@in_loop
async def test_f55_interrupt_that_was_meant_for_an_earlier_cell_is_refused_visibly(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(seen_module, "LATE_S", 0.1)
    async with service_bench(short_folder) as bench:
        await bench.start()
        seen_before = bench.seen
        bench.execute("print('one')")
        await bench.hear(SHELL, "execute_reply")
        await asyncio.sleep(0.3)
        bench.execute("import time; print('two'); time.sleep(1.0); print('done')")
        await until(lambda: "two" in "".join(c["text"] for c in bench.heard(IOPUB, "stream")))
        await bench.rpc.call("interrupt", kernel_id=KERNEL_ID, seen=seen_before)
        await until(lambda: len(bench.heard(SHELL, "execute_reply")) == 2)
        assert bench.heard(SHELL, "execute_reply")[-1]["status"] == "ok"
        errors = [c["text"] for c in bench.heard(IOPUB, "stream") if c["name"] == "stderr"]
        assert len(errors) == 1
        assert "arrived too late" in errors[0]


@in_loop
async def test_f50_a_replayed_interrupt_request_interrupts_nobody(short_folder: Path):
    async with service_bench(short_folder) as bench:
        await bench.start()
        request = bench.session.serialize(bench.session.msg("interrupt_request", {}))
        replay = kernel_messages.pack(CONTROL, [b"client", *request])
        outcomes = []
        for place, length_s in enumerate((60, 0.5)):
            bench.execute(f"print('go'); import time; time.sleep({length_s})")
            await until(lambda place=place: len(bench.heard(IOPUB, "stream")) > place)
            bench.joined.hub.send(bench.streams[1], replay)
            await until(lambda place=place: len(bench.heard(SHELL, "execute_reply")) > place)
            outcomes.append(bench.heard(SHELL, "execute_reply")[-1]["status"])
        assert outcomes == ["error", "ok"]
        assert len(bench.heard(CONTROL, "interrupt_reply")) == 1


@in_loop
async def test_last_output_of_a_kernel_that_kills_itself_arrives_before_its_status(
    short_folder: Path,
):
    async with service_bench(short_folder) as bench:
        await bench.start()
        bench.execute(
            "import os, sys, time\nfor i in range(50): print(i)\n"
            "sys.stdout.flush(); time.sleep(0.5); os.kill(os.getpid(), 9)"
        )
        assert await bench.ended() == -signal.SIGKILL
        said = [content for content in bench.heard(IOPUB, "stream") if content["name"] == "stdout"]
        assert "".join(content["text"] for content in said) == "".join(f"{i}\n" for i in range(50))
        assert "often the out-of-memory killer" in bench.heard(IOPUB, "stream")[-1]["text"]
        bench.close_streams()
        await until(bench.nothing_is_left)


@in_loop
async def test_a_kernel_that_we_were_asked_to_kill_is_no_riddle(short_folder: Path):
    async with service_bench(short_folder) as bench:
        await bench.start()
        bench.execute("import time\nprint('begun', flush=True)\ntime.sleep(60)")
        await until(lambda: bench.heard(IOPUB, "stream"))
        await bench.rpc.call("signal", kernel_id=KERNEL_ID, signal=int(signal.SIGKILL))
        assert await bench.ended() == -signal.SIGKILL
        assert [content["name"] for content in bench.heard(IOPUB, "stream")] == ["stdout"]


@in_loop
async def test_a_large_output_goes_before_its_reply(short_folder: Path):
    async with service_bench(short_folder) as bench:
        await bench.start()
        for _ in range(3):
            bench.main.messages.clear()
            bench.execute(
                "from IPython.display import HTML, display\n"
                "for i in range(10): display(HTML('z' * 600_000))"
            )
            await bench.hear(SHELL, "execute_reply")
            assert len(bench.heard(IOPUB, "display_data")) == 10


@in_loop
async def test_children_of_a_dead_kernel_are_killed(short_folder: Path):
    async with service_bench(short_folder) as bench:
        await bench.start()
        bench.execute("import subprocess; p = subprocess.Popen(['sleep', '600']); print(p.pid)")
        await bench.hear(SHELL, "execute_reply")
        child = int("".join(content["text"] for content in bench.heard(IOPUB, "stream")))
        assert alive(child)
        await bench.rpc.call("signal", kernel_id=KERNEL_ID, signal=int(signal.SIGKILL))
        assert await bench.ended() == -signal.SIGKILL
        await until(lambda: not alive(child))


@in_loop
async def test_stop_without_grace_is_at_once(short_folder: Path):
    async with service_bench(short_folder) as bench:
        await bench.start()
        await bench.rpc.call("stop", kernel_id=KERNEL_ID, grace_s=0)
        assert await bench.ended() == -signal.SIGKILL


@in_loop
async def test_a_kernel_that_ignores_every_plea_is_killed(short_folder: Path):
    async with service_bench(short_folder) as bench:
        await bench.start()
        bench.execute(
            "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "get_ipython().kernel.do_shutdown = lambda restart: None\n"
            "import os, sys\nprint('deaf'); sys.stdout.flush(); time.sleep(0.5)\n"
            "os.kill(os.getpid(), signal.SIGSTOP)"
        )
        await bench.hear(IOPUB, "stream")
        await bench.rpc.call("stop", kernel_id=KERNEL_ID, grace_s=0.1)
        assert await bench.ended() == -signal.SIGKILL


@in_loop
async def test_list_names_what_lives(short_folder: Path, specs: Path):
    write_kernelspec(specs, "sleeper", ["python", "-c", SLEEPS], **PYTHON)
    async with service_bench(short_folder) as bench:
        assert await bench.rpc.call("list") == {"kernels": []}
        starting = asyncio.ensure_future(bench.start(kernel_name="sleeper"))
        await until(lambda: bench.book.kernels)
        (listed,) = (await bench.rpc.call("list"))["kernels"]
        assert (listed["kernel_id"], listed["state"]) == (KERNEL_ID, "starting")
        await bench.rpc.call("stop", kernel_id=KERNEL_ID, grace_s=5)
        with pytest.raises(KernelDied):
            await starting


async def fails_to_start(bench: ServiceBench, kind: type[Exception], **params: str) -> Exception:
    with pytest.raises(kind) as caught:
        await bench.start(**params)
    bench.close_streams()  # as the hub does when a launch failed
    await until(bench.nothing_is_left, "nothing left at the agent")
    await until(lambda: set(bench.joined.hub.link._streams) <= {0}, "no stream left at the hub")
    return caught.value


@in_loop
async def test_a_missing_kernelspec_is_named(short_folder: Path):
    async with service_bench(short_folder) as bench:
        error = await fails_to_start(bench, KernelspecNotFound, kernel_name="nope")
        assert "nope" in str(error)


@pytest.mark.parametrize("python", ["/no/such/python", "/tmp", "no-such-python", "/etc/passwd"])
@in_loop
async def test_a_missing_interpreter_is_named(python: str, short_folder: Path):
    async with service_bench(short_folder) as bench:
        error = await fails_to_start(bench, RemoteShellFailed, python=python)
        assert python in str(error)


@in_loop
async def test_a_missing_folder_is_named(short_folder: Path):
    async with service_bench(short_folder) as bench:
        error = await fails_to_start(bench, KernelError, cwd="/no/such/folder")
        assert "/no/such/folder" in str(error)


@in_loop
async def test_a_program_that_cannot_be_run_is_named(short_folder: Path, specs: Path):
    write_kernelspec(specs, "broken", ["/no/such/program", "x"], **PYTHON)
    async with service_bench(short_folder) as bench:
        error = await fails_to_start(bench, KernelError, kernel_name="broken")
        assert "cannot run /no/such/program: No such file or directory" in str(error)


@in_loop
async def test_last_words_of_a_kernel_that_dies_at_once_are_told(short_folder: Path, specs: Path):
    words = "import sys; print('out'); sys.exit('no module')"
    write_kernelspec(specs, "dies", ["python", "-c", words], **PYTHON)
    async with service_bench(short_folder) as bench:
        error = await fails_to_start(bench, KernelDied, kernel_name="dies")
        assert "ended with status 1" in str(error)
        assert "out" in str(error)
        assert "no module" in str(error)


@pytest.mark.parametrize("language", ["python", "fortran"])
@in_loop
async def test_a_kernel_that_dies_later_in_its_start_is_told(
    language: str, short_folder: Path, specs: Path
):
    words = "import os, time; time.sleep(0.2); os.kill(os.getpid(), 11)"
    write_kernelspec(specs, "dies", [sys.executable, "-c", words], language=language)
    async with service_bench(short_folder) as bench:
        error = await fails_to_start(bench, KernelDied, kernel_name="dies")
        assert "signal SIGSEGV" in str(error)


@in_loop
async def test_the_working_directory_and_environment_are_as_asked(short_folder: Path):
    async with service_bench(short_folder) as bench:
        await bench.start(cwd=str(short_folder), env={"ASKED": "yes"})
        bench.execute("import os; print(os.getcwd(), os.environ['ASKED'])")
        await bench.hear(SHELL, "execute_reply")
        said = "".join(content["text"] for content in bench.heard(IOPUB, "stream"))
        assert said.split() == [os.path.realpath(short_folder), "yes"]


@in_loop
async def test_orders_for_a_kernel_that_has_ended(short_folder: Path):
    async with service_bench(short_folder) as bench:
        for op, more in (("interrupt", {"seen": 0}), ("signal", {"signal": 2})):
            with pytest.raises(KernelDied):
                await bench.rpc.call(op, kernel_id="unknown", **more)
        assert await bench.rpc.call("stop", kernel_id="unknown", grace_s=0) == {}


@in_loop
async def test_a_stop_overtakes_no_start(
    short_folder: Path, specs: Path, monkeypatch: pytest.MonkeyPatch
):
    """A hub that gave a launch up says stop right behind start; the kernelspec may take long."""
    write_kernelspec(specs, "sleeper", ["python", "-c", SLEEPS], **PYTHON)
    searching, found = threading.Event(), threading.Event()

    def slow(name: str, python: str) -> RemoteKernelspec:
        searching.set()
        found.wait()
        return find_kernelspec(name, python)

    monkeypatch.setattr(service_module, "find_kernelspec", slow)
    async with service_bench(short_folder) as bench:
        starting = asyncio.ensure_future(bench.start(kernel_name="sleeper"))
        await until(searching.is_set)
        stopping = asyncio.ensure_future(bench.rpc.call("stop", kernel_id=KERNEL_ID, grace_s=0))
        await asyncio.sleep(0.05)
        found.set()
        with pytest.raises(KernelDied):
            await starting
        await stopping
        bench.close_streams()
        await until(bench.nothing_is_left)


@in_loop
async def test_a_stop_that_came_with_the_start_leaves_no_kernel(short_folder: Path, specs: Path):
    write_kernelspec(specs, "sleeper", ["python", "-c", SLEEPS], **PYTHON)
    async with service_bench(short_folder) as bench:
        await bench.joined.cut_and_noticed()
        starting = asyncio.ensure_future(bench.start(kernel_name="sleeper"))
        await asyncio.sleep(0)
        bench.rpc.notify("stop", kernel_id=KERNEL_ID, grace_s=0)
        bench.joined.connect()
        with pytest.raises(KernelDied):
            await starting


@in_loop
async def test_only_the_latest_logs_are_kept(
    short_folder: Path, specs: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(logs_module, "KEPT_LOGS", 3)
    write_kernelspec(specs, "dies", ["python", "-c", "print('x')"], **PYTHON)
    async with service_bench(short_folder) as bench:
        for place in range(5):
            (bench.logs / f"{place}.log").write_text("old")
            os.utime(bench.logs / f"{place}.log", (place, place))
        with pytest.raises(KernelDied):
            await bench.start(kernel_name="dies")
        assert sorted(os.listdir(bench.logs)) == [
            "2.log",
            "3.log",
            "4.log",
            f"{KERNEL_ID}.log",
            f"{KERNEL_ID}.log.json",
        ]


@in_loop
async def test_log_of_a_kernel_that_lives_is_kept_when_another_starts(
    short_folder: Path, specs: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(logs_module, "KEPT_LOGS", 0)
    write_kernelspec(specs, "dies", ["python", "-c", "print('x')"], **PYTHON)
    async with service_bench(short_folder) as bench:
        await bench.start()
        with pytest.raises(KernelDied):
            await bench.start(kernel_name="dies", kernel_id="cd" * 16)
        assert (bench.logs / f"{KERNEL_ID}.log").exists()


# What is around the kernel


@pytest.fixture
def no_startup_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


@in_loop
async def test_an_activation_runs_before_the_kernel_which_stays_our_child(
    short_folder: Path, no_startup_files: None
):
    async with service_bench(short_folder) as bench:
        started = await bench.start(activate="export A=1", activate_s=60, env={"B": "2"})
        bench.execute("import os; print(os.getpid(), os.environ['A'], os.environ['B'])")
        await bench.hear(SHELL, "execute_reply")
        said = "".join(content["text"] for content in bench.heard(IOPUB, "stream"))
        assert said == f"{started['pid']} 1 2\n"
        assert "activate" not in os.listdir(bench.book.kernels[KERNEL_ID].process.folder)


@in_loop
async def test_an_activation_that_fails_or_hangs_is_no_kernel(
    short_folder: Path, no_startup_files: None
):
    async with service_bench(short_folder) as bench:
        with pytest.raises(KernelDied, match="'nonsuch' ended with status 127") as caught:
            await bench.start(activate="nonsuch; sleep 600", activate_s=60)
        assert "nonsuch" in caught.value.said
        bench.close_streams()
        await until(bench.nothing_is_left)
        with pytest.raises(LaunchTimeout, match=r"'sleep 600' did not end within 1 s") as hung:
            await bench.start(activate="echo asking; sleep 600", activate_s=1)
        assert hung.value.said == "asking"
        bench.close_streams()
        await until(lambda: not bench.book.kernels)


@in_loop
async def test_a_bare_interpreter_is_looked_up_after_the_activation(
    short_folder: Path, tmp_path: Path, no_startup_files: None
):
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nFOUND_BY=PATH exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    async with service_bench(short_folder) as bench:
        lines = f"PATH={tmp_path}:$PATH"
        await bench.start(python="python3", kernel_name="python3", activate=lines, activate_s=60)
        bench.execute("import os; print(os.environ['FOUND_BY'])")
        await bench.hear(SHELL, "execute_reply")
        said = "".join(content["text"] for content in bench.heard(IOPUB, "stream"))
        assert said == "PATH\n"


@pytest.mark.parametrize("stays", ["", "; echo over"], ids=["execs", "stays"])
@in_loop
async def test_interrupt_and_shutdown_reach_a_kernel_behind_a_wrapper(
    short_folder: Path, stays: str
):
    wrapper = ["sh", "-c", f'{"" if stays else "exec "}"$0" "$@"{stays}']
    async with service_bench(short_folder) as bench:
        await bench.start(wrapper=wrapper)
        bench.execute("print('go'); import time; time.sleep(60)")
        await until(lambda: bench.heard(IOPUB, "stream"))
        await bench.rpc.call("interrupt", kernel_id=KERNEL_ID, seen=bench.seen)
        assert (await bench.hear(SHELL, "execute_reply"))["ename"] == "KeyboardInterrupt"
        bench.execute("print('on')")
        await until(lambda: len(bench.heard(SHELL, "execute_reply")) == 2)
        await bench.rpc.call("stop", kernel_id=KERNEL_ID, grace_s=10)
        # dash ends as the interrupt would have ended it; what counts is that it ends with the kernel.
        assert await bench.ended() in (0, -signal.SIGINT)
        bench.close_streams()
        await until(bench.nothing_is_left)


@in_loop
async def test_a_wrapper_that_is_not_there_is_named(short_folder: Path):
    async with service_bench(short_folder) as bench:
        with pytest.raises(KernelError, match="cannot run srun-not-here") as caught:
            await bench.start(wrapper=["srun-not-here", "-n1"])
        assert "--remote-command" in caught.value.advice


@in_loop
async def test_the_notebooks_folder_is_the_first_that_there_is_else_home(
    short_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    async with service_bench(short_folder) as bench:
        for folders, found, notice in (
            (["~/work", "/"], tmp_path / "work", ""),
            (["~/nope", "/no"], tmp_path, f"no folder {tmp_path}/nope or /no on the host"),
        ):
            started = await bench.start(folders=folders, cwd="")
            assert started["notice"].startswith(notice)
            assert os.readlink(f"/proc/{started['pid']}/cwd") == str(found)
            await bench.rpc.call("stop", kernel_id=KERNEL_ID, grace_s=0)
            bench.close_streams()
            await until(bench.nothing_is_left)
