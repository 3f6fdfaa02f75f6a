"""The lab is what the other tests believe it to be."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.integration.machines import PROJECT, ROLES, USER, CommandFailed, Lab


def ssh(*words: str) -> str:
    done = subprocess.run(
        ["ssh", "-T", "-o", "BatchMode=yes", *words], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def address_on(lab: Lab, network: str) -> str:
    networks = lab.remote.container.attrs["NetworkSettings"]["Networks"]
    address: str = networks[f"{PROJECT}_{network}"]["IPAddress"]
    return address


def test_ssh_batch_mode_reaches_remote(host_alias: str) -> None:
    assert ssh(host_alias, "hostname; whoami").split() == ["remote", USER]


def test_ssh_host_key_checking_is_the_default(host_alias: str) -> None:
    config = ssh("-G", host_alias).splitlines()
    assert "stricthostkeychecking ask" in config
    assert "batchmode yes" in config


def test_ssh_bastion_reachable() -> None:
    assert ssh("bastion", "hostname") == "bastion"


def test_remote_inside_name_unknown_to_laptop() -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("remote-inside", 22)


def test_remote_inside_address_unreachable_from_laptop(lab: Lab) -> None:
    with pytest.raises(OSError, match=r"timed out|unreachable"):
        socket.create_connection((address_on(lab, "inside"), 22), timeout=3)
    socket.create_connection((address_on(lab, "direct"), 22), timeout=3).close()


@pytest.mark.parametrize("role", ROLES)
def test_user_is_unprivileged(lab: Lab, role: str) -> None:
    machine = getattr(lab, role)
    assert machine.run("id -u").strip() == "1000"
    with pytest.raises(CommandFailed):
        machine.run("cat /etc/shadow")


def test_tests_run_as_unprivileged_user() -> None:
    assert os.getuid() == 1000
    assert not os.access("/src/pyproject.toml", os.W_OK)


def test_sshpyk_comes_from_the_wheel() -> None:
    import sshpyk

    assert Path(sshpyk.__file__).is_relative_to("/opt/venv")


def test_remote_has_a_kernel_and_no_sshpyk(lab: Lab) -> None:
    lab.remote.run("/opt/venv/bin/python -c 'import ipykernel'")
    for python in ("/opt/venv/bin/python", "/usr/bin/python3"):
        assert "No module named 'sshpyk'" in lab.remote.run(
            f"{python} -c 'import sshpyk'", check=False
        )


def test_remote_sshd_has_default_limits(lab: Lab) -> None:
    settings = lab.remote.run("/usr/sbin/sshd -T", user="root").splitlines()
    assert "maxsessions 10" in settings
    assert "maxstartups 10:30:100" in settings


def test_sshfs_mounts_remote(host_alias: str, tmp_path: Path) -> None:
    subprocess.run(["sshfs", "-o", "BatchMode=yes", f"{host_alias}:/etc", tmp_path], check=True)
    try:
        assert (tmp_path / "hostname").read_text().strip() == "remote"
    finally:
        subprocess.run(["fusermount3", "-u", tmp_path], check=True)


def test_engine_shows_three_machines(lab: Lab) -> None:
    assert {machine.container.status for machine in lab.machines} == {"running"}


def test_orphans_are_reaped(lab: Lab) -> None:
    orphan = int(lab.remote.run("sleep 60 >/dev/null & echo $!"))
    assert [p.ppid for p in lab.remote.processes() if p.pid == orphan] == [1]
    lab.remote.kill(orphan)
    assert [p for p in lab.remote.processes() if p.pid == orphan] == []


def test_processes_tells_pid_user_and_args(lab: Lab) -> None:
    (sshd,) = [p for p in lab.remote.processes(user="root") if "sshd -D" in p.args]
    assert sshd.ppid == 1
    (pytest_process,) = [p for p in lab.laptop.processes() if p.pid == os.getpid()]
    assert pytest_process.user == USER


def test_files_lists_paths(lab: Lab) -> None:
    assert lab.remote.files("~/.ssh/*", "/no/such/*") == ["/home/lab/.ssh/authorized_keys"]


@pytest.mark.exclusive
def test_unplugged_remote_comes_back_under_its_name(lab: Lab) -> None:
    with lab.remote.unplugged("direct"):
        with pytest.raises(OSError):  # the resolver's or the network's, either will do
            socket.create_connection(("remote", 22), timeout=3)
        assert ssh("remote-jump", "hostname") == "remote"
    assert ssh("remote", "hostname") == "remote"


@pytest.mark.exclusive
def test_iptables_can_drop_packets(lab: Lab) -> None:
    rule = "INPUT -p tcp --dport 22 -j DROP"
    lab.bastion.run(f"iptables -A {rule}", user="root")
    try:
        with pytest.raises(TimeoutError):
            socket.create_connection(("bastion", 22), timeout=1)
    finally:
        lab.bastion.run(f"iptables -D {rule}", user="root")
    assert ssh("bastion", "hostname") == "bastion"
