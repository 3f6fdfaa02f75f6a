"""Builds what ``sshpyk list`` shows: kernelspecs and the hosts' answers in, reports out. Pure.

Apart from a look at this machine's files (is the ssh there, is the folder to mount there).
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from sshpyk.cli.results import Item, KernelReport, Mark
from sshpyk.doctor.hosts import HostFindings
from sshpyk.doctor.probe import HostAnswer, Interpreter
from sshpyk.errors import InvalidInput, SshpykError
from sshpyk.kernelspecs import BrokenKernelspec, LocalKernelspec, RemoteKernel
from sshpyk.ssh.command import find_ssh
from sshpyk.ssh.config import ResolvedHost

_OLDEST_PYTHON = (3, 8)


def broken_report(spec: BrokenKernelspec) -> KernelReport:
    """Say why a kernelspec cannot be used."""
    items = (
        Item("Name", spec.name),
        Item("Resource Dir", str(spec.resource_dir)),
        Item("Problem", spec.reason, Mark.BROKEN),
    )
    return KernelReport("broken", spec.name, items)


def local_report(spec: LocalKernelspec) -> KernelReport:
    """Say what a local kernel is."""
    return KernelReport("local", spec.name, tuple(_common(spec)))


def ssh_report(
    spec: LocalKernelspec, remote: RemoteKernel, findings: HostFindings | None
) -> KernelReport:
    """Say what an SSH kernel is; ``findings`` is None when this machine cannot even run its ssh."""
    items = [
        *_common(spec),
        *_ssh_items(remote, findings),
        *_remote_items(remote, findings.answer if findings else None),
        Item("Launch Timeout", f"{remote.launch_timeout:g}"),
        Item("Shutdown Timeout", f"{remote.shutdown_timeout:g}"),
        *_mount_items(remote),
        *(Item("Unknown Setting", key, Mark.ADVICE) for key in remote.unknown_keys),
    ]
    return KernelReport("ssh", spec.name, tuple(items))


def _common(spec: LocalKernelspec) -> Iterator[Item]:
    yield Item("Name", spec.name)
    yield Item("Display Name", spec.display_name)
    yield Item("Resource Dir", str(spec.resource_dir))
    yield Item("Command", _command(spec.argv), _command_mark(spec))
    yield Item("Language", spec.language)
    # Either mode works: the stand-in turns a signal into an interrupt of the remote kernel.
    yield Item("Interrupt Mode", spec.interrupt_mode, Mark.OK if spec.remote else None)


def _command(argv: Sequence[str]) -> str:
    """Join the words as kernel.json has them: quoted only where one has a space, or is empty."""
    return " ".join(word if len(word.split()) == 1 else shlex.quote(word) for word in argv)


def _command_mark(spec: LocalKernelspec) -> Mark | None:
    """Advise when the Python is gone that programs without provisioners would start."""
    if spec.remote is None:
        return None
    return Mark.OK if spec.argv and shutil.which(spec.argv[0]) else Mark.ADVICE


def _failure(label: str, value: str, error: SshpykError) -> Item:
    said = tuple(Item("said", line, Mark.INFO) for line in error.said.splitlines()[-3:])
    advice = (Item("advice", error.advice, Mark.ADVICE),) if error.advice else ()
    return Item(
        label, f"{value}: {error.what}" if value else error.what, Mark.BROKEN, said + advice
    )


def _ssh_items(remote: RemoteKernel, findings: HostFindings | None) -> Iterator[Item]:
    try:
        yield Item("SSH Path", find_ssh(remote.ssh), Mark.OK)
    except InvalidInput as error:
        yield _failure("SSH Path", "", error)
    if remote.ssh_config is not None:
        there = remote.ssh_config.lower() == "none" or Path(remote.ssh_config).is_file()
        yield Item("SSH Config", remote.ssh_config, Mark.OK if there else Mark.BROKEN)
    host = remote.ssh_host_alias
    if findings is None:
        yield Item("SSH Host Alias", host, Mark.UNCHECKED)
    elif isinstance(findings.chain, SshpykError):
        yield _failure("SSH Host Alias", host, findings.chain)
    else:
        *jumps, last = findings.chain
        yield Item("SSH Host Alias", host, Mark.OK, tuple(_resolved(last)))
        for jump in jumps:
            parts = tuple(_resolved(jump))
            yield Item("SSH Host Alias", f"{jump.host} (jump)", Mark.OK, parts)


def _resolved(host: ResolvedHost) -> Iterator[Item]:
    """Yield what ``ssh -G`` says of a host, where it says something."""
    values = {
        "user": host.user,
        "hostname": host.hostname,
        "port": str(host.port),
        "proxyjump": ",".join(host.proxyjump),
        "proxycommand": host.proxycommand,
        "controlpath": host.controlpath if host.controlmaster != "no" else "",
        "serveraliveinterval": str(host.serveraliveinterval or ""),
        "connecttimeout": "" if host.connecttimeout is None else str(host.connecttimeout),
    }
    yield from (Item(key, value, Mark.INFO) for key, value in values.items() if value)


def _remote_items(remote: RemoteKernel, answer: HostAnswer | SshpykError | None) -> Iterator[Item]:
    host = remote.ssh_host_alias
    if isinstance(answer, HostAnswer):
        yield Item("SSH Connection", host, Mark.OK)
        yield Item("Remote System", answer.system, Mark.INFO)
        yield from _interpreter_items(remote, answer.interpreters[remote.python])
    else:
        if answer is None:
            yield Item("SSH Connection", host, Mark.UNCHECKED)
        else:
            yield _failure("SSH Connection", host, answer)
        yield Item("Remote Python", remote.python, Mark.UNCHECKED)
        yield Item("Remote Kernel Name", remote.remote_kernel_name, Mark.UNCHECKED)
    if remote.remote_cwd is not None:
        yield Item("Remote Cwd", remote.remote_cwd, Mark.UNCHECKED)
    yield from _environment_items(remote)


def _environment_items(remote: RemoteKernel) -> Iterator[Item]:
    """Yield what is around the kernel; not the variables' values, which may be secrets."""
    shown = {
        "Activate": remote.activate or "",
        "Env": " ".join(remote.env),
        "Pass Env": " ".join(remote.pass_env),
        "Command Prefix": remote.remote_command or "",
    }
    yield from (Item(label, value, Mark.INFO) for label, value in shown.items() if value)


def _interpreter_items(remote: RemoteKernel, python: Interpreter) -> Iterator[Item]:
    name = remote.remote_kernel_name
    if python.reason:
        yield Item("Remote Python", f"{remote.python}: {python.reason}", Mark.BROKEN)
        yield Item("Remote Kernel Name", name, Mark.UNCHECKED)
        return
    version = f"{remote.python} (Python {python.version})"
    if _is_too_old(python.version):
        yield Item("Remote Python", f"{version}: 3.8 or later is needed", Mark.BROKEN)
    else:
        yield Item("Remote Python", version, Mark.OK)
    spec = python.specs.get(name)
    if spec is None:
        known = ", ".join(python.known) or "none"
        parts = (Item("kernels found", known, Mark.INFO),)
        yield Item("Remote Kernel Name", f"{name}: not found", Mark.BROKEN, parts)
        return
    yield Item("Remote Kernel Name", name, Mark.OK)
    yield Item("Remote Interrupt Mode", spec.interrupt_mode, Mark.INFO)
    yield Item("Remote Command", _command(spec.argv), Mark.INFO)


def _is_too_old(version: str) -> bool:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    return numbers < _OLDEST_PYTHON


def _mount_items(remote: RemoteKernel) -> Iterator[Item]:
    for mount in remote.mount_local_on_remote:
        if not remote.sshfs_enabled:
            yield Item("Mount", f"{mount} (off)", Mark.INFO)
        elif not Path(mount.local).expanduser().is_dir():
            yield Item("Mount", f"{mount}: there is no such local folder", Mark.BROKEN)
        else:
            yield Item("Mount", f"{mount}: this version does not mount yet", Mark.ADVICE)
