from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from sshpyk.agent.zmtp import (
    JOIN_BELOW_BYTES,
    MAX_COMMAND_BYTES,
    PART_COST_BYTES,
    BytesLike,
    ZmtpError,
    ZmtpPeer,
)

PATIENCE_S = 20.0
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def command(name: bytes, data: bytes = b"") -> bytes:
    body = bytes([len(name)]) + name + data
    return bytes([4, len(body)]) + body


def ready_of(socket_type: bytes) -> bytes:
    value = struct.pack("!I", len(socket_type)) + socket_type
    return command(b"READY", b"\x0bSocket-Type" + value)


def back_to_back() -> tuple[ZmtpPeer, ZmtpPeer]:
    """Two peers that have shaken hands: DEALER may speak to DEALER."""
    left, right = ZmtpPeer(b"DEALER", b"left"), ZmtpPeer(b"DEALER")
    assert right.receive_data(left.data_to_send()) == []
    assert left.receive_data(right.data_to_send()) == []
    assert left.ready
    assert right.ready
    return left, right


def ready_peer(max_message_bytes: int = 1 << 20, socket_type: bytes = b"DEALER") -> ZmtpPeer:
    peer = ZmtpPeer(socket_type, max_message_bytes=max_message_bytes)
    peer.data_to_send()
    peer.receive_data(GREETING + ready_of(b"ROUTER" if socket_type == b"DEALER" else b"XPUB"))
    assert peer.ready
    return peer


def wire(peer: ZmtpPeer, *messages: list[bytes]) -> bytes:
    return b"".join(b"".join(peer.encode(message)) for message in messages)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


parts = st.one_of(
    st.binary(max_size=300), st.sampled_from([255, 256, JOIN_BELOW_BYTES, 70_000]).map(bytes)
)
message_lists = st.lists(st.lists(parts, min_size=1, max_size=8), max_size=8)
wrappers = st.sampled_from([bytes, bytearray, lambda data: memoryview(bytearray(data))])


# --- the codec against itself ---------------------------------------------------------------


@settings(deadline=None)
@given(message_lists, st.lists(st.integers(0, 1 << 20), max_size=20), wrappers)
def test_any_messages_cut_anywhere_round_trip(
    messages: list[list[bytes]], cuts: list[int], wrap: Callable[[bytes], BytesLike]
) -> None:
    sender, receiver = back_to_back()
    received: list[list[bytes]] = []
    for piece in pieces(wire(sender, *messages), cuts):
        received += receiver.receive_data(wrap(piece))
    assert received == messages
    assert all(type(part) is bytes for message in received for part in message)
    assert not receiver.mid_message


def test_one_byte_at_a_time_from_the_greeting_on() -> None:
    sender, receiver = ZmtpPeer(b"DEALER", b"a"), ZmtpPeer(b"DEALER")
    opening = sender.data_to_send()
    sender.receive_data(receiver.data_to_send())
    message = [b"", b"x" * 255, b"y" * 256, b"z" * 1000]
    stream = opening + wire(sender, message)
    received = []
    for at in range(len(stream)):
        assert receiver.ready == (at >= len(opening))
        received += receiver.receive_data(stream[at : at + 1])
        assert receiver.mid_message == (len(opening) <= at < len(stream) - 1)
    assert received == [message]


def test_what_the_caller_does_to_its_buffer_afterwards_changes_nothing() -> None:
    sender, receiver = back_to_back()
    stream = bytearray(wire(sender, [b"small", b"b" * 5000]))
    view = memoryview(stream)
    assert receiver.receive_data(view[:3000]) == []
    messages = receiver.receive_data(view[3000:])
    stream[:] = bytes(len(stream))
    assert messages == [[b"small", b"b" * 5000]]


def test_encode_does_not_copy_big_parts_and_joins_small_ones() -> None:
    peer, _ = back_to_back()
    big = bytes(JOIN_BELOW_BYTES)
    view = memoryview(bytearray(1 << 20))
    buffers = peer.encode([b"a", b"b", big, b"c", b"d", view, b"e"])
    assert buffers[1] is big
    assert buffers[3] is view
    assert len(buffers) == 5
    assert len(peer.encode([b"a" * 100] * 6)) == 1


def test_encode_is_the_callers_fault_without_parts_or_before_ready() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        ready_peer().encode([])
    with pytest.raises(RuntimeError, match="GREETING"):
        ZmtpPeer(b"DEALER").encode([b"x"])


@pytest.mark.parametrize("identity", [b"\0bad", b"x" * 256])
def test_an_identity_that_libzmq_would_refuse_is_refused(identity: bytes) -> None:
    with pytest.raises(ValueError, match="identity"):
        ZmtpPeer(b"DEALER", identity)


def test_a_socket_type_that_a_kernels_client_does_not_need_is_refused() -> None:
    with pytest.raises(ValueError, match="REQ"):
        ZmtpPeer(b"REQ")


def test_nothing_but_greeting_and_ready_is_sent_before_the_peers_ready() -> None:
    peer = ZmtpPeer(b"SUB")
    assert peer.data_to_send() == GREETING + ready_of(b"SUB")
    peer.receive_data(GREETING)
    assert peer.data_to_send() == b""
    peer.receive_data(ready_of(b"PUB"))
    assert peer.data_to_send() == b"\x00\x01\x01"


def test_ping_is_answered_also_between_the_parts_of_a_message() -> None:
    peer = ready_peer()
    message = peer.receive_data(b"\x01\x01a" + command(b"PING", b"\x00\x0actx") + b"\x00\x01b")
    assert message == [[b"a", b"b"]]
    assert peer.data_to_send() == command(b"PONG", b"ctx")


def test_a_command_nobody_knows_is_skipped_in_traffic() -> None:
    peer = ready_peer()
    assert peer.receive_data(command(b"SUBSCRIBE", b"x") + b"\x00\x01a") == [[b"a"]]
    assert peer.data_to_send() == b""


# --- peers at fault -------------------------------------------------------------------------

OVERSIZE = struct.pack("!BQ", 2, (1 << 20) + 1)
HANDSHAKE_FAULTS = {
    "not ZMTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "no ZMTP"),
    "ZMTP 1, anonymous": (b"\x01\x00", "ZMTP 1"),
    "ZMTP 1, long length": (b"\xff" + bytes(8) + b"\x00", "ZMTP 1"),
    "ZMTP 2": (b"\xff" + bytes(8) + b"\x7f\x01\x05", "ZMTP 2"),
    "CURVE": (GREETING[:12] + b"CURVE", ""),
    "CURVE, whole": (GREETING[:12] + b"CURVE".ljust(20, b"\0"), "mechanism"),
    "message before READY": (GREETING + b"\x00\x01a", "before READY"),
    "other command": (GREETING + command(b"HELLO"), "HELLO"),
    "ERROR": (GREETING + command(b"ERROR", b"\x05nope\xff"), r"nope\\xff"),
    "ERROR cut": (GREETING + command(b"ERROR", b"\x09nope"), "too early"),
    "empty command": (GREETING + b"\x04\x00", "too early"),
    "wrong socket type": (GREETING + ready_of(b"PUB"), "PUB"),
    "no socket type": (GREETING + command(b"READY"), "socket type"),
    "READY cut in a name": (GREETING + command(b"READY", b"\x0bSocket"), "too early"),
    "READY cut in a size": (GREETING + command(b"READY", b"\x01a\x00\x00"), "too early"),
    "READY cut in a value": (GREETING + command(b"READY", b"\x01a\x00\x00\x00\x05b"), "early"),
}
TRAFFIC_FAULTS = {
    "reserved flag": (b"\x08\x00", "flags 0x08"),
    "all flags": (b"\xff" * 9, "flags 0xff"),
    "command with MORE": (b"\x05\x00", "flags 0x05"),
    "size over the cap": (OVERSIZE, "more than"),
    "size of 64 bits": (b"\x02" + b"\xff" * 8, "more than"),
    "parts over the cap": (struct.pack("!BQ", 3, 1 << 19) + bytes(1 << 19) + OVERSIZE, "more"),
    "no end of empty parts": (b"\x01\x00" * ((1 << 20) // PART_COST_BYTES + 1), "more than"),
    "command over the cap": (struct.pack("!BQ", 6, MAX_COMMAND_BYTES + 1), "command is larger"),
    "ERROR": (command(b"ERROR", b"\x03bad"), "bad"),
    "PING cut": (command(b"PING", b"\x00"), "PING"),
    "PING too long": (command(b"PING", bytes(19)), "PING"),
}


@pytest.mark.parametrize(("data", "reason"), HANDSHAKE_FAULTS.values(), ids=HANDSHAKE_FAULTS)
def test_a_faulty_handshake_is_refused_as_soon_as_it_shows(data: bytes, reason: str) -> None:
    peer = ZmtpPeer(b"DEALER")
    if not reason:  # not yet to be told from a good one
        assert peer.receive_data(data) == []
        return
    with pytest.raises(ZmtpError, match=reason):
        peer.receive_data(data)
    assert not peer.ready
    assert peer.data_to_send() == b""


@pytest.mark.parametrize(("data", "reason"), TRAFFIC_FAULTS.values(), ids=TRAFFIC_FAULTS)
def test_faulty_traffic_ends_the_connection_for_good(data: bytes, reason: str) -> None:
    peer = ready_peer()
    with pytest.raises(ZmtpError, match=reason):
        peer.receive_data(data)
    with pytest.raises(ZmtpError, match=reason):
        peer.receive_data(b"\x00\x01a")
    with pytest.raises(RuntimeError, match="BROKEN"):
        peer.encode([b"x"])


def test_messages_before_a_fault_are_not_lost() -> None:
    peer = ready_peer()
    assert peer.receive_data(b"\x00\x01a\x00\x01b\x09\x00") == [[b"a"], [b"b"]]
    assert not peer.ready
    with pytest.raises(ZmtpError, match="flags 0x09"):
        peer.receive_data(b"")


def test_the_cap_is_for_each_message_not_for_the_connection() -> None:
    peer = ready_peer(max_message_bytes=100 + PART_COST_BYTES)
    frame = b"\x00\x64" + bytes(100)
    assert peer.receive_data(frame * 50) == [[bytes(100)]] * 50
    with pytest.raises(ZmtpError, match="more than 164 bytes"):
        peer.receive_data(b"\x00\x65")


@settings(deadline=None)
@given(st.binary(max_size=400), st.booleans(), st.lists(st.integers(0, 400), max_size=4))
def test_random_bytes_raise_zmtp_error_or_wait(data: bytes, greeted: bool, cuts: list[int]) -> None:
    peer = ready_peer() if greeted else ZmtpPeer(b"SUB")
    try:
        for piece in pieces(data, cuts):
            peer.receive_data(piece)
    except ZmtpError:
        assert not peer.ready


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=60), st.integers(0, 200))
def test_a_handshake_with_one_spot_overwritten_raises_zmtp_error_or_goes_on(
    noise: bytes, at: int
) -> None:
    good = GREETING + ready_of(b"ROUTER") + b"\x00\x01a"
    peer = ZmtpPeer(b"DEALER")
    try:
        peer.receive_data(good[:at] + noise + good[at + len(noise) :])
    except ZmtpError:
        assert not peer.ready


def test_an_announced_length_allocates_nothing() -> None:
    peer = ready_peer(max_message_bytes=4 << 30)
    tracemalloc.start()
    peer.receive_data(struct.pack("!BQ", 2, 4_000_000_000))
    peer.receive_data(bytes(1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("step", [65_536, 262_144])
def test_a_large_part_takes_its_own_size_in_memory(step: int) -> None:
    size = 64 << 20
    peer = ready_peer(max_message_bytes=1 << 30)
    head, piece = struct.pack("!BQ", 2, size), bytes(step)
    tracemalloc.start()
    peer.receive_data(head)
    for _ in range(size // step - 1):
        assert peer.receive_data(piece) == []
    assert len(peer.receive_data(piece)[0][0]) == size
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * (64 << 20)


# --- against libzmq over unix sockets -------------------------------------------------------


class Wire:
    """A blocking driver: one unix socket and the peer that speaks on it."""

    def __init__(self, path: Path, socket_type: bytes, identity: bytes = b"") -> None:
        self.peer = ZmtpPeer(socket_type, identity)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        self.inbox: list[list[bytes]] = []
        try:
            self._connect(path)
            self._shake_hands()
        except BaseException:
            self.socket.close()
            raise

    def _shake_hands(self) -> None:
        self.socket.sendall(self.peer.data_to_send())
        while not self.peer.ready:
            assert self.read(), "closed during the handshake"

    def _connect(self, path: Path) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.socket.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() < deadline, f"nobody listens on {path}"
                time.sleep(0.02)

    def read(self) -> bool:
        """Take what there is; False at end of file."""
        data = self.socket.recv(262_144)
        self.inbox += self.peer.receive_data(data)
        if answer := self.peer.data_to_send():
            self.socket.sendall(answer)
        return bool(data)

    def send(self, *parts: BytesLike) -> None:
        for buffer in self.peer.encode(parts):
            self.socket.sendall(buffer)

    def receive(self, count: int = 1) -> list[list[bytes]]:
        while len(self.inbox) < count:
            assert self.read(), f"end of file after {len(self.inbox)} of {count} messages"
        taken, self.inbox = self.inbox[:count], self.inbox[count:]
        return taken

    def read_to_eof(self) -> list[list[bytes]]:
        while self.read():
            pass
        return self.inbox

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="zmtp-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def bind(folder: Path) -> Iterator[Callable[..., zmq.Socket[bytes]]]:
    context = zmq.Context()
    servers = []

    def bound(socket_type: int, **options: int) -> zmq.Socket[bytes]:
        server = context.socket(socket_type)
        servers.append(server)
        server.sndhwm = server.rcvhwm = 0
        server.rcvtimeo = int(PATIENCE_S * 1000)
        for name, value in options.items():
            setattr(server, name, value)
        server.bind(f"ipc://{folder}/s")
        return server

    yield bound
    for server in servers:
        server.close(linger=0)
    context.term()


def test_dealer_and_a_libzmq_router_exchange_multipart_messages(folder, bind) -> None:
    router = bind(zmq.ROUTER)
    with Wire(folder / "s", b"DEALER", b"client-1") as dealer:
        dealer.send(b"", b"hello", b"x" * 255, b"y" * 256)
        message = router.recv_multipart()
        assert message == [b"client-1", b"", b"hello", b"x" * 255, b"y" * 256]
        router.send_multipart(message)
        assert dealer.receive() == [message[1:]]


def test_dealer_without_identity_gets_one_from_the_router(folder, bind) -> None:
    router = bind(zmq.ROUTER)
    with Wire(folder / "s", b"DEALER") as dealer:
        dealer.send(b"hello")
        identity, body = router.recv_multipart()
        assert (identity[:1], len(identity), body) == (b"\0", 5, b"hello")
        router.send_multipart([identity, b"back"])
        assert dealer.receive() == [[b"back"]]


def test_a_part_of_50_mb_echoes_through_a_libzmq_router(folder, bind) -> None:
    router = bind(zmq.ROUTER)
    part = os.urandom(1 << 20) * 50
    with Wire(folder / "s", b"DEALER", b"big") as dealer:
        dealer.send(b"head", part, b"tail")
        router.send_multipart(router.recv_multipart(copy=False), copy=False)
        assert dealer.receive() == [[b"head", part, b"tail"]]


def test_ten_thousand_small_messages_echo_in_order(folder, bind) -> None:
    router = bind(zmq.ROUTER)
    count = 10_000
    with Wire(folder / "s", b"DEALER", b"many") as dealer:
        sent = [[b"%d" % number, b"x" * (number % 300)] for number in range(count)]
        dealer.socket.sendall(wire(dealer.peer, *sent))
        for _ in range(count):
            router.send_multipart(router.recv_multipart())
        assert dealer.receive(count) == sent


def test_sub_subscribes_to_everything_and_gets_what_a_libzmq_xpub_publishes(folder, bind) -> None:
    xpub = bind(zmq.XPUB)
    with Wire(folder / "s", b"SUB") as sub:
        assert xpub.recv() == b"\x01"
        sent = [[b"kernel.%d" % number, b"x" * number] for number in range(2000)]
        for message in sent:
            xpub.send_multipart(message)
        assert sub.receive(len(sent)) == sent
    assert xpub.recv() == b"\x00"  # gone, says libzmq


def test_libzmqs_own_heartbeat_is_answered(folder, bind) -> None:
    router = bind(zmq.ROUTER, heartbeat_ivl=50, heartbeat_timeout=200)
    with Wire(folder / "s", b"DEALER", b"beat") as dealer:
        deadline = time.monotonic() + 0.6  # three of its timeouts
        while time.monotonic() < deadline:
            assert dealer.read()
        dealer.send(b"still here")
        assert router.recv_multipart() == [b"beat", b"still here"]


def test_a_peer_of_the_wrong_kind_is_refused_or_closes(folder, bind) -> None:
    bind(zmq.PUB)
    with pytest.raises((ZmtpError, AssertionError, ConnectionError)):
        Wire(folder / "s", b"DEALER")


# What libzmq 4.3.5 does with an identity that comes a second time. The outcome for the agent: it
# keeps one connection per identity for as long as the kernel lives. ipykernel sets
# ROUTER_HANDOVER on shell, stdin and control since 4.8.1 (2018).


@pytest.mark.parametrize("handover", [0, 1])
def test_same_identity_after_the_old_connection_closed_takes_its_place(
    folder, bind, handover
) -> None:
    router = bind(zmq.ROUTER, router_handover=handover, router_mandatory=1)
    for round_number in range(5):
        with Wire(folder / "s", b"DEALER", b"same") as dealer:
            dealer.send(b"%d" % round_number)
            assert router.recv_multipart() == [b"same", b"%d" % round_number]
            router.send_multipart([b"same", b"back"])
            assert dealer.receive() == [[b"back"]]
        if not handover:
            # A router notices an end only inside a call. Without this every other one is deaf.
            assert not router.poll(100)


def test_same_identity_beside_a_living_connection_takes_over_with_handover(folder, bind) -> None:
    """The old one is not closed: it stays open, deaf and mute, until its own side gives up."""
    router = bind(zmq.ROUTER, router_handover=1)
    with Wire(folder / "s", b"DEALER", b"same") as old:
        old.send(b"old")
        assert router.recv_multipart() == [b"same", b"old"]
        with Wire(folder / "s", b"DEALER", b"same") as new:
            new.send(b"new")
            assert router.recv_multipart() == [b"same", b"new"]
            router.send_multipart([b"same", b"back"])
            assert new.receive() == [[b"back"]]
            old.send(b"old again")
            assert not router.poll(200)
            old.socket.settimeout(0.1)
            with pytest.raises(TimeoutError):
                old.read()


def test_same_identity_beside_a_living_connection_is_deaf_without_handover(folder, bind) -> None:
    """The handshake succeeds, both stay open, and the router neither reads nor writes the new."""
    router = bind(zmq.ROUTER)
    with Wire(folder / "s", b"DEALER", b"same") as old:
        old.send(b"old")
        assert router.recv_multipart() == [b"same", b"old"]
        with Wire(folder / "s", b"DEALER", b"same") as new:
            new.send(b"new")
            assert not router.poll(200)
            router.send_multipart([b"same", b"back"])
            assert old.receive() == [[b"back"]]


def test_requests_queued_at_a_busy_router_lose_their_way_back_in_a_handover(folder, bind) -> None:
    router = bind(zmq.ROUTER, router_handover=1)
    with Wire(folder / "s", b"DEALER", b"same") as old:
        old.send(b"queued")
        time.sleep(0.1)  # the router, like a busy kernel, makes no call
    time.sleep(0.1)
    with Wire(folder / "s", b"DEALER", b"same") as new:
        new.send(b"new")
        senders = {
            message: identity
            for identity, message in (router.recv_multipart(), router.recv_multipart())
        }
    assert senders[b"new"] == b"same"
    assert senders[b"queued"][:1] == b"\0"  # a name that libzmq made up: the reply goes nowhere


# --- against ipykernel ----------------------------------------------------------------------


class Kernel:
    """An ipykernel on ipc, and signed messages to and from it."""

    CHANNELS = ("shell", "iopub", "stdin", "control", "hb")

    def __init__(self, folder: Path) -> None:
        self.key = b"0123456789abcdef"
        self.prefix = folder / "k"
        self.log = (folder / "log").open("wb")
        info = {f"{name}_port": number for number, name in enumerate(self.CHANNELS, 1)}
        info |= {"transport": "ipc", "ip": str(self.prefix), "key": self.key.decode()}
        info |= {"signature_scheme": "hmac-sha256"}
        connection_file = folder / "k.json"
        connection_file.write_text(json.dumps(info))
        environment = {
            **os.environ,
            "IPYTHONDIR": str(folder),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ipykernel_launcher", "-f", str(connection_file)],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            env=environment,
            start_new_session=True,
        )

    def connect(self, channel: str, socket_type: bytes, identity: bytes = b"") -> Wire:
        number = self.CHANNELS.index(channel) + 1
        return Wire(Path(f"{self.prefix}-{number}"), socket_type, identity)

    def request(self, msg_type: str, **content: object) -> list[bytes]:
        header = {"msg_id": msg_type, "msg_type": msg_type, "session": "s", "username": "u"}
        header |= {"version": "5.3", "date": "2024-01-01T00:00:00Z"}
        frames = [json.dumps(part).encode() for part in (header, {}, {}, content)]
        return [b"<IDS|MSG>", self.sign(frames), *frames]

    def sign(self, frames: list[bytes]) -> bytes:
        return hmac.new(self.key, b"".join(frames), hashlib.sha256).hexdigest().encode()

    def open(self, message: list[bytes]) -> tuple[str, dict]:
        at = message.index(b"<IDS|MSG>")
        assert message[at + 1] == self.sign(message[at + 2 : at + 6])
        header, content = message[at + 2], message[at + 5]
        return json.loads(header)["msg_type"], json.loads(content)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        self.log.close()


@pytest.fixture
def kernel(folder: Path) -> Iterator[Kernel]:
    running = Kernel(folder)
    yield running
    running.close()


def test_kernel_info_and_iopub_of_a_real_kernel(kernel: Kernel) -> None:
    with (
        kernel.connect("iopub", b"SUB") as iopub,
        kernel.connect("shell", b"DEALER", b"me") as shell,
    ):
        kind, content = kernel.open(iopub.receive()[0])
        while kind == "status":  # "starting", if the subscription was that early
            kind, content = kernel.open(iopub.receive()[0])
        assert (kind, content) == ("iopub_welcome", {"subscription": ""})
        shell.send(*kernel.request("kernel_info_request"))
        kind, content = kernel.open(shell.receive()[0])
        assert (kind, content["implementation"]) == ("kernel_info_reply", "ipython")
        states = []
        while "idle" not in states:
            kind, content = kernel.open(iopub.receive()[0])
            states.append(content["execution_state"])
        assert states[-2:] == ["busy", "idle"]


def test_the_last_output_before_an_orderly_exit_arrives_before_end_of_file(kernel: Kernel) -> None:
    with (
        kernel.connect("iopub", b"SUB") as iopub,
        kernel.connect("shell", b"DEALER") as shell,
        kernel.connect("control", b"DEALER") as control,
    ):
        iopub.receive()
        code = "for n in range(500): print(n, flush=True)\nprint('the last line')"
        shell.send(*kernel.request("execute_request", code=code, silent=False))
        kind, _ = kernel.open(shell.receive()[0])
        assert kind == "execute_reply"
        control.send(*kernel.request("shutdown_request", restart=False))
        messages = [kernel.open(message) for message in iopub.read_to_eof()]
        assert not iopub.peer.mid_message
        text = "".join(content["text"] for kind, content in messages if kind == "stream")
        assert text == "".join(f"{number}\n" for number in range(500)) + "the last line\n"
        assert messages[-1][0] in {"shutdown_reply", "status"}
        assert [kernel.open(message)[0] for message in control.read_to_eof()] == ["shutdown_reply"]
        kernel.process.wait(PATIENCE_S)  # seldom with SIGABRT: libzmq in a Python that ends
