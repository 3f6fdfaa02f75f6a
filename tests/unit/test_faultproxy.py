"""The lab's fault proxy, in front of a server of a few lines."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

LAB = Path(__file__).parents[2] / "lab"
PATIENCE_S = 20.0


@pytest.fixture
def faultproxy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(LAB))
    import faultproxy

    return faultproxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that says back what it hears."""
    stopping = False

    def serve(one: socket.socket) -> None:
        with one:
            try:
                while data := one.recv(65536):
                    one.sendall(data)
            except OSError:
                pass

    def listen() -> None:
        while True:
            one, _ = listener.accept()
            if stopping:
                one.close()
                return
            threads.append(threading.Thread(target=serve, args=[one]))
            threads[-1].start()

    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=listen)
        accepting.start()
        yield listener.getsockname()[1]
        stopping = True
        socket.create_connection(listener.getsockname()).close()
        accepting.join()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.fixture
def proxy(faultproxy: ModuleType, echo: int) -> Iterator[object]:
    with faultproxy.FaultProxy("127.0.0.1", echo, seed=7) as made:
        yield made


@pytest.fixture
def client(proxy) -> Iterator[socket.socket]:
    with socket.create_connection(proxy.address, timeout=PATIENCE_S) as one:
        assert exchange(one, b"hello") == b"hello"
        yield one


def receive(one: socket.socket, size: int) -> bytes:
    """Return what comes, up to ``size`` bytes or to the end."""
    data = b""
    while len(data) < size and (more := one.recv(size - len(data))):
        data += more
    return data


def exchange(one: socket.socket, data: bytes) -> bytes:
    one.sendall(data)
    return receive(one, len(data))


def test_bytes_pass_unchanged_and_are_counted(proxy, client):
    data = bytes(range(256)) * 8192
    sender = threading.Thread(target=client.sendall, args=[data])
    sender.start()
    assert receive(client, len(data)) == data
    sender.join()
    assert proxy.passed_bytes("up") == proxy.passed_bytes("down") == len(data) + 5
    assert proxy.total_connections == proxy.open_connections == 1


def test_pause_holds_everything_back_and_resume_loses_nothing(proxy, client):
    proxy.pause()
    client.sendall(b"held")
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.recv(4)
    client.settimeout(PATIENCE_S)
    proxy.resume()
    assert receive(client, 4) == b"held"


def test_pause_of_one_way_passes_the_other(proxy, client):
    proxy.pause(way="down")
    client.sendall(b"held")
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.recv(4)
    assert proxy.passed_bytes("up") == 9
    client.settimeout(PATIENCE_S)
    proxy.resume()
    assert receive(client, 4) == b"held"


def test_connection_made_during_a_pause_hangs_and_then_works(proxy):
    proxy.pause()
    with socket.create_connection(proxy.address, timeout=PATIENCE_S) as one:
        one.sendall(b"early")
        proxy.resume()
        assert receive(one, 5) == b"early"


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="Linux only")
def test_connection_given_up_during_a_pause_never_reaches_the_server(faultproxy: ModuleType):
    with socket.create_server(("127.0.0.1", 0)) as server:
        with faultproxy.FaultProxy(*server.getsockname()) as proxy:
            proxy.pause()
            with socket.create_connection(proxy.address) as one:
                one.sendall(b"early")
            proxy.resume()
            deadline_s = time.monotonic() + PATIENCE_S
            while proxy.open_connections or not proxy.total_connections:
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def test_after_a_pause_an_old_connection_waits_for_its_retransmission(proxy, client):
    """Sent as the hole begins, tried again 0.2, 0.6, 1.4 and 3 s later."""
    proxy.pause(1.6)
    began_s = time.monotonic()
    client.sendall(b"late")
    assert receive(client, 4) == b"late"
    assert time.monotonic() - began_s >= 2.9


def test_timed_pause_does_not_end_a_later_one(proxy, client):
    proxy.pause(0.1)
    proxy.pause()
    client.sendall(b"held")
    client.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.recv(4)
    proxy.resume()


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("offset", [0, 1, 999, 1000])
def test_cut_passes_exactly_the_bytes_before_it(proxy, client, way, offset):
    cut = proxy.cut(offset, way)
    client.sendall(b"x" * 1001)
    with pytest.raises(ConnectionResetError):
        receive(client, 1001)
    cut.wait(PATIENCE_S)
    assert proxy.passed_bytes(way) == offset + 5


def test_clean_cut_ends_what_the_client_reads(proxy, client):
    proxy.cut(3, "down", reset=False)
    client.sendall(b"abcdef")
    assert receive(client, 6) == b"abc"


def test_fresh_cut_spares_the_connection_that_is(proxy, client):
    cut = proxy.cut(2, "down", fresh=True)
    assert exchange(client, b"spared") == b"spared"
    with socket.create_connection(proxy.address, timeout=PATIENCE_S) as one:
        one.sendall(b"abc")
        with pytest.raises(ConnectionResetError):
            receive(one, 3)
    cut.wait(PATIENCE_S)


@pytest.mark.parametrize(("how", "error"), [("reset", ConnectionResetError), ("close", None)])
def test_all_connections_end_at_once(proxy, client, how, error):
    getattr(proxy, how)()
    if error is None:
        assert client.recv(1) == b""
    else:
        with pytest.raises(error):
            client.recv(1)
    assert proxy.open_connections == 0


def test_refuse_spares_the_connection_that_is_and_accept_ends_it(proxy, client):
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(proxy.address, timeout=PATIENCE_S)
    assert exchange(client, b"spared") == b"spared"
    proxy.accept()
    with socket.create_connection(proxy.address, timeout=PATIENCE_S) as one:
        assert exchange(one, b"again") == b"again"


def test_stranded_connection_hears_nothing_any_more_and_a_new_one_works(proxy, client):
    proxy.strand()
    client.sendall(b"lost")
    with socket.create_connection(proxy.address, timeout=PATIENCE_S) as one:
        assert exchange(one, b"new") == b"new"
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.recv(1)
    assert proxy.passed_bytes("up") == 8


def test_rate_and_delay_take_their_time(proxy, client):
    proxy.rate(100_000, "down")
    proxy.delay(0.2, way="up")
    began_s = time.monotonic()
    assert exchange(client, b"x" * 50_000) == b"x" * 50_000
    assert 0.65 < time.monotonic() - began_s < 10


def test_delay_is_no_limit_to_the_rate(proxy, client):
    """What follows is on its way while the first bytes still are."""
    proxy.delay(0.3, 0.05)
    began_s = time.monotonic()
    for _ in range(20):
        client.sendall(b"y" * 100)
    assert receive(client, 2000) == b"y" * 2000
    assert time.monotonic() - began_s < 3


def test_end_of_one_half_leaves_the_other(proxy, client):
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert receive(client, 100) == b"last words"
    deadline_s = time.monotonic() + PATIENCE_S
    while proxy.open_connections:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_server_that_is_away_is_a_reset(faultproxy):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with (
        faultproxy.FaultProxy("127.0.0.1", port) as proxy,
        pytest.raises(ConnectionResetError),  # which may come before connect() has returned
        socket.create_connection(proxy.address, timeout=PATIENCE_S) as one,
    ):
        one.recv(1)


@pytest.mark.parametrize("steps", ["flap_steps", "stall_steps"])
def test_schedules_repeat_with_their_seed_and_are_understood(faultproxy, proxy, steps):
    make = getattr(faultproxy, steps)
    assert make(1, 30) == make(1, 30) != make(2, 30)
    for step in make(1, 30)[:10]:
        assert faultproxy.perform(proxy, step.command) == "ok"


def test_a_schedule_is_played(faultproxy, proxy, client):
    proxy.play([faultproxy.Step(0.05, "pause 0.1"), faultproxy.Step(0.05, "reset")])
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@pytest.mark.parametrize("line", ["", "explode", "cut 5", "rate", "pause x", "resume 3"])
def test_a_line_that_is_not_understood_is_a_value_error(faultproxy, proxy, line):
    with pytest.raises(ValueError):
        faultproxy.perform(proxy, line)


def test_from_the_shell(echo: int):
    process = subprocess.Popen(
        [sys.executable, LAB / "faultproxy.py", "--to", f"127.0.0.1:{echo}", "--seed", "5"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin
        assert process.stdout
        first = process.stdout.readline()
        assert first.endswith("; seed 5\n")
        port = int(first.split(";")[0].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as one:
            assert exchange(one, b"hello") == b"hello"
            out, _ = process.communicate("what\ncut 1 up\nreset\nquit\n", timeout=PATIENCE_S)
            with pytest.raises(ConnectionResetError):
                one.recv(1)
    assert out.splitlines() == [
        "not understood: what (try: help)",
        "ok",
        "ok",
        "1 connections so far, 0 open; 5 bytes up, 5 bytes down",
    ]
    assert process.returncode == 0
