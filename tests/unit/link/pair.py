"""Two link ends back to back, with a wire between them that can be cut at any byte."""

from __future__ import annotations

from sshpyk.link.connection import Broken, Connection, HelloReceived, Resumed, State
from sshpyk.link.link import Link
from sshpyk.link.stream import Message


class End:
    """One side: its link, its current connection, and what its consumer was handed."""

    def __init__(self, link_id: str, name: str) -> None:
        self.name = name
        self.link = Link(link_id)
        self.connection: Connection | None = None
        self.handed: list[Message] = []
        self.resumed: list[Resumed] = []
        self.broken: list[str] = []
        self.consume_at_once = True

    def act(self, events: list[object]) -> None:
        for event in events:
            if isinstance(event, HelloReceived):
                assert self.connection is not None
                self.act(list(self.connection.answer(self.link, event.hello)))
            elif isinstance(event, Message):
                self.handed.append(event)
                if self.consume_at_once:
                    self.link.consumed(event.stream)
            elif isinstance(event, Resumed):
                self.resumed.append(event)
            elif isinstance(event, Broken):
                self.broken.append(event.reason)

    def payloads(self, stream: int) -> list[bytes]:
        return [m.payload for m in self.handed if m.stream == stream and not m.end]


class Pair:
    """A hub end and an agent end; ``now`` is the only clock."""

    def __init__(self, portion: int = 1 << 16) -> None:
        self.hub = End("ab" * 16, "hub")
        self.agent = End("ab" * 16, "agent")
        self.now = 0.0
        self.epoch = 0
        self.portion = portion
        self.wire = {"hub": bytearray(), "agent": bytearray()}  # towards the named end
        self.room: dict[str, float] = {}  # how many bytes still pass towards the named end
        self.passed = {"hub": 0, "agent": 0}

    def connect(self) -> None:
        self.epoch += 1
        for end in (self.hub, self.agent):
            if end.connection is not None:
                end.connection.fence()
        self.wire = {"hub": bytearray(), "agent": bytearray()}
        self.room = {"hub": float("inf"), "agent": float("inf")}
        self.passed = {"hub": 0, "agent": 0}
        self.hub.connection = Connection.initiate(self.hub.link, self.epoch)
        self.agent.connection = Connection.accept()

    def step(self, take: int | None = None) -> bool:
        """Move one portion each way, at most ``take`` bytes; return whether anything moved."""
        moved = False
        for end, peer in ((self.hub, self.agent), (self.agent, self.hub)):
            assert end.connection is not None
            assert peer.connection is not None
            for buffer in end.connection.data_to_send(self.portion, self.now):
                self.wire[peer.name] += buffer
            data = bytes(self.wire[peer.name][:take])
            data = data[: int(min(len(data), self.room[peer.name]))]
            self.room[peer.name] -= len(data)
            self.passed[peer.name] += len(data)
            del self.wire[peer.name][: len(data)]
            if data:
                moved = True
                peer.act(list(peer.connection.receive_data(data, self.now)))
        self.now += 0.001
        return moved

    def settle(self, take: int | None = None) -> None:
        """Move everything until both ends are quiet."""
        for _ in range(2_000_000):
            if not self.step(take):
                return
        raise AssertionError("the two ends never came to rest")

    @property
    def alive(self) -> bool:
        return all(
            end.connection is not None and end.connection.state is not State.CLOSED
            for end in (self.hub, self.agent)
        )
