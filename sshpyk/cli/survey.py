"""Builds what ``sshpyk list`` shows of each kernel, from the checks of :mod:`sshpyk.doctor`. Pure.

Apart from a look at this machine's files (is the ssh there, is the folder to mount there).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from sshpyk.cli.results import Item, KernelReport, Mark
from sshpyk.doctor.finding import failure
from sshpyk.doctor.hosts import HostFindings
from sshpyk.doctor.kernel_checks import command_line, cwd_items, kernel_items
from sshpyk.doctor.mount_checks import mount_items
from sshpyk.doctor.probe import HostAnswer
from sshpyk.doctor.ssh_checks import chain_items, client_item, connection_item, system_item
from sshpyk.errors import InvalidInput
from sshpyk.kernelspecs import BrokenKernelspec, LocalKernelspec, RemoteKernel
from sshpyk.ssh.command import find_ssh


def broken_report(spec: BrokenKernelspec) -> KernelReport:
    """Say why a kernelspec cannot be used."""
    items = (
        Item("Name", spec.name),
        Item("Resource Dir", str(spec.resource_dir)),
        Item("Problem", spec.reason, Mark.BROKEN, code="KERNELSPEC-BROKEN"),
    )
    return KernelReport("broken", spec.name, items)


def local_report(spec: LocalKernelspec) -> KernelReport:
    """Say what a local kernel is."""
    return KernelReport("local", spec.name, tuple(_common(spec)))


def ssh_report(
    spec: LocalKernelspec, remote: RemoteKernel, findings: HostFindings | None
) -> KernelReport:
    """Say what an SSH kernel is; ``findings`` is None when this machine cannot even run its ssh."""
    answer = findings.answer if findings else None
    connection = connection_item(remote.ssh_host_alias, answer)
    items = [
        *_common(spec),
        *_ssh_items(remote, findings),
        connection,
        *([system_item(answer)] if isinstance(answer, HostAnswer) else []),
        *kernel_items(spec.name, remote, answer),
        *cwd_items(spec.name, remote, answer),
        *_environment_items(remote),
        Item("Launch Timeout", f"{remote.launch_timeout:g}"),
        Item("Shutdown Timeout", f"{remote.shutdown_timeout:g}"),
        *mount_items(remote, answer if isinstance(answer, HostAnswer) else None),
        *(Item("Unknown Setting", key, Mark.ADVICE) for key in remote.unknown_keys),
    ]
    return KernelReport("ssh", spec.name, tuple(items))


def _common(spec: LocalKernelspec) -> Iterator[Item]:
    yield Item("Name", spec.name)
    yield Item("Display Name", spec.display_name)
    yield Item("Resource Dir", str(spec.resource_dir))
    yield Item("Command", command_line(spec.argv), _command_mark(spec))
    yield Item("Language", spec.language)
    # Either mode works: the stand-in turns a signal into an interrupt of the remote kernel.
    yield Item("Interrupt Mode", spec.interrupt_mode, Mark.OK if spec.remote else None)


def _command_mark(spec: LocalKernelspec) -> Mark | None:
    """Advise when the Python is gone that programs without provisioners would start."""
    if spec.remote is None:
        return None
    return Mark.OK if spec.argv and shutil.which(spec.argv[0]) else Mark.ADVICE


def _ssh_items(remote: RemoteKernel, findings: HostFindings | None) -> Iterator[Item]:
    try:
        yield client_item(find_ssh(remote.ssh), findings.client if findings else None)
    except InvalidInput as error:
        yield failure("SSH Path", "", error)
    if remote.ssh_config is not None:
        there = remote.ssh_config.lower() == "none" or Path(remote.ssh_config).is_file()
        code = "" if there else "SSH-CONFIG-MISSING"
        yield Item("SSH Config", remote.ssh_config, Mark.OK if there else Mark.BROKEN, code=code)
    yield from chain_items(remote.ssh_host_alias, findings.chain if findings else None)


def _environment_items(remote: RemoteKernel) -> Iterator[Item]:
    """Yield what is around the kernel; not the variables' values, which may be secrets."""
    shown = {
        "Activate": remote.activate or "",
        "Env": " ".join(remote.env),
        "Pass Env": " ".join(remote.pass_env),
        "Command Prefix": remote.remote_command or "",
    }
    yield from (Item(label, value, Mark.INFO) for label, value in shown.items() if value)
