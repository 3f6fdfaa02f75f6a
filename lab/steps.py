"""What every step of the lab needs: progress lines, logged commands, fingerprints, one lock.

Standard library only, like all of ``lab/``: it must run before anything is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

LAB = Path(__file__).resolve().parent
REPO = LAB.parent
BUILD = LAB / ".build"
_TAIL_LINES = 30


class LabError(Exception):
    """The lab cannot go on; the text says why and what to do, for a person to read."""


def say(message: str) -> None:
    """Print one progress line on stderr, so that stdout stays the tests' own."""
    print(f"[lab] {message}", file=sys.stderr, flush=True)


def run_logged(
    what: str, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None
) -> None:
    """Run a long command with its output in ``.build/<what>.log``; a failure shows the log's tail."""
    BUILD.mkdir(exist_ok=True)
    log = BUILD / f"{what.replace(' ', '-')}.log"
    say(f"{what} …")
    started = time.monotonic()
    with log.open("wb") as sink:
        done = subprocess.run(
            [str(arg) for arg in argv],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=REPO,
            check=False,
        )
    if done.returncode:
        tail = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        shown = "\n".join(f"  | {line}" for line in tail)
        raise LabError(f"{what} failed with exit code {done.returncode} ({log}):\n{shown}")
    say(f"{what}: {time.monotonic() - started:.1f} s")


def output_of(argv: Sequence[str | Path], *, stdin: str = "") -> str:
    """Return what a short command prints; raise :class:`LabError` with its words if it fails."""
    done = subprocess.run(
        [str(arg) for arg in argv], input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = " ".join(str(arg) for arg in argv[:6])
        raise LabError(f"`{words} …` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def succeeds(argv: Sequence[str | Path], *, timeout_s: float = 30) -> bool:
    """Tell whether a command ends with 0 in time; what it prints is nobody's business."""
    try:
        done = subprocess.run(
            [str(arg) for arg in argv], capture_output=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def fingerprint(files: Iterable[Path], *words: str) -> str:
    """Digest names and contents: the same inputs give the same word on any machine."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(REPO)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for word in words:
        digest.update(f"\0{word}".encode())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def exclusive_use(lab: str) -> Iterator[None]:
    """Hold the lab for one command at a time: two test runs would see each other's processes.

    The lab belongs to the machine, not to a checkout. The kernel frees the lock when its holder
    ends, however it ends.
    """
    with Path(f"/tmp/.{lab}-{os.getuid()}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another command is using the lab; waiting for it to finish")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
