"""A link: all the streams between one client and one host, whatever connections come and go.

The link owns the streams; a :class:`~sshpyk.link.connection.Connection` carries it for a while. At
most one connection is *attached*; attaching the next one fences the one before, and both senders
continue from the byte that the peer said it expects.
"""

from __future__ import annotations

from sshpyk.link.backlog import Backlog, MakeBacklog, Payload
from sshpyk.link.farewell import Farewell
from sshpyk.link.frames import FLAG_LAST_CHUNK, Ack, Data, Hello, LinkProtocolError, Position
from sshpyk.link.pacing import Pacing
from sshpyk.link.sender import Sender
from sshpyk.link.stream import CREDIT_WINDOW_BYTES, Chunk, Message, Taken
from sshpyk.link.turns import Stream, Turns

MAX_STREAMS = 1024  # that are not over, of 3 KB each; a kernel has two


class Link:
    """The streams of one link. See the package's docstring for who calls what.

    ``make_backlog`` gives each stream a place for what memory has no room for; without one all that
    waits is kept in memory. ``boot_id`` is that of the machine that we run on.
    """

    def __init__(
        self, link_id: str, boot_id: str = "", make_backlog: MakeBacklog | None = None
    ) -> None:
        self.link_id = link_id
        self.boot_id = boot_id
        self._make_backlog = make_backlog
        self.pacing: Pacing | None = None  # of the latest connection
        self.epoch = 0  # of the attached connection, or of the last that was
        self.confirmed = False  # the peer has said HELLO: it holds state of ours
        self._restarted = False  # our process replaced another, and the peer may not know it yet
        self._numbered = True  # ... and our messages are numbered from where the peer is
        self._found: dict[int, int] = {}  # where that was
        self._streams: dict[int, Stream] = {}
        self._over: dict[int, Position] = {}  # forgotten streams that the peer may still name
        self._turns = Turns(self._streams)
        self._acks_due: set[int] = set()
        self._over_acks: dict[int, int] = {}  # the same for streams that are over
        # Those of _over that the peer knows to be over once it answers, and once it answers again.
        self._over_asked: set[int] = set()
        self._over_known: set[int] = set()

    @classmethod
    def restore(
        cls,
        link_id: str,
        epoch: int,
        taken: dict[int, Taken],
        boot_id: str = "",
        make_backlog: MakeBacklog | None = None,
    ) -> Link:
        """Take over the link of a process that died, from what it had noted of each stream."""
        link = cls(link_id, boot_id, make_backlog)
        link.epoch = epoch
        link.confirmed = link._restarted = True
        link._numbered = False
        for number, noted in taken.items():
            link.open(number)
            link._streams[number].receiver.restore(noted)
        return link

    # What the owner does

    def open(self, number: int, *, urgent: bool = False, bulk: bool = False) -> None:
        """Make a stream known; idempotent. A stream that the peer uses first opens by itself.

        ``bulk``: its owner bounds what waits on it, so it needs no backlog; and all such streams
        together get no more turns than the others. Raises ValueError for a stream that is over, or a
        number that no frame can carry.
        """
        stream = self._streams.get(number)
        if stream is None:
            if not 0 <= number < 1 << 32:
                raise ValueError("no stream has the number %d" % number)
            if number in self._over:
                raise ValueError("stream %d is over" % number)
            backlog = self._make_backlog(number) if self._make_backlog and not bulk else None
            stream = self._streams[number] = Stream(number, backlog, urgent=urgent)
        stream.urgent = stream.urgent or urgent
        if bulk and not stream.bulk:
            stream.bulk = True
            if isinstance(stream.sender, Sender):
                stream.sender.keep_in_memory()

    def watch(self, number: int) -> None:
        """Let the connection tell of each acknowledgement on a stream."""
        self._streams[number].watched = True

    def knows(self, number: int) -> bool:
        """Whether anything is remembered of a stream."""
        return number in self._streams or number in self._over

    def is_over(self, number: int) -> bool:
        """Whether both directions of a stream have ended and its state is gone."""
        return number in self._over

    def send(self, number: int, payload: Payload, *, seen: int | None = None) -> int:
        """Queue a message on a stream and return its place; it is kept until the peer has taken it.

        ``seen`` is what it says its sender had seen: by default what was consumed of this stream.
        """
        stream = self._streams[number]
        self._turns.join(number)
        return stream.sender.push(payload, stream.receiver.consumed_seq if seen is None else seen)

    def place_of(self, number: int, seq: int) -> int:
        """Return what :meth:`send` returned, or will, for what follows the messages below ``seq``.

        ``seq`` counts what the peer got; of what was sent, some may have been dropped.
        """
        return self._streams[number].sender.place_of(seq)

    def consumed_seq(self, number: int) -> int:
        """Return how many messages of a stream its consumer has taken."""
        return self._streams[number].receiver.consumed_seq

    def finish(self, number: int) -> None:
        """End our direction of a stream after what was queued; idempotent."""
        stream = self._streams.get(number)
        if stream is not None and not stream.sender.finished:
            self._turns.join(number)
            stream.sender.push(b"", stream.receiver.consumed_seq, end=True)

    def give_away(self, number: int) -> Sender:
        """Return what waits on a stream, for another link to :meth:`receive_moved`.

        Here only the end stays, and the peer's messages still come. Raises LookupError for a stream
        that is over, or has been given away.
        """
        stream = self._streams[number]
        over = stream.sender.finished and stream.sender.drained
        if over or not isinstance(stream.sender, Sender):
            raise LookupError("stream %d was moved to another link" % number)
        moved, stream.sender = stream.sender, Farewell(number, stream.sender.progress)
        self._turns.join(number)
        return moved

    def receive_moved(self, number: int, moved: Sender) -> None:
        """Go on with what was :meth:`given away <give_away>`, on a stream where nothing was sent yet."""
        self.open(number)
        self._streams[number].sender.close()
        moved.move_to(number)
        self._streams[number].sender = moved
        self._turns.join(number)

    def consumed(self, number: int) -> None:
        """Note that the consumer has taken the oldest message it was given on this stream."""
        stream = self._streams[number]
        stream.receiver.consume()
        self._acks_due.add(number)

    def backlog_bytes(self, number: int) -> int:
        """Bytes queued on a stream that the peer has not acknowledged."""
        stream = self._streams.get(number)
        return stream.sender.backlog_bytes if stream else 0

    def backlog_of(self, number: int) -> Backlog | None:
        """Return where messages of a stream wait that memory has no room for."""
        return self._streams[number].sender.backlog

    def close(self) -> None:
        """Forget what is queued: nobody will fetch it."""
        for stream in self._streams.values():
            stream.sender.close()

    @property
    def backlog(self) -> tuple[int, int]:
        """How many messages the peer has not acknowledged on all streams, and their bytes."""
        senders = [stream.sender for stream in self._streams.values()]
        return sum(s.backlog_messages for s in senders), sum(s.backlog_bytes for s in senders)

    def queued(self) -> dict[int, int]:
        """Return how many messages have been sent or queued on each stream."""
        return {number: self.queued_seq(number) for number in self._streams}

    def acknowledged(self, seqs: dict[int, int]) -> bool:
        """Whether the peer has taken that many messages of each stream; see :meth:`queued`."""
        return all(
            number not in self._streams
            or self._streams[number].sender.drained
            or self.acknowledged_seq(number) >= seq
            for number, seq in seqs.items()
        )

    def queued_seq(self, number: int) -> int:
        """How many messages have been sent or queued on a stream."""
        stream = self._streams.get(number)
        return stream.sender.queued_seq if stream else 0

    def acknowledged_seq(self, number: int) -> int:
        """How many messages of a stream the peer has taken."""
        stream = self._streams.get(number)
        return stream.sender.taken_seq if stream else 0

    def found_seq(self, number: int) -> int | None:
        """How many messages of a stream the peer had got of the process before us, once it said so."""
        return self._found.get(number, 0) if self._numbered else None

    @property
    def unacknowledged(self) -> bool:
        """Whether anything that we sent or queued still waits for the peer."""
        return any(not stream.sender.drained for stream in self._streams.values())

    # What a connection does

    def hello(self, epoch: int) -> Hello:
        """Describe how far we have received, for the HELLO of a new connection."""
        positions = {number: stream.receiver.position for number, stream in self._streams.items()}
        return Hello(
            self.link_id,
            epoch,
            resumed=self.epoch > 0,
            streams=positions,
            over=dict(self._over),
            restarted=self._restarted,
            boot_id=self.boot_id,
        )

    def mark_replay(self) -> None:
        """What is queued now has waited for the line."""
        for stream in self._streams.values():
            stream.sender.mark_replay()

    def peer_restarted(self) -> None:
        """The peer's process was replaced: what it was in the middle of sending will not be finished."""
        for stream in self._streams.values():
            stream.receiver.peer_restarted()

    def restart_known(self) -> None:
        """The peer has got a HELLO that said that our process replaced another."""
        self._restarted = False

    def check(self, epoch: int, peer: Hello | None = None) -> None:
        """Raise LinkProtocolError for what :meth:`attach` refuses; nothing has changed then.

        That is an epoch that is not newer than ours, and a peer that expects what was never sent.
        """
        if epoch <= self.epoch:
            raise LinkProtocolError("epoch %d after %d" % (epoch, self.epoch))
        if self._numbered:  # else our numbers go on from the peer's, whatever these are
            live, over = self._received_by(peer)
            for number, position in self._positions(live, over).items():
                self._streams[number].sender.check_position(position)

    def attach(self, epoch: int, peer: Hello | None = None) -> None:
        """Continue on a new connection, whose peer has received as far as it says (None: nothing).

        Raises as :meth:`check` does.
        """
        self.check(epoch, peer)
        live, over = self._received_by(peer)
        if not self._numbered:
            self._numbered = True
            self._continue_from(live, over)
        for number, position in self._positions(live, over).items():
            self._streams[number].sender.rewind(position)
        self._over = {number: at for number, at in self._over.items() if number in live}
        # The last acknowledgement may have been lost with the connection before.
        self._over_acks = {number: at.seq for number, at in self._over.items()}
        self._over_asked, self._over_known = set(), set()
        self._acks_due.update(self._streams)
        self._turns.join_all()
        self.epoch = epoch

    def _received_by(self, peer: Hello | None) -> tuple[dict[int, Position], dict[int, Position]]:
        """Return how far the peer is on the streams that it has, and on those that are over there."""
        live, over = (peer.streams, peer.over) if peer else ({}, {})
        if self._restarted:
            # The offset is that of a message which the peer drops when it hears of our restart.
            live = {number: at._replace(offset=0) for number, at in live.items()}
        return live, over

    def _positions(
        self, live: dict[int, Position], over: dict[int, Position]
    ) -> dict[int, Position]:
        """Return where the peer is on each stream that we have."""
        return {number: live.get(number, over.get(number, Position())) for number in self._streams}

    def _continue_from(self, live: dict[int, Position], over: dict[int, Position]) -> None:
        for number, position in live.items():
            self.open(number)
            self._streams[number].sender.continue_from(position)
            self._found[number] = position.seq
        for number, stream in list(self._streams.items()):
            # Over at the peer, or so long that it has forgotten: we only did not live to see it.
            if number in over or (number not in live and stream.receiver.ended):
                self._forget(number)

    def receive_data(self, data: Data) -> Message | None:
        """Accept a chunk; return the message that it completes, if it does."""
        if data.stream in self._over:
            # A peer that was restarted may not know, and must not wait for an answer.
            self._over_acks[data.stream] = data.seq + bool(data.flags & FLAG_LAST_CHUNK)
            return None
        if data.stream not in self._streams and len(self._streams) >= MAX_STREAMS:
            raise LinkProtocolError("more than %d streams" % MAX_STREAMS)
        self.open(data.stream)
        receiver = self._streams[data.stream].receiver
        message = receiver.take(data)
        if receiver.ack_due:
            self._acks_due.add(data.stream)
        return message

    def receive_ack(self, ack: Ack) -> bool:
        """Free what the peer has taken; return whether somebody :meth:`watches <watch>` the stream.

        One that we do not know is over and forgotten, or only the peer has opened it yet.
        """
        stream = self._streams.get(ack.stream)
        if stream is None:
            return False
        stream.sender.acknowledge(ack)
        self._turns.join(ack.stream)
        self._forget_if_over(ack.stream)
        return stream.watched

    @property
    def remembers_over(self) -> bool:
        """Whether there is something that an answered question lets us forget."""
        return bool(self._over)

    def asked(self) -> None:
        """Note that a question goes out now, behind the last word about the streams that are over."""
        self._over_asked = set(self._over)

    def answered(self) -> None:
        """Note the answer: the peer has read what went before the question.

        Only at the second answer it can name those streams no more: what it says of them may follow
        the first.
        """
        for number in self._over_known:
            self._over.pop(number, None)
        self._over_known, self._over_asked = self._over_asked, set()

    @property
    def acks_due(self) -> bool:
        """Whether :meth:`take_acks` would return any."""
        return bool(self._acks_due or self._over_acks)

    def take_acks(self) -> list[Ack]:
        """Return the acknowledgements that are due."""
        acks = [
            Ack(number, seq, self._over[number].start + CREDIT_WINDOW_BYTES)
            for number, seq in self._over_acks.items()
            if number in self._over
        ]
        self._over_acks.clear()
        for number in sorted(self._acks_due):
            acks.append(self._streams[number].receiver.make_ack())
        due, self._acks_due = self._acks_due, set()
        for number in due:
            self._forget_if_over(number)
        return acks

    @property
    def has_chunk(self) -> bool:
        """Whether :meth:`next_chunk` would return one."""
        return self._turns.anybody

    def next_chunk(self, limit_bytes: int) -> tuple[Data, Chunk] | None:
        """Return the next chunk in fair order: urgent streams first, then each stream in turn."""
        stream = self._turns.take()
        return None if stream is None else stream.sender.next_chunk(limit_bytes)

    def _forget_if_over(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None and stream.over and number not in self._acks_due:
            self._forget(number)

    def forget(self, number: int) -> None:
        """Forget a stream of a link that has no peer, with what waits on it; idempotent."""
        if number in self._streams:
            self._forget(number)
        self._over.pop(number, None)

    def _forget(self, number: int) -> None:
        stream = self._streams.pop(number)
        self._over[number] = stream.receiver.position
        stream.sender.close()
        self._turns.drop(number)
        self._acks_due.discard(number)
