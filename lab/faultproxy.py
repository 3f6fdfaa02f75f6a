"""A TCP proxy that does to a connection what networks do: stall it, slow it down, cut it.

It stands in front of an sshd, so that everything behind it (ssh, hub, agent, kernels) is the real
thing. A test makes its own, in its own process, and commands it by methods::

    with FaultProxy("remote", 22) as proxy:  # ssh goes to 127.0.0.1, port proxy.port
        proxy.pause(10)                      # a black hole for 10 s
        cut = proxy.cut(1000, DOWN)          # a reset after 1000 more bytes towards the client
        cut.wait(20)

A person runs it beside a kernel and types the same commands::

    python lab/faultproxy.py --listen 127.0.0.1:2222 --to gpu1:22
    ssh -p 2222 -o HostKeyAlias=gpu1 127.0.0.1      # or the two settings in ~/.ssh/config

and then, on its standard input:

    pause 12            nothing passes for 12 s; `pause` alone: until `resume`
    pause up 5          only what the client sends is lost; `down`: only what the server sends
    strand [up|down]    what is connected now hears nothing any more; new connections work
    delay 250 50        each way 250 ms later, give or take 50 ms; `delay 0` ends it
    rate 10000          10 000 bytes per second each way; `rate 0` ends it
    cut 5000 down       reset after 5000 more bytes from the server; `cut 5000 down close`: clean end
    reset  or  close    end all connections now
    refuse 3            refuse new connections for 3 s; `refuse` alone: until `accept`
    flap 60             for 60 s a fault every 0.5 to 5 s, drawn from the seed
    stalls 60           for 60 s short stalls each way, as lost packets give, drawn from the seed
    status, help, quit

After a pause each connection waits for its TCP's next retransmission, as after a real hole: the intervals
double, so the longer the hole, the later an old connection speaks, while a fresh one is quick.
Everything random comes from one seed, which is printed; `--seed` replays it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

UP = "up"  # from the client to the server
DOWN = "down"
BOTH = (UP, DOWN)
_READ_BYTES = 64 * 1024
_QUEUED_CHUNKS = 64
# What waits in front of a slow line waits here: as little as a small router holds.
_SOCKET_BUFFER_BYTES = 128 * 1024
_ESTABLISHED_RTO_S = 0.2
_SYN_RTO_S = 1.0
_PATIENCE_S = 10.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST
_T = TypeVar("_T")


class Step(NamedTuple):
    """One line of a schedule: wait ``after_s``, then perform ``command``."""

    after_s: float
    command: str


def flap_steps(seed: int, duration_s: float) -> list[Step]:
    """Return faults for ``duration_s``, one every 0.5 to 5 s: the same for the same seed."""
    chance, steps, at_s = random.Random(seed), list[Step](), 0.0
    while True:
        after_s = round(chance.uniform(0.5, 5), 2)
        at_s += after_s
        if at_s > duration_s:
            return steps
        way = chance.choice(BOTH)
        faults = (
            "reset",
            "close",
            f"cut {chance.randrange(1, 5000)} {way}",
            "pause 1.5",
            "refuse 1",
        )
        steps.append(Step(after_s, chance.choice(faults)))


def stall_steps(seed: int, duration_s: float) -> list[Step]:
    """Return short one-way stalls for ``duration_s``: a lost segment holds up what is behind it."""
    chance, steps, at_s = random.Random(seed), list[Step](), 0.0
    while at_s < duration_s:
        after_s = round(chance.expovariate(1), 2)
        stall_s = round(0.2 * 2 ** min(chance.expovariate(1.5), 3), 2)
        steps.append(Step(after_s, f"pause {chance.choice(BOTH)} {stall_s}"))
        at_s += after_s
    return steps


class Cut:
    """A cut that was ordered: where, how, and whether it has happened."""

    def __init__(self, way: str, offset: int, *, reset: bool, fresh: bool) -> None:
        self.way, self.offset, self.reset, self.fresh = way, offset, reset, fresh
        self._done = threading.Event()

    def __repr__(self) -> str:
        return f"<cut {self.way} at byte {self.offset}{'' if self._done.is_set() else ', to come'}>"

    @property
    def done(self) -> bool:
        """Whether the byte has been reached."""
        return self._done.is_set()

    def wait(self, timeout_s: float) -> None:
        """Return when it has happened. Raises TimeoutError."""
        if not self._done.wait(timeout_s):
            raise TimeoutError(f"{self!r} after {timeout_s:g} s")

    def happen(self) -> None:
        """Note that it has; called by the proxy."""
        self._done.set()


@dataclass
class _Line:
    """The state of one direction, shared by all connections as a real line is."""

    open: asyncio.Event
    paused_again: int = 0  # counts pauses, so that a timed one ends only itself
    delay_s: float = 0.0
    jitter_s: float = 0.0
    rate: float = 0.0  # bytes per second; 0: unlimited
    free_at_s: float = 0.0  # when the line has carried what it was given
    passed_bytes: int = 0


@dataclass(eq=False)
class _Connection:
    """One client and its way to the server."""

    client: socket.socket
    server: socket.socket | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    passed_bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BOTH, 0))
    fresh_cut: Cut | None = None
    stranded: tuple[str, ...] = ()

    def end(self, *, reset: bool) -> None:
        """Close both sides, with a reset or cleanly."""
        for task in self.tasks:
            task.cancel()
        loop = asyncio.get_running_loop()
        for end in filter(None, (self.client, self.server)):
            # Now, not when the tasks learn of it: the number may be another socket's by then.
            loop.remove_reader(end)
            loop.remove_writer(end)
            if reset:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()


class FaultProxy:
    """See the module. A context manager; its methods may be called from any thread."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        seed: int | None = None,
    ) -> None:
        self.seed = secrets.randbelow(2**32) if seed is None else seed
        self.total_connections = 0
        self.resumed_s = 0.0  # time.monotonic() of the end of the latest pause
        self._chance = random.Random(self.seed)
        self._target = (host, port)
        self._listener = _bound(listen)
        self._listener.listen(128)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._connections: list[_Connection] = []
        self._cuts: list[Cut] = []
        self._background: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._lines = {way: _Line(asyncio.Event()) for way in BOTH}
        for line in self._lines.values():
            line.open.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy")

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._do(self._start_accepting)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        """Where clients connect to."""
        return self.address[1]

    @property
    def open_connections(self) -> int:
        """How many connections pass through now."""
        return len(self._connections)

    def passed_bytes(self, way: str) -> int:
        """Return how many bytes went that way so far, on all connections together."""
        return self._lines[way].passed_bytes

    # Faults

    def pause(self, seconds: float = 0.0, way: str | tuple[str, ...] = BOTH) -> None:
        """Let nothing pass, for a while or until :meth:`resume`; new connections hang."""
        self._do(lambda: self._pause(_ways(way), seconds))

    def resume(self) -> None:
        """End every pause."""
        self._do(lambda: self._resume(BOTH))

    def strand(self, way: str | tuple[str, ...] = BOTH) -> None:
        """Let nothing pass on the connections of now, not even their end; new ones work.

        So does a router that has forgotten them.
        """
        self._do(lambda: self._strand(_ways(way)))

    def delay(self, seconds: float, jitter_s: float = 0, way: str | tuple[str, ...] = BOTH) -> None:
        """Let each byte arrive later, in order, give or take a random ``jitter_s``; 0 ends it."""
        for one in _ways(way):
            self._lines[one].delay_s, self._lines[one].jitter_s = seconds, jitter_s

    def rate(self, bytes_per_s: float, way: str | tuple[str, ...] = BOTH) -> None:
        """Carry no more than that in each direction; 0 ends it."""
        for one in _ways(way):
            self._lines[one].rate = bytes_per_s

    def cut(self, after_bytes: int, way: str, *, reset: bool = True, fresh: bool = False) -> Cut:
        """End the connection that carries the byte so many from now, exactly before the next one.

        ``fresh``: the next connection to be made, so many bytes after its beginning.
        """
        offset = after_bytes + (0 if fresh else self._lines[way].passed_bytes)
        ordered = Cut(way, offset, reset=reset, fresh=fresh)
        self._do(lambda: self._cuts.append(ordered))
        return ordered

    def reset(self) -> None:
        """End every connection now with a reset."""
        self._do(lambda: self._end_all(reset=True))

    def close(self) -> None:
        """End every connection now as a peer does that closes it."""
        self._do(lambda: self._end_all(reset=False))

    def refuse(self, seconds: float = 0.0) -> None:
        """Refuse new connections, for a while or until :meth:`accept`."""
        self._do(lambda: self._refuse(seconds))

    def accept(self) -> None:
        """Accept connections again."""
        self._do(self._accept_again)

    def play(self, steps: list[Step]) -> None:
        """Perform a schedule in the background."""
        self._do(lambda: self._in_background(self._play(steps)))

    # In the loop's thread

    def _do(self, action: Callable[[], _T]) -> _T:
        """Run ``action`` in the loop; when this returns, it is done."""

        async def act() -> _T:
            return action()

        if threading.current_thread() is self._thread:
            return action()
        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(_PATIENCE_S)

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _play(self, steps: list[Step]) -> None:
        for step in steps:
            await asyncio.sleep(step.after_s)
            perform(self, step.command)

    async def _stop(self) -> None:
        self._stop_accepting()
        self._end_all(reset=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _start_accepting(self) -> None:
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept_one)

    def _stop_accepting(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _refuse(self, seconds: float) -> None:
        self._stop_accepting()
        # A port that is bound and does not listen refuses, and nobody else can take it.
        self._listener = _bound(self.address)
        if seconds:
            self._loop.call_later(seconds, self._accept_again)

    def _accept_again(self) -> None:
        self._listener.listen(128)
        self._start_accepting()

    def _pause(self, ways: tuple[str, ...], seconds: float) -> None:
        for way in ways:
            self._lines[way].open.clear()
            self._lines[way].paused_again += 1
        if seconds:
            counts = {way: self._lines[way].paused_again for way in ways}
            self._loop.call_later(seconds, self._end_pauses, counts)

    def _end_pauses(self, counts: dict[str, int]) -> None:
        self._resume(tuple(way for way, n in counts.items() if self._lines[way].paused_again == n))

    def _resume(self, ways: tuple[str, ...]) -> None:
        self.resumed_s = time.monotonic()
        for way in ways:
            self._lines[way].open.set()

    def _strand(self, ways: tuple[str, ...]) -> None:
        for connection in self._connections:
            connection.stranded += ways

    def _end_all(self, *, reset: bool) -> None:
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.end(reset=reset)

    # Connections

    def _accept_one(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            client, _ = self._listener.accept()
            client.setblocking(False)
            self.total_connections += 1
            connection = _Connection(client)
            for cut in self._cuts:
                if cut.fresh:
                    self._cuts.remove(cut)
                    connection.fresh_cut = cut
                    break
            self._connections.append(connection)
            connection.tasks.append(self._loop.create_task(self._join(connection)))

    async def _join(self, connection: _Connection) -> None:
        """Connect to the server and move bytes both ways."""
        await self._pass_holes(UP, _SYN_RTO_S)
        server = socket.socket(socket.AF_INET)
        server.setblocking(False)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)
        connection.server = server
        try:
            host, port = self._target
            found = await self._loop.getaddrinfo(host, port, family=socket.AF_INET)
            await self._loop.sock_connect(server, found[0][4])
        except OSError:
            self._end(connection, reset=True)
            return
        for end in (connection.client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for way, ends in ((UP, (connection.client, server)), (DOWN, (server, connection.client))):
            queue: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(_QUEUED_CHUNKS)
            connection.tasks += [
                self._loop.create_task(self._read(way, ends[0], queue)),
                self._loop.create_task(self._write(connection, way, ends[1], queue)),
            ]

    def _end(self, connection: _Connection, *, reset: bool) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            connection.end(reset=reset)

    async def _read(
        self, way: str, source: socket.socket, queue: asyncio.Queue[tuple[float, bytes | None]]
    ) -> None:
        """Put what comes into the queue, with the moment at which it arrives; None is a reset."""
        line, last_s, data = self._lines[way], 0.0, b"-"
        while data:
            # A slow line is read slowly: what is behind it waits at the sender's.
            size = int(min(_READ_BYTES, max(line.rate / 20, 512))) if line.rate else _READ_BYTES
            try:
                data = await self._loop.sock_recv(source, size)
            except OSError:
                await queue.put((0.0, None))
                return
            if line.rate:
                line.free_at_s = max(line.free_at_s, self._loop.time()) + len(data) / line.rate
                await asyncio.sleep(line.free_at_s - self._loop.time())
            jitter_s = self._chance.uniform(-line.jitter_s, line.jitter_s) if line.jitter_s else 0.0
            last_s = max(last_s, self._loop.time() + line.delay_s + jitter_s)
            await queue.put((last_s, data))

    async def _write(
        self,
        connection: _Connection,
        way: str,
        target: socket.socket,
        queue: asyncio.Queue[tuple[float, bytes | None]],
    ) -> None:
        """Hand on what has arrived, unless there is a hole, up to where a cut is due."""
        line = self._lines[way]
        while True:
            due_s, data = await queue.get()
            await asyncio.sleep(due_s - self._loop.time())
            await self._pass_holes(way, _ESTABLISHED_RTO_S)
            if way in connection.stranded:
                return
            if data is None:
                self._end(connection, reset=True)
                return
            data, cut = self._up_to_cut(connection, way, data)
            # Before they are sent: who has received them finds them counted.
            line.passed_bytes += len(data)
            connection.passed_bytes[way] += len(data)
            try:
                if data:
                    await self._loop.sock_sendall(target, data)
                elif cut is None:
                    target.shutdown(socket.SHUT_WR)
            except OSError:
                return  # who reads from that side learns the reason
            if cut is not None:
                self._end(connection, reset=cut.reset)
                cut.happen()
                return
            if not data:
                self._half_closed(connection, target)
                return

    def _half_closed(self, connection: _Connection, target: socket.socket) -> None:
        """Forget a connection whose second half has ended as well."""
        ours = asyncio.current_task()
        if all(task.done() for task in connection.tasks if task is not ours):
            self._end(connection, reset=False)

    def _up_to_cut(
        self, connection: _Connection, way: str, data: bytes
    ) -> tuple[bytes, Cut | None]:
        """Return what of ``data`` still passes, and the cut that falls into it."""
        fresh = connection.fresh_cut
        if fresh is not None and fresh.way == way:
            room = fresh.offset - connection.passed_bytes[way]
            if room <= len(data):
                return data[: max(room, 0)], fresh
        for cut in self._cuts:
            room = cut.offset - self._lines[way].passed_bytes
            if not cut.fresh and cut.way == way and room <= len(data):
                self._cuts.remove(cut)
                return data[: max(room, 0)], cut
        return data, None

    async def _pass_holes(self, way: str, rto_s: float) -> None:
        """Wait until the line is open, and then for the moment of TCP's next attempt."""
        line = self._lines[way]
        first_s, attempt_s = self._loop.time(), rto_s
        while not line.open.is_set():
            await line.open.wait()
            while first_s + attempt_s < self._loop.time():
                attempt_s += attempt_s + rto_s
            await asyncio.sleep(first_s + attempt_s - self._loop.time())


def _bound(address: tuple[str, int]) -> socket.socket:
    listener = socket.socket(socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)
    listener.bind(address)
    return listener


def _ways(way: str | tuple[str, ...]) -> tuple[str, ...]:
    return (way,) if isinstance(way, str) else way


# Commands in words


def perform(proxy: FaultProxy, command: str) -> str:
    """Do what a line of the shell or of a schedule says; return what is to be answered.

    Raises ValueError for a line that is not understood.
    """
    verb, *rest = command.split()
    ways = tuple(word for word in rest if word in BOTH) or BOTH
    numbers = [float(word) for word in rest if word not in (*BOTH, "close")]
    first = numbers[0] if numbers else 0.0
    if verb == "pause":
        proxy.pause(first, ways)
    elif verb == "strand":
        proxy.strand(ways)
    elif verb == "delay" and numbers:
        proxy.delay(first / 1000, (numbers[1] if len(numbers) > 1 else 0) / 1000, ways)
    elif verb == "rate" and numbers:
        proxy.rate(first, ways)
    elif verb == "cut" and numbers and len(ways) == 1:
        proxy.cut(int(first), ways[0], reset="close" not in rest)
    elif verb == "refuse":
        proxy.refuse(first)
    elif verb in ("flap", "stalls") and numbers:
        steps = (flap_steps if verb == "flap" else stall_steps)(proxy.seed, first)
        proxy.play(steps)
        return "\n".join(f"after {step.after_s:g} s: {step.command}" for step in steps)
    elif verb in ("resume", "reset", "close", "accept") and not rest:
        getattr(proxy, verb)()
    elif verb == "status":
        return status(proxy)
    else:
        raise ValueError(f"not understood: {command} (try: help)")
    return "ok"


def status(proxy: FaultProxy) -> str:
    """Return the counters in one line."""
    return (
        f"{proxy.total_connections} connections so far, {proxy.open_connections} open;"
        f" {proxy.passed_bytes(UP)} bytes up, {proxy.passed_bytes(DOWN)} bytes down"
    )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _lines_of_stdin() -> Iterator[str]:
    for line in sys.stdin:
        if line.strip() == "quit":
            return
        if line.strip():
            yield line.strip()


def main(argv: list[str]) -> int:
    """Serve until standard input ends or says quit."""
    parser = argparse.ArgumentParser(
        prog="faultproxy.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--listen", type=_address, default=("127.0.0.1", 0), metavar="HOST:PORT")
    parser.add_argument("--to", type=_address, required=True, metavar="HOST:PORT")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args(argv)
    with FaultProxy(*options.to, listen=options.listen, seed=options.seed) as proxy:
        print(f"listening on {proxy.address[0]}:{proxy.port}; seed {proxy.seed}", flush=True)
        for line in _lines_of_stdin():
            try:
                answer = (__doc__ or "") if line == "help" else perform(proxy, line)
            except ValueError as error:
                answer = str(error)
            print(answer, flush=True)
        print(status(proxy), flush=True)
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
