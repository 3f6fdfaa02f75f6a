"""Asks hosts what ``sshpyk list`` shows, side by side, with one ssh each."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from sshpyk.doctor.probe import HostAnswer, Question, end_line, read_answer, script_for
from sshpyk.errors import SshpykError
from sshpyk.ssh.command import SshTarget
from sshpyk.ssh.config import ResolvedHost, resolve_chain
from sshpyk.ssh.script import ScriptRunner

_MAX_AT_ONCE = 32


@dataclass(frozen=True)
class HostFindings:
    """What is known of a host: the ssh servers on the way, and its answer; None: not asked."""

    chain: tuple[ResolvedHost, ...] | SshpykError
    answer: HostAnswer | SshpykError | None = None


def ask_host(runner: ScriptRunner, target: SshTarget, questions: Sequence[Question]) -> HostAnswer:
    """Return what the host answers. Raises SshpykError: no ssh, no login, no answer in time."""
    mark = f"sshpyk-{secrets.token_hex(8)}"
    printed = runner.run(target, script_for(mark, questions), end_line(mark))
    return read_answer(mark, questions, printed)


def find_out(
    questions: Mapping[SshTarget, Sequence[Question]], *, connect: bool, timeout_s: float = 20.0
) -> dict[SshTarget, HostFindings]:
    """Return what is known of each host, all of them looked at side by side."""
    runner = ScriptRunner(timeout_s)
    with ThreadPoolExecutor(max_workers=_MAX_AT_ONCE) as pool:
        try:
            look = partial(_find_out_one, runner, connect=connect)
            found = pool.map(look, questions.keys(), questions.values())
            return dict(zip(questions, found, strict=True))
        except BaseException:  # Ctrl+C: the threads must not wait for their hosts
            runner.stop()
            raise


def _find_out_one(
    runner: ScriptRunner, target: SshTarget, questions: Sequence[Question], *, connect: bool
) -> HostFindings:
    chain: tuple[ResolvedHost, ...] | SshpykError
    answer: HostAnswer | SshpykError | None = None
    try:
        chain = resolve_chain(target)
    except SshpykError as error:
        chain = error
    if connect:
        try:
            answer = ask_host(runner, target, questions)
        except SshpykError as error:
            answer = error
    return HostFindings(chain, answer)
