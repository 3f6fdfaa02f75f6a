"""A JupyterLab in a browser, as the person in front of it has it.

:func:`jupyterlab` runs a server on this machine, :func:`opened` shows one of its notebooks in
Chromium, and :class:`Notebook` does what a person does and reads what a person sees.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from playwright.sync_api import Page, sync_playwright

from tests.integration.kernels import PATIENCE_S, eventually, free_port

CHROMIUM = "/usr/bin/chromium"
_JUPYTER_LAB = str(Path(sys.executable).with_name("jupyter-lab"))
log = logging.getLogger(__name__)
# Else a question about news is in the way, and the internet is asked for updates.
_SETTINGS = {"notification": {"fetchNews": "false", "checkForUpdates": False}}
# A picture counts once it is drawn. Text of all outputs of a cell, in the order of the page.
_READ_CELLS = """
cells => cells.map(cell => ({
    prompt: cell.querySelector('.jp-InputArea-prompt').textContent.trim(),
    text: [...cell.querySelectorAll('.jp-OutputArea-output pre')].map(pre => pre.textContent).join(''),
    pictures: [...cell.querySelectorAll('.jp-OutputArea-output img')]
        .filter(img => img.naturalWidth > 0).length,
}))
"""


@dataclass(frozen=True)
class Cell:
    """A code cell on the screen. ``prompt``: "[1]:", or "[*]:" while it waits; ``text``: its output."""

    prompt: str
    text: str = ""
    pictures: int = 0


@dataclass(frozen=True)
class Server:
    """A running JupyterLab."""

    url: str
    token: str
    notebooks: Path
    log_file: Path

    @property
    def log(self) -> str:
        """What the server wrote so far."""
        return self.log_file.read_text(errors="replace")

    def write_notebook(self, kernel_name: str, sources: Sequence[str]) -> str:
        """Write a notebook with these code cells; return its name."""
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        kernelspec = {"name": kernel_name, "display_name": kernel_name, "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec})
        nbformat.write(notebook, self.notebooks / "experiment.ipynb")
        return "experiment.ipynb"

    def answers(self) -> bool:
        """Whether it serves requests yet."""
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{self.url}/api/status?token={self.token}", timeout=5).close()
            return True
        return False


@contextlib.contextmanager
def jupyterlab(folder: Path) -> Iterator[Server]:
    """Run a JupyterLab that keeps its things in ``folder``; its kernels end with it."""
    settings = folder / "settings"
    for name, content in _SETTINGS.items():
        file = settings / "@jupyterlab" / "apputils-extension" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(content))
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    port, token = free_port(), uuid.uuid4().hex
    server = Server(f"http://127.0.0.1:{port}", token, notebooks, folder / "jupyterlab.log")
    environment = {
        **os.environ,
        "JUPYTER_TOKEN": token,
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    argv = [_JUPYTER_LAB, "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    argv += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={notebooks}"]
    with server.log_file.open("wb") as sink:
        process = subprocess.Popen(argv, env=environment, stdout=sink, stderr=subprocess.STDOUT)
    try:
        eventually(server.answers, "JupyterLab", timeout_s=PATIENCE_S)
        yield server
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        log.warning("%s", server.log)  # pytest shows it when a test fails


class Notebook:
    """A notebook on the screen."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.page.evaluate("window.opened = true")

    @property
    def reloaded(self) -> bool:
        """Whether the page is another than the one that was opened."""
        return not self.page.evaluate("window.opened || false")

    def reload(self) -> None:
        """Press F5, and wait until the page has the notebook and its kernel again, in whatever state."""
        self.page.reload()
        self.page.evaluate("window.opened = true")
        eventually(
            lambda: self.cells() and self.status().endswith(("| Idle", "| Busy", "| Unknown")),
            "the notebook",
            timeout_s=PATIENCE_S,
        )

    def cells(self) -> list[Cell]:
        """Return what is on the screen."""
        found = self.page.locator(".jp-Notebook .jp-CodeCell").evaluate_all(_READ_CELLS)
        return [Cell(**entry) for entry in found]

    def status(self) -> str:
        """Return what the status bar says of the kernel: its name, and Idle, Busy, Restarting …"""
        bar = self.page.locator("#jp-main-statusbar").inner_text()
        return next((line for line in bar.splitlines() if "|" in line), "")

    def dialog(self) -> str:
        """Return the text of the dialog that is open, or an empty text."""
        return "\n".join(self.page.locator(".jp-Dialog").all_inner_texts())

    def choose(self, menu: str, entry: str) -> None:
        """Choose an entry of the menu bar."""
        self.page.locator(".lm-MenuBar-item").get_by_text(menu, exact=True).click()
        self.page.locator(".lm-Menu-item").get_by_text(entry, exact=True).click()

    def restart_kernel(self) -> None:
        """Choose to restart the kernel, and confirm it."""
        self.choose("Kernel", "Restart Kernel…")
        self.page.locator(".jp-Dialog .jp-mod-accept").click()

    def run(self, place: int) -> None:
        """Click into a cell and press Ctrl+Enter."""
        self.page.locator(".jp-Notebook .jp-CodeCell .cm-content").nth(place).click()
        self.page.keyboard.press("Control+Enter")

    def await_prompt(self, place: int, prompt: str, *, timeout_s: float = PATIENCE_S) -> None:
        """Wait until a cell has this prompt, and the kernel's last word is that it is idle."""
        eventually(
            lambda: self.cells()[place].prompt == prompt and self.status().endswith("| Idle"),
            f"prompt {prompt} and an idle kernel",
            timeout_s=timeout_s,
        )

    def picture(self, path: Path) -> None:
        """Save the window, with the last cell at its bottom."""
        last = self.page.locator(".jp-Notebook .jp-CodeCell").last
        last.evaluate("cell => cell.scrollIntoView({block: 'end'})")
        self.page.screenshot(path=path)


@contextlib.contextmanager
def opened(server: Server, name: str) -> Iterator[Notebook]:
    """Show a notebook in a browser, with an idle kernel."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_page(viewport={"width": 880, "height": 580})
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("console", lambda said: log.warning("browser: %s: %s", said.type, said.text))
        try:
            page.goto(f"{server.url}/lab/tree/{name}?token={server.token}")
            page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for()
            page.keyboard.press("Control+b")  # the file browser away: more room for the notebook
            yield Notebook(page)
        except BaseException:
            page.screenshot(path=server.log_file.with_name("failed.png"))
            log.warning("on the screen: %s", page.locator("body").inner_text())
            raise
        finally:
            browser.close()
