"""One connection: the bytes of one ssh process, carrying a link for a while.

Calling protocol. The side that dialled makes ``Connection.initiate(link, epoch)``; the other side
makes ``Connection.accept()`` and, when :meth:`Connection.receive_data` returns
:class:`HelloReceived`, looks up or creates the link and calls :meth:`Connection.answer`. From then on
both do the same: feed what was read to :meth:`receive_data` and act on its events; write what
:meth:`data_to_send` returns, whenever the descriptor takes more; call :meth:`tick` about once a
second, and :meth:`ask` when there is a reason to doubt the line. After :class:`Broken` close the
descriptors; the link resumes on the next connection.

States and what moves them::

    OPENING --the peer's HELLO, or the link's first epoch--> ATTACHED --the next one attached--> FENCED
       any --BYE, protocol error, no common version, the peer has lost the link--> CLOSED
"""

from __future__ import annotations

import enum
from typing import Callable, NamedTuple, Union

from sshpyk.link import frames
from sshpyk.link.frames import Frame, FrameReader, Hello, LinkProtocolError
from sshpyk.link.link import Link
from sshpyk.link.pacing import FIRST_WINDOW_BYTES, PROGRESS_EVERY_BYTES, Pacing
from sshpyk.link.stream import Message

PING_IDLE_S = 10.0  # a quiet connection is asked this often
PING_OVER_S = 2.0  # ... and while there are streams to forget
PING_WAITING_S = 1.0  # ... and so soon while something is unacknowledged, or once after DATA
STALL_S = 1.0  # nothing received for so long after a question: what comes then is a replay
REPORT_WITHIN_S = 0.002
SUSPECT_AFTER_S = 3.0  # nothing received for so long after a question: dial another one


class State(enum.Enum):
    """Where a connection is in its life; see the module's docstring."""

    OPENING = "opening"
    ATTACHED = "attached"
    FENCED = "fenced"
    CLOSED = "closed"


class HelloReceived(NamedTuple):
    """The peer has opened the connection: find its link and call :meth:`Connection.answer`."""

    hello: Hello


class Resumed(NamedTuple):
    """The connection carries the link now.

    ``known``: the peer had kept the link's state. ``restarted``: its process has replaced another,
    and what that had in its hands is lost. ``boot_id``: which start of its machine this is.
    """

    epoch: int
    known: bool
    restarted: bool = False
    boot_id: str = ""


class Acknowledged(NamedTuple):
    """The peer's consumer has taken something of a stream that is watched."""

    stream: int


class PeerLeft(NamedTuple):
    """The peer has given the whole link up; nothing more will come for it."""

    reason: str


class Broken(NamedTuple):
    """The peer broke the protocol, as ``reason`` says; close this connection and nothing else."""

    reason: str


class Incompatible(NamedTuple):
    """The peer speaks none of our versions but ``versions``: write what there is to send and close.

    Whoever was dialled has its own HELLO to send, so that the other end learns the same. Neither has
    changed anything of the link.
    """

    versions: tuple[int, ...]


Event = Union[HelloReceived, Resumed, PeerLeft, Broken, Incompatible, Acknowledged, Message]


class Connection:
    """See the module's docstring for the calling protocol."""

    def __init__(self, link: Link | None, epoch: int) -> None:
        self.state = State.OPENING
        self.epoch = epoch
        self._link = link
        self._reader = FrameReader()
        self._control: list[bytes] = []  # frames that go before any DATA
        self._pong_due: int | None = None  # one is enough, however many PINGs came
        self._pacing = Pacing()
        self._received_bytes = 0
        self._progress_bytes = 0
        self.last_received_s: float | None = None
        self._ping_sent_s: float | None = None
        self._asked_s = 0.0
        self._catching_up = False
        self._ping_token = 0
        self._data_since_question = False  # a kernel that was printing may have more to say
        self._hello_received = False
        self._held: list[Frame] = []  # what came behind a HELLO that is not answered yet

    @classmethod
    def initiate(cls, link: Link, epoch: int) -> Connection:
        """Open a connection for a link that we own; its HELLO is the first thing to send.

        A link that never had a connection starts sending at once: its peer can have nothing of it.
        """
        connection = cls(link, epoch)
        connection._control.append(frames.encode_hello(link.hello(epoch)))
        if link.epoch == 0:
            link.attach(epoch)
            link.pacing = connection._pacing
            connection.state = State.ATTACHED
        return connection

    @classmethod
    def accept(cls) -> Connection:
        """Wait for a peer that will say which link it brings."""
        return cls(None, 0)

    def answer(self, link: Link, hello: Hello) -> list[Event]:
        """Carry ``link`` for the peer that said ``hello``; return what it sent behind it.

        Raises LinkProtocolError for an epoch that is not newer than the link's, and where the peer
        expects what was never sent; nothing has changed then for the connection that carries the link.
        """
        link.check(hello.epoch, hello)
        if hello.restarted:
            link.peer_restarted()
        reply = link.hello(hello.epoch)
        self._attach(link, hello)
        link.confirmed = True
        self._link = link
        self._control.append(frames.encode_hello(reply))
        held, self._held = self._held, []
        now_s = self.last_received_s or 0.0
        self._ask(now_s)
        return self._handle(held, now_s)

    def disown(self, hello: Hello, boot_id: str) -> None:
        """Answer that we know nothing, or nothing any more, of the link that the peer goes on with.

        The peer closes the connection when it has read that.
        """
        reply = Hello(hello.link_id, hello.epoch, boot_id=boot_id)
        self._control.append(frames.encode_hello(reply))
        self.state = State.CLOSED

    def fence(self) -> None:
        """Another connection carries the link now: nothing of this one counts any more."""
        self.state = State.FENCED

    def leave(self, reason: str) -> bytes:
        """Give the whole link up; write the returned bytes, then close."""
        self.state = State.CLOSED
        return frames.encode_bye(reason)

    # Bytes in

    def receive_data(self, data: bytes | memoryview, now_s: float) -> list[Event]:
        """Take what was read; return the events in order. Nothing comes of a fenced connection.

        ``data`` may be a buffer that is used again.
        A fault of the peer's is the last event, never an exception: the messages before it count.
        """
        if self.state in (State.FENCED, State.CLOSED):
            return []
        self._note_stall(now_s)
        self.last_received_s = now_s
        try:
            received = self._reader.feed(data)
        except LinkProtocolError as error:
            return [self._break(error)]
        return self._handle(received, now_s)

    def _note_stall(self, now_s: float) -> None:
        """Notice the end of an outage that this very connection has survived.

        What the peer sends before its PONG had waited in the line; what we have queued waited here.
        """
        asked_s, heard_s = self._ping_sent_s, self.last_received_s
        if asked_s is None or heard_s is None or now_s - max(asked_s, heard_s) < STALL_S:
            return
        self._catching_up = True
        if self._link is not None:
            self._link.mark_replay()

    def _break(self, error: LinkProtocolError) -> Event:
        self.state = State.CLOSED
        return Broken(str(error))

    def _handle(self, received: list[Frame], now_s: float) -> list[Event]:
        events: list[Event] = []
        for place, frame in enumerate(received):
            try:
                event = _HANDLERS[type(frame)](self, frame, now_s)
            except LinkProtocolError as error:
                event = self._break(error)
            if event is not None:
                events.append(event)
            if isinstance(event, HelloReceived):
                self._held = received[place + 1 :]
                break
            if self.state is State.CLOSED:
                break
        return events

    def _on_hello(self, hello: Hello, now_s: float) -> Event:
        if self._hello_received:
            raise LinkProtocolError("second HELLO")
        self._hello_received = True
        link = self._link
        if not set(hello.versions) & set(frames.VERSIONS):
            return self._refuse(hello)
        if link is None:
            self.epoch = hello.epoch
            return HelloReceived(hello)
        if hello.epoch != self.epoch or hello.link_id != link.link_id:
            raise LinkProtocolError("HELLO for another link or epoch")
        if link.confirmed and not hello.resumed:
            self.state = State.CLOSED
            return Resumed(self.epoch, known=False, boot_id=hello.boot_id)
        if self.state is State.OPENING:
            link.check(self.epoch, hello)
        if hello.restarted:
            link.peer_restarted()
        if self.state is State.OPENING:
            self._attach(link, hello)
        link.confirmed = True
        link.restart_known()  # the peer has answered our HELLO
        self._ask(now_s)
        return Resumed(self.epoch, known=True, restarted=hello.restarted, boot_id=hello.boot_id)

    def _attach(self, link: Link, hello: Hello) -> None:
        link.attach(hello.epoch, hello)
        # A line that was slow is taken for slow again, one that was fast may be another one now.
        if link.pacing is not None:
            self._pacing = Pacing(min(FIRST_WINDOW_BYTES, link.pacing.window_bytes))
        link.pacing = self._pacing
        self.state = State.ATTACHED

    def _refuse(self, hello: Hello) -> Event:
        if self._link is None:
            self._control.append(frames.encode_hello(Hello(hello.link_id, hello.epoch)))
        self.state = State.CLOSED
        return Incompatible(hello.versions)

    def _on_data(self, data: frames.Data, now_s: float) -> Event | None:
        self._received_bytes += len(data.chunk)
        self._data_since_question = True
        message = self._attached_link().receive_data(data)
        if message is not None and self._catching_up:
            return message._replace(replayed=True)
        return message

    def _on_ack(self, ack: frames.Ack, now_s: float) -> Event | None:
        watched = self._attached_link().receive_ack(ack)
        return Acknowledged(ack.stream) if watched else None

    def _on_progress(self, progress: frames.Progress, now_s: float) -> None:
        if not self._pacing.reported(progress.received_bytes, now_s):
            raise LinkProtocolError("PROGRESS beyond what was sent")

    def _on_ping(self, ping: frames.Ping, now_s: float) -> None:
        self._pong_due = ping.token

    def _on_pong(self, pong: frames.Pong, now_s: float) -> None:
        if self._ping_sent_s is not None and pong.token == self._ping_token:
            self._pacing.measured_round_trip(now_s - self._ping_sent_s)
            self._ping_sent_s = None
            self._catching_up = False
            if self._link is not None:
                self._link.restart_known()  # our HELLO went before every question
                self._link.answered()

    def _on_bye(self, bye: frames.Bye, now_s: float) -> Event:
        if self._link is None:
            raise LinkProtocolError("BYE before HELLO")
        self.state = State.CLOSED
        return PeerLeft(bye.reason)

    def _attached_link(self) -> Link:
        if self._link is None or self.state is not State.ATTACHED:
            raise LinkProtocolError("stream frame before HELLO")
        return self._link

    # Bytes out

    @property
    def has_to_send(self) -> bool:
        """Whether something waits that should not: anything but mere acknowledgements."""
        if self._control or self._pong_due is not None:
            return True
        link = self._link if self.state is State.ATTACHED else None
        return link is not None and self._pacing.room_bytes > 0 and link.has_chunk

    @property
    def report_due(self) -> bool:
        """Whether what arrived should be reported to the sender within :data:`REPORT_WITHIN_S`.

        A report for each read would cost a fast line half of its time, at both ends and in both ssh.
        """
        return self._received_bytes - self._progress_bytes >= PROGRESS_EVERY_BYTES

    @property
    def portion_bytes(self) -> int:
        """How much to ask :meth:`data_to_send` for: what a fast line carries in no time."""
        return self._pacing.portion_bytes

    def data_to_send(self, limit_bytes: int, now_s: float) -> list[bytes]:
        """Return buffers to write, of about ``limit_bytes`` in all; less means that there is no more.

        Asked late and in small portions, it keeps urgent streams ahead of what others have queued.
        """
        out: list[bytes] = self._control
        self._control = []
        if self._pong_due is not None:
            out.append(frames.encode_pong(self._pong_due))
            self._pong_due = None
        link = self._link
        if self.state is not State.ATTACHED or link is None:
            return out
        if link.acks_due:
            out += [frames.encode_ack(ack) for ack in link.take_acks()]
        if self.report_due:
            self._progress_bytes = self._received_bytes
            out.append(frames.encode_progress(self._received_bytes))
        size, pacing = 0, self._pacing
        room = pacing.room_bytes
        while size < limit_bytes and room > 0:
            chosen = link.next_chunk(pacing.chunk_bytes)
            if chosen is None:
                break
            fields, chunk = chosen
            chunk_bytes = len(chunk)
            header = frames.encode_data_header(fields, chunk_bytes)
            out.append(header)
            if chunk_bytes:
                out.append(chunk)  # type: ignore[arg-type]  # any buffer will do for writev
            pacing.sent(chunk_bytes, now_s)
            room -= chunk_bytes
            size += len(header) + chunk_bytes
        return out

    # Time

    def tick(self, now_s: float) -> bool:
        """Ask a quiet peer for a sign of life; return whether the connection is suspect.

        Only bytes received count as life: that a write succeeded says nothing about the line.
        """
        if self.state is not State.ATTACHED or self._link is None:
            return False
        if self.last_received_s is None:
            self.last_received_s = now_s
        if self._ping_sent_s is not None:
            return now_s - max(self._ping_sent_s, self.last_received_s) > SUSPECT_AFTER_S
        hurry = self._link.unacknowledged or self._data_since_question
        patience_s = PING_WAITING_S if hurry else PING_IDLE_S
        to_forget = self._link.remembers_over and now_s - self._asked_s >= PING_OVER_S
        if to_forget or now_s - self.last_received_s >= patience_s:
            self._ask(now_s)
        return False

    def ask(self, now_s: float) -> None:
        """Ask for a sign of life now, unless an answer is due already."""
        if self.state is State.ATTACHED and self._ping_sent_s is None:
            self._ask(now_s)

    def _ask(self, now_s: float) -> None:
        self._ping_token += 1
        self._ping_sent_s = self._asked_s = now_s
        if self._link is not None:
            self._link.asked()
        self._data_since_question = False
        self._control.append(frames.encode_ping(self._ping_token))


_HANDLERS: dict[type[object], Callable[..., Event | None]] = {
    Hello: Connection._on_hello,
    frames.Data: Connection._on_data,
    frames.Ack: Connection._on_ack,
    frames.Progress: Connection._on_progress,
    frames.Ping: Connection._on_ping,
    frames.Pong: Connection._on_pong,
    frames.Bye: Connection._on_bye,
}
