"""``make demo``: a remote kernel, end to end, on a machine with no host at hand.

A private sshd on 127.0.0.1 is the host. The demo adds a kernel with the real command line, executes
``demo.ipynb`` on it, times it beside a local kernel, and leaves nothing behind; it fails if it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from rich.console import Console
from rich.table import Table

if not __package__:  # run as a script: the folder that holds the packages leads the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.probe.timing import Spread, TimedKernel
from demo.loopback import ALIAS, LoopbackHost, NoSshd, find_sshd
from demo.traces import MARK, Traces
from sshpyk import kernelspecs
from sshpyk.hub.client import stop_hub
from sshpyk.ssh.command import SshTarget

KERNEL = "sshpyk_demo"
NOTEBOOK = Path(__file__).with_name("demo.ipynb")
POLICY = Path("/usr/sbin/policy-rc.d")  # Debian asks it whether a service may start
ROUNDS = 3
EVALUATIONS = 20  # of 1+1, in each round
_HUB_PATIENCE_S = 5.0
_CELL_LINES = 3  # a longer cell is shown by its first line

console = Console(highlight=False, soft_wrap=True)


class DemoFailed(Exception):
    """What a person at a terminal reads instead of a traceback."""


def step(text: str) -> None:
    """Say what happens now."""
    console.print(f"[bold cyan]==>[/] [bold]{text}[/]")


# The host


def ensure_sshd() -> None:
    """Find sshd, or install it where that is ours to do. Raises DemoFailed."""
    with contextlib.suppress(NoSshd):
        find_sshd()
        return
    apt = shutil.which("apt-get")
    if apt is None or os.getuid() != 0:
        hint = (
            "as root, or by hand: apt-get install openssh-server" if apt else "the OpenSSH server"
        )
        raise DemoFailed(f"sshd is missing on this machine: install it ({hint}) and try again")
    step("sshd is missing: installing openssh-server with apt-get")
    console.print("    (the demo runs it privately; the system's own ssh service is not started)")
    with services_stay_down():
        for words in (
            ["update", "-qq"],
            ["install", "-qq", "--no-install-recommends", "openssh-server"],
        ):
            _apt([apt, "-y", *words])
    try:
        find_sshd()
    except NoSshd as error:
        raise DemoFailed(str(error)) from error


def _apt(command: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-2000:]
        raise DemoFailed(f"{shlex.join(command)} failed; install openssh-server by hand\n{said}")


@contextlib.contextmanager
def services_stay_down() -> Iterator[None]:
    """Keep Debian from starting what it installs: a demo opens no port to the network."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


# The client


class Client(NamedTuple):
    """This machine's side: where its files of this run are, and what its kernels find set."""

    folder: Path
    kernel_env: dict[str, str]


@contextlib.contextmanager
def private_client(traces: Traces) -> Iterator[Client]:
    """Let Jupyter, IPython and sshpyk keep their files of this run in one temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="sshpyk-demo-"))
    traces.watch_file(folder)
    jupyter = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    for name in (*jupyter, "IPYTHONDIR", "XDG_STATE_HOME"):
        os.environ[name] = str(folder / name.lower())
    # What a caller changes for a kernel travels to the host; what is in os.environ does not.
    own = {MARK: traces.mark, "IPYTHONDIR": str(folder / "ipython_of_kernels")}
    try:
        yield Client(folder, {**os.environ, **own})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def private_host(traces: Traces) -> Iterator[LoopbackHost]:
    """Run the host, and have an eye on its processes."""
    with LoopbackHost(environment={MARK: traces.mark, "SSHPYK_DEMO_HOST": ALIAS}) as host:
        traces.watch_file(host.folder)
        traces.watch_descendants(os.getpid())
        try:
            yield host
        finally:
            traces.watch_descendants(host.pid)


def add_kernel(host: LoopbackHost) -> SshTarget:
    """Add the kernel as a user would; return the target that its hub will serve."""
    options = {
        "--ssh-config": str(host.ssh_config),
        "--remote-python": sys.executable,
        "--kernel-name": KERNEL,
        "--launch-timeout": "30",
    }
    shown = " \\\n      ".join(
        f"{option} {shlex.quote(value)}" for option, value in options.items()
    )
    console.print(f"    $ sshpyk add {host.alias} \\\n      {shown}", markup=False)
    script = Path(sys.executable).with_name("sshpyk")
    words = [word for option in options.items() for word in option]
    done = subprocess.run([script, "add", host.alias, *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise DemoFailed(f"sshpyk add: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    _show(done.stdout)
    remote = kernelspecs.load(KERNEL).remote
    assert remote is not None
    return remote.target()


def end_hub(target: SshTarget, traces: Traces) -> None:
    """Make our hub leave; one that a Ctrl+C met while it started cannot be told at once."""
    deadline_s = time.monotonic() + _HUB_PATIENCE_S
    while not stop_hub(target) and any(traces.marked()) and time.monotonic() < deadline_s:
        time.sleep(0.05)


def evidence(client: Client, host: LoopbackHost) -> str:
    """Return what the hub and sshd have said, for somebody who has to find out."""
    logs = [log.read_text()[-2000:] for log in client.folder.rglob("hub-*.log")]
    return "\n".join(["the hub's log:", *logs, "the log of sshd:", host.log()[-2000:]])


# The notebook


async def run_notebook(client: Client) -> float:
    """Execute the notebook on the host and show it; return the seconds of its cold launch."""
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    # We launch, not nbclient: its own handlers of Ctrl+C lose one that comes during a launch.
    manager = AsyncKernelManager(kernel_name=KERNEL)
    began_s = time.perf_counter()
    await manager.start_kernel(env=client.kernel_env)
    try:
        channels = manager.client()
        channels.start_channels()
        await channels.wait_for_ready(timeout=60)
        ready_s = time.perf_counter()
        await NotebookClient(notebook, km=manager, kc=channels, timeout=60).async_execute()
        channels.stop_channels()
    finally:
        await manager.shutdown_kernel()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            show_cell(cell)
    return ready_s - began_s


def show_cell(cell: Any) -> None:
    """Print a cell and its outputs, as far as a terminal can show them."""
    first, *rest = cell.source.splitlines()
    more = "".join(f"\n        {line}" for line in rest)
    if len(rest) > _CELL_LINES:
        more = f"  … and {len(rest)} lines"
    console.print(f"[green]In [/]{cell.execution_count}:", end=" ")
    console.print(first + more, style="dim", markup=False)
    for output in cell.outputs:
        _show(output_text(output))


def output_text(output: Any) -> str:
    """Return what a terminal shows of one output."""
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"
    if "image/png" in output.data:
        size_bytes = len(output.data["image/png"]) * 3 // 4
        return f"(a picture: image/png, {size_bytes} bytes)"
    return str(output.data.get("text/plain", ""))


def _show(text: str) -> None:
    for line in text.rstrip().splitlines():
        console.print(f"        {line}", markup=False)


# The timings


class Row(NamedTuple):
    """A line of the table."""

    label: str
    local: list[float]
    remote: list[float]


def measure(client: Client, cold_s: float) -> list[Row]:
    """Time both kernels, in turns, so that a busy moment of the machine meets both."""
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for name in ("python3", KERNEL):
            with TimedKernel(name, client.kernel_env) as kernel:
                for label, took_s in one_life(kernel):
                    taken.setdefault((label, name), []).append(took_s)
    labels = dict.fromkeys(label for label, _ in taken)
    rows = [Row(label, taken[label, "python3"], taken[label, KERNEL]) for label in labels]
    return [Row("first launch (connects)", [], [cold_s]), *rows]


def one_life(kernel: TimedKernel) -> Iterator[tuple[str, float]]:
    """Take a kernel from its launch to its end; yield what each step took, in seconds."""
    yield "launch", kernel.launch()
    yield "execute 1+1", kernel.one_plus_one(EVALUATIONS)
    yield "interrupt", kernel.interrupt()
    yield "restart", kernel.restart()
    yield "shutdown", kernel.shutdown()


def show_timings(rows: list[Row]) -> None:
    """Print the medians side by side."""
    table = Table(box=None, padding=(0, 2), title_justify="left")
    for heading in ("", "local", "over ssh", "difference"):
        table.add_column(heading, justify="right" if heading else "left")
    for label, local, remote in rows:
        there_ms = Spread.of(remote).median * 1000
        if local:
            here_ms = Spread.of(local).median * 1000
            table.add_row(label, _ms(here_ms), _ms(there_ms), f"{there_ms - here_ms:+.1f} ms")
        else:
            table.add_row(label, "", _ms(there_ms), "")
    console.print(table)
    console.print(
        f"    medians of {ROUNDS}, in turns; 1+1 is the median of {EVALUATIONS} each time"
    )


def _ms(value: float) -> str:
    return f"{value:.1f} ms"


# All of it


def run(traces: Traces) -> None:
    """Do it all, and undo it all."""
    with contextlib.ExitStack() as cleanup:
        client = cleanup.enter_context(private_client(traces))
        step("A host: a private sshd on 127.0.0.1, with temporary keys")
        host = cleanup.enter_context(private_host(traces))
        console.print(f"    port {host.port}, folder {host.folder}")
        step("A kernel on it")
        target = add_kernel(host)
        cleanup.callback(end_hub, target, traces)
        cleanup.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)  # one Ctrl+C is enough
        try:
            stop_hub(target)  # its link is up by now, and a first launch is to be timed
            step(f"A notebook on that kernel: {NOTEBOOK.name}")
            cold_s = asyncio.run(run_notebook(client))
            signal.signal(signal.SIGTERM, _interrupt)  # nbclient has set it back
            step("Timings, beside a local kernel")
            show_timings(measure(client, cold_s))
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise DemoFailed(f"{what}\n\n{evidence(client, host)}") from error


def check(traces: Traces) -> bool:
    """Say whether anything is left, and remove it; return whether all was clean."""
    step("Cleaning up")
    left = traces.remaining()
    if not left:
        traces.remove_agent_log()
        console.print("    nothing is left: no process, no socket, no file")
        return True
    traces.kill_all()
    console.print("    left behind (and processes ended now):", style="red")
    _show("\n".join(left))
    return False


def main() -> int:
    """Run the demo and return its exit code. ``--sshd``: only see to it that there is an sshd."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)  # a shell's background job would ignore it
    if sys.argv[1:] == ["--sshd"]:
        return _only_sshd()
    began_s = time.monotonic()
    traces = Traces()
    failed = True
    try:
        ensure_sshd()
        run(traces)
        failed = False
    except KeyboardInterrupt:
        console.print("interrupted", style="red")
    except (DemoFailed, RuntimeError) as error:
        console.print(str(error), style="red", markup=False)
    clean = check(traces)
    if failed or not clean:
        return 1
    step(f"Done in {time.monotonic() - began_s:.0f} s. For a host of your own: sshpyk add HOST")
    return 0


def _only_sshd() -> int:
    """For the unit tests, many of which run a private sshd."""
    try:
        ensure_sshd()
    except DemoFailed as error:
        console.print(str(error), style="red", markup=False)
        return 1
    return 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
