"""``sshpyk add HOST`` as a newcomer types it, on accounts with environments as users have them.

Each test has an account of its own: a conda-like environment, a venv, a bare one, and a kernel in another
language. What was added is launched by Jupyter afterwards.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.integration.faults.bench import account
from tests.integration.kernels import PATIENCE_S, SSHPYK, eventually, jupyter_folders, started
from tests.integration.lifecycle_helpers import OwnHub, hub_of
from tests.integration.machines import Lab
from tests.integration.test_login import answer, otp_hub

SMALL_KERNEL = Path(__file__).with_name("small_kernel.py").read_text()
LAB_PYTHON = "/opt/venv/bin/python"

# Runs on the remote, as the account: PREFIX IPYKERNEL(yes|no).
_MAKE_ENVIRONMENT = """
import os, shutil, subprocess, sys
prefix, ipykernel = os.path.expanduser(sys.argv[1]), sys.argv[2] == "yes"
subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
site = "lib/python%d.%d/site-packages" % sys.version_info[:2]
for name in os.listdir("/opt/venv/" + site):
    if ipykernel or not name.startswith("ipykernel"):
        os.symlink("/opt/venv/%s/%s" % (site, name), "%s/%s/%s" % (prefix, site, name))
if ipykernel:
    shutil.copytree("/opt/venv/share/jupyter", prefix + "/share/jupyter")
"""

# Runs on the remote with its environment's Python: makes a wheel of the ipykernel that is installed.
_MAKE_WHEEL = """
import importlib.metadata, os, sys, zipfile
found = importlib.metadata.distribution("ipykernel")
name = "ipykernel-%s" % found.version
folder = os.path.expanduser(sys.argv[1])
os.makedirs(folder)
with zipfile.ZipFile("%s/%s-py3-none-any.whl" % (folder, name), "w") as wheel:
    for file in found.files:
        if not str(file).endswith(".pyc"):
            inside = str(file).replace("../../../", name + ".data/data/")
            wheel.write(file.locate(), inside)
"""


@dataclass
class Host:
    """An account on the remote, and how its owner's laptop reaches it."""

    lab: Lab
    user: str
    hub: OwnHub

    @property
    def words(self) -> tuple[str, ...]:
        """What follows ``sshpyk add``."""
        return self.hub.host, *self.hub.options

    def run(self, command: str | list[str]) -> str:
        return self.lab.remote.run(command, user=self.user)

    def environment(self, prefix: str, *, ipykernel: bool = True) -> None:
        answer = "yes" if ipykernel else "no"
        self.run(["python3", "-c", _MAKE_ENVIRONMENT, prefix, answer])

    def kernelspec(self, name: str, argv: list[str], **files: str) -> None:
        folder = f"/home/{self.user}/.local/share/jupyter/kernels/{name}"
        spec = {"argv": argv, "display_name": name, "language": name}
        for file, text in {"kernel.json": json.dumps(spec), **files}.items():
            code = "import os, sys; os.makedirs(sys.argv[1], exist_ok=True);"
            code += "open(sys.argv[1] + '/' + sys.argv[2], 'w').write(sys.argv[3])"
            self.run(["python3", "-c", code, folder, file, text])


@pytest.fixture
def kernels(jupyter_folders: Path) -> Path:
    """Return the folder that the kernels are added to."""
    return Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels"


@pytest.fixture
def make_host(lab: Lab, account: str, tmp_path: Path) -> Iterator[Callable[[str], Host]]:
    """Return a function that makes the account's host under an alias of the lab's."""
    hubs = []

    def make(alias: str) -> Host:
        config = f"Host {alias}\n    User {account}\n"
        hubs.append(hub_of(lab, alias, tmp_path / "ssh_config", config))
        return Host(lab, account, hubs[0].__enter__())

    yield make
    for hub in hubs:
        hub.__exit__(None, None, None)


@pytest.fixture
def host(make_host: Callable[[str], Host]) -> Host:
    """The account, reached directly."""
    return make_host("remote")


def furnish(host: Host) -> None:
    """Make what users have: conda, a project's venv, one without ipykernel, another language."""
    host.environment("~/miniconda3/envs/analysis")
    host.run("mkdir ~/miniconda3/envs/analysis/conda-meta")
    host.environment("~/thesis/.venv")
    host.environment("~/venvs/bare", ipykernel=False)
    argv = [LAB_PYTHON, "{resource_dir}/small.py", "message", "{connection_file}"]
    host.kernelspec("small", argv, **{"small.py": SMALL_KERNEL})


def add(host: Host, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run it without a terminal."""
    done = subprocess.run(
        [SSHPYK, "add", *host.words, *words],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    return done


def typing(words: tuple[str, ...]) -> pexpect.spawn[str]:
    """Type ``sshpyk add`` into a terminal."""
    size = (50, 160)
    return pexpect.spawn(
        SSHPYK, ["add", *words], encoding="utf-8", timeout=2 * PATIENCE_S, dimensions=size
    )


def end_of(terminal: pexpect.spawn[str]) -> tuple[int | None, str]:
    """Wait for the end; return the exit code and what was shown last."""
    terminal.expect(pexpect.EOF)
    shown: str = terminal.before or ""
    terminal.close()
    return terminal.exitstatus, shown


@pytest.mark.parametrize("alias", ["remote", "remote-jump"], ids=["direct", "jump"])
def test_newcomer_chooses_from_the_table_and_works(
    alias: str, make_host: Callable[[str], Host], lab: Lab, kernels: Path
) -> None:
    host = make_host(alias)
    furnish(host)
    terminal = typing(host.words)
    terminal.expect("Add which")
    shown = terminal.before or ""
    table = {line.split()[1]: line for line in shown.splitlines() if len(line.split()) > 4}
    assert table["analysis"].split()[0] == "1"
    assert f"/home/{host.user}/thesis/" in table["thesis"]  # folded where the table is wide
    assert table["bare"].split()[-1] == "no"
    assert table["small"].split()[-1] == "-"
    terminal.sendline("1, small")
    status, shown = end_of(terminal)
    assert status == 0, shown
    name = f"ssh_{alias}_analysis"
    assert f"jupyter console --kernel {name}" in shown
    assert sorted(path.name for path in kernels.iterdir()) == [name, f"ssh_{alias}_small"]
    document = json.loads((kernels / name / "kernel.json").read_text())
    assert document["display_name"] == f"{alias}: analysis (Python 3.11)"
    with started(lab, name) as kernel:
        prefix = kernel.run("import sys; sys.prefix").result
        assert prefix == f"'/home/{host.user}/miniconda3/envs/analysis'"


def test_without_a_terminal_all_that_runs_is_added_and_the_rest_says_why(
    host: Host, kernels: Path
) -> None:
    furnish(host)
    host.kernelspec("broken", ["/no/such/program", "{connection_file}"])
    asked = add(host, expect=2)
    assert asked.stderr == (
        "sshpyk: which of these? Give --all, --match GLOB, --remote-python PATH or "
        "--remote-python-prefix PATH\n"
    )
    assert "thesis" in asked.stdout
    done = add(host, "--all", "--json", expect=1)
    record: dict[str, Any] = json.loads(done.stdout)
    names = {kernel["name"] for kernel in record["added"]}
    assert {"ssh_remote_analysis", "ssh_remote_small", "ssh_remote_thesis"} <= names
    assert sorted(names) == sorted(path.name for path in kernels.iterdir())
    (failed,) = record["failed"]
    assert failed["name"] == "ssh_remote_broken"
    assert "/no/such/program" in failed["error"]["what"]
    again = add(host, "--match", "thesis")
    assert "'ssh_remote_thesis' (thesis) was added before" in again.stdout


def test_host_that_asks_is_asked_once(otp_hub: OwnHub, kernels: Path) -> None:
    terminal = typing((otp_hub.host, *otp_hub.options))
    answer(terminal)
    terminal.expect("Add which")
    terminal.sendline("/opt/venv")
    status, shown = end_of(terminal)
    assert status == 0, shown
    assert "Password" not in shown
    assert [path.name for path in kernels.iterdir()] == ["ssh_remote-otp_venv"]
    assert otp_hub.link_state() == "up"
    assert len(otp_hub.connections()) == 1
    listed = subprocess.run([SSHPYK, "list", "-r"], capture_output=True, text=True, check=True)
    assert "(v) remote-otp\n" in listed.stdout
    assert "(x)" not in listed.stdout


def test_host_key_that_nobody_knows_yet_is_asked_about(
    make_host: Callable[[str], Host], tmp_path: Path, kernels: Path
) -> None:
    host = make_host("remote")
    known = tmp_path / "known_hosts"
    config = host.hub.config.read_text()
    host.hub.config.write_text(f"UserKnownHostsFile {known}\n{config}")
    terminal = typing((*host.words, "--match", "/opt/venv"))
    terminal.expect("Are you sure you want to continue connecting")
    terminal.sendline("yes")
    status, shown = end_of(terminal)
    assert status == 0, shown
    assert known.read_text().startswith("remote ")
    assert [path.name for path in kernels.iterdir()] == ["ssh_remote_venv"]


def test_host_that_asks_without_a_terminal_says_what_to_type(
    otp_hub: OwnHub, kernels: Path
) -> None:
    words = [SSHPYK, "add", otp_hub.host, *otp_hub.options, "--all"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, start_new_session=True)
    assert done.returncode == 1
    assert f"sshpyk login remote-otp --ssh-config {otp_hub.config}" in done.stderr
    assert not kernels.exists()


@pytest.mark.timeout(300)  # pip on a busy machine
def test_ipykernel_is_installed_where_it_is_missing(host: Host, kernels: Path) -> None:
    host.environment("~/venvs/bare", ipykernel=False)
    host.run([LAB_PYTHON, "-c", _MAKE_WHEEL, "~/wheels"])
    host.run("mkdir -p ~/.config/pip")
    host.run("printf '[global]\nno-index = yes\nfind-links = ~/wheels\n' > ~/.config/pip/pip.conf")
    terminal = typing((*host.words, "--match", "bare", "--no-check"))
    terminal.expect(r"has no ipykernel.*\[y/N\]")
    assert not kernels.exists()
    terminal.sendline("y")
    status, shown = end_of(terminal)
    assert "Successfully installed ipykernel" in shown
    assert status == 0, shown
    assert "IPython" in host.run("venvs/bare/bin/python -m ipykernel_launcher --help")
    assert [path.name for path in kernels.iterdir()] == ["ssh_remote_bare"]


def test_python_of_the_system_refuses_in_pips_words(host: Host, kernels: Path) -> None:
    words = ("--remote-python", "/usr/bin/python3", "--install-ipykernel", "--yes")
    said = add(host, *words, expect=1).stderr
    assert "| error: externally-managed-environment" in said
    assert "-> make an environment of your own on remote: python3 -m venv ~/venv" in said
    assert not kernels.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "closed"])
def test_interrupted_check_leaves_nothing(number: int, host: Host, kernels: Path, lab: Lab) -> None:
    host.kernelspec("hangs", ["/bin/sleep", "4711"])
    terminal = typing((*host.words, "--match", "hangs"))
    eventually(
        lambda: lab.remote.processes(user=host.user, containing="sleep 4711"),
        "the kernel",
        timeout_s=PATIENCE_S,
    )
    if number == signal.SIGINT:
        terminal.sendintr()
    else:
        os.kill(terminal.pid, number)
    status, shown = end_of(terminal)
    assert status == 1, shown
    assert list(kernels.iterdir()) == []
    eventually(
        lambda: not lab.remote.processes(user=host.user, containing="sleep 4711"),
        "the end of the kernel",
    )
