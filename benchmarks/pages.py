"""JupyterLab's page through a forwarded port and through ``ssh -L``, far away, in turns.

``python benchmarks/pages.py [--jupyter-python PYTHON]`` makes its own host on loopback and a line to it.
Where Chromium and Playwright are installed (the lab's laptop), it loads the page until its panels are
there, with an empty cache. Elsewhere its files are fetched over six connections, as a browser does.
See README.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

if not __package__:  # run as a script: the folder that holds the packages leads the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.places import Way, line_to, loopback
from benchmarks.tunnels import through_ssh, through_sshpyk
from sshpyk.ssh.command import SshTarget

CHROMIUM = "/usr/bin/chromium"
_CONNECTIONS = 6  # of a browser to one server
_PATIENCE_S = 120.0
_SCRIPTS = re.compile(rb"""["']([^"'<>\s]+\.js)(?:\?[^"']*)?["']""")
_FOLDER = "from jupyterlab.commands import get_app_dir; print(get_app_dir())"

# Loads the page at a URL and returns the seconds that took.
Load = Callable[[str], float]


@dataclass
class Server:
    """A JupyterLab, where it listens, and the names of its page's scripts."""

    port: int
    token: str
    scripts: list[str]


@dataclass
class Subject:
    """One way to the same server, and the seconds that its page took."""

    title: str
    port: int
    load_s: list[float] = field(default_factory=list)


@contextlib.contextmanager
def jupyterlab(python: str, folder: Path) -> Iterator[Server]:
    """Start a server on this machine, which is the host too."""
    token = secrets.token_hex(16)
    said = subprocess.run([python, "-c", _FOLDER], check=True, capture_output=True, text=True)
    static = Path(said.stdout.strip()) / "static"
    words = [python, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"]
    log_path, environment = folder / "lab.log", {**os.environ, "JUPYTER_TOKEN": token}
    with log_path.open("wb") as log:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, env=environment)
    try:
        port = _port_in(log_path)
        yield Server(port, token, sorted(path.name for path in static.glob("*.js")))
    finally:
        process.terminate()
        process.wait()


def _port_in(log_path: Path) -> int:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not (
        found := re.search(r"http://(?:localhost|127\.0\.0\.1):(\d+)/", log_path.read_text())
    ):
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"JupyterLab did not start:\n{log_path.read_text()}")
        time.sleep(0.1)
    return int(found.group(1))


def fetching(server: Server) -> Load:
    """Return what fetches the page, and then all of its scripts, six at a time."""

    def fetch(connection: http.client.HTTPConnection, path: str) -> bytes:
        connection.request("GET", path, headers={"Authorization": f"token {server.token}"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"{path}: {answer.status}")
        return body

    def load(url: str) -> float:
        host = urlsplit(url).netloc
        began_s = time.perf_counter()
        connection = http.client.HTTPConnection(host, timeout=_PATIENCE_S)
        page = fetch(connection, urlsplit(url).path)
        named = {found.decode() for found in _SCRIPTS.findall(page) if b"/static/lab/" in found}
        base = min(named).rpartition("/")[0]
        paths = sorted(named | {f"{base}/{name}" for name in server.scripts})

        def worker(place: int) -> None:
            own = http.client.HTTPConnection(host, timeout=_PATIENCE_S)
            for path in paths[place::_CONNECTIONS]:
                fetch(own, path)
            own.close()

        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            list(pool.map(worker, range(_CONNECTIONS)))
        connection.close()
        return time.perf_counter() - began_s

    return load


@contextlib.contextmanager
def browsing(server: Server) -> Iterator[Load]:
    """Yield what loads the page in Chromium, with an empty cache each time."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def load(url: str) -> float:
            context = browser.new_context()
            page = context.new_page()
            began_s = time.perf_counter()
            page.goto(f"{url}?token={server.token}", timeout=_PATIENCE_S * 1000)
            page.wait_for_selector(".jp-Launcher, .jp-NotebookPanel", timeout=_PATIENCE_S * 1000)
            took_s = time.perf_counter() - began_s
            context.close()
            return took_s

        yield load
        browser.close()


def has_browser() -> bool:
    """Whether Chromium and what drives it are installed."""
    with contextlib.suppress(ImportError):
        import playwright.sync_api  # noqa: F401

        return os.path.exists(CHROMIUM)
    return False


def show(subjects: list[Subject], how: str, round_trip_ms: float) -> None:
    """Print the table."""
    table = Table(
        how, "s: median (min-max)", title=f"JupyterLab at {round_trip_ms:g} ms round trip"
    )
    for one in subjects:
        times = f"{min(one.load_s):.2f}-{max(one.load_s):.2f}"
        table.add_row(one.title, f"{statistics.median(one.load_s):.2f} ({times})")
    Console().print(table)
    ours, theirs = (statistics.median(one.load_s) for one in subjects[:2])
    print(f"{ours / theirs:.2f} times ssh -L's; load {os.getloadavg()[0]:.1f}", end=" ")
    print(f"on {os.cpu_count()} processors")


def way_to(stack: contextlib.ExitStack, folder: Path, round_trip_ms: float) -> Way:
    """Return a way to a host that is so far."""
    host = stack.enter_context(loopback(sys.executable, folder / "host"))
    way = stack.enter_context(line_to(host, folder / "line"))
    assert way.line is not None
    way.line.delay(round_trip_ms / 2000)
    return way


def main() -> None:
    """Load the page in turns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jupyter-python", default=sys.executable, help="which has jupyterlab")
    parser.add_argument("--round-trip-ms", type=float, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(jupyterlab(given.jupyter_python, folder))
        way = way_to(stack, folder, given.round_trip_ms)
        target = SshTarget.parse(way.host.alias, ssh_config=way.ssh_config)
        tunnels = [
            stack.enter_context(through_sshpyk(target, way.host.python, server.port)),
            stack.enter_context(through_ssh(target, server.port)),
        ]
        subjects = [Subject(one.title, one.port) for one in tunnels]
        browses = has_browser()
        load = stack.enter_context(browsing(server)) if browses else fetching(server)
        load(f"http://localhost:{server.port}/lab")  # the server has read its files
        for number in range(given.rounds):
            for one in subjects if number % 2 else reversed(subjects):
                one.load_s.append(load(f"http://localhost:{one.port}/lab"))
        how = "Chromium" if browses else f"page and {len(server.scripts)} scripts"
        show(subjects, how, given.round_trip_ms)


if __name__ == "__main__":
    main()
