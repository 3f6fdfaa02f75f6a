"""What a person sees in JupyterLab while the network is away, and afterwards.

A real JupyterLab in a real browser, with a kernel behind the bastion. ``make screenshots`` takes the
pictures of the documentation from here.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.jupyterlab import Cell, Notebook, Server, jupyterlab, opened
from tests.integration.kernels import (
    PATIENCE_S,
    AddKernel,
    add_kernel,
    assert_gone,
    eventually,
    jupyter_folders,
    marked,
    new_environment,
)
from tests.integration.lifecycle_helpers import change_kernel_json, hub_of
from tests.integration.machines import Lab
from tests.integration.outages import Door, door

HOST = "remote-jump"
IN_FLIGHT_S = 3  # what had left before the cut is on the screen by then

LINES = 600
PRINTING = f"""
import time
import matplotlib.pyplot as plt

times = []
for number in range({LINES}):
    print("line", number)
    times.append(time.monotonic())
    time.sleep(0.1)

plt.figure(figsize=(6, 2.2))
plt.plot([each - times[0] for each in times])
plt.title("seconds at which each line was printed")
plt.show()
""".strip()

COUNTING = """
import sys, time
for number in range(40):
    print("count", number, file=sys.stderr if number % 10 == 9 else sys.stdout, flush=True)
    time.sleep(0.1)
""".strip()
RUN_ALL = [
    "total = 0\nprint('begun')",
    COUNTING,
    "total += number\ntotal",
    "print(total * 2)\n-total",
]


@dataclass(frozen=True)
class Desk:
    """A JupyterLab with a notebook open on the remote."""

    lab: Lab
    door: Door
    server: Server
    notebook: Notebook
    mark: str

    def kernels(self) -> list[int]:
        """Return the pids of the notebook's kernels on the remote."""
        return marked(self.lab.remote, self.mark)

    def stand_ins(self) -> list[int]:
        """Return the pids of the local processes that stand for them."""
        return marked(self.lab.laptop, self.mark)

    def wait(self, duration_s: float) -> None:
        """Let time pass, for that is what an outage is made of."""
        self.notebook.page.wait_for_timeout(duration_s * 1000)

    @contextlib.contextmanager
    def cut(self, duration_s: float = IN_FLIGHT_S) -> Iterator[None]:
        """Cut the network for at least so long, and check that nothing came through meanwhile."""
        with self.door.cut():
            self.wait(IN_FLIGHT_S)
            before = self.notebook.cells()
            yield
            self.wait(duration_s - IN_FLIGHT_S)
            assert [cell.text for cell in self.notebook.cells()] == [cell.text for cell in before]
            assert self.notebook.dialog() == ""


OpenDesk = Callable[..., contextlib.AbstractContextManager[Desk]]


@pytest.fixture
def desk(lab: Lab, door: Door, add_kernel: AddKernel, tmp_path: Path) -> OpenDesk:
    """Return what opens a notebook with these cells; in the end nothing of its kernel may be left."""

    @contextlib.contextmanager
    def open_desk(cells: list[str], *options: str) -> Iterator[Desk]:
        _, mark = new_environment()
        with hub_of(lab, HOST, tmp_path / "ssh_config", door.ssh_config) as hub:
            name = add_kernel(HOST, *hub.options, "--display-name", "Python on gpu1", *options)
            change_kernel_json(name, env={"SSHPYK_TEST_MARK": mark})
            with jupyterlab(tmp_path) as server:
                file = server.write_notebook(name, cells)
                with opened(server, file) as notebook:
                    yield Desk(lab, door, server, notebook, mark)
                    assert not notebook.reloaded
                    assert notebook.dialog() == ""
            assert_gone(lab, mark)

    return open_desk


@pytest.mark.timeout(300)
def test_f01_cell_that_prints_for_a_minute_is_whole_after_30_s_without_network(
    desk: OpenDesk, tmp_path: Path
) -> None:
    with desk([PRINTING, "len(times)"]) as at:
        at.notebook.run(0)
        eventually(lambda: "line 100\n" in at.notebook.cells()[0].text, "the 100th line")
        with at.cut(30):
            at.notebook.picture(tmp_path / "jupyterlab-cut.png")
            assert at.notebook.cells()[0].prompt == "[*]:"
        assert f"line {LINES - 1}\n" not in at.notebook.cells()[0].text
        at.notebook.await_prompt(0, "[1]:", timeout_s=60 + PATIENCE_S)
        text = "".join(f"line {number}\n" for number in range(LINES))
        assert at.notebook.cells()[0] == Cell("[1]:", text, pictures=1)
        at.notebook.run(1)
        at.notebook.await_prompt(1, "[2]:")
        assert at.notebook.cells()[1].text == str(LINES)
        at.notebook.picture(tmp_path / "jupyterlab-after.png")


def all_run(first: int, total: int) -> list[Cell]:
    """Return what RUN_ALL looks like when its cells had the execution counts from ``first`` on."""
    counts = "".join(f"count {number}\n" for number in range(40))
    texts = ["begun\n", counts, str(total), f"{total * 2}\n{-total}"]
    return [Cell(f"[{first + place}]:", text) for place, text in enumerate(texts)]


@pytest.mark.timeout(240)
def test_f01_run_all_before_and_during_a_cut_runs_every_cell_once(desk: OpenDesk) -> None:
    with desk(RUN_ALL) as at:
        at.notebook.choose("Run", "Run All Cells")
        eventually(lambda: "count 5\n" in at.notebook.cells()[1].text, "some output")
        with at.cut(8):
            assert [cell.prompt for cell in at.notebook.cells()] == ["[1]:", "[*]:", "[*]:", "[*]:"]
        at.notebook.await_prompt(3, "[4]:")
        assert at.notebook.cells() == all_run(1, 39)
        at.notebook.choose("Edit", "Clear Outputs of All Cells")
        with at.cut(8):
            at.notebook.choose("Run", "Run All Cells")
        at.notebook.await_prompt(3, "[8]:")
        assert at.notebook.cells() == all_run(5, 39)


@pytest.mark.timeout(240)
def test_f58_page_reloaded_during_a_cut_opens_and_has_the_same_kernel(desk: OpenDesk) -> None:
    with desk(["kept = 41", "kept + 1"]) as at:
        at.notebook.run(0)
        at.notebook.await_prompt(0, "[1]:")
        (kernel,) = at.kernels()
        with at.door.cut():
            at.wait(IN_FLIGHT_S)
            at.notebook.reload()
            assert [cell.prompt for cell in at.notebook.cells()] == [
                "[ ]:",
                "[ ]:",
            ]  # as it was saved
            at.notebook.run(1)
            at.wait(IN_FLIGHT_S)
            assert at.notebook.cells()[1] == Cell("[*]:")
        at.notebook.await_prompt(1, "[2]:")
        assert at.notebook.cells()[1].text == "42"
        assert at.kernels() == [kernel]


SHOW_PID = "import os; os.getpid()"


@pytest.mark.timeout(240)
def test_f56_restart_from_the_menu_during_a_cut_ends_when_the_link_is_back(desk: OpenDesk) -> None:
    with desk([SHOW_PID]) as at:
        (old,) = at.kernels()
        (old_stand_in,) = at.stand_ins()
        with at.cut():
            at.notebook.restart_kernel()
            eventually(
                lambda: at.stand_ins() not in ([], [old_stand_in]),
                "the launch of the next kernel",
                timeout_s=PATIENCE_S,
            )
            at.wait(2)
            assert at.notebook.status().endswith("| Restarting")
            assert at.kernels() == [old]
        assert_one_new_kernel(at, old)


@pytest.mark.timeout(240)
def test_f56_restart_that_outlasts_the_launch_timeout_is_told_and_works_the_next_time(
    desk: OpenDesk,
) -> None:
    with desk([SHOW_PID], "--launch-timeout", "5") as at:
        (old,) = at.kernels()
        with at.cut():
            at.notebook.restart_kernel()
            told = "not ready within 5 s (while waiting for the connection, which has been down for"
            eventually(lambda: told in at.server.log, "the error", timeout_s=PATIENCE_S)
            assert at.kernels() == [old]
        eventually(lambda: not at.kernels(), "the end of the old kernel", timeout_s=PATIENCE_S)
        at.notebook.restart_kernel()
        assert_one_new_kernel(at, old)


def assert_one_new_kernel(at: Desk, old: int) -> None:
    """Wait for the restart's end; there must never be two kernels, and the page has the new one."""

    def is_idle() -> bool:
        assert len(at.kernels()) <= 1
        return at.notebook.status().endswith("| Idle")

    eventually(is_idle, "an idle kernel", timeout_s=PATIENCE_S)
    at.notebook.run(0)
    at.notebook.await_prompt(0, "[1]:")
    (new,) = at.kernels()
    assert new != old
    assert at.notebook.cells() == [Cell("[1]:", str(new))]
