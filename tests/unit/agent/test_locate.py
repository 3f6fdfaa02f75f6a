"""A program and an agent that did not arrive whole are never run (row F60)."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from sshpyk.agent import locate
from sshpyk.hub.bundle import agent_bundle
from sshpyk.hub.ssh_start import _FIRST_WORDS, framed

PROGRAM = b"import os\nos.write(1, b'ran')\n"
FRAMED = framed(PROGRAM)


@pytest.mark.parametrize("offset", range(len(FRAMED) + 1))
def test_f60_program_cut_at_any_byte_does_not_run(offset: int):
    done = subprocess.run(
        [sys.executable, "-S", "-c", _FIRST_WORDS, "marker"],
        input=FRAMED[:offset],
        capture_output=True,
        check=False,
    )
    whole = offset == len(FRAMED)
    assert done.stdout.endswith(b" ran") == whole
    assert done.returncode == (0 if whole else 9)


def test_f60_upload_cut_at_any_byte_starts_no_agent(monkeypatch: pytest.MonkeyPatch):
    bundle = agent_bundle()
    upload = b"%08x" % len(bundle) + bundle
    rest = memoryview(b"")

    def read(fd: int, size: int) -> bytes:
        nonlocal rest
        data, rest = rest[:size], rest[size:]
        return bytes(data)

    started: list[bytes] = []
    monkeypatch.setattr(locate, "os", SimpleNamespace(read=read, write=lambda fd, data: len(data)))
    monkeypatch.setattr(locate, "start_agent", started.append)
    for offset in range(len(upload)):
        rest = memoryview(upload)[:offset]
        with pytest.raises(SystemExit, match="closed during the upload"):
            locate.bring_up("agent.sock")
    assert started == []
