"""The environment that a user wants around the kernel: module, conda, variables, folder, wrapper."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from sshpyk.errors import KernelDied, LaunchTimeout
from tests.integration.faults.bench import own_account
from tests.integration.faults.hosts import failure_of, hub_as, put_for
from tests.integration.kernels import AddKernel, Running, await_ready, eventually, started
from tests.integration.lifecycle_helpers import await_text
from tests.integration.machines import Lab

# As `conda init` leaves a Debian account: the block lies behind the guard of .bashrc.
BASHRC = """
case $- in *i*) ;; *) return ;; esac
echo interactive only
"""
CONDA_BLOCK = """
# >>> conda initialize >>>
# !! Contents within this block are managed by 'conda init' !!
. "$HOME/miniforge3/etc/profile.d/conda.sh"
# <<< conda initialize <<<
"""
CONDA_SH = """
conda() {
    [ -d "$HOME/miniforge3/envs/$2" ] || { echo "EnvironmentNameNotFound: $2" >&2; return 1; }
    export CONDA_DEFAULT_ENV=$2 PATH="$HOME/miniforge3/envs/$2/bin:$PATH"
}
"""
MODULEFILE = "#%Module\nsetenv LOADED cuda12\n"
LOAD = "module use ~/modulefiles; module load cuda"
SURROUNDED = """
import os; print(*(os.environ.get(name) for name in
("LOADED", "CONDA_DEFAULT_ENV", "OMP_NUM_THREADS", "TOKEN", "ABSENT")), os.getppid())"""


def make_cluster(lab: Lab, account: str, rc: str) -> None:
    """Give an account a conda with an environment `ml`, and a modulefile for the host's `module`."""
    folder = f"/home/{account}/miniforge3"
    lab.remote.run(
        f"mkdir -p {folder}/etc/profile.d {folder}/envs/ml/bin ~/modulefiles", user=account
    )
    put_for(lab, account, "miniforge3/etc/profile.d/conda.sh", CONDA_SH)
    put_for(lab, account, rc, (BASHRC if rc == ".bashrc" else "") + CONDA_BLOCK)
    profile = ".zprofile" if rc == ".zshrc" else ".profile"
    put_for(lab, account, profile, "echo 'Welcome to the cluster'\n")
    put_for(lab, account, "modulefiles/cuda", MODULEFILE)
    python = "miniforge3/envs/ml/bin/python3"
    put_for(lab, account, python, '#!/bin/sh\nexec /opt/venv/bin/python "$@"\n')
    lab.remote.run(f"chmod +x /home/{account}/{python}", user=account)


def everything_readable(lab: Lab) -> str:
    """Return all arguments of processes and all logs, here and there."""
    logs = "cat ~/.local/state/sshpyk/*.log /home/*/.local/state/sshpyk/agent.log"
    machines = (lab.laptop, lab.remote)
    return "".join(m.run(f"ps axww; {logs}", user="root", check=False) for m in machines)


@pytest.mark.parametrize(
    ("shell", "rc"),
    [("/bin/bash", ".bashrc"), ("/usr/bin/zsh", ".zshrc"), ("/bin/tcsh", ".bashrc")],
    ids=["bash", "zsh", "tcsh"],
)
def test_module_conda_and_variables_before_the_kernel(
    lab: Lab,
    add_kernel: AddKernel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shell: str,
    rc: str,
) -> None:
    secret = uuid.uuid4().hex
    monkeypatch.setenv("TOKEN", secret)
    options = [
        *("--activate", f"{LOAD}; conda activate ml", "--env", "OMP_NUM_THREADS=8"),
        *("--remote-python-prefix", "", "--remote-python", "python3"),
        *("--pass-env", "TOK*", "--pass-env", "ABSENT"),
    ]
    with own_account(lab, shell=shell) as account, hub_as(lab, account, tmp_path) as hub:
        make_cluster(lab, account, rc)
        with started(lab, add_kernel("remote", *hub.options, *options)) as kernel:
            *found, parent = kernel.run(SURROUNDED).text().split()
            assert found == ["cuda12", "ml", "8", secret, "None"]
            (agent,) = [p for p in lab.remote.processes(user=account) if p.pid == int(parent)]
            assert "<sshpyk:locate>" in agent.args
            assert secret not in everything_readable(lab)
            if rc == ".bashrc":
                kernel.manager.restart_kernel()
                await_ready(kernel.client)
                assert kernel.run(SURROUNDED).text().split()[:-1] == found


def test_an_activation_that_fails_says_what_failed_and_why(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path
) -> None:
    make_cluster(lab, account, ".bashrc")
    with hub_as(lab, account, tmp_path) as hub:
        lines = f"{LOAD}; conda activate nope; echo never"
        error = failure_of(add_kernel("remote", *hub.options, "--activate", lines))
        assert isinstance(error, KernelDied)
        assert "'conda activate nope' ended with status 1" in error.what
        assert "EnvironmentNameNotFound: nope" in error.said
        assert "never" not in error.said
        missing = failure_of(
            add_kernel("remote", *hub.options, "--activate", f"{LOAD} cudnn; echo never")
        )
        assert "'module load cuda cudnn' ended with status 1" in missing.what
        assert "cudnn" in missing.said
        began_s = time.monotonic()
        name = add_kernel(
            "remote", *hub.options, "--activate", "echo hm; sleep 777", "--launch-timeout", "6"
        )
        hung = failure_of(name)
        assert time.monotonic() - began_s < 30
        assert isinstance(hung, LaunchTimeout)
        assert "'sleep 777' did not end within" in hung.what
        assert "hm" in hung.said
        assert "sleep 777" not in lab.remote.run("ps axww", user="root")


def test_startup_files_that_end_the_shell_are_blamed(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path
) -> None:
    put_for(lab, account, ".profile", "echo 'quota exceeded'; exit 3\n")
    with hub_as(lab, account, tmp_path) as hub:
        error = failure_of(add_kernel("remote", *hub.options, "--activate", "true"))
    assert "startup files of the login shell" in error.what
    assert "quota exceeded" in error.said


# Wrappers


WRAPPER = '#!/bin/sh\nexport WRAPPED="$1"; shift\n"$@"\n'


@pytest.mark.parametrize(
    "command", ["nice -n 7 env WRAPPED=yes", "~/wrap yes"], ids=["execs", "stays"]
)
def test_a_kernel_behind_a_wrapper_is_interrupted_restarted_and_shut_down(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path, command: str
) -> None:
    put_for(lab, account, "wrap", WRAPPER)
    lab.remote.run(["chmod", "+x", f"/home/{account}/wrap"], user=account)
    with hub_as(lab, account, tmp_path) as hub:
        name = add_kernel("remote", *hub.options, "--remote-command", command)
        with started(lab, name) as kernel:
            interrupt(kernel)
            kernel.manager.restart_kernel()
            await_ready(kernel.client)
            assert kernel.run("import os; os.environ['WRAPPED']").result == "'yes'"
            interrupt(kernel)
        eventually(
            lambda: not lab.remote.processes(user=account, containing="ipykernel"), "no kernel"
        )


def interrupt(kernel: Running) -> None:
    """Interrupt a cell that sleeps; check that it was."""
    kernel.client.execute("import time; print('sleeping', flush=True); time.sleep(60)")
    await_text(kernel.client, "sleeping")
    kernel.manager.interrupt_kernel()
    reply = kernel.client.get_shell_msg(timeout=60)
    assert reply["content"]["ename"] == "KeyboardInterrupt"


# Folders


def test_the_notebooks_folder_is_the_same_one_below_home(
    lab: Lab, add_kernel: AddKernel, account: str, tmp_path: Path
) -> None:
    here = Path.home() / f"notebooks-{account}"
    here.mkdir()
    try:
        with hub_as(lab, account, tmp_path) as hub:
            name = add_kernel("remote", *hub.options, "--remote-cwd", "{notebook_dir}")
            assert folder_and_notices(name, here) == (f"/home/{account}", True)
            lab.remote.run(["mkdir", f"/home/{account}/{here.name}"], user=account)
            assert folder_and_notices(name, here) == (f"/home/{account}/{here.name}", False)
            with started(lab, name, cwd=str(here)) as kernel:  # as a Jupyter server does
                found = kernel.run("import os; os.getcwd()").result
            assert found == repr(f"/home/{account}/{here.name}")
    finally:
        here.rmdir()


RUN_IT = """
import json, sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name=sys.argv[1])
client.execute("import os; print(os.getcwd())")
while (message := client.get_iopub_msg(timeout=60))["msg_type"] != "stream":
    pass
print(json.dumps(message["content"]["text"].strip()))
client.stop_channels()
manager.shutdown_kernel(now=True)
"""


def folder_and_notices(name: str, here: Path) -> tuple[str, bool]:
    """Start a kernel from a folder; return where it works, and whether a word was said about it."""
    done = subprocess.run(
        ["python", "-c", RUN_IT, name], cwd=here, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = f"{here.name} or {here} on the host: the kernel works in" in done.stderr
    return json.loads(done.stdout), said
