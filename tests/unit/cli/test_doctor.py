from __future__ import annotations

import json
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from sshpyk.doctor import exam, machine
from sshpyk.doctor.finding import Item, Mark
from sshpyk.wire import private
from tests.unit.fake_home import LOCAL, put

Run = Callable[..., Result]
Add = Callable[..., Path]

SECRET = "plant3d-s3cret"


@pytest.fixture(autouse=True)
def _own_hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub of whoever runs the tests is asked."""
    (tmp_path / "s").mkdir()
    monkeypatch.setattr(private, "_ROOT", str(tmp_path / "s"))


@pytest.fixture
def own_python(add: Add) -> Callable[..., Path]:
    def adder(host: str, *words: str) -> Path:
        return add(host, "--remote-python", sys.executable, "--ssh-host-alias", host, *words)

    return adder


def labels(output: str) -> list[str]:
    """Return the findings in their order, ``SSH Path (v)``."""
    lines = [line for line in output.splitlines() if re.match(r"[A-Z][\w ]+: *\(", line)]
    return [f"{line.partition(':')[0]} {line[23:26]}" for line in lines]


def test_this_machine(run: Run, own_python: Callable[..., Path]) -> None:
    own_python("gpu1")
    done = run("doctor")
    assert done.exit_code == 0, done.output
    assert labels(done.stdout)[:2] == ["SSH Path (v)", "Python (i)"]
    assert "Provisioner (v)" in labels(done.stdout)
    assert done.stdout.splitlines()[-1] == "this machine: all is well"


def test_this_machine_stops_at_the_cause(
    run: Run, monkeypatch: pytest.MonkeyPatch, kernels: Path
) -> None:
    put(kernels / "broken", "{")
    monkeypatch.setattr(machine, "sees_provisioner", lambda: False)
    done = run("doctor")
    assert done.exit_code == 1
    assert labels(done.stdout)[-1] == "Provisioner (x)"
    assert "pip install sshpyk" in done.stdout
    assert "this machine: stopped at: Provisioner [JUPYTER-NO-PROVISIONER]" in done.stdout


def test_missing_ssh_is_the_first_cause(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    done = run("doctor")
    assert (done.exit_code, labels(done.stdout)) == (1, ["SSH Path (x)"])
    assert "[SSH-MISSING]" in done.stdout


def test_kernel_is_looked_at_in_the_order_in_which_things_break(
    run: Run, own_python: Callable[..., Path]
) -> None:
    own_python("gpu1")
    done = run("doctor", "gpu1", "--no-launch")
    assert done.exit_code == 0, done.output
    assert labels(done.stdout) == [
        "Kernelspec (v)",
        "SSH Path (v)",
        "SSH Host Alias (v)",
        "SSH Connection (v)",
        *(["Remote System (i)"] if "Remote System:         (i)" in done.stdout else []),
        "Remote Python (v)",
        "Remote Kernel Name (v)",
        "Remote Interrupt Mode (i)",
        "Remote Command (v)",
        "Remote Packages (v)",
    ]


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("--ssh-host-alias", "refused"), "SSH Connection [SSH-REFUSED]"),
        (("--remote-python", "/no/python"), "Remote Python [HOST-NO-INTERPRETER]"),
        (("--remote-kernel-name", "nope"), "Remote Kernel Name [KERNELSPEC-NOT-FOUND]"),
        (("--remote-cwd", "/no/such"), "Remote Cwd [KERNEL-NO-FOLDER]"),
        (("--mount-local-on-remote", "/no/such:/m"), "Mount [MOUNT-LOCAL-FOLDER]"),
    ],
)
def test_kernel_stops_at_its_cause(
    run: Run, own_python: Callable[..., Path], add: Add, words: tuple[str, ...], cause: str
) -> None:
    python = () if "--remote-python" in words else ("--remote-python", sys.executable)
    add("k", *python, *words)
    done = run("doctor", "k", "--no-launch")
    assert done.exit_code == 1
    assert f"k: stopped at: {cause}\n" in done.stdout
    assert "advice:" in done.stdout or "Mount" in cause


def test_kernel_is_launched_only_when_all_is_well(
    run: Run, own_python: Callable[..., Path], add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[str] = []

    def launch(name: str) -> Item:
        launched.append(name)
        return Item("Launch", "died", Mark.BROKEN, (), "KERNEL-DIED")

    monkeypatch.setattr(exam, "_launch_item", launch)
    own_python("gpu1")
    add("bad", "--remote-python", "/no/python")
    assert "stopped at: Launch [KERNEL-DIED]" in run("doctor", "gpu1").stdout
    run("doctor", "bad")
    run("doctor", "gpu1", "--no-launch")
    assert launched == ["gpu1"]


def test_jump_hosts_come_before_the_host(run: Run, home: Path) -> None:
    done = run("doctor", "behind")
    assert labels(done.stdout)[3:5] == ["Jump Host (v)", "SSH Connection (v)"]
    logins = [line for line in (home / "ssh.log").read_text().splitlines() if "-G" not in line]
    assert ["bastion" in line for line in logins] == [True, False]


def test_host_names_its_kernels(run: Run, own_python: Callable[..., Path], add: Add) -> None:
    add("a", "--remote-python", sys.executable)
    add("b", "--remote-python", "/no/python")
    done = run("doctor", "gpu1")
    assert done.exit_code == 1
    assert labels(done.stdout).count("SSH Kernel (i)") == 2
    assert "none on this host yet" in run("doctor", "another").stdout


def test_what_cannot_be_asked_about(
    refused: Callable[..., str], kernels: Path, tmp_path: Path
) -> None:
    put(kernels / "mine", LOCAL)
    put(kernels / "half", "{")
    assert "not an SSH kernel" in refused("doctor", "mine")
    assert "[KERNELSPEC-BROKEN]" in refused("doctor", "half")
    assert "cannot be an ssh host" in refused("doctor", "--", "-oProxyCommand=x")
    assert "need a HOST" in refused("doctor", "--ssh-config", "none")
    (tmp_path / "there").write_text("mine")
    assert "is there already" in refused("doctor", "--report", tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"


def plant(home: Path, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a secret wherever a user has them."""
    monkeypatch.setenv("MY_API_TOKEN", f"{SECRET}-env")
    path = add("k", "--remote-python", sys.executable, "--ssh-host-alias", "secretive")
    document = json.loads(path.read_text())
    document["env"] = {"HF_TOKEN": f"{SECRET}-kernel-env", "PLAIN": f"{SECRET}-plain"}
    path.write_text(json.dumps(document))
    runtime = home / "runtime"
    runtime.mkdir()
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(runtime))
    key = f"{SECRET}-session-key"
    (runtime / "kernel-1.json").write_text(json.dumps({"key": key, "ip": "127.0.0.1"}))
    logs = home / "state" / "sshpyk"
    logs.mkdir(parents=True)
    lines = [
        f"INFO got http://localhost:8888/?token={SECRET}-url",
        f'DEBUG {{"key": "{SECRET}-in-json"}}',
        f"DEBUG Authorization: Bearer {SECRET}-bearer",
        f"DEBUG bare {SECRET}-env and {SECRET}-kernel-env and {key}",
        f"DEBUG password={SECRET}-password",
        f"-----BEGIN OPENSSH PRIVATE KEY-----{SECRET}-pem",
        "INFO epoch 3 resumed",
    ]
    (logs / "cli.log").write_text("\n".join(lines))
    (logs / "hub-x.log").write_text("\n".join(lines))


def test_report_has_what_a_bug_needs_and_no_secret(
    run: Run, add: Add, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(home, add, monkeypatch)
    path = tmp_path / "bug.json"
    for words in (["doctor", "--report", path], ["doctor", "k", "--no-launch", "--json"]):
        done = run(*words)
        text = path.read_text() if path in words else done.stdout
        report: dict[str, Any] = json.loads(text)
        assert SECRET not in text
        assert report["system"]["versions"]["jupyter_client"]
        assert report["findings"][0]["label"] in ("SSH Path", "Kernelspec")
        assert report["kernels"][0]["config"]["ssh_host_alias"] == "secretive"
        assert "INFO epoch 3 resumed" in report["logs"]["cli.log"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert report["ssh"][0]["settings"]["hostname"] == "secretive.example"
    assert report["ssh"][0]["settings"]["setenv"] == "***"
    assert report["ssh"][0]["settings"]["proxycommand"] == "nc --password *** %h"


def test_link_that_a_person_opened_counts_as_a_login(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "[SSH-NEEDS-LOGIN]" in run("doctor", "asks").stdout
    up = {"host": "asks", "ssh_config": None, "link": "up"}
    monkeypatch.setattr(machine, "hub_answers", lambda: [None, {**up, "host": "behind"}, up])
    done = run("doctor", "asks")
    assert done.exit_code == 0, done.output
    assert "the link is up through a login of yours" in done.stdout
    assert "Jump Host:             (i) not asked" in run("doctor", "behind").stdout


def test_mistyped_kernel_is_guessed(run: Run, add: Add) -> None:
    add("ssh_gpu1_python3")
    done = run("doctor", "unknown_gpu1_python3")
    assert "did you mean the kernel ssh_gpu1_python3?" in done.stdout
    assert "did you mean" not in run("doctor", "refused").stdout


def test_advice_is_mentioned_in_the_verdict(run: Run) -> None:
    done = run("doctor", "week")
    assert done.exit_code == 0
    assert done.stdout.endswith("week: works; there is advice above\n")


def test_silent_host_is_told_from_a_login_that_hangs_by_ssh_itself(run: Run, home: Path) -> None:
    run("doctor", "gpu1", "--timeout", "10")
    run("doctor", "hasty", "--timeout", "10")
    logins = [line for line in (home / "ssh.log").read_text().splitlines() if "-G" not in line]
    assert ["ConnectTimeout=8" in line for line in logins] == [True, False]


def test_json_says_what_is_broken_and_the_exit_code_too(run: Run) -> None:
    done = run("doctor", "refused", "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert report["healthy"] is False
    assert report["findings"][-1]["code"] == "SSH-REFUSED"
    assert report["findings"][-1]["mark"] == "broken"
