"""Jupyter servers of the remote in the laptop's browser: `sshpyk lab`, `servers`, `stop`."""
# ruff: noqa: F401, F811

from __future__ import annotations

import contextlib
import html
import os
import re
import signal
import socket
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from tests.integration.faults.bench import account
from tests.integration.jupyterlab import Cell, Server, opened
from tests.integration.kernels import (
    PATIENCE_S,
    REMOTE_PREFIX,
    eventually,
    jupyter_folders,
)
from tests.integration.lifecycle_helpers import OwnHub, hub_of, the_agent
from tests.integration.machines import USER, Lab
from tests.integration.outages import Door, door
from tests.integration.remote_servers import (
    QUICK,
    START_S,
    answers,
    await_end,
    lab_of,
    listed,
    recording_browser,
    sshpyk,
    status_of,
    traces,
)

HOST = "remote-jump"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def hub(lab: Lab, account: str, tmp_path: Path) -> Iterator[OwnHub]:
    """A hub that reaches an account of the test's own, behind the bastion."""
    config = f"Host {HOST}\n    User {account}\n"
    with hub_of(lab, HOST, tmp_path / "ssh_config", config) as made:
        yield made


def local_files() -> str:
    """Return all that sshpyk's logs on the laptop hold."""
    folder = Path.home() / ".local/state/sshpyk"
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*.log*"))


def test_it_opens_in_the_browser_is_found_again_and_ends_with_the_command(
    lab: Lab, hub: OwnHub, account: str, tmp_path: Path
) -> None:
    browser, seen = recording_browser(tmp_path)
    with lab_of(hub, *QUICK, BROWSER=browser) as shown:
        words = eventually(lambda: seen.exists() and seen.read_text(), "the browser").split()
        server = shown.server
        token = server["token"]
        page = Path(unquote(urlparse(words[0]).path))
        assert page.stat().st_mode & 0o777 == 0o600
        url = html.unescape(re.findall('href="([^"]+)"', page.read_text())[0])
        assert url == f"http://localhost:{shown.port}/?token={token}" == server["url"]
        assert status_of(url, token)["kernels"] == 0
        with pytest.raises(urllib.error.HTTPError, match="403"):
            status_of(url, "wrong")
        assert server["target"]["path"].startswith("/tmp/sshpyk-")
        # The token is nobody else's business.
        for machine, user in ((lab.laptop, USER), (lab.remote, account)):
            assert token not in "".join(one.args for one in machine.processes(user=user))
        assert token not in "".join(shown.said) + local_files()
        read = (
            f"cat /home/{account}/.local/state/sshpyk/*.log /home/{account}/.local/state/sshpyk/*/*"
        )
        assert token not in lab.remote.run(read, user=account)
        # The same command again: the same server, at the same address.
        again = sshpyk(hub, "lab", *QUICK, "--no-browser")
        assert f"is open already on {HOST}, in /home/{account}  [{shown.server_id}]" in again.stdout
        assert f"http://localhost:{shown.port}/" in again.stdout
        assert [one["pid"] for one in listed(hub)] == [server["pid"]]
        said = shown.interrupt()
        assert "ends now, with its kernels" in said
        await_end(lab.remote, server["pid"], user=account)
        assert not page.exists()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", shown.port)) != 0


def test_one_that_is_kept_outlives_hub_agent_and_laptop(
    lab: Lab, hub: OwnHub, account: str
) -> None:
    started = sshpyk(hub, "lab", *QUICK, "--keep", "--background")
    assert started.returncode == 0, started.stderr
    (server,) = listed(hub)
    port = int(server["url"].split(":")[2].split("/")[0])
    os.kill(hub.pid, signal.SIGKILL)
    eventually(lambda: answers(port, server["token"]), "the next hub", timeout_s=PATIENCE_S)
    hub.leave()  # the laptop goes
    eventually(lambda: not hub.processes(), "the end of all that kept it here")
    lab.remote.kill(the_agent(lab, user=account).pid)
    with lab_of(hub, *QUICK) as shown:
        assert "runs already" in shown.said[0]
        assert "It is kept" in shown.said[-1]
        assert shown.port == port
        again = shown.server
        assert (again["pid"], again["token"]) == (server["pid"], server["token"])
        assert answers(port, server["token"])
        assert "runs on" in shown.interrupt()
    stopped = sshpyk(hub, "stop", shown.server_id)
    assert stopped.stdout == f"Stopped server {shown.server_id} (/home/{account}) on {HOST}\n"
    await_end(lab.remote, server["pid"], user=account)
    assert listed(hub) == []


def test_a_killed_hub_is_replaced_and_the_command_still_ends_the_server(
    lab: Lab, hub: OwnHub, account: str
) -> None:
    with lab_of(hub, *QUICK) as shown:
        server = shown.server
        os.kill(hub.pid, signal.SIGKILL)
        eventually(
            lambda: answers(shown.port, server["token"]), "the next hub", timeout_s=PATIENCE_S
        )
        shown.interrupt()
    await_end(lab.remote, server["pid"], user=account)


def test_one_that_ends_or_whose_host_is_gone_says_so(lab: Lab, hub: OwnHub, account: str) -> None:
    with lab_of(hub, *QUICK) as shown:
        lab.remote.kill(shown.server["pid"], "TERM")  # as by "Shut Down" in the browser
        assert shown.process.wait(PATIENCE_S) == 0
        assert shown.process.stdout is not None
        assert "has ended, by Shut Down" in shown.process.stdout.read()
    with lab_of(hub, *QUICK) as shown:
        lab.remote.run(f"pkill -KILL -u {account}", user="root")  # what a reboot leaves of it
        lab.remote.run(f"rm -rf /tmp/sshpyk-$(id -u {account})", user="root")
        assert shown.process.wait(PATIENCE_S) == 1
        assert shown.process.stdout is not None
        said = shown.process.stdout.read()
        assert "the server there is gone" in said
        assert "[SERVER-GONE]" in said


def test_those_that_were_started_by_hand_are_listed_opened_and_stopped(
    lab: Lab, hub: OwnHub, account: str
) -> None:
    command = f"{REMOTE_PREFIX}/bin/jupyter-server --no-browser --port 0"
    start = f"cd; setsid {command} >by-hand.log 2>&1 </dev/null & echo $!"
    pid = int(lab.remote.run(start, user=account).split()[-1])
    (server,) = eventually(lambda: listed(hub), "its runtime file", timeout_s=START_S)
    assert (server["server_id"], server["by_hand"]) == (f"p{pid}", True)
    with lab_of(hub, "--existing") as shown:
        assert shown.server_id == f"p{pid}"
        assert answers(shown.port, server["token"])
    notebook = ("--app", "notebook", "--prefix", REMOTE_PREFIX, "--dir", "/tmp")
    with lab_of(hub, *notebook, "--keep") as own:
        assert own.said[1].endswith("/tree")
        several = sshpyk(hub, "lab", "--existing").stdout
        assert f"p{pid} " in several
        assert own.server_id in several
        assert server["token"] not in several
    assert sshpyk(hub, "stop", f"p{pid}", own.server_id).returncode == 0
    await_end(lab.remote, pid, user=account)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--prefix", "/opt/nothing"], "SERVER-NO-PROGRAM", "cannot run /opt/nothing/bin/python"),
        (["--python", "python3"], "SERVER-NOT-FOUND", "No module named jupyterlab"),
        (
            ["--app", "nbclassic"],
            "SERVER-NOT-FOUND",
            f"{REMOTE_PREFIX}/bin/python: has no nbclassic",
        ),
        ([*QUICK, "--dir", "/nope"], "SERVER-NO-FOLDER", "there is no folder /nope"),
        ([*QUICK, "--", "--ServerApp.port=x"], "SERVER-CONFIG", "'port' trait"),
        (
            [*QUICK, "--", "--port=22", "--ServerApp.port_retries=0"],
            "SERVER-PORT-TAKEN",
            "port 22 is already in use",
        ),
        ([*QUICK, "--activate", "false"], "KERNEL-ACTIVATION", "'false' ended with status 1"),
    ],
)
def test_a_start_that_fails_says_why(
    lab: Lab, tmp_path: Path, words: list[str], code: str, said: str
) -> None:
    with hub_of(lab, HOST, tmp_path / "ssh_config") as hub:
        failed = sshpyk(hub, "lab", "--no-browser", *words)
        assert failed.returncode == 1, failed.stdout
        assert f"[{code}]" in failed.stderr
        assert said in failed.stderr


# In a browser

_PRINTING = """
import time
for number in range({lines}):
    print("line", number)
    time.sleep(0.1)
number
""".strip()
SHOWN_CUT_S = 30  # on the documentation's pictures
_NO_QUESTIONS = '{"fetchNews": "false", "checkForUpdates": false}'


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("cut_s", "lines"),
    [
        (12, 250),
        pytest.param(SHOWN_CUT_S, 600, marks=pytest.mark.slow),
        # By itself, Jupyter closes a websocket whose pong is 90 s late.
        pytest.param(120, 1500, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_f01_remote_jupyterlab_in_the_browser_across_a_cut(
    lab: Lab, account: str, door: Door, tmp_path: Path, cut_s: int, lines: int
) -> None:
    settings = f"/home/{account}/.jupyter/lab/user-settings/@jupyterlab/apputils-extension"
    name = "notification.jupyterlab-settings"
    lab.remote.run(f"mkdir -p {settings}; echo '{_NO_QUESTIONS}' >{settings}/{name}", user=account)
    here = Server("", "", tmp_path, tmp_path / "none.log")
    here.write_notebook("python3", [_PRINTING.format(lines=lines), "number * 2"])
    text = (tmp_path / "experiment.ipynb").read_text()
    lab.remote.run(["sh", "-c", 'printf %s "$1" >$HOME/experiment.ipynb', "sh", text], user=account)
    config = f"Host {HOST}\n    User {account}\n{door.ssh_config}"
    with (
        hub_of(lab, HOST, tmp_path / "ssh_config", config) as hub,
        lab_of(hub) as shown,
    ):
        server = Server(
            f"http://localhost:{shown.port}", shown.server["token"], tmp_path, here.log_file
        )
        with opened(server, "experiment.ipynb") as notebook:
            notebook.run(0)
            eventually(lambda: "line 20\n" in notebook.cells()[0].text, "some lines")
            with door.cut():
                notebook.page.wait_for_timeout(3000)  # what was under way has come
                before = notebook.cells()[0]
                notebook.page.wait_for_timeout((cut_s - 3) * 1000)
                assert notebook.cells()[0] == before
                assert notebook.dialog() == ""
                if cut_s == SHOWN_CUT_S:
                    notebook.picture(tmp_path / "remote-lab-cut.png")
            notebook.await_prompt(0, "[1]:", timeout_s=lines / 10 + PATIENCE_S)
            expected = "".join(f"line {number}\n" for number in range(lines))
            assert notebook.cells()[0] == Cell("[1]:", f"{expected}{lines - 1}")
            notebook.run(1)
            notebook.await_prompt(1, "[2]:")
            assert notebook.cells()[1].text == str(2 * (lines - 1))
            if cut_s == SHOWN_CUT_S:
                notebook.picture(tmp_path / "remote-lab-after.png")
            assert not notebook.reloaded
        pid = shown.server["pid"]
        shown.interrupt()
        await_end(lab.remote, pid, user=account)
