"""``sshpyk add``: write the kernel.json of a kernel that runs on a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sshpyk import kernelspecs
from sshpyk.cli.options import Wanted, kernel_flags
from sshpyk.cli.results import Added
from sshpyk.errors import InvalidInput
from sshpyk.kernelspecs import RemoteKernel


@click.command()
@click.option("--kernel-name", help="Its name here (ssh_HOST_KERNEL).")
@kernel_flags
@click.option("--replace", is_flag=True, help="Replace an SSH kernel that has the name.")
def add(replace: bool, **given: Any) -> Added:  # noqa: FBT001  (click passes it by name)
    """Add a kernel that runs on a host.

    Needed: --ssh-host-alias and one of --remote-python-prefix and --remote-python.
    The host is not connected to; `sshpyk list` checks it.

    \b
    Examples:
      sshpyk add --ssh-host-alias gpu1 --remote-python-prefix /opt/conda/envs/ml
      sshpyk add --ssh-host-alias gpu1 --remote-python /usr/bin/python3 \\
          --remote-kernel-name ir --language R --display-name "R on gpu1"
      sshpyk add --ssh-host-alias me@gpu1 --remote-python-prefix '~/venv' \\
          --kernel-name gpu --remote-cwd '~/project' --replace
      sshpyk add --ssh-host-alias hpc --remote-python python3 --pass-env 'WANDB_*' \\
          --env OMP_NUM_THREADS=8 --activate 'module load cuda; conda activate ml'
    """
    wanted = Wanted.from_options(given)
    remote = _remote_kernel(wanted)
    remote.target()  # ssh and its config are here
    host, remote_name = remote.ssh_host_alias, remote.remote_kernel_name
    chosen = wanted.kernel_name
    name = kernelspecs.check_new_name(
        kernelspecs.default_name(host, remote_name) if chosen is None else chosen
    )
    display_name = wanted.display_name
    if display_name is None:
        display_name = f"{remote_name} on {host}"
    language = "python" if wanted.language is None else wanted.language
    document = kernelspecs.render_kernel_json(name, display_name, language, remote)
    folder = _folder_for(name, replace=replace)
    replaced = (folder / "kernel.json").exists()
    path = kernelspecs.write_kernelspec(name, folder, document)
    return Added(name, display_name, path, replaced)


def _remote_kernel(wanted: Wanted) -> RemoteKernel:
    if not wanted.config.get("ssh_host_alias"):
        raise InvalidInput("--ssh-host-alias is missing: which host is the kernel to run on?")
    if not (wanted.config.get("remote_python") or wanted.config.get("remote_python_prefix")):
        raise InvalidInput("--remote-python-prefix (or --remote-python) is missing")
    return RemoteKernel.from_config({"remote_kernel_name": "python3", **wanted.config})


def _folder_for(name: str, *, replace: bool) -> Path:
    """Return where to write: the place of the kernel to replace, or one in the user's folder.

    Another's kernelspec is never replaced, nor hidden by one of ours with the same name.
    """
    folder = kernelspecs.find(name)
    if folder is None:
        folder = kernelspecs.user_kernel_dir() / name
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise InvalidInput(f"{folder} is in the way: it is not a plain folder")
        return folder
    if not kernelspecs.is_sshpyk(kernelspecs.read_document(folder)):
        raise InvalidInput(
            f"kernel {name!r} in {folder} is not an SSH kernel and is not replaced",
            advice="choose another --kernel-name",
        )
    if not replace:
        raise InvalidInput(
            f"kernel {name!r} exists in {folder}",
            advice="choose another --kernel-name, or give --replace",
        )
    return folder
