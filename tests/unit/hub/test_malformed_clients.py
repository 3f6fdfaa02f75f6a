"""F50: junk on a kernel's local sockets is dropped as a local kernel drops it; nobody else notices.

The hub passes every message on and the kernel judges it, so the same attack is made upon a local
ipykernel and upon one behind the hub's sockets and a link, and both are asked the same afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from sshpyk.agent.zmtp import _GREETING, _ready_command
from sshpyk.hub.endpoints import Endpoints
from sshpyk.wire import kernel_messages
from sshpyk.wire.kernel_messages import SHELL
from tests.unit.agent.service_bench import KERNEL_ID, service_bench
from tests.unit.hub.fakes import CHANNELS, Client, ipc_info, tcp_info
from tests.unit.hub.test_endpoints import MAIN, bench, client_of
from tests.unit.wire.harness import in_loop, until

SECRET = "the content of a message"
START = _GREETING + _ready_command(b"DEALER", b"")
RAW = {
    "random bytes": random.Random(50).randbytes(100_000),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "half a greeting": _GREETING[:30],
    "zmtp 1": b"\x01\x00",
    "a message before READY": _GREETING + b"\x00\x01x",
    "a part of 8 EiB": START + b"\x02" + struct.pack(">Q", 2**63 - 1) + b"x" * 1000,
    "a part of 16 EiB": START + b"\x03" + struct.pack(">Q", 2**64 - 1) + b"x" * 1000,
    "a part of 1 TiB": START + b"\x02" + struct.pack(">Q", 2**40) + b"x" * 1000,
    "flags that nobody knows": START + b"\xf8\x01x",
    "an identity of 300 bytes": _GREETING + _ready_command(b"DEALER", b"i" * 300),
    "a reserved identity of 255 bytes": _GREETING
    + _ready_command(b"DEALER", b"\0" + b"i" * 254)
    + b"\x00\x01x",
    "a subscriber on every channel": _GREETING + _ready_command(b"SUB", b"") + b"\x00\x02\x01\xff",
}


async def throw(info: dict[str, Any], data: bytes) -> None:
    """Say ``data`` on each of the ports, hear what comes, and go."""
    for name in CHANNELS:
        with socket.create_connection((info["ip"], info[f"{name}_port"])) as raw:
            raw.setblocking(False)
            loop = asyncio.get_running_loop()
            try:
                await asyncio.wait_for(loop.sock_sendall(raw, data), 5)
                await asyncio.wait_for(loop.sock_recv(raw, 65536), 0.2)
            except (OSError, asyncio.TimeoutError):
                continue


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("what", RAW)
@in_loop
async def test_f50_raw_junk_on_the_ports_costs_nobody_else_anything(what: str):
    async with bench(tcp_info()) as made, client_of(made) as client:
        made.attach()
        await made.subscribed(client)
        client.open("shell").send(b"before")
        await until(lambda: made.got[MAIN])
        before = resident_bytes()
        await throw(made.info, RAW[what])
        assert resident_bytes() - before < 16 << 20
        client.sockets["shell"].send(b"after")
        await until(lambda: (SHELL, [b"client", b"after"]) in made.got[MAIN])
        client.open("hb").send(b"alive")
        assert await client.receive("hb") == [b"alive"]
        made.say(SHELL, [b"client", b"reply"])
        assert await client.receive("shell") == [b"reply"]
        made.say(kernel_messages.IOPUB, [b"topic", b"output"])
        heard = [b"iopub_welcome"]  # for a junk subscriber of everything, as from a kernel
        while b"iopub_welcome" in b"".join(heard):
            heard = await client.receive("iopub")
        assert heard == [b"topic", b"output"]
        assert not made.joined.lost


@in_loop
async def test_f50_a_message_of_very_many_parts_arrives_and_the_next_one_too(short_folder: Path):
    async with bench(ipc_info(short_folder)) as made, client_of(made) as client:
        made.attach()
        shell = client.open("shell")
        shell.send_multipart([b""] * 70_000)
        shell.send(b"next")
        await until(lambda: len(made.got[MAIN]) == 2)
        assert [len(message.parts) for message in made.got[MAIN]] == [70_001, 2]


@in_loop
async def test_f50_a_message_larger_than_the_link_carries_is_dropped_with_a_word(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(kernel_messages, "MAX_MESSAGE_BYTES", 1000)
    async with bench(ipc_info(short_folder)) as made, client_of(made) as client:
        made.attach()
        shell = client.open("shell")
        shell.send(SECRET.encode() * 50)
        shell.send(b"next")
        await until(lambda: made.got[MAIN])
        assert made.got[MAIN] == [(SHELL, [b"client", b"next"])]
        assert "dropped what a client said on shell" in caplog.text
        assert SECRET not in caplog.text


# Against a real kernel, local and behind the hub


class Kernel:
    """A kernel's connection information, and where what it logs is."""

    def __init__(self, info: dict[str, Any], log: Path) -> None:
        self.info = info
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()


@asynccontextmanager
async def local_kernel(folder: Path) -> AsyncIterator[Kernel]:
    kernel = Kernel(tcp_info(), folder / "log")
    (folder / "k.json").write_text(json.dumps(kernel.info))
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", str(folder / "k.json")]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*argv, stdout=log, stderr=log)
    try:
        yield kernel
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def remote_kernel(folder: Path) -> AsyncIterator[Kernel]:
    async with service_bench(folder) as made:
        info = tcp_info()
        context: zmq.Context[Any] = zmq.Context()
        endpoints = Endpoints(context, info)
        params = {"kernel_id": KERNEL_ID, "kernel_name": "python3", "python": sys.executable}
        more = {"key": info["key"], "signature_scheme": info["signature_scheme"], "cwd": ""}
        try:
            await made.rpc.call("start", streams=[1, 3], env={}, **params, **more)
            endpoints.attach(made.joined.hub, (1, 3), lambda status: None)
            yield Kernel(info, made.logs / f"{KERNEL_ID}.log")
            assert not made.joined.lost
        finally:
            for kernel in made.book.kernels.values():
                kernel.process.signal(9)
            await until(lambda: not made.book.kernels)
            endpoints.close()
            context.destroy(linger=0)


def attacks(client: Client) -> dict[str, list[bytes]]:
    """Return messages that no kernel obeys; the last is a repetition."""
    session = client.session
    code = {"code": f"'{SECRET}'", "silent": False, "store_history": True}
    good = session.serialize(session.msg("execute_request", code))
    return {
        "wrong signature": [good[0], b"0" * 64, *good[2:]],
        "no signature": [good[0], b"", *good[2:]],
        "too few frames": good[:4],
        "no delimiter": good[1:],
        "empty": [b""],
        "not JSON": [good[0], session.sign([b"{", *good[3:]]), b"{", *good[3:]],
        "junk": [b"\xff" * 300, b"<IDS|MSG>", b"\0"],
        "obeyed once": good,
        "replayed": good,
    }


async def answers(kernel: Kernel) -> tuple[list[str], dict[str, int]]:
    """Make every attack, then ask something; return the replies that came, and words in the log."""
    client = Client(kernel.info, b"")
    shell = client.open("shell")
    client.open("iopub")
    try:
        request = client.session.msg("kernel_info_request", {})
        shell.send_multipart(client.session.serialize(request))
        await client.receive("shell")
        for parts in attacks(client).values():
            shell.send_multipart(parts)
        last = client.session.msg("kernel_info_request", {})
        shell.send_multipart(client.session.serialize(last))
        replies: list[str] = []
        while True:
            _, frames = client.session.feed_identities(await client.receive("shell"))
            reply = client.session.deserialize(frames)
            if reply["msg_type"] == "kernel_info_reply":
                break
            replies.append(f"{reply['msg_type']} {reply['content']['execution_count']}")
    finally:
        client.close()
    log = kernel.log
    assert SECRET not in log
    assert kernel.info["key"] not in log
    words = ("Invalid Signature", "Duplicate Signature", "Unsigned Message")
    return replies, {word: log.count(word) for word in words}


@in_loop
async def test_f50_forged_and_replayed_messages_are_dropped_as_by_a_local_kernel(
    short_folder: Path, caplog: pytest.LogCaptureFixture
):
    (short_folder / "local").mkdir()
    async with local_kernel(short_folder / "local") as kernel:
        expected = await answers(kernel)
    async with remote_kernel(short_folder) as kernel:
        got = await answers(kernel)
    assert got == expected
    replies, logged = got
    assert replies == ["execute_reply 1"]
    assert all(logged.values()), logged
    assert SECRET not in caplog.text
