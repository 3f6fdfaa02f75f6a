"""Fixtures of the integration tests, which run on the lab's laptop as an unprivileged user.

``lab``         the three machines, looked at and acted upon through the engine (machines.py)
``host_alias``  the remote's ssh alias; a test that asks for it runs twice, direct and through
                the bastion
``exclusive``   a mark for tests that disturb the machines or networks: nothing runs beside them
``slow``        a mark for tests that run only when they are asked for, with ``-m slow``
"""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import leftovers
from tests.integration.machines import Lab

HOST_ALIASES = {"direct": "remote", "jump": "remote-jump"}
_before = pytest.StashKey[leftovers.Inventory]()
_left = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to run outside the lab; remember what is on the machines before the first test."""
    # Clients of jupyter_client keep their sockets until they are collected.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if "SSHPYK_LAB" not in os.environ:
        raise pytest.UsageError(
            "the integration tests run inside the lab: `make lab-up && .venv/bin/tox -e integration`"
        )
    config.addinivalue_line("markers", "exclusive: disturbs the lab; nothing runs beside it")
    config.addinivalue_line("markers", "slow: takes many minutes; runs only with -m slow")
    if not _is_worker(config):
        with Lab() as lab:
            config.stash[_before] = leftovers.Inventory.taken(lab)
        config.pluginmanager.register(_FailuresAtOnce(config))


class _FailuresAtOnce:
    """Names each failure when it happens; the traceback comes at the end, which is far away."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            terminal = self._config.pluginmanager.get_plugin("terminalreporter")
            reason = str(report.longrepr).rstrip().rpartition("\n")[2]
            terminal.write_line(
                f" {report.nodeid} ({report.when}, {report.duration:.0f} s): {reason}"
            )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow unless it was asked for."""
    if "slow" not in config.option.markexpr:
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.hookimpl(trylast=True)  # xdist's own hook, which ends the workers, comes first
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when it left anything behind: see leftovers.py."""
    config = session.config
    if _is_worker(config) or _before not in config.stash or config.option.collectonly:
        return
    complaints = []
    try:
        leftovers.stop_hubs()
    except Exception as error:  # noqa: BLE001  # reported below, and the look at the rest goes on
        complaints.append(f"the hubs could not be stopped: {error!r}")
    with Lab() as lab:
        # An agent whose hub left while its line was cut has heard nothing, and stays for a minute.
        complaints += leftovers.wait_until_clean(lab, config.stash[_before], timeout_s=75)
    config.stash[_left] = complaints
    if complaints and session.exitstatus in (
        pytest.ExitCode.OK,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was left behind."""
    left = terminalreporter.config.stash.get(_left, [])
    if left:
        terminalreporter.section("LEFT BEHIND by this run", sep="=", red=True, bold=True)
        for line in left:
            terminalreporter.line(line, red=True)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab's three machines."""
    with Lab() as machines:
        yield machines


@pytest.fixture(params=list(HOST_ALIASES.values()), ids=list(HOST_ALIASES))
def host_alias(request: pytest.FixtureRequest) -> str:
    """The remote as ssh on the laptop names it, once directly and once behind the bastion."""
    alias: str = request.param
    return alias


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the checkout out of ``python -m``'s way: what is tested is the installed wheel."""
    monkeypatch.chdir(tmp_path)


@pytest.hookimpl(
    wrapper=True, tryfirst=True
)  # outside of pytest-timeout: waiting takes no test's time
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """Let an ``exclusive`` test run alone, across all workers."""
    if not _is_worker(item.config):
        return (yield)
    mode = fcntl.LOCK_EX if item.get_closest_marker("exclusive") else fcntl.LOCK_SH
    folder = item.config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]
    with (folder / "running.lock").open("w") as lock:
        # Who waits for its turn keeps the queue closed: newcomers cannot overtake it for ever.
        with (folder / "queue.lock").open("w") as queue:
            fcntl.flock(queue, fcntl.LOCK_EX)
            fcntl.flock(lock, mode)
        return (yield)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")
