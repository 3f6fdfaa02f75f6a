"""Asks hosts what ``sshpyk list`` shows: one plain ``ssh`` each, side by side, within a time bound.

Nothing is written on a host and nothing is started that outlives the question. A later doctor can
take the place of :class:`RemoteCheck`: ``list`` needs its :meth:`~RemoteCheck.check_host` only.
"""

from __future__ import annotations

import logging
import os
import secrets
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from sshpyk.cli.probe import REMOTE_COMMAND, HostAnswer, Question, read_answer, script_for
from sshpyk.errors import HostError, InvalidInput, SshpykError, Unreachable
from sshpyk.ssh.command import SshTarget, batch_environment, ssh_argv
from sshpyk.ssh.config import ResolvedHost, resolve_chain
from sshpyk.ssh.diagnose import diagnose

log = logging.getLogger(__name__)

_PHASE = "checking the host"
_MAX_OUTPUT_BYTES = 1 << 20
_MAX_AT_ONCE = 32
_GRACE_S = 2.0


@dataclass(frozen=True)
class HostFindings:
    """What is known of a host: the ssh servers on the way, and its answer; None: not asked."""

    chain: tuple[ResolvedHost, ...] | SshpykError
    answer: HostAnswer | SshpykError | None = None


class RemoteCheck:
    """Asks one host at a time, from any number of threads; :meth:`stop` ends them all."""

    def __init__(self, timeout_s: float = 20.0) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def check_host(self, target: SshTarget, questions: Sequence[Question]) -> HostAnswer:
        """Return what the host answers. Raises SshpykError: no ssh, no login, no answer in time."""
        mark = f"sshpyk-{secrets.token_hex(8)}"
        # A file, since ssh reads nothing before the login and a pipe might be too small.
        with tempfile.TemporaryFile() as script:
            script.write(script_for(mark, questions).encode())
            script.seek(0)
            process = self._start(target, script.fileno())
        try:
            out, err, ended = _read(process, f"{mark} end".encode(), self._timeout_s)
            status = self._end(process, _GRACE_S if ended else 0.0)
        except BaseException:
            self._end(process, 0.0)
            raise
        log.debug("%s ended with %s and said %r", target.host, status, err)
        answer = read_answer(mark, questions, out)
        if answer is not None:
            return answer
        if not ended and not err.strip():
            what = f"no usable answer within {self._timeout_s:g} s"
            raise Unreachable(what, host=target.host, phase=_PHASE)
        said = f"{out[-2000:]}\n{err}"  # nologin speaks on stdout
        raise diagnose(
            said,
            status if ended else None,
            host=target.host,
            phase=_PHASE,
            login=target.typed,
            reopen=target.login_command,
        )

    def stop(self) -> None:
        """End every running question, and all to come."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)

    def _start(self, target: SshTarget, stdin: int) -> subprocess.Popen[bytes]:
        argv = ssh_argv(target, REMOTE_COMMAND)
        with self._lock:
            if self._stopped:
                raise HostError("not asked", host=target.host, phase=_PHASE)
            try:
                process = subprocess.Popen(
                    argv,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=batch_environment(os.environ),
                    start_new_session=True,  # no terminal to ask on; jump hosts end with it
                )
            except OSError as error:
                raise InvalidInput(f"{target.ssh} cannot be started: {error.strerror}") from error
            self._running.add(process)
        return process

    def _end(self, process: subprocess.Popen[bytes], grace_s: float) -> int:
        """Reap ssh, killing it after ``grace_s``; return its exit status."""
        try:
            return process.wait(grace_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            return process.wait()
        finally:
            with self._lock:
                self._running.discard(process)
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)


def _read(process: subprocess.Popen[bytes], end: bytes, timeout_s: float) -> tuple[str, str, bool]:
    """Read until ``end`` or the end of stdout (True), or a bound of time or of size (False).

    The end of stderr is not waited for: a master of a jump host may keep it open for ever.
    """
    assert process.stdout
    assert process.stderr
    out, err = process.stdout.fileno(), process.stderr.fileno()
    said = {out: b"", err: b""}
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for descriptor in said:
            selector.register(descriptor, selectors.EVENT_READ)
        while out in selector.get_map() and end not in said[out]:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if time.monotonic() > deadline or len(said[out]) > _MAX_OUTPUT_BYTES:
                break
            for key, _ in ready:
                chunk = os.read(key.fd, 65536)
                said[key.fd] += chunk
                if not chunk:
                    selector.unregister(key.fd)
        ended = out not in selector.get_map() or end in said[out]
    said[err] += _rest(err)
    return said[out].decode(errors="replace"), said[err].decode(errors="replace"), ended


def _rest(descriptor: int) -> bytes:
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return b""


def find_out(
    questions: Mapping[SshTarget, Sequence[Question]], *, connect: bool, timeout_s: float = 20.0
) -> dict[SshTarget, HostFindings]:
    """Return what is known of each host, all of them looked at side by side."""
    check = RemoteCheck(timeout_s)
    with ThreadPoolExecutor(max_workers=_MAX_AT_ONCE) as pool:
        try:
            look = partial(_find_out_one, check, connect=connect)
            found = pool.map(look, questions.keys(), questions.values())
            return dict(zip(questions, found, strict=True))
        except BaseException:  # Ctrl+C: the threads must not wait for their hosts
            check.stop()
            raise


def _find_out_one(
    check: RemoteCheck, target: SshTarget, questions: Sequence[Question], *, connect: bool
) -> HostFindings:
    chain: tuple[ResolvedHost, ...] | SshpykError
    answer: HostAnswer | SshpykError | None = None
    try:
        chain = resolve_chain(target)
    except SshpykError as error:
        chain = error
    if connect:
        try:
            answer = check.check_host(target, questions)
        except SshpykError as error:
            answer = error
    return HostFindings(chain, answer)
