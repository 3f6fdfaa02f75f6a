"""``sshpyk delete``: remove the folder of an SSH kernel, and nothing that is not the kernelspec."""

from __future__ import annotations

from pathlib import Path

import click

from sshpyk import kernelspecs
from sshpyk.cli.complete import ssh_kernels
from sshpyk.cli.results import Deleted
from sshpyk.errors import InvalidInput, SshpykError


@click.command()
@click.argument("kernel_name", metavar="NAME", shell_complete=ssh_kernels)
def delete(kernel_name: str) -> Deleted:
    """Delete an SSH kernel: its kernelspec on this machine, never another's.

    Nothing happens on the host.

    \b
    Examples:
      sshpyk delete ssh_gpu1_analysis
    """
    folder = kernelspecs.existing(kernel_name)
    if not kernelspecs.is_sshpyk(kernelspecs.read_document(folder)):
        raise InvalidInput(f"kernel {kernel_name!r} in {folder} is not an SSH kernel: it stays")
    files = _files_of(folder)
    try:
        # kernel.json first: whatever happens then, no half of a kernel is left in Jupyter's list.
        for file in files:
            file.unlink()
        folder.rmdir()
    except OSError as error:
        raise SshpykError(f"cannot delete {error.filename or folder}: {error.strerror}") from error
    return Deleted(kernel_name.lower(), folder)


def _files_of(folder: Path) -> list[Path]:
    """Return the folder's files, kernel.json first. Raises SshpykError if it holds anything else."""
    if folder.is_symlink():
        raise SshpykError(
            f"{folder} is a symbolic link to {folder.resolve()}: nothing was deleted",
            advice=f"remove the link itself with: rm '{folder}'",
        )
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: (entry.name != "kernel.json", entry))
    except OSError as error:
        raise SshpykError(f"cannot read {folder}: {error.strerror}") from error
    foreign = [entry.name for entry in entries if not _belongs(entry)]
    if foreign:
        raise SshpykError(
            f"{folder} also holds {', '.join(map(repr, foreign))}: nothing was deleted",
            advice="move that elsewhere, then delete again",
        )
    return entries


def _belongs(entry: Path) -> bool:
    """Tell whether a kernelspec's folder has this by right (Jupyter's documented resources)."""
    if entry.is_dir() and not entry.is_symlink():
        return False
    name = entry.name
    return (
        name in ("kernel.json", "kernel.js", "kernel.css", ".DS_Store")
        or (name.startswith("logo-") and name.endswith((".png", ".svg")))
        or (name.startswith(".kernel.json.") and name.endswith(".tmp"))
    )
