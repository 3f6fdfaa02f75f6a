from __future__ import annotations

import pytest

from sshpyk.kernelapp.legacy import modern


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--SSHKernelApp.kernel_name=a"], ["--kernel=a"]),
        (["--KernelManager.connection_file='/x y/c.json'"], ["--connection-file=/x y/c.json"]),
        (['--KernelManager.connection_file="c.json"'], ["--connection-file=c.json"]),
        (["--SSHKernelApp.existing=c.json"], ["--existing=c.json"]),
        (["--SSHKernelApp.persistent=True", "--SSHKernelApp.leave=1"], ["--persistent", "--leave"]),
        (["--SSHKernelApp.persistent=False"], []),
        (["--SSHKernelProvisioner.persistent_file=p.json"], ["--persistent-file=p.json"]),
        (["--persistent_file=p.json"], ["--persistent-file=p.json"]),
        (["--SSHKernelApp.poll_interval=5", "--ssh-verbose=vv", "-i=3"], ["-i=3"]),
        (["-k=a", "-e=b", "-d"], ["-k", "a", "-e", "b", "-vv"]),
        (["-k", "a", "--kernel=b", "-p", "-l"], ["-k", "a", "--kernel=b", "-p", "-l"]),
        (["--SSHKernelApp.unknown=1"], ["--SSHKernelApp.unknown=1"]),
    ],
)
def test_a_flag_of_1_x_has_todays_name(words: list[str], expected: list[str]) -> None:
    assert modern(words) == expected
