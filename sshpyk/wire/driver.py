"""One link in an event loop: its streams' consumers, and the carrier of the moment.

The same at both ends. A consumer claims a stream with a handler; the handler returns whether it has
taken the message, and otherwise calls :meth:`LinkDriver.consumed` when it has. Messages of a stream
that nobody has claimed yet wait; so do those that a consumer's pace does not let pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Callable, NamedTuple

from sshpyk.link.backlog import Payload
from sshpyk.link.connection import Acknowledged, Broken, Event, Incompatible, PeerLeft, Resumed
from sshpyk.link.link import Link
from sshpyk.link.stream import Message
from sshpyk.wire.carrier import Carrier
from sshpyk.wire.clock import now_s

Handler = Callable[[Message], bool]
Pace = Callable[[Message], float]  # 0: the message may pass now; else how many seconds to wait

TICK_S = 1.0
# How long an acknowledgement waits for a message to ride along with. The hub's go soon: when a bastion
# forwards with Nagle's algorithm (OpenSSH does), they are what releases the kernel's next small message.
# The agent's have time: the kernel's answers carry them.
HUB_ACK_DELAY_S = 0.002
AGENT_ACK_DELAY_S = 0.1

log = logging.getLogger(__name__)


class _Consumer(NamedTuple):
    """Who takes the messages of one stream; see :meth:`LinkDriver.claim`."""

    handler: Handler
    pace: Pace | None
    prepare: Callable[[Message], None] | None


class LinkDriver:
    """See the module. The owner sets the ``on_…`` callbacks that it cares about."""

    def __init__(self, link: Link, ack_delay_s: float = HUB_ACK_DELAY_S) -> None:
        self.link = link
        self._ack_delay_s = ack_delay_s
        self.carrier: Carrier | None = None
        self.left = False  # the link is given up: nobody will hear what is sent
        self.on_resumed: Callable[[Carrier, Resumed], None] = lambda carrier, event: None
        self.on_lost: Callable[[Carrier, str], None] = lambda carrier, reason: None
        self.on_suspect: Callable[[], None] = lambda: None
        self.before_hand_over: Callable[[Message], None] = lambda message: None
        self.on_peer_left: Callable[[str], None] = lambda reason: None
        self.on_incompatible: Callable[[Carrier, tuple[int, ...]], None] = lambda carrier, _: None
        self.on_tick: Callable[[], None] = lambda: None
        self.when_left: list[Callable[[], None]] = []
        self._consumers: dict[int, _Consumer] = {}
        self._watchers: dict[int, Callable[[], None]] = {}
        self._waiting: dict[int, deque[Message]] = {}
        self._ack_planned = False
        self._loop = asyncio.get_running_loop()
        self._tick_timer = self._loop.call_later(TICK_S, self._tick)

    # What consumers do

    def claim(
        self,
        stream: int,
        handler: Handler,
        *,
        urgent: bool = False,
        pace: Pace | None = None,
        prepare: Callable[[Message], None] | None = None,
    ) -> None:
        """Hand every message of ``stream`` to ``handler``, beginning with those that wait.

        ``pace`` is asked about messages that waited for a connection, and about those behind them.
        ``prepare`` sees each before it counts as taken: if we are killed then, it comes again.
        """
        self.link.open(stream, urgent=urgent)
        self._consumers[stream] = _Consumer(handler, pace, prepare)
        self._hand_over_waiting(stream)

    def watch(self, stream: int, on_taken: Callable[[], None]) -> None:
        """Call ``on_taken`` whenever the peer has taken something of an open stream."""
        self.link.watch(stream)
        self._watchers[stream] = on_taken

    def unwatch(self, stream: int) -> None:
        """Call nobody any more; idempotent."""
        self._watchers.pop(stream, None)

    def release(self, stream: int) -> None:
        """Hand nothing of ``stream`` over any more: what comes waits, unacknowledged."""
        self._consumers.pop(stream, None)

    def abandon(self, stream: int) -> None:
        """Drop what comes on ``stream`` from now on, and end our direction of it."""
        if self.link.is_over(stream):
            return
        self.claim(stream, lambda message: True)
        self.finish(stream)

    def send(self, stream: int, payload: Payload, *, seen: int | None = None) -> int:
        """Queue a message and return its place; it arrives once, whatever happens to the connection.

        ``seen`` is what it says its sender had seen: by default what was consumed of this stream.
        """
        place = self.link.send(stream, payload, seen=seen)
        self.wake()
        return place

    def flush(self) -> None:
        """Send now what there is to send: a turn of the loop costs as much as all the rest of it.

        For who knows that nothing more comes soon. Call it last: the connection may be found lost.
        """
        if self.carrier is not None:
            self.carrier.flush()

    def finish(self, stream: int) -> None:
        """End our direction of ``stream`` after what was queued."""
        self.link.finish(stream)
        self.wake()

    def consumed(self, stream: int) -> None:
        """Acknowledge the oldest message that a handler did not take at once.

        An acknowledgement rides along with the next message, or goes alone after a moment.
        """
        self.link.consumed(stream)
        if not self._ack_planned:
            self._ack_planned = True
            self._loop.call_later(self._ack_delay_s, self._acknowledge)

    def _acknowledge(self) -> None:
        self._ack_planned = False
        if self.link.acks_due:  # else they have ridden along
            self.flush()

    def wake(self) -> None:
        """Send soon what there is to send, if there is a connection."""
        if self.carrier is not None:
            self.carrier.wake()

    # What the owner does

    def carry_by(self, carrier: Carrier) -> None:
        """Let ``carrier`` carry the link; the one before is fenced and closed."""
        previous = self.carrier
        if previous is not None and previous is not carrier:
            previous.connection.fence()
            previous.close()
        self.carrier = carrier
        self.adopt(carrier)
        self.wake()

    def adopt(self, carrier: Carrier) -> None:
        """Take a carrier's events. One that is still opening carries the link once it resumed."""
        carrier.on_event = self._on_event
        carrier.on_lost = self._on_carrier_lost

    def leave(self, reason: str) -> None:
        """Give the link up for good and tell the peer if it can be told."""
        self._tick_timer.cancel()
        self.left = True
        for left in list(self.when_left):
            left()
        carrier, self.carrier = self.carrier, None
        if carrier is not None:
            carrier.close(carrier.connection.leave(reason))
        self.link.close()

    def _on_event(self, carrier: Carrier, event: Event) -> None:
        if isinstance(event, Message):
            self._on_message(event)
        elif isinstance(event, Acknowledged):
            if event.stream in self._watchers:
                self._watchers[event.stream]()
        elif isinstance(event, Resumed):
            if event.known:
                self.carry_by(carrier)
            self.on_resumed(carrier, event)
        elif isinstance(event, PeerLeft):
            self.on_peer_left(event.reason)
        elif isinstance(event, Incompatible):
            self.on_incompatible(carrier, event.versions)
        elif isinstance(event, Broken):
            log.warning("connection %d: %s", carrier.connection.epoch, event.reason)

    def _on_message(self, message: Message) -> None:
        stream = message.stream
        consumer = self._consumers.get(stream)
        if consumer is None or stream in self._waiting:
            self._waiting.setdefault(stream, deque()).append(message)
        elif message.replayed and consumer.pace is not None:
            self._waiting[stream] = deque([message])
            self._hand_over_waiting(stream)
        else:
            self._hand_over(message, consumer)

    def _hand_over_waiting(self, stream: int) -> None:
        waiting = self._waiting.get(stream)
        while waiting and (consumer := self._consumers.get(stream)) is not None:
            delay_s = consumer.pace(waiting[0]) if consumer.pace else 0.0
            if delay_s > 0:
                self._loop.call_later(delay_s, self._hand_over_waiting, stream)
                return
            self._hand_over(waiting.popleft(), consumer)
        if not waiting:
            self._waiting.pop(stream, None)

    def _hand_over(self, message: Message, consumer: _Consumer) -> None:
        if message.end:
            del self._consumers[message.stream]
        try:
            try:
                if consumer.prepare is not None:
                    consumer.prepare(message)
            finally:
                self.before_hand_over(message)
            taken = consumer.handler(message)
        except Exception:
            # A consumer's failure costs its message, never those behind it or the link.
            log.exception("message %d of stream %d was not understood", message.seq, message.stream)
            taken = True
        if taken:
            self.consumed(message.stream)

    def _on_carrier_lost(self, carrier: Carrier, reason: str) -> None:
        if carrier is self.carrier:
            self.carrier = None
        self.on_lost(carrier, reason)

    def _tick(self) -> None:
        self._tick_timer = self._loop.call_later(TICK_S, self._tick)
        carrier = self.carrier
        if carrier is not None:
            if carrier.connection.tick(now_s()):
                self.on_suspect()
            carrier.wake()
        self.on_tick()
