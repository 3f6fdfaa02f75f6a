"""``sshpyk doctor`` and ``sshpyk list`` in a lab that is well, and where hosts are far away."""
# ruff: noqa: F401, F811

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from tests.integration.faults.bench import account
from tests.integration.kernels import AddKernel, add_kernel, eventually, jupyter_folders
from tests.integration.lifecycle_helpers import change_kernel_json, silent_port
from tests.integration.machines import Lab


def run(*words: str | Path, expect: int = 0, **env: str) -> str:
    """Run the installed command and return what it printed."""
    done = subprocess.run(
        ["sshpyk", *words], capture_output=True, text=True, timeout=90, env={**os.environ, **env}
    )
    assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    return done.stdout


def test_this_machine_is_well(jupyter_folders: Path) -> None:
    said = run("doctor")
    assert "Provisioner:           (v) sshpyk-provisioner is known to this Jupyter\n" in said
    advised = [line for line in said.splitlines() if "(!)" in line and "advice:" not in line]
    assert all(line.startswith("Link:") for line in advised)  # of the tests beside this one
    assert "(x)" not in said
    assert advised or said.endswith("this machine: all is well\n")


def test_kernel_is_launched_once_and_goes(lab: Lab, host_alias: str, add_kernel: AddKernel) -> None:
    name = add_kernel(host_alias)
    mark = uuid.uuid4().hex
    change_kernel_json(name, env={"SSHPYK_TEST_MARK": mark})
    said = run("doctor", name)
    assert "Launch:                (v) the kernel answered after " in said
    if host_alias == "remote":  # where the link is up, nobody asks the jump host
        assert "Jump Host" not in said
    assert "(x)" not in said
    eventually(
        lambda: (
            f"SSHPYK_TEST_MARK={mark}"
            not in lab.remote.run(
                "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'", check=False
            )
        ),
        "the end of the kernel",
    )


def test_report_has_the_hubs_words_and_no_secret(
    lab: Lab, add_kernel: AddKernel, tmp_path: Path
) -> None:
    name, secret = add_kernel("remote"), f"planted-{uuid.uuid4().hex}"
    change_kernel_json(name, env={"HF_TOKEN": f"{secret}-kernel"})
    path = tmp_path / "bug.json"
    run("doctor", name, "--report", path, MY_API_TOKEN=f"{secret}-env")
    text = path.read_text()
    report = json.loads(text)
    assert secret not in text
    assert report["healthy"] is True
    assert report["ssh"][-1]["settings"]["hostname"] == "remote"
    # Other tests have links of their own.
    assert "up" in [link["link"] for link in report["links"] if link.get("host") == "remote"]
    logged = "\n".join(line for lines in report["logs"].values() for line in lines)
    assert "the agent on remote was" in logged


def test_list_is_bounded_as_a_whole_and_writes_nothing_on_a_host(
    lab: Lab, add_kernel: AddKernel, account: str, silent_port: int, tmp_path: Path
) -> None:
    """Two hosts are silent, one of them behind the bastion; one is well, and one takes no login."""
    config = tmp_path / "config"
    config.write_text(
        f"Host silent-jump\n    HostName laptop\n    Port {silent_port}\n    ProxyJump bastion\n"
        f"Host *\n    Include {Path.home()}/.ssh/config\n"
    )
    options = ("--ssh-config", str(config))
    names = [
        add_kernel(host, *options)
        for host in (f"localhost:{silent_port}", "silent-jump", f"{account}@remote", "remote-otp")
    ]
    find = f"find /home/{account} /tmp -user {account} -printf '%p %T@\\n'"
    before = lab.remote.run(find, user="root", check=False)
    began_s = time.monotonic()
    listed = json.loads(run("list", "--remote", "--json", "--timeout", "5"))
    assert time.monotonic() - began_s < 5 + 5  # seconds; the second five are the machine's
    assert lab.remote.run(find, user="root", check=False) == before
    found = {
        kernel["name"]: {one["label"]: one for one in kernel["items"]}
        for kernel in listed["kernels"]
    }
    codes = [found[name]["SSH Connection"]["code"] for name in names]
    assert codes == ["SSH-NO-BANNER", "SSH-NO-BANNER", "", "SSH-NEEDS-LOGIN"]
    assert found[names[2]]["Remote Packages"]["mark"] == "ok"
