"""What hosts do to us: their sshd's limits, login shells, start-up files, clocks, folders and users."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client import BlockingKernelClient

from sshpyk.errors import RemoteShellFailed
from tests.integration.faults.bench import assert_exact, bench_to, own_account, session
from tests.integration.faults.hosts import (
    OwnSshd,
    failure_of,
    hub_as,
    many_kernels,
    own_sshd,
    put_for,
    tiny_kernelspec,
)
from tests.integration.kernels import (
    PATIENCE_S,
    AddKernel,
    eventually,
    started,
)
from tests.integration.lifecycle_helpers import InstallKernelspec, OwnHub, hub_of, outcome_of
from tests.integration.machines import Lab
from tests.integration.recorder import Recorder

pytestmark = pytest.mark.timeout(240)

PATIENT = ("--launch-timeout", "120")  # many kernels at once, on a machine with two cores


# sshd's limits, and an sshd that goes


def numbers_of(client: BlockingKernelClient, msg_id: str) -> list[str]:
    """Return what a request printed, one number per message."""
    return [one["content"]["text"] for one in outcome_of(client, msg_id).of_type("stream")]


def assert_all_count(clients: list[BlockingKernelClient], ids: list[str], count: int) -> None:
    """Check that each kernel's numbers came exactly: none missing, none twice, in order."""
    for client, msg_id in zip(clients, ids, strict=True):
        assert numbers_of(client, msg_id) == [str(number) for number in range(count)]


def assert_all_resume(
    lab: Lab, name: str, hub: OwnHub, sshd: OwnSshd, *, kernels: int, down_s: float
) -> None:
    """Cut the connection of many kernels in the middle of their output; nothing is lost, one dial."""
    count = 400
    with many_kernels(lab, name, kernels) as clients:
        before = sshd.logins
        ids = [client.execute(str(count)) for client in clients]
        sshd.stop()
        time.sleep(down_s)
        later = [client.execute("5") for client in clients]
        sshd.start()
        began_s = time.monotonic()
        eventually(lambda: hub.link_state() == "up", "the link", timeout_s=PATIENCE_S)
        print(f"up {time.monotonic() - began_s:.1f} s after the sshd's return")
        assert_all_count(clients, ids, count)
        assert_all_count(clients, later, 5)
        hub.connection()  # fails unless there is exactly one
        print(f"{before} logins before, {sshd.logins - before} after")
        assert (
            sshd.logins - before <= 2
        )  # not one per kernel; silence on a busy machine costs one more
    assert "MaxStartups" not in sshd.log()


def test_f39_f40_thirty_kernels_where_one_session_and_three_logins_are_allowed(
    lab: Lab, add_kernel: AddKernel, remote_kernelspec: InstallKernelspec, tmp_path: Path
) -> None:
    spec = tiny_kernelspec(remote_kernelspec)
    with (
        own_sshd(lab.remote, "MaxSessions=1", "MaxStartups=3:100:3") as sshd,
        hub_of(lab, "remote", tmp_path / "ssh_config", sshd.ssh_config("remote")) as hub,
    ):
        name = add_kernel("remote", *hub.options, *PATIENT, remote_kernel_name=spec)
        assert_all_resume(lab, name, hub, sshd, kernels=30, down_s=1)


def test_f09_bastion_rebooted_under_twenty_kernels(
    lab: Lab, add_kernel: AddKernel, remote_kernelspec: InstallKernelspec, tmp_path: Path
) -> None:
    spec = tiny_kernelspec(remote_kernelspec)
    with (
        own_sshd(lab.bastion) as sshd,
        hub_of(lab, "remote-jump", tmp_path / "ssh_config", sshd.ssh_config("bastion")) as hub,
    ):
        name = add_kernel("remote-jump", *hub.options, *PATIENT, remote_kernel_name=spec)
        assert_all_resume(lab, name, hub, sshd, kernels=20, down_s=10)


# What the host prints first


def test_f32_banner_and_noisy_startup_file_are_skipped_and_logged(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path
) -> None:
    put_for(lab, account, ".bashrc", "echo 'noise on stdout é'; seq 2000; echo more >&2\n")
    put_for(lab, account, "banner", "".join(f"banner line {n}\n" for n in range(40)))
    with (
        own_sshd(lab.remote, f"Banner=/home/{account}/banner") as sshd,
        hub_as(lab, account, tmp_path, sshd.ssh_config("remote")) as hub,
        started(lab, add_kernel("remote", *hub.options)) as kernel,
    ):
        assert kernel.run("print('é' * 3)").text() == "ééé\n"
        logs = list((Path.home() / ".local/state/sshpyk").glob("*.log"))
        logged = "".join(log.read_text(errors="replace") for log in logs)
    assert "skipped what the host printed first" in logged
    assert "noise on stdout" in logged
    assert "banner line 39" in logged


def test_f32_startup_file_that_prints_too_much_is_quoted(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path
) -> None:
    put_for(lab, account, ".bashrc", "echo a flood begins; head -c 100000 /dev/zero\n")
    with hub_as(lab, account, tmp_path) as hub:
        error = failure_of(add_kernel("remote", *hub.options))
    assert isinstance(error, RemoteShellFailed)
    assert "a flood begins" in str(error)
    assert "startup files" in str(error)


@pytest.mark.parametrize("line", ["read x", "sleep 1000"], ids=["reads", "hangs"])
def test_f33_startup_file_that_never_ends_is_named_as_the_suspect(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path, line: str
) -> None:
    put_for(lab, account, ".bashrc", f"{line}\n")
    with hub_as(lab, account, tmp_path) as hub:
        began_s = time.monotonic()
        error = failure_of(add_kernel("remote", *hub.options, "--launch-timeout", "5"))
        assert time.monotonic() - began_s < 20
    # Not ours to end: sshd leaves it running when the connection goes, and it reads nothing.
    lab.remote.run(["pkill", "-u", account, "sleep"], user="root", check=False)
    assert "not ready within 5 s" in str(error)
    assert "startup file" in str(error)
    assert ".bashrc" in str(error)


@pytest.mark.parametrize("shell", ["/usr/bin/fish", "/bin/tcsh", "/bin/bsd-csh"])
def test_f34_kernel_behind_a_login_shell_that_is_not_sh(
    lab: Lab, add_kernel: AddKernel, tmp_path: Path, shell: str
) -> None:
    with own_account(lab, shell=shell) as account, hub_as(lab, account, tmp_path) as hub:
        name = add_kernel("remote", *hub.options, "--remote-cwd", "/tmp")
        with started(lab, name) as kernel:
            assert kernel.run("import os; os.environ['SHELL'], os.getcwd()").result == repr(
                (shell, "/tmp")
            )


# Clocks

# Shows every Python process another wall clock; what counts the time that passes goes on, as on a real
# machine. (libfaketime 0.9.10 would show it to C as well, but breaks Python's time.sleep.)
JUMPING_CLOCK = """
import time
def offset_s():
    with open({file!r}) as file:
        return int(file.read())
def jumping(ask, scale):
    return lambda: ask() + offset_s() * scale
def gettime(clock, ask=time.clock_gettime):
    return ask(clock) + (offset_s() if clock == time.CLOCK_REALTIME else 0)
time.time, time.time_ns = jumping(time.time, 1), jumping(time.time_ns, 10**9)
time.clock_gettime = gettime
"""
WITH_JUMPING_CLOCK = """#!/bin/sh
export PYTHONPATH="$(dirname "$0")"
exec /opt/venv/bin/python "$@"
"""


@pytest.mark.parametrize("side", ["laptop", "host"])
def test_f27_clock_that_jumps_an_hour_ahead_and_then_back_ends_no_wait(
    lab: Lab,
    add_kernel: AddKernel,
    account: str,
    control: Recorder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    side: str,
) -> None:
    here, there = tmp_path / "offset", f"/home/{account}/bin/offset"
    lab.remote.run(["mkdir", f"/home/{account}/bin"], user=account)
    put_for(lab, account, "bin/sitecustomize.py", JUMPING_CLOCK.format(file=there))
    put_for(lab, account, "bin/python", WITH_JUMPING_CLOCK)
    lab.remote.run(["chmod", "755", f"/home/{account}/bin/python"], user=account)
    (tmp_path / "sitecustomize.py").write_text(JUMPING_CLOCK.format(file=str(here)))

    def set_offset(machine: str, seconds: int) -> None:
        if machine == "host":
            put_for(lab, account, "bin/offset.new", str(seconds))
            lab.remote.run(["mv", f"{there}.new", there], user=account)
        else:
            here.with_suffix(".new").write_text(str(seconds))
            here.with_suffix(".new").rename(here)

    def jump() -> None:
        set_offset(side, 3600)
        time.sleep(2)  # what would fire fires within a few turns of the loops
        set_offset(side, -3600)

    set_offset("laptop", 0)
    set_offset("host", 0)
    with bench_to(lab, "remote", add_kernel, tmp_path, user=account) as bench:
        name = bench.add("--remote-python-prefix", f"/home/{account}")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # the hub and the stand-in inherit it
        with started(lab, name) as kernel:
            environment = Path(f"/proc/{bench.hub.pid}/environ").read_text()
            assert f"PYTHONPATH={tmp_path}\0" in environment
            recorder = session(kernel, jump)
            time.sleep(2)
            ahead_s = float(kernel.run("time.time()").result or 0) - time.time()
            assert kernel.manager.is_alive()
            assert bench.hub.link_state() == "up"
    assert abs(ahead_s - (-3600 if side == "host" else 0)) < 60
    assert_exact(recorder, control)
    assert bench.proxy.total_connections == 1


# Folders


READ_ONLY = "mount --bind {home} {home}; mount -o remount,ro,bind {home}"
FULL = """
cp --archive {home} {home}.copy
mount -t tmpfs -o size=200k tmpfs {home}
cp --archive {home}.copy/. {home}
rm -r {home}.copy
install -d -o {user} -g {user} -m 700 {home}/.local{{,/state{{,/sshpyk{{,/kernels}}}}}}
dd if=/dev/zero of={home}/all bs=4096 2>/dev/null || true"""


@pytest.mark.parametrize("make", [READ_ONLY, FULL], ids=["read-only", "full"])
def test_f23_kernel_with_a_home_that_takes_nothing(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path, make: str
) -> None:
    home = f"/home/{account}"
    uid = lab.remote.run(["id", "-u", account]).strip()
    lab.remote.run(f"set -e; {make.format(home=home, user=account)}", user="root")
    try:
        with (
            hub_as(lab, account, tmp_path) as hub,
            started(
                lab,
                add_kernel("remote", *hub.options),
                env={"IPYTHONDIR": f"/tmp/ipython-{account}"},  # IPython cannot do without one
            ) as kernel,
        ):
            failure = kernel.run("open('new', 'w').write('x' * 10_000)").reply["content"]
            log = lab.remote.run(["cat", f"/tmp/sshpyk-{uid}/state/agent.log"], user=account)
    finally:
        lab.remote.run(["umount", "--lazy", home], user="root")
    assert failure["ename"] == "OSError"
    assert "epoch 1" in log


def test_f23_start_fails_with_path_and_reason_where_no_folder_is_ours(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path
) -> None:
    uid = lab.remote.run(["id", "-u", account]).strip()
    squatted = [f"/tmp/sshpyk-{uid}", *(f"/tmp/sshpyk-{uid}-{n}" for n in range(1, 8))]
    lab.remote.run(["mkdir", *squatted], user="root")
    try:
        with hub_as(lab, account, tmp_path) as hub:
            error = failure_of(add_kernel("remote", *hub.options))
    finally:
        lab.remote.run(["rmdir", *squatted], user="root")
    assert f"{squatted[0]}: exists and is not a private folder" in str(error)


def test_f25_runtime_folder_removed_has_no_effect(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path
) -> None:
    runtime = f"/tmp/run-{account}"
    put_for(
        lab, account, ".bashrc", f"export XDG_RUNTIME_DIR={runtime}; mkdir -p -m 700 {runtime}\n"
    )
    with (
        bench_to(lab, "remote", add_kernel, tmp_path, user=account) as bench,
        bench.kernel() as one,
    ):
        found = one.run("import os; os.environ['XDG_RUNTIME_DIR'], os.listdir('/tmp')").result
        assert found is not None
        assert found.startswith(repr(runtime), 1)
        lab.remote.run(["rm", "-rf", runtime], user=account)
        assert one.run("6 * 7").result == "42"
        bench.proxy.reset()
        bench.await_one_connection()
        assert one.run("6 * 7").result == "42"
        lab.remote.run(["rm", "-rf", runtime], user=account)
        with bench.kernel() as another:
            assert another.run("6 * 7").result == "42"


# Other users of the host


@pytest.fixture
def stranger(lab: Lab) -> Iterator[str]:
    """Another account on the remote, with no key of ours."""
    with own_account(lab) as name:
        yield name


TRY_TO_GET_IN = """
import glob, os, socket, sys
uid = sys.argv[1]
for path in glob.glob("/tmp/sshpyk-%s*" % uid):
    for act in (os.listdir, lambda p: socket.socket(socket.AF_UNIX).connect(p + "/agent-1.sock"),
                lambda p: open(p + "/new", "w"), lambda p: os.rename(p, p + "-mine"), os.rmdir):
        try:
            act(path)
            print("got in:", path, act)
        except PermissionError:
            print("refused")
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if os.stat("/proc/" + pid).st_uid == int(uid):
            print(open("/proc/%s/cmdline" % pid).read())
            print(open("/proc/%s/environ" % pid).read())
    except PermissionError:
        print("refused")
    except OSError:
        pass
"""


def test_f59_another_user_gets_into_nothing_and_sees_no_secret(
    lab: Lab, account: str, stranger: str, tmp_path: Path, add_kernel: AddKernel
) -> None:
    uid = lab.remote.run(["id", "-u", account]).strip()
    secret = uuid.uuid4().hex
    with (
        hub_as(lab, account, tmp_path) as hub,
        started(lab, add_kernel("remote", *hub.options), env={"SECRET": secret}) as kernel,
    ):
        key = kernel.manager.session.key.decode()
        assert kernel.run("import os; os.environ['SECRET']").result == repr(secret)
        said = lab.remote.run(["python3", "-c", TRY_TO_GET_IN, uid], user=stranger)
        said += lab.remote.run(["ps", "axewwf"], user=stranger)
        logs = f"/home/{account}/.local/state/sshpyk"
        said += lab.remote.run(["cat", f"{logs}/agent.log"], user=stranger, check=False)
        assert kernel.run("6 * 7").result == "42"
    assert said.count("refused") >= 5
    assert said.count("Permission denied") >= 1
    assert "got in" not in said
    assert "ipykernel_launcher" in said  # ps shows that there is a kernel, and that is all
    assert key not in said
    assert secret not in said


@pytest.mark.parametrize("trap", ["a folder", "a folder for all", "a link", "a file"])
def test_f59_folder_that_another_user_made_before_us_is_not_used(
    lab: Lab, account: str, stranger: str, tmp_path: Path, add_kernel: AddKernel, trap: str
) -> None:
    uid = lab.remote.run(["id", "-u", account]).strip()
    path, lair = f"/tmp/sshpyk-{uid}", f"/home/{stranger}/lair"
    make = {
        "a folder": f"mkdir -m 700 {path}",
        "a folder for all": f"mkdir -m 777 {path}",
        "a link": f"mkdir -m 777 {lair}; ln -s {lair} {path}",
        "a file": f"touch {path}",
    }
    lab.remote.run(make[trap], user=stranger)
    try:
        with (
            hub_as(lab, account, tmp_path) as hub,
            started(lab, add_kernel("remote", *hub.options)) as kernel,
        ):
            assert kernel.run("6 * 7").result == "42"
            kept = lab.remote.run(f"find {path}/ {path} {lair} ! -user {stranger}", check=False)
            used = lab.remote.run(f"stat --format '%U %a' {path}-1").split()
    finally:
        lab.remote.run(f"rm -rf {path}", user=stranger)
    assert used == [account, "700"]
    assert [line for line in kept.splitlines() if line.startswith("/")] == []
