"""The streams of a link, and whose chunk goes next.

Urgent streams go before all others; the rest take turns, and bulk ones (tunnels, mounts) together get no
more turns than the others. Only streams that may have something to send are looked at: a link has a
thousand of which nearly all are idle.
"""

from __future__ import annotations

from typing import Mapping

from sshpyk.link.backlog import Backlog
from sshpyk.link.farewell import Farewell
from sshpyk.link.receiver import Receiver
from sshpyk.link.sender import Sender


class Stream:
    """Both halves of one stream.

    ``urgent`` streams are sent before all others; ``bulk`` ones let another go first each second time.
    ``watched``: its owner wants to hear of acknowledgements.
    """

    def __init__(self, number: int, backlog: Backlog | None, *, urgent: bool) -> None:
        self.sender: Sender | Farewell = Sender(number, backlog)
        self.receiver = Receiver(number)
        self.urgent = urgent
        self.bulk = False
        self.watched = False

    @property
    def over(self) -> bool:
        """Whether both directions have ended, acknowledged and handed over."""
        sender = self.sender
        return sender.finished and sender.drained and self.receiver.all_consumed


class Turns:
    """See the module. Whatever may make a sender ready is told to :meth:`join`."""

    def __init__(self, streams: Mapping[int, Stream]) -> None:
        self._streams = streams
        self._queue: dict[int, None] = {}  # round robin, next first
        self._bulk_was_last = False

    def join(self, number: int) -> None:
        """Note that a stream may have something to send; it goes behind those that wait already."""
        self._queue.setdefault(number)

    def join_all(self) -> None:
        """The same of every stream."""
        for number in self._streams:
            self._queue.setdefault(number)

    def drop(self, number: int) -> None:
        """Forget a stream."""
        self._queue.pop(number, None)

    @property
    def anybody(self) -> bool:
        """Whether :meth:`take` would return a stream."""
        return any(self._streams[number].sender.ready for number in self._queue)

    def take(self) -> Stream | None:
        """Return the stream whose turn it is, and put it behind the others; None when none is ready."""
        number = self._find()
        if number is None:
            return None
        del self._queue[number]
        self._queue[number] = None
        stream = self._streams[number]
        self._bulk_was_last = stream.bulk
        return stream

    def _find(self) -> int | None:
        chosen = None
        gives_way = self._bulk_was_last
        idle = []
        for number in self._queue:
            stream = self._streams[number]
            if not stream.sender.ready:
                idle.append(number)
            elif stream.urgent:
                chosen = number
                break
            elif chosen is None:
                chosen, gives_way = number, gives_way and stream.bulk
            elif gives_way and not stream.bulk:
                chosen, gives_way = number, False
        for number in idle:
            del self._queue[number]
        return chosen
