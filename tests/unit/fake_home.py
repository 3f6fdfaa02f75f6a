"""A home, a Jupyter and an ssh of their own for each test of the CLI."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sshpyk.cli.main import cli

# Understands what sshpyk asks of ssh: `-G`, or a command that it runs here instead of there.
FAKE_SSH = r"""#!/bin/sh
[ "$1" = -V ] && { echo "OpenSSH_9.2p1 Fake" >&2; exit 0; }
echo "$@" >> "$FAKE_SSH_LOG"
query=no
while [ "$1" != -- ]; do
    case "$1" in -G) query=yes;; -o|-F|-p) shift;; esac
    shift
done
shift; host=$1; shift
if [ $query = yes ]; then
    echo "user me"; echo "hostname $host.example"; echo "port 22"
    [ "$host" = secretive ] && { echo "setenv A=plant3d-s3cret-setenv"
        echo "proxycommand nc --password plant3d-s3cret-proxy %h"; }
    [ "$host" = hasty ] && echo "connecttimeout 2"
    [ "$host" = week ] && echo "serveraliveinterval 604800"
    [ "$host" = behind ] && echo "proxyjump bastion"
    exit 0
fi
case "$host" in
    refused) echo "ssh: connect to host refused port 22: Connection refused" >&2; exit 255;;
    asks) echo "me@asks: Permission denied (keyboard-interactive)." >&2; exit 255;;
    unknown*) echo "ssh: Could not resolve hostname $host: Name or service not known" >&2; exit 255;;
    slow*) exec sleep 60;;
    crowded) [ -e "$FAKE_SSH_LOG.again" ] || { touch "$FAKE_SSH_LOG.again"
        echo "kex_exchange_identification: Connection closed by remote host" >&2; exit 255; };;
    silent) exit 0;;
    noisy) echo "Welcome"; printf 'no newline';;
    endless) exec yes;;
esac
exec sh -c "$*"
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("JUPYTER_PATH", "IPYTHONDIR", "NO_COLOR", "XDG_DATA_HOME", "PYENV_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("FAKE_SSH_LOG", str(tmp_path / "ssh.log"))
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "ssh").write_text(FAKE_SSH)
    (binaries / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}:/usr/bin:/bin")
    return tmp_path


@pytest.fixture
def kernels(home: Path) -> Path:
    """Return the user's kernels folder; it need not exist."""
    return home / "jupyter" / "kernels"


@pytest.fixture
def run() -> Callable[..., Result]:
    """Return a function that runs the command line and lets no exception of ours pass as a failure."""

    def runner(*words: str | Path) -> Result:
        result = CliRunner().invoke(cli, [str(word) for word in words], prog_name="sshpyk")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return runner


@pytest.fixture
def refused(run: Callable[..., Result]) -> Callable[..., str]:
    """Return a function that runs what must be refused with one line and exit code 2: the line."""

    def runner(*words: str | Path) -> str:
        result = run(*words)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        return result.stderr

    return runner


@pytest.fixture
def add(run: Callable[..., Result]) -> Callable[..., Path]:
    """Return a function that adds a kernel to host ``gpu1`` and returns its kernel.json."""

    def adder(name: str, *words: str | Path) -> Path:
        if "--remote-python-prefix" not in words and "--remote-python" not in words:
            words = (*words, "--remote-python", "/opt/bin/python")
        result = run("add", "--no-check", "--ssh-host-alias", "gpu1", "--kernel-name", name, *words)
        assert result.exit_code == 0, result.output
        return Path(result.stdout.rpartition(": ")[2].strip())

    return adder


def put(folder: Path, document: Any) -> Path:
    """Write a kernel.json by hand and return its path."""
    folder.mkdir(parents=True)
    path = folder / "kernel.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


LOCAL = {"argv": ["python", "-m", "x"], "display_name": "Local", "language": "python"}


def config_of(path: Path) -> dict[str, Any]:
    """Return the provisioner's config in a kernel.json."""
    config = json.loads(path.read_text())["metadata"]["kernel_provisioner"]["config"]
    assert isinstance(config, dict)
    return config
