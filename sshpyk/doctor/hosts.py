"""Asks hosts what the checks want to know, side by side, with one ssh each."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from sshpyk.doctor.probe import (
    HostAnswer,
    Question,
    end_line,
    has_begun,
    read_answer,
    script_for,
)
from sshpyk.errors import RemoteShellFailed, SshpykError, Unreachable
from sshpyk.hub.scripts import HostScripts
from sshpyk.ssh.command import SshTarget
from sshpyk.ssh.config import ResolvedHost, resolve_chain
from sshpyk.ssh.script import ScriptRunner
from sshpyk.ssh.version import ClientVersion, client_version

_MAX_AT_ONCE = 32
_CONFIG_TIMEOUT_S = 5.0
_AGAIN_AFTER_S = (0.5, 2.0)
# What a server says that has too many logins at once (MaxStartups): the many hosts of one bastion.
_CROWDED = ("SSH-DROPPED-EARLY", "SSH-PROXY-ENDED")

Progress = Callable[[SshTarget, str], None]


@dataclass(frozen=True)
class HostFindings:
    """What is known of a host: the client, the ssh servers on the way, its answer; None: not asked."""

    chain: tuple[ResolvedHost, ...] | SshpykError
    answer: HostAnswer | SshpykError | None = None
    client: ClientVersion | None = None


def ask_host(
    runner: ScriptRunner | HostScripts,
    target: SshTarget,
    questions: Sequence[Question],
    *,
    timeout_s: float | None = None,
    options: Sequence[str] = (),
) -> HostAnswer:
    """Return what the host answers. Raises SshpykError: no ssh, no login, no answer in time."""
    mark = f"sshpyk-{secrets.token_hex(8)}"
    script = script_for(mark, questions)
    try:
        printed = runner.run(target, script, end_line(mark), options=options, timeout_s=timeout_s)
    except Unreachable as error:
        if not has_begun(mark, error.said):
            raise
        printed = error.said  # the login works; what is missing is slow (a cold environment)
    return read_answer(mark, questions, printed)


def connect_timeout(chain: object, timeout_s: float) -> list[str]:
    """Return the ssh option that lets a silent host be told from a login that hangs: ssh says it.

    A shorter ConnectTimeout of the user's stays; ``chain`` may be the error of a config.
    """
    own = chain[-1].connecttimeout if isinstance(chain, tuple) else None
    ours = max(1, int(timeout_s * 0.8))
    return [] if own is not None and own <= ours else [f"ConnectTimeout={ours}"]


def ask_hop(runner: ScriptRunner | HostScripts, target: SshTarget, hop: ResolvedHost) -> None:
    """Log in to a jump host of ``target`` as ssh would on the way. Raises SshpykError with the cause.

    An account there that has no shell is fine: it can be jumped through.
    """
    mark = f"sshpyk-{secrets.token_hex(8)}"
    options = [f"ProxyJump={','.join(hop.proxyjump)}"] if hop.proxyjump else []
    try:
        runner.run(
            target.at(hop.host),
            f"echo {end_line(mark)}\n",
            end_line(mark),
            options=options,
        )
    except RemoteShellFailed:
        return


def find_out(
    questions: Mapping[SshTarget, Sequence[Question]],
    *,
    connect: bool,
    timeout_s: float = 20.0,
    progress: Progress = lambda _target, _step: None,
) -> dict[SshTarget, HostFindings]:
    """Return what is known of each host, all of them looked at side by side within ``timeout_s``.

    ``progress`` is called from threads with what a host is being asked, and "" when it is done.
    """
    runner = HostScripts(timeout_s)
    clients = {ssh: client_version(ssh) for ssh in {target.ssh for target in questions}}
    look = _Look(runner, time.monotonic() + timeout_s, timeout_s, progress)
    with ThreadPoolExecutor(max_workers=_MAX_AT_ONCE) as pool:
        try:
            found = pool.map(
                partial(look.at, connect=connect), questions.keys(), questions.values()
            )
            return {
                target: replace(findings, client=clients[target.ssh])
                for target, findings in zip(questions, found, strict=True)
            }
        except BaseException:  # Ctrl+C: the threads must not wait for their hosts
            runner.stop()
            raise


@dataclass(frozen=True)
class _Look:
    """What the threads share: who runs ssh, and when the time is up."""

    runner: ScriptRunner | HostScripts
    deadline_s: float
    timeout_s: float
    progress: Progress

    def at(
        self, target: SshTarget, questions: Sequence[Question], *, connect: bool
    ) -> HostFindings:
        chain: tuple[ResolvedHost, ...] | SshpykError
        answer: HostAnswer | SshpykError | None = None
        try:
            self.progress(target, "reading the ssh config")
            chain = resolve_chain(target, min(_CONFIG_TIMEOUT_S, self._left_s(target)))
        except SshpykError as error:
            chain = error
        if connect:
            try:
                self.progress(target, "connecting")
                answer = self._ask(target, questions, connect_timeout(chain, self.timeout_s))
            except SshpykError as error:
                answer = error
        self.progress(target, "")
        return HostFindings(chain, answer)

    def _left_s(self, target: SshTarget) -> float:
        left_s = self.deadline_s - time.monotonic()
        if left_s <= 0:
            what = f"not asked: the {self.timeout_s:g} s were over"
            raise Unreachable(what, host=target.host, code="HOST-NO-ANSWER")
        return left_s

    def _ask(
        self, target: SshTarget, questions: Sequence[Question], options: Sequence[str]
    ) -> HostAnswer:
        ask = partial(ask_host, self.runner, target, questions, options=options)
        try:
            return ask(timeout_s=self._left_s(target))
        except Unreachable as error:
            pause_s = random.uniform(*_AGAIN_AFTER_S)  # noqa: S311  # no secret
            if error.code not in _CROWDED or self._left_s(target) <= 2 * pause_s:
                raise
        time.sleep(pause_s)
        return ask(timeout_s=self._left_s(target))
