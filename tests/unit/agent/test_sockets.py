"""One connection to a kernel's socket, against libzmq."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from sshpyk.agent.sockets import KernelSocket, channel_address, open_socket
from sshpyk.agent.zmtp import ZmtpPeer
from tests.unit.agent.fakes import KernelSockets, ipc_info
from tests.unit.wire.harness import in_loop, until


def test_addresses_follow_the_connection_file():
    assert channel_address({"transport": "ipc", "ip": "/t/s", "shell_port": 1}, "shell") == "/t/s-1"
    tcp = {"transport": "tcp", "ip": "127.0.0.1", "iopub_port": 5555}
    assert channel_address(tcp, "iopub") == ("127.0.0.1", 5555)


@pytest.mark.parametrize("leftover", [False, True])
def test_connecting_where_nobody_listens_raises_and_leaves_nothing(
    leftover: bool, short_folder: Path
):
    path = short_folder / "s-1"
    if leftover:  # the file of a socket whose process has gone
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    before = os.listdir("/dev/fd")
    with pytest.raises(OSError):
        open_socket(str(path))
    assert len(os.listdir("/dev/fd")) == len(before)


@in_loop
async def test_what_is_sent_before_the_handshake_waits_in_order(short_folder: Path):
    kernel = KernelSockets(ipc_info(short_folder)).bind()
    ours = KernelSocket(
        channel_address(kernel.info, "shell"), ZmtpPeer(b"DEALER", b"me"), lambda messages: None
    )
    assert not ours.send([b"1"])
    assert not ours.drained
    ours.send([b"2", b"", b"x" * 100_000])
    assert await kernel.receive("shell") == [b"me", b"1"]
    assert await kernel.receive("shell") == [b"me", b"2", b"", b"x" * 100_000]
    await until(lambda: ours.drained)
    assert ours.send([b"3"])  # taken at once now
    assert await kernel.receive("shell") == [b"me", b"3"]
    ours.close()
    kernel.close()


@in_loop
async def test_tcp_works_as_unix_sockets_do():
    kernel = KernelSockets({})
    router = kernel.context.socket(6)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    kernel.sockets["shell"] = router
    got: list[list[bytes]] = []
    ours = KernelSocket(("127.0.0.1", port), ZmtpPeer(b"DEALER", b"me"), got.extend)
    ours.send([b"hello"])
    assert await kernel.receive("shell") == [b"me", b"hello"]
    kernel.send("shell", b"me", b"reply")
    await until(lambda: got == [[b"reply"]])
    ours.close()
    kernel.close()


@in_loop
async def test_ready_is_told_once(short_folder: Path):
    kernel = KernelSockets(ipc_info(short_folder)).bind()
    told: list[int] = []
    ours = KernelSocket(
        channel_address(kernel.info, "iopub"),
        ZmtpPeer(b"SUB"),
        lambda messages: None,
        lambda: told.append(1),
    )
    await kernel.subscribed()
    kernel.send("iopub", b"x")
    await until(lambda: told)
    await asyncio.sleep(0.01)
    assert told == [1]
    ours.close()
    kernel.close()


@in_loop
async def test_a_kernel_that_goes_breaks_the_socket_and_sends_vanish(short_folder: Path):
    kernel = KernelSockets(ipc_info(short_folder)).bind()
    ours = KernelSocket(
        channel_address(kernel.info, "shell"), ZmtpPeer(b"DEALER"), lambda messages: None
    )
    ours.send([b"hello"])
    await kernel.receive("shell")
    kernel.close()
    await until(lambda: ours.broken)
    assert ours.broken == "closed by the kernel"
    assert ours.send([b"nobody"])
    assert ours.drained
    ours.close()
    ours.close()


@in_loop
async def test_something_else_than_zeromq_breaks_the_socket_with_its_reason(short_folder: Path):
    path = str(short_folder / "s-1")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        ours = KernelSocket(path, ZmtpPeer(b"DEALER"), lambda messages: None)
        ours.send([b"waiting"])
        peer, _ = listener.accept()
        peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" + bytes(64))
        await until(lambda: ours.broken)
        assert "ZMTP" in ours.broken
        peer.close()


@in_loop
async def test_drain_reads_all_that_a_dead_kernel_left(short_folder: Path):
    path = str(short_folder / "s-1")
    got: list[list[bytes]] = []
    kernel = KernelSockets(ipc_info(short_folder)).bind("iopub")
    ours = KernelSocket(
        channel_address(kernel.info, "iopub"), ZmtpPeer(b"SUB"), got.extend, lambda: None
    )
    await kernel.subscribed()
    asyncio.get_running_loop().remove_reader(ours._socket)
    for index in range(50):
        kernel.send("iopub", b"%d" % index, b"x" * 200)
    kernel.context.destroy(linger=2000)  # returns when all of it is in the socket
    assert got == []
    ours.drain()
    assert [parts[0] for parts in got] == [b"%d" % index for index in range(50)]
    assert ours.broken
    assert not os.path.exists(path)


@in_loop
async def test_a_socket_closed_with_something_unsent_is_waited_for_no_longer(short_folder: Path):
    kernel = KernelSockets(ipc_info(short_folder), receive_hwm=1).bind()
    ours = KernelSocket(
        channel_address(kernel.info, "shell"), ZmtpPeer(b"DEALER", b"me"), lambda messages: None
    )
    ours.send([b"hello"])
    await kernel.receive("shell")
    for _ in range(40):  # more than any buffer on the way takes
        ours.send([bytes(1_000_000)])
    assert not ours.drained
    ours.close()
    assert ours.drained
    kernel.close()
