"""Changes of this machine's network, told by its kernel. The socket is a pair to the test in here."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from sshpyk.hub import network
from sshpyk.hub.network import network_watched
from tests.unit.wire.harness import in_loop, until


@in_loop
async def test_a_burst_of_messages_is_one_change_and_the_next_is_another(monkeypatch):
    monkeypatch.setattr(network, "SETTLE_S", 0.05)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    monkeypatch.setattr(ours.__class__, "bind", lambda *_: None, raising=False)
    monkeypatch.setattr(network.socket, "socket", lambda *_: ours)
    changes: list[int] = []
    with network_watched(lambda: changes.append(1)):
        for _ in range(10):
            theirs.send(b"link, address, route")
        await until(lambda: changes)
        await asyncio.sleep(0.1)
        assert len(changes) == 1
        theirs.send(b"again")
        await until(lambda: len(changes) == 2)
    assert ours.fileno() == -1
    theirs.close()


@pytest.mark.skipif(sys.platform != "linux", reason="rtnetlink is Linux's")
@in_loop
async def test_anybody_may_listen_and_without_a_change_nothing_is_told():
    changes: list[int] = []
    with network_watched(lambda: changes.append(1)):
        await asyncio.sleep(0.05)
    assert changes == []


@in_loop
async def test_a_system_that_does_not_tell_is_no_error(monkeypatch):
    monkeypatch.delattr(network.socket, "AF_NETLINK", raising=False)
    with network_watched(lambda: None):
        await asyncio.sleep(0)
