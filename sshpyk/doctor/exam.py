"""The doctor's rounds: checks in the order in which things break, until one finds the cause.

An exam is a list of stages; each gathers what it needs and yields findings. :func:`run` ends after the
first stage that found something broken, since what comes later can only fail because of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sshpyk.doctor import machine
from sshpyk.doctor.finding import Item, Mark, advice, failure
from sshpyk.doctor.hosts import ask_hop, ask_host, connect_timeout
from sshpyk.doctor.kernel_checks import (
    cwd_items,
    interpreter_item,
    kernelspec_items,
    question_for,
)
from sshpyk.doctor.mount_checks import mount_items
from sshpyk.doctor.probe import HostAnswer, Question
from sshpyk.doctor.proof import Proof, prove
from sshpyk.doctor.ssh_checks import chain_items, client_item, connection_item, system_item
from sshpyk.errors import AuthenticationFailed, InvalidInput, SshpykError
from sshpyk.hub.scripts import HostScripts
from sshpyk.kernelconfig import RemoteKernel
from sshpyk.kernelspecs import BrokenKernelspec, LocalKernelspec
from sshpyk.ssh.command import SshTarget, find_ssh
from sshpyk.ssh.config import ResolvedHost, resolve_chain
from sshpyk.ssh.script import ScriptRunner
from sshpyk.ssh.version import client_version

# A Python that nearly every host has, for hosts of which no kernel is known yet.
_USUAL = Question("python3", "python3")


@dataclass(frozen=True)
class Stage:
    """``title`` is what is being done; ``look`` does it and yields what it found."""

    title: str
    look: Callable[[], Iterable[Item]]


@dataclass(frozen=True)
class Exam:
    """What is looked at, stage by stage."""

    subject: str
    stages: list[Stage]


def run(
    exam: Exam,
    tell: Callable[[Item], None],
    working: Callable[[str], contextlib.AbstractContextManager[Any]],
) -> tuple[Item, ...]:
    """Go through the stages; ``tell`` each finding as it is made, under ``working(title)``.

    Returns all findings; the last stage that was reached is the one with the broken one.
    """
    found: list[Item] = []
    for stage in exam.stages:
        with working(stage.title):
            items = tuple(stage.look())
        found += items
        for item in items:
            tell(item)
        if any(item.is_broken for item in items):
            break
    return tuple(found)


# This machine


def machine_exam(specs: list[LocalKernelspec | BrokenKernelspec]) -> Exam:
    """Return the exam of this machine: ssh, Jupyter, our folders, hubs, kernelspecs."""
    return Exam(
        "this machine",
        [
            Stage("looking at ssh", lambda: [_client("", None)]),
            Stage("looking at Jupyter", _jupyter),
            Stage(
                "looking at our folders", lambda: map(machine.folder_item, machine.our_folders())
            ),
            Stage("looking at kernelspecs", lambda: machine.spec_items(specs)),
            Stage("asking the hubs", lambda: machine.hub_items(machine.hub_answers())),
        ],
    )


def _client(label: str, ssh: str | None) -> Item:
    try:
        path = find_ssh(ssh)
    except InvalidInput as error:
        return failure("SSH Path", label, error)
    return client_item(path, client_version(path))


def _jupyter() -> Iterator[Item]:
    yield from machine.jupyter_items(
        machine.versions(), sees=machine.sees_provisioner(), programs=machine.jupyter_programs()
    )


# A host


class HostExam:
    """What is asked of one host, stage by stage; later stages use what earlier ones gathered."""

    def __init__(self, target: SshTarget, questions: list[Question], timeout_s: float) -> None:
        self.target = target
        self.questions = questions or [_USUAL]
        self.timeout_s = timeout_s
        self.runner = HostScripts(timeout_s)
        self.chain: tuple[ResolvedHost, ...] = ()
        self.answer: HostAnswer | None = None

    def stages(self) -> list[Stage]:
        """Return the stages up to what system the host is."""
        return [
            Stage("looking at ssh", lambda: [_client("", self.target.ssh)]),
            Stage("reading the ssh config", self._config),
            Stage("logging in to the jump hosts", self._hops),
            Stage(f"logging in to {self.target.host}", self._connection),
            Stage("looking at the host", self._system),
        ]

    def _config(self) -> Iterator[Item]:
        try:
            self.chain = resolve_chain(self.target)
        except SshpykError as error:
            yield from chain_items(self.target.host, error)
            return
        yield from chain_items(self.target.host, self.chain)

    def _link_is_up(self) -> bool:
        """Whether kernels can be started now, whatever another login would have to ask."""
        wanted = (self.target.host, self.target.ssh_config, "up")
        return any(
            answer is not None and (answer["host"], answer["ssh_config"], answer["link"]) == wanted
            for answer in machine.hub_answers()
        )

    def _hops(self) -> Iterator[Item]:
        if self.chain[:-1] and self._link_is_up():
            yield Item("Jump Host", "not asked: the link through it is up", Mark.INFO)
            return
        for hop in self.chain[:-1]:
            try:
                ask_hop(ScriptRunner(self.timeout_s), self.target, hop)
            except SshpykError as error:
                yield failure("Jump Host", hop.host, error)
                return
            yield Item("Jump Host", hop.host, Mark.OK)

    def _connection(self) -> Iterator[Item]:
        answer: HostAnswer | SshpykError
        try:
            options = connect_timeout(self.chain, self.timeout_s)
            answer = self.answer = ask_host(
                self.runner, self.target, self.questions, options=options
            )
        except SshpykError as error:
            if isinstance(error, AuthenticationFailed) and self._link_is_up():
                what = "the link is up through a login of yours; what is behind it was not asked"
                yield Item("SSH Connection", f"{self.target.host}: {what}", Mark.INFO)
                return
            answer = error
        yield connection_item(self.target.host, answer)

    def _system(self) -> Iterator[Item]:
        if self.answer is not None:
            yield system_item(self.answer)


def host_exam(
    target: SshTarget, kernels: list[LocalKernelspec], timeout_s: float
) -> tuple[Exam, HostExam]:
    """Return the exam of a host, and of the interpreters of ``kernels``, which run there."""
    remotes = [(spec.name, spec.remote) for spec in kernels if spec.remote is not None]
    host = HostExam(target, [question_for(remote) for _, remote in remotes], timeout_s)

    def look() -> Iterator[Item]:
        if host.answer is None:
            return
        for name, remote in remotes:
            python = host.answer.interpreters[remote.python]
            item = interpreter_item(name, remote.python, python)
            yield Item("SSH Kernel", name, Mark.INFO)
            yield item
            if not item.is_broken:
                yield from kernelspec_items(name, remote, python)
        if not remotes:
            yield from _usual_python(target, host.answer)

    return Exam(target.host, [*host.stages(), Stage("looking at its kernels", look)]), host


def _usual_python(target: SshTarget, answer: HostAnswer) -> Iterator[Item]:
    item = interpreter_item("", _USUAL.python, answer.interpreters[_USUAL.python])
    # No kernel is known that needs it: another interpreter may do.
    yield Item(item.label, item.value, Mark.OK if item.mark is Mark.OK else Mark.ADVICE)
    yield Item(
        "SSH Kernels",
        "none on this host yet",
        Mark.INFO,
        advice("add one", f"sshpyk add {target.host}"),
    )


# A kernel


def kernel_exam(
    spec: LocalKernelspec, remote: RemoteKernel, *, timeout_s: float, launch: bool
) -> tuple[Exam, HostExam | None]:
    """Return the exam of one SSH kernel: this machine's side, the way, the host, and a launch."""
    first = Stage("looking at the kernelspec", lambda: _own_side(spec, remote))
    try:
        host = HostExam(remote.target(), [question_for(remote)], timeout_s)
    except InvalidInput as error:
        problem = failure("SSH Path", "", error)
        return Exam(spec.name, [first, Stage("looking at ssh", lambda: [problem])]), None

    def python() -> Iterator[Item]:
        if host.answer is not None:
            answered = host.answer.interpreters[remote.python]
            yield interpreter_item(spec.name, remote.python, answered)

    def kernelspec() -> Iterator[Item]:
        if host.answer is not None:
            yield from kernelspec_items(spec.name, remote, host.answer.interpreters[remote.python])
            yield from cwd_items(spec.name, remote, host.answer)

    stages = [
        first,
        *host.stages(),
        Stage("looking at the interpreter", python),
        Stage("looking at the kernel", kernelspec),
        Stage("looking at the mounts", lambda: mount_items(remote, host.answer)),
    ]
    if launch:
        title = f"launching {spec.name} once"
        stages.append(Stage(title, lambda: [_launch_item(spec.name)]))
    return Exam(spec.name, stages), host


def _own_side(spec: LocalKernelspec, remote: RemoteKernel) -> Iterator[Item]:
    yield Item("Kernelspec", str(spec.resource_dir / "kernel.json"), Mark.OK)
    yield from machine.argv_items(spec)
    yield from (Item("Unknown Setting", key, Mark.ADVICE) for key in remote.unknown_keys)
    if not machine.sees_provisioner():
        yield from machine.jupyter_items({}, sees=False, programs=[])


def _launch_item(name: str) -> Item:
    """Launch the kernel once; what stays behind is what a notebook would leave: the link, for a while."""
    (proof,) = prove([name], _unheard)
    if proof.error is not None:
        return failure("Launch", "", proof.error)
    return Item("Launch", f"the kernel answered after {proof.took_s:.1f} s", Mark.OK)


def _unheard(_proof: Proof) -> None:
    """Do nothing: one proof is waited for."""
