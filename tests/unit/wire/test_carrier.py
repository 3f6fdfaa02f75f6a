"""The bytes of one connection over real pipes and sockets: partial writes, ends, descriptors."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct

import pytest

from sshpyk.link import frames
from sshpyk.link.connection import Broken, Connection, Event, HelloReceived, PeerLeft
from sshpyk.link.link import Link
from sshpyk.link.stream import Message
from sshpyk.wire.carrier import Carrier
from tests.unit.wire.harness import in_loop, until


class Watched:
    """A carrier with all that it told."""

    def __init__(self, connection: Connection, read_fd: int, write_fd: int) -> None:
        self.events: list[Event] = []
        self.lost: list[str] = []
        self.fds = {read_fd, write_fd}
        self.carrier = Carrier(connection, read_fd, write_fd)
        self.carrier.on_event = lambda carrier, event: self.events.append(event)
        self.carrier.on_lost = lambda carrier, reason: self.lost.append(reason)

    @property
    def messages(self) -> list[Message]:
        return [event for event in self.events if isinstance(event, Message)]

    def all_closed(self) -> bool:
        for fd in self.fds:
            try:
                os.fstat(fd)
            except OSError:
                continue
            return False
        return True


def initiated(read_fd: int, write_fd: int) -> tuple[Watched, Link]:
    link = Link("cd" * 16)
    return Watched(Connection.initiate(link, 1), read_fd, write_fd), link


class Piped:
    """Two ends over two pipes: the initiator's, and one that answers every HELLO."""

    def __init__(self) -> None:
        to_peer, to_us = os.pipe(), os.pipe()
        self.ours, self.link = initiated(to_us[0], to_peer[1])
        self.peer_link = Link("cd" * 16)
        self.theirs = Watched(Connection.accept(), to_peer[0], to_us[1])
        self.theirs.carrier.on_event = self._on_event

    def _on_event(self, carrier: Carrier, event: Event) -> None:
        self.theirs.events.append(event)
        if isinstance(event, HelloReceived):
            for later in carrier.connection.answer(self.peer_link, event.hello):
                self._on_event(carrier, later)
        elif isinstance(event, Message):
            self.peer_link.consumed(event.stream)

    def start(self) -> None:
        self.ours.carrier.start()
        self.theirs.carrier.start()

    def close(self) -> None:
        self.ours.carrier.close()
        self.theirs.carrier.close()


@in_loop
async def test_large_messages_pass_pipes_both_ways_at_once():
    piped = Piped()
    for link, fill in ((piped.link, b"a"), (piped.peer_link, b"b")):
        link.open(1)
        link.send(1, fill * 5_000_000)
        link.send(1, b"end")
    piped.start()
    await until(lambda: len(piped.ours.messages) == 2 and len(piped.theirs.messages) == 2)
    assert [m.payload for m in piped.theirs.messages] == [b"a" * 5_000_000, b"end"]
    assert [m.payload for m in piped.ours.messages] == [b"b" * 5_000_000, b"end"]
    piped.close()


@in_loop
async def test_full_pipe_waits_and_the_urgent_message_is_asked_for_late():
    piped = Piped()
    fcntl.fcntl(piped.ours.carrier._write_fd, fcntl.F_SETPIPE_SZ, 4096)
    piped.link.open(1)
    piped.link.open(3, urgent=True)
    piped.link.send(1, b"x" * 500_000)
    piped.ours.carrier.start()
    for _ in range(20):  # nobody reads: the pipe is full now
        await asyncio.sleep(0)
    piped.link.send(3, b"urgent")
    piped.ours.carrier.wake()
    piped.theirs.carrier.start()
    await until(lambda: len(piped.theirs.messages) == 2)
    assert [m.payload for m in piped.theirs.messages] == [b"urgent", b"x" * 500_000]
    piped.close()


@in_loop
async def test_more_buffers_than_one_system_call_takes_go_out_without_another_wake():
    """Many small messages make a portion of few bytes and hundreds of buffers."""
    piped = Piped()
    piped.start()
    await until(lambda: piped.theirs.events)
    for number in range(1, 201):
        piped.link.open(number)
        piped.link.send(number, b"x")
    piped.ours.carrier.wake()
    await until(lambda: len(piped.theirs.messages) == 200)
    piped.close()


@in_loop
async def test_end_of_file_is_told_once_and_closes_both_descriptors():
    ours, theirs = socket.socketpair()
    watched, _ = initiated(os.dup(ours.fileno()), ours.detach())
    watched.carrier.start()
    theirs.shutdown(socket.SHUT_WR)
    await until(lambda: watched.lost)
    assert watched.lost == ["the other end closed the connection"]
    assert watched.all_closed()
    watched.carrier.wake()
    watched.carrier.close()
    await asyncio.sleep(0)
    assert len(watched.lost) == 1
    theirs.close()


@in_loop
async def test_reset_by_the_peer_names_the_reason():
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    listener.close()
    watched, _ = initiated(os.dup(ours.fileno()), ours.detach())
    watched.carrier.start()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    await until(lambda: watched.lost)
    assert len(watched.lost) == 1
    assert "reset" in watched.lost[0]
    assert watched.all_closed()


@in_loop
async def test_writing_into_a_closed_pipe_is_a_loss():
    to_peer, to_us = os.pipe(), os.pipe()
    watched, _ = initiated(to_us[0], to_peer[1])
    os.close(to_peer[0])
    watched.carrier.start()
    await until(lambda: watched.lost)
    assert watched.lost == ["writing failed: Broken pipe"]
    assert watched.all_closed()
    os.close(to_us[1])


@in_loop
async def test_what_the_other_end_said_before_it_went_counts_although_writing_fails():
    to_peer, to_us = os.pipe(), os.pipe()
    watched, _ = initiated(to_us[0], to_peer[1])
    os.close(to_peer[0])
    os.write(to_us[1], frames.encode_bye("gone for good"))
    os.close(to_us[1])
    watched.carrier.start()
    watched.carrier._flush()  # before the loop has looked at what can be read
    assert watched.events == [PeerLeft("gone for good")]
    assert watched.lost == ["writing failed: Broken pipe"]


@in_loop
async def test_close_is_idempotent_and_tells_nobody():
    ours, theirs = socket.socketpair()
    fd = ours.detach()
    watched, _ = initiated(fd, fd)  # one descriptor for both directions is closed once
    watched.carrier.start()
    watched.carrier.close()
    assert watched.all_closed()
    reused = os.open(os.devnull, os.O_RDONLY)  # most likely the same number
    watched.carrier.close()
    os.fstat(reused)
    os.close(reused)
    await asyncio.sleep(0)
    assert watched.lost == []
    theirs.close()


@in_loop
async def test_last_words_are_written_when_nothing_is_half_written():
    ours, theirs = socket.socketpair()
    watched, _ = initiated(os.dup(ours.fileno()), ours.detach())
    watched.carrier.start()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    watched.carrier.close(watched.carrier.connection.leave("good bye"))
    received = b""
    while data := theirs.recv(65536):
        received += data
    theirs.close()
    said = frames.FrameReader().feed(received)
    assert said[-1] == frames.Bye("good bye")
    assert isinstance(said[0], frames.Hello)


@in_loop
async def test_last_words_never_cut_into_a_frame_and_never_block():
    piped = Piped()
    fcntl.fcntl(piped.ours.carrier._write_fd, fcntl.F_SETPIPE_SZ, 4096)
    piped.link.open(1)
    piped.link.send(1, b"x" * 500_000)
    piped.ours.carrier.start()
    for _ in range(20):
        await asyncio.sleep(0)
    piped.ours.carrier.close(frames.encode_bye("never read"))
    piped.theirs.carrier.start()
    await until(lambda: piped.theirs.lost)
    assert not any(isinstance(event, (PeerLeft, Broken)) for event in piped.theirs.events)
    piped.close()


@in_loop
async def test_bytes_that_were_read_before_the_start_count():
    ours, theirs = socket.socketpair()
    watched, link = initiated(os.dup(ours.fileno()), ours.detach())
    peer = Link("cd" * 16)
    peer.open(1)
    peer.send(1, b"early")
    accepting = Connection.accept()
    hello = frames.Hello("cd" * 16, 1)
    accepting.receive_data(frames.encode_hello(hello), 0.0)
    accepting.answer(peer, hello)
    watched.carrier.start(first_data=b"".join(accepting.data_to_send(1 << 16, 0.0)))
    assert [message.payload for message in watched.messages] == [b"early"]
    assert link.confirmed
    watched.carrier.close()
    theirs.close()


@in_loop
async def test_broken_protocol_is_an_event_and_then_a_loss():
    ours, theirs = socket.socketpair()
    watched, _ = initiated(os.dup(ours.fileno()), ours.detach())
    watched.carrier.start()
    theirs.sendall(b"\xff" * 64)
    await until(lambda: watched.lost)
    assert watched.events == [Broken("unknown frame type 255")]
    assert watched.lost == ["the other end broke the protocol: unknown frame type 255"]
    assert watched.all_closed()
    theirs.close()


@in_loop
async def test_closing_inside_an_event_is_no_loss():
    ours, theirs = socket.socketpair()
    watched, _ = initiated(os.dup(ours.fileno()), ours.detach())
    watched.carrier.on_event = lambda carrier, event: carrier.close()
    watched.carrier.start()
    theirs.sendall(b"\xff" * 64)
    await until(watched.all_closed)
    await asyncio.sleep(0)
    assert watched.lost == []
    theirs.close()


@pytest.mark.parametrize("portion", [1, 7, 4096])
@in_loop
async def test_bytes_arrive_however_small_the_reads_are(portion: int):
    ours, theirs = socket.socketpair()
    watched, _ = initiated(os.dup(ours.fileno()), ours.detach())
    watched.carrier.start()
    peer = Link("cd" * 16)
    peer.open(1)
    peer.send(1, b"z" * 2000)
    accepting = Connection.accept()
    hello = frames.Hello("cd" * 16, 1)
    accepting.receive_data(frames.encode_hello(hello), 0.0)
    accepting.answer(peer, hello)
    data = b"".join(accepting.data_to_send(1 << 16, 0.0))
    for start in range(0, len(data), portion):
        theirs.sendall(data[start : start + portion])
        await asyncio.sleep(0)
    await until(lambda: watched.messages)
    assert watched.messages[0].payload == b"z" * 2000
    watched.carrier.close()
    theirs.close()
