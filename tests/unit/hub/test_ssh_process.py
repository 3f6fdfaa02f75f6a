"""What is written to a running ssh, which may read slowly, never, or be gone."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sshpyk.hub.ssh_process import SshProcess
from sshpyk.hub.ssh_start import Pipes
from tests.unit.wire.harness import in_loop

MORE_THAN_A_PIPE = bytes(range(256)) * 400  # 100 kB; the rest of it is less than a pipe holds


class Ended:
    """A process that nobody needs to end."""

    pid = 4711

    def poll(self) -> int:
        return 0


@contextmanager
def running() -> Iterator[tuple[SshProcess, Pipes]]:
    """An ssh, and its own ends of the pipes; those that are left open are closed."""
    (stdin, our_stdin), (our_stdout, stdout), (our_stderr, stderr) = (os.pipe() for _ in range(3))
    theirs = Pipes(stdin, stdout, stderr)
    yield SshProcess(Ended(), Pipes(our_stdin, our_stdout, our_stderr)), theirs
    for fd in theirs[1:]:
        os.close(fd)


async def read(fd: int, size: int) -> bytes:
    """Return ``size`` bytes as they come."""
    data = b""
    os.set_blocking(fd, False)
    while len(data) < size:
        try:
            data += os.read(fd, 4096)
        except BlockingIOError:
            await asyncio.sleep(0.001)
    return data


@in_loop
async def test_what_is_larger_than_the_pipe_arrives_whole():
    with running() as (ssh, theirs):
        writing = asyncio.ensure_future(ssh.write(MORE_THAN_A_PIPE))
        assert await read(theirs.stdin_fd, len(MORE_THAN_A_PIPE)) == MORE_THAN_A_PIPE
        await writing
        ssh.end(close_pipes=True)
        os.close(theirs.stdin_fd)


@in_loop
async def test_ssh_that_goes_while_it_is_written_to_is_an_error():
    with running() as (ssh, theirs):
        writing = asyncio.ensure_future(ssh.write(MORE_THAN_A_PIPE))
        await read(theirs.stdin_fd, 1)
        os.close(theirs.stdin_fd)
        with pytest.raises(BrokenPipeError):
            await writing
        ssh.end(close_pipes=True)


@in_loop
async def test_rest_of_a_write_that_was_given_up_goes_to_nobody_else():
    """The next dial's pipe gets the number of the closed one."""
    with running() as (ssh, theirs):
        writing = asyncio.ensure_future(ssh.write(MORE_THAN_A_PIPE))
        await read(theirs.stdin_fd, 1)
        writing.cancel()
        await asyncio.wait({writing})
        next_stdin, next_end = os.pipe()
        os.set_blocking(next_stdin, False)
        number = ssh.stdin_fd
        ssh.end(close_pipes=True)
        os.dup2(next_end, number)
        os.close(theirs.stdin_fd)  # now the ssh that was ended is gone
        await asyncio.get_running_loop().shutdown_default_executor()
        with pytest.raises(BlockingIOError):  # nothing is there
            os.read(next_stdin, 1)
        for fd in (next_stdin, next_end, number):
            os.close(fd)


@in_loop
async def test_write_that_was_given_up_waits_for_nobody_who_holds_the_pipe():
    threads = threading.active_count()
    with running() as (ssh, theirs):
        writing = asyncio.ensure_future(ssh.write(MORE_THAN_A_PIPE))
        await read(theirs.stdin_fd, 1)
        writing.cancel()
        await asyncio.wait({writing})
        ssh.end(close_pipes=True)
        left = threading.active_count() - threads
        os.close(theirs.stdin_fd)
        assert not left
