"""What Jupyter sees, with a stand-in of the test's own behind it."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import KernelProvisionerFactory

from sshpyk import provisioner as provisioner_module
from sshpyk.errors import (
    AuthenticationFailed,
    HubError,
    InvalidInput,
    error_from_record,
)
from sshpyk.hub import client as client_module
from sshpyk.provisioner import SSHKernelProvisioner
from tests.unit.wire.harness import in_loop, until

# A stand-in: notes its pid and request, then does what the test says.
STAND_IN = """
import json, os, signal, socket, sys, time
assert sys.argv[1:3] == ["-m", "sshpyk.standin"], sys.argv
fd = int(sys.argv[sys.argv.index("--provisioner-fd") + 1])
report = socket.socket(fileno=fd)
request = json.loads(report.makefile("rb").readline())
with open(FOLDER + "/noted.tmp", "w") as file:
    json.dump({"pid": os.getpid(), "argv": sys.argv, "request": request, "cwd": os.getcwd()}, file)
os.rename(FOLDER + "/noted.tmp", FOLDER + "/noted.json")
def say(**outcome):
    report.sendall(json.dumps(outcome).encode() + b"\\n")
"""
READY = "say(ready=True); report.close(); time.sleep(600)"


class Stage:
    """A provisioner, its manager, and a stand-in that does as told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        ssh = folder / "ssh"
        ssh.touch(mode=0o755)
        self.config: dict[str, Any] = {
            "ssh": str(ssh),
            "ssh_host_alias": "gpu1",
            "remote_kernel_name": "python3",
            "remote_python": "python3",
        }
        self.spec = KernelSpec(
            argv=["sshpyk-kernel", "{connection_file}"],
            display_name="My\nKernel",
            language="python",
            env={"FROM_SPEC": "1"},
        )
        self.manager = AsyncKernelManager(connection_file=str(folder / "c.json"))
        (folder / "c.json").write_text("{}")

    def stand_in(self, code: str) -> None:
        program = self.folder / "stand-in.py"
        program.write_text(f"FOLDER = {str(self.folder)!r}\n{STAND_IN}\n{textwrap.dedent(code)}\n")
        script = self.folder / "python"
        words = [sys.executable, str(program)]
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        script.chmod(0o755)
        self.monkeypatch.setattr(provisioner_module.sys, "executable", str(script))

    def provisioner(self) -> SSHKernelProvisioner:
        return SSHKernelProvisioner(
            parent=self.manager, kernel_id="k1", kernel_spec=self.spec, **self.config
        )

    @property
    def noted(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "noted.json").read_text())
        return found

    async def launched(self, **kwargs: Any) -> SSHKernelProvisioner:
        made = self.provisioner()
        await made.launch_kernel(["ignored"], **kwargs)
        return made

    def stand_in_is_gone(self) -> bool:
        try:
            os.kill(self.noted["pid"], 0)
        except ProcessLookupError:
            return True
        return False


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


async def end(made: SSHKernelProvisioner) -> None:
    await made.kill()
    await made.wait()


@pytest.mark.parametrize("persistent", [True, False])
@in_loop
async def test_a_persistent_kernel_is_ended_by_the_hub_as_a_signal_would_leave_it(
    stage: Stage, persistent: bool
):
    told: list[tuple[Any, ...]] = []
    stage.monkeypatch.setattr(client_module, "end_kernel", lambda *words: told.append(words))
    stage.config.update(persistent=persistent, shutdown_timeout=7)
    stage.stand_in(READY)
    made = await stage.launched()
    assert stage.noted["request"]["launch"].get("persistent", False) == persistent
    await made.terminate()
    await made.kill()
    await made.wait()
    file = os.path.realpath(stage.folder / "c.json")
    expected = [(made._remote.target(), file, 7.0), (made._remote.target(), file, 0)]
    assert told == (expected if persistent else [])


@in_loop
async def test_launch_hands_the_request_to_the_stand_in(stage: Stage):
    stage.stand_in(READY)
    made = await stage.launched(env={**os.environ, "FROM_SPEC": "1"}, cwd=str(stage.folder))
    assert await made.poll() is None
    request = stage.noted["request"]
    assert request["target"]["host"] == "gpu1"
    assert request["launch"]["connection_file"] == os.path.realpath(stage.folder / "c.json")
    assert request["launch"]["kernel_name"] == "python3"
    assert stage.noted["argv"][-2:] == ["--kernel", "My Kernel"]
    assert stage.noted["cwd"] != str(stage.folder)  # a local folder means nothing there
    await end(made)
    assert stage.stand_in_is_gone()


@in_loop
async def test_the_environment_is_what_was_set_for_this_kernel(stage: Stage, monkeypatch):
    monkeypatch.setenv("OF_THE_SERVER", "x")
    monkeypatch.setenv("CHANGED", "before")
    stage.stand_in(READY)
    environment = {
        **os.environ,
        "FROM_SPEC": "1",
        "CHANGED": "after",
        "ADDED": "1",
        "JPY_SESSION_NAME": "a.ipynb",
    }
    made = await stage.launched(env=environment)
    assert stage.noted["request"]["launch"]["env"] == {
        "FROM_SPEC": "1",
        "CHANGED": "after",
        "ADDED": "1",
        "JPY_SESSION_NAME": "a.ipynb",
    }
    await end(made)


@in_loop
async def test_what_the_kernelspec_names_is_sent_also_if_the_server_has_it(
    stage: Stage, monkeypatch
):
    monkeypatch.setenv("FROM_SPEC", "1")
    monkeypatch.setenv("JPY_SESSION_NAME", "of the server's own")
    stage.stand_in(READY)
    made = await stage.launched()
    assert stage.noted["request"]["launch"]["env"] == {
        "FROM_SPEC": "1",
        "JPY_SESSION_NAME": "of the server's own",
    }
    await end(made)


@in_loop
async def test_a_failed_launch_raises_the_reason_and_leaves_no_process(stage: Stage):
    error = AuthenticationFailed("denied", host="gpu1", phase="connecting", said="x", advice="y")
    stage.stand_in(f"say(error={error.to_record()!r}); time.sleep(600)")
    with pytest.raises(AuthenticationFailed) as caught:
        await stage.launched()
    assert str(caught.value).startswith(str(error).splitlines()[0])
    assert (caught.value.host, caught.value.said) == ("gpu1", "x")
    assert stage.stand_in_is_gone()


def test_the_error_for_a_jupyter_server_shows_its_text():
    error = AuthenticationFailed("denied 100 %s", host="gpu1", said="100%", advice="y")
    shown: Any = provisioner_module.shown_by_jupyter(error)
    assert isinstance(shown, AuthenticationFailed)
    assert shown.status_code == 500
    assert shown.log_message.replace("%%", "%") == str(error)  # tornado formats it
    assert (shown.what, shown.host, shown.to_record()) == (
        "denied 100 %s",
        "gpu1",
        error.to_record(),
    )
    assert str(shown)
    again = error_from_record(shown.to_record())
    assert type(again) is AuthenticationFailed


@in_loop
async def test_a_stand_in_that_dies_without_a_word_is_an_error(stage: Stage):
    stage.stand_in("sys.exit(3)")
    with pytest.raises(HubError, match="ended without a word") as caught:
        await stage.launched()
    assert caught.value.host == "gpu1"
    assert stage.stand_in_is_gone()


@in_loop
async def test_an_outcome_in_pieces_is_one_outcome(stage: Stage):
    stage.stand_in(
        "for piece in (b'{\"rea', b'dy\": tr', b'ue}\\n'): report.sendall(piece); time.sleep(0.02)\n"
        "time.sleep(600)"
    )
    await end(await stage.launched())


@in_loop
async def test_a_stand_in_that_never_answers_is_given_up(stage: Stage, monkeypatch):
    monkeypatch.setattr(provisioner_module, "_GRACE_S", 0.1)
    stage.config["launch_timeout"] = 0.3
    stage.stand_in("time.sleep(600)")
    with pytest.raises(HubError, match=r"no answer within 0\.4 s"):
        await stage.launched()
    assert stage.stand_in_is_gone()


@in_loop
async def test_a_cancelled_launch_leaves_no_process(stage: Stage):
    stage.stand_in("time.sleep(600)")
    made = stage.provisioner()
    launching = asyncio.ensure_future(made.launch_kernel(["ignored"]))
    await until((stage.folder / "noted.json").exists)
    launching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launching
    assert stage.stand_in_is_gone()
    assert not made.has_process


@in_loop
async def test_a_launch_cancelled_while_the_process_starts_leaves_none(stage: Stage):
    stage.stand_in("time.sleep(600)")
    for turns in range(1, 6):
        made = stage.provisioner()
        launching = asyncio.ensure_future(made.launch_kernel(["ignored"]))
        for _ in range(turns):
            await asyncio.sleep(0)
        pid = made.pid
        launching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await launching
        assert not made.has_process
        if pid is not None:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


@in_loop
async def test_jupyters_loop_is_never_held_up(stage: Stage):
    stage.stand_in("time.sleep(0.5); " + READY)
    longest_s = await _longest_pause_during(stage.launched)
    assert longest_s < 1.0  # starting a process is what takes time


async def _longest_pause_during(work: Callable[[], Any]) -> float:
    working = asyncio.ensure_future(work())
    longest_s, last_s = 0.0, time.monotonic()
    while not working.done():
        await asyncio.sleep(0.001)
        now_s = time.monotonic()
        longest_s, last_s = max(longest_s, now_s - last_s), now_s
    await end(await working)
    return longest_s


@in_loop
async def test_signals_go_to_the_stand_in_and_its_status_is_the_kernels(stage: Stage):
    stage.stand_in("import signal\nsignal.signal(signal.SIGINT, lambda *_: os._exit(42))\n" + READY)
    made = await stage.launched()
    await made.send_signal(signal.SIGINT)
    await until(lambda: made.process is None or made.process.poll() is not None)
    assert await made.poll() == 42
    assert await made.wait() == 42
    assert not made.has_process


def test_shutdown_waits_for_the_longer_of_both_wishes(stage: Stage):
    stage.config["shutdown_timeout"] = 20
    assert stage.provisioner().get_shutdown_wait_time(5.0) == 20
    assert stage.provisioner().get_shutdown_wait_time(30.0) == 30


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ssh_host_alias": None}, "ssh_host_alias is missing"),
        ({"ssh_host_alias": "-oProxyCommand=x"}, "ssh_host_alias"),
        ({"remote_python": None}, "exactly one of remote_python and remote_python_prefix"),
        ({"launch_timeout": "soon"}, "launch_timeout 'soon'"),
    ],
    ids=str,
)
def test_a_config_that_cannot_be_is_an_error_that_names_the_key(
    stage: Stage, change: dict[str, Any], said: str
):
    stage.config.update(change)
    with pytest.raises(InvalidInput, match=said):
        stage.provisioner()


@in_loop
async def test_an_ssh_that_is_not_there_fails_the_launch_before_anything_starts(stage: Stage):
    stage.config["ssh"] = "/no/such/ssh"
    stage.stand_in(READY)
    with pytest.raises(InvalidInput, match="no executable ssh client"):
        await stage.launched()
    assert not (stage.folder / "noted.json").exists()


@in_loop
async def test_mounts_fail_the_launch_in_words(stage: Stage):
    stage.config["mount_local_on_remote"] = ["~/d:~/d:suid"]
    stage.stand_in(READY)
    with pytest.raises(InvalidInput, match="suid is not an option"):
        await stage.launched()


def test_jupyter_finds_the_provisioner_by_its_name(stage: Stage):
    factory = KernelProvisionerFactory.instance(parent=stage.manager)
    stage.spec.metadata = {
        "kernel_provisioner": {"provisioner_name": "sshpyk-provisioner", "config": stage.config}
    }
    assert factory.is_provisioner_available(stage.spec)
    made = factory.create_provisioner_instance("k1", stage.spec, stage.manager)
    assert isinstance(made, SSHKernelProvisioner)
    KernelProvisionerFactory.clear_instance()


def test_the_module_imports_nothing_of_the_hubs():
    """What a Jupyter server loads should be light."""
    code = "import sys, sshpyk.provisioner; print([m for m in sys.modules if 'sshpyk.hub' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n"
