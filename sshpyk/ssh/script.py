"""Runs one short POSIX sh script on a host, over a plain ``ssh``, within bounds of time and size.

For looking at a host, not for kernels: nothing is written there and nothing outlives the question.
Who calls: :mod:`sshpyk.doctor` and the discovery behind ``sshpyk add``, from any number of threads.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence

from sshpyk.errors import HostError, InvalidInput, SshpykError, Unreachable
from sshpyk.ssh.command import SshTarget, batch_environment, ssh_argv
from sshpyk.ssh.diagnose import diagnose
from sshpyk.ssh.diagnose import said as said_so_far

log = logging.getLogger(__name__)

# The words after the host: any login shell understands them. The script comes on stdin.
REMOTE_COMMAND = ("exec", "sh")
_MAX_OUTPUT_BYTES = 1 << 20
_GRACE_S = 2.0


class ScriptRunner:
    """Runs scripts on hosts, from any number of threads; :meth:`stop` ends them all."""

    def __init__(self, timeout_s: float = 20.0, *, phase: str = "checking the host") -> None:
        self._timeout_s = timeout_s
        self._phase = phase
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(
        self,
        target: SshTarget,
        script: str,
        end: str,
        *,
        options: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> str:
        """Return what the script printed, which came to the line ``end``, its last.

        ``options`` as in :func:`~sshpyk.ssh.command.ssh_argv`; ``timeout_s`` where less time is left than
        a script may take.

        Raises SshpykError with the cause when it did not: no ssh, no login, no answer in time.
        """
        # A file, since ssh reads nothing before the login and a pipe might be too small.
        with tempfile.TemporaryFile() as file:
            file.write(script.encode())
            file.seek(0)
            argv = ssh_argv(target, REMOTE_COMMAND, options=options)
            process = self._start(target, argv, file.fileno())
        patience_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            out, err, ended = _read(process, end.encode(), patience_s)
            status = self._end(process, _GRACE_S if ended else 0.0)
        except BaseException:
            self._end(process, 0.0)
            raise
        log.debug("%s ended with %s and said %r", target.host, status, err)
        if end in out:
            return out
        raise self._failure(target, f"{out[-2000:]}\n{err}", err, status if ended else None)

    def _failure(self, target: SshTarget, said: str, err: str, status: int | None) -> SshpykError:
        if status is None and not err.strip():
            what = f"no usable answer within {self._timeout_s:g} s"
            return Unreachable(
                what,
                host=target.host,
                phase=self._phase,
                said=said_so_far(said),
                advice=f"see whether the network or a start-up file there hangs: {target.typed} true",
                code="HOST-NO-ANSWER",
            )
        return diagnose(  # of stdout too: nologin speaks there
            said,
            status,
            host=target.host,
            phase=self._phase,
            login=target.typed,
            reopen=target.login_command,
        )

    def stop(self) -> None:
        """End every running script, and all to come."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)

    def _start(self, target: SshTarget, argv: list[str], stdin: int) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise HostError("not asked", host=target.host, phase=self._phase)
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
