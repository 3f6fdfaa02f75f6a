"""Checks behind the login: interpreter, kernelspec, its program and packages. Facts in, findings out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from sshpyk.doctor.finding import Item, Mark, advice
from sshpyk.doctor.mount_checks import sshfs_program
from sshpyk.doctor.probe import HostAnswer, Interpreter, Packages, Question, RemoteSpec
from sshpyk.doctor.python_probe import TOO_SLOW
from sshpyk.errors import SshpykError
from sshpyk.kernelconfig import RemoteKernel
from sshpyk.ssh.command import SshTarget

_OLDEST_PYTHON = (3, 8)


def command_line(argv: Sequence[str]) -> str:
    """Join the words as kernel.json has them: quoted only where one has a space, or is empty."""
    return " ".join(word if len(word.split()) == 1 else shlex.quote(word) for word in argv)


def on_host(remote: RemoteKernel, command: str) -> str:
    """Return the line to paste here that runs ``command`` on the host."""
    typed = SshTarget(remote.ssh_host_alias, remote.ssh or "ssh", remote.ssh_config).typed
    return f"{typed} {shlex.quote(command)}"


def unchecked_items(remote: RemoteKernel) -> Iterator[Item]:
    """Yield what stays open when the host has not answered."""
    yield Item("Remote Python", remote.python, Mark.UNCHECKED)
    yield Item("Remote Kernel Name", remote.remote_kernel_name, Mark.UNCHECKED)


def kernel_items(
    name: str, remote: RemoteKernel, answer: HostAnswer | SshpykError | None
) -> Iterator[Item]:
    """Yield what a host's answer says of one kernel, in the order in which things break."""
    if not isinstance(answer, HostAnswer):
        yield from unchecked_items(remote)
        return
    python = answer.interpreters[remote.python]
    item = interpreter_item(name, remote.python, python)
    yield item
    if python.reason or item.is_broken:
        yield Item("Remote Kernel Name", remote.remote_kernel_name, Mark.UNCHECKED)
        return
    yield from kernelspec_items(name, remote, python)


def interpreter_item(name: str, path: str, python: Interpreter) -> Item:
    """Return whether the interpreter runs and is new enough; ``name`` is the kernel's."""
    label = "Remote Python"
    edit = f"sshpyk edit {shlex.quote(name)} --remote-python PATH" if name else ""
    other = advice("name an interpreter of the host, 3.8 or later", edit)
    if python.reason == TOO_SLOW:
        slow = advice(
            "a cold environment on a network file system takes long: give it --timeout 60"
        )
        return Item(label, f"{path}: {python.reason}", Mark.BROKEN, slow, "HOST-NO-ANSWER")
    if python.reason:
        missing = python.reason == "was not found"
        code = "HOST-NO-INTERPRETER" if missing else "HOST-PYTHON-BROKEN"
        return Item(label, f"{path}: {python.reason}", Mark.BROKEN, other, code)
    text = f"{path} (Python {python.version})"
    if _is_too_old(python.version):
        what = f"{text}: 3.8 or later is needed"
        return Item(label, what, Mark.BROKEN, other, "HOST-PYTHON-TOO-OLD")
    return Item(label, text, Mark.OK)


def _is_too_old(version: str) -> bool:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    return numbers < _OLDEST_PYTHON


def kernelspec_items(name: str, remote: RemoteKernel, python: Interpreter) -> Iterator[Item]:
    """Yield whether the interpreter knows the kernel, and whether that has what it needs."""
    wanted = remote.remote_kernel_name
    if remote.found_at_launch:
        yield Item("Remote Kernel Name", f"{wanted}: comes with --activate", Mark.UNCHECKED)
        return
    spec = python.specs.get(wanted)
    if spec is None:
        yield _no_kernelspec(name, remote, python)
        return
    yield Item("Remote Kernel Name", wanted, Mark.OK)
    yield Item("Remote Interrupt Mode", spec.interrupt_mode, Mark.INFO)
    if remote.activate and not spec.program:  # the lines may bring it
        yield Item("Remote Command", command_line(spec.argv), Mark.UNCHECKED)
        return
    yield command_item(spec)
    if spec.program and spec.packages is not None:
        yield packages_item(remote, spec.program, spec.packages)


def _no_kernelspec(name: str, remote: RemoteKernel, python: Interpreter) -> Item:
    wanted = remote.remote_kernel_name
    code = "KERNELSPEC-NOT-FOUND"
    if wanted in python.broken:
        what = f"{wanted}: its kernel.json cannot be used ({python.broken[wanted]})"
        return Item("Remote Kernel Name", what, Mark.BROKEN, (), code)
    install = on_host(remote, f"{shlex.quote(python.path)} -m pip install ipykernel")
    other = "or name another environment with sshpyk edit --remote-python-prefix"
    parts = (
        Item("kernels found", ", ".join(python.known) or "none", Mark.INFO),
        *(
            advice(f"install ipykernel in that environment, {other}", install)
            if not python.known or re.fullmatch(r"python3?", wanted)
            else advice(
                "name one that is there",
                f"sshpyk edit {shlex.quote(name)} --remote-kernel-name NAME",
            )
        ),
    )
    return Item("Remote Kernel Name", f"{wanted}: not found", Mark.BROKEN, parts, code)


def command_item(spec: RemoteSpec) -> Item:
    """Return what the kernelspec runs, and whether its program is there."""
    label, text = "Remote Command", command_line(spec.argv)
    if spec.program:
        return Item(label, text, Mark.OK)
    where = f"{spec.folder}/kernel.json on the host"
    todo = advice(f"install it, or correct {where}")
    program = spec.argv[0] if spec.argv else "(no program)"
    return Item(
        label, f"{text}: there is no {program}", Mark.BROKEN, todo, code="KERNEL-NO-PROGRAM"
    )


def packages_item(remote: RemoteKernel, program: str, packages: Packages) -> Item:
    """Return whether the kernel's own interpreter has what the kernel is made of."""
    label = "Remote Packages"
    if packages.failed:
        return Item(label, f"{program}: {packages.failed}", Mark.ADVICE)
    install = f"{shlex.quote(program)} -m pip install "
    is_ipykernel = packages.module.startswith("ipykernel")
    if not packages.module_found:
        package = "ipykernel" if is_ipykernel else packages.module.split(".")[0]
        todo = advice("install it there", on_host(remote, install + shlex.quote(package)))
        what = f"{program} has no module {packages.module}"
        code = "KERNEL-NO-IPYKERNEL" if is_ipykernel else "KERNEL-NO-MODULE"
        return Item(label, what, Mark.BROKEN, todo, code)
    if packages.zmq_error:
        todo = advice("install it there", on_host(remote, install + "--force-reinstall pyzmq"))
        what = f"{program} cannot import zmq: {packages.zmq_error}"
        # Only for ipykernel is it certain that this is fatal.
        mark = Mark.BROKEN if is_ipykernel else Mark.ADVICE
        return Item(label, what, mark, todo, "KERNEL-NO-PYZMQ" if is_ipykernel else "")
    versions = {"ipykernel": packages.ipykernel, "pyzmq": packages.pyzmq}
    text = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return Item(label, text or packages.module, Mark.OK)


def question_for(remote: RemoteKernel) -> Question:
    """Return what a host is asked for one kernel."""
    mounts = remote.mount_local_on_remote if remote.sshfs_enabled else ()
    cwd = remote.remote_cwd or ""
    return Question(
        remote.python,
        remote.remote_kernel_name,
        folders=tuple(mount.remote for mount in mounts),
        sshfs=sshfs_program(remote),
        cwd="" if "{" in cwd else cwd,
        alias=(remote.ssh_host_alias_local_on_remote or "") if mounts else "",
    )


def cwd_items(
    name: str, remote: RemoteKernel, answer: HostAnswer | SshpykError | None
) -> Iterator[Item]:
    """Yield whether the folder is there that the kernel is to work in, if one was named."""
    cwd = remote.remote_cwd
    if cwd is None:
        return
    state = answer.folders.get(cwd, "") if isinstance(answer, HostAnswer) else ""
    mounts = remote.mount_local_on_remote if remote.sshfs_enabled else ()
    if any(f"{cwd}/".startswith(f"{mount.remote.rstrip('/')}/") for mount in mounts):
        yield Item("Remote Cwd", f"{cwd} (in a mount)", Mark.INFO)
    elif state in ("", "stale"):
        yield Item("Remote Cwd", cwd, Mark.UNCHECKED)
    elif state in ("missing", "no-parent", "no-folder"):
        edit = f"sshpyk edit {shlex.quote(name)} --remote-cwd PATH"
        todo = advice("make that folder on the host, or name another", edit)
        yield Item(
            "Remote Cwd", f"{cwd}: no such folder", Mark.BROKEN, todo, code="KERNEL-NO-FOLDER"
        )
    else:
        yield Item("Remote Cwd", cwd, Mark.OK)
