"""The five sockets of a kernel, joined to its two streams of the link.

To the kernel: each client of the hub has an identity; for each there is a DEALER connection to shell,
stdin and control with that identity, so the kernel answers each client and asks each for input as if
it were local. From the kernel: iopub is read before a reply is passed on, so that a reply never
overtakes its output. Shell, stdin and iopub share the *main* stream; control has its own, so that an
interrupt passes whatever is queued.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Any, Callable, NamedTuple, Sequence

from sshpyk.agent.gaps import StreamTextPolicy
from sshpyk.agent.sockets import WRITER_PAUSE_S, KernelSocket, channel_address
from sshpyk.agent.spokesman import OUR_SESSION, Spokesman
from sshpyk.agent.spool import StreamBacklog
from sshpyk.agent.zmtp import ZmtpPeer
from sshpyk.link.stream import Message
from sshpyk.wire import kernel_messages
from sshpyk.wire.clock import now_s
from sshpyk.wire.driver import LinkDriver
from sshpyk.wire.jupyter_messages import HEADER, PARENT_HEADER, Signer, frame_of
from sshpyk.wire.kernel_messages import CONTROL, IOPUB, SHELL, STDIN, Part

NAMES = {SHELL: "shell", STDIN: "stdin", CONTROL: "control"}
MAX_CLIENTS = 32  # identities kept; every page reload of JupyterLab brings a new one
_OUR_IDENTITY = OUR_SESSION
_WELCOME_PATIENCE_S = 0.05
_DRAIN_POLL_S = 0.02
_OUTPUT_PATIENCE_S = 1.0  # how long output that never pauses may hold a reply
_READS_BEFORE_REPLY = 64
_CROWDED_POLL_S = 0.1
_NO_CONNECTION = (
    "the kernel lives, but takes no new connection; if somebody has cleared /tmp on the host, its"
    " sockets are gone: restart it"
)

log = logging.getLogger(__name__)


class Streams(NamedTuple):
    """The numbers of a kernel's two streams."""

    main: int
    control: int


class KernelChannels:
    """See the module. Made when the kernel is about to listen; :meth:`connect` waits until it does."""

    def __init__(self, info: dict[str, Any], driver: LinkDriver, streams: Streams) -> None:
        self._info = info
        self._driver = driver
        self._streams = streams
        driver.link.open(streams.main)
        driver.link.open(streams.control, urgent=True)
        self.signer = Signer(info["key"], info["signature_scheme"])
        self.spokesman = Spokesman(self.signer, self)
        backlog = driver.link.backlog_of(streams.main)
        self._backlog = backlog if isinstance(backlog, StreamBacklog) else None
        if self._backlog is not None:
            self._backlog.policy = StreamTextPolicy(self.signer)
        self._unread_since_s: float | None = None  # output that there is no room for
        self._iopub: KernelSocket | None = None
        self._clients: OrderedDict[bytes, dict[int, KernelSocket]] = OrderedDict()
        self.active_s = now_s()  # when a message passed last, either way
        self._held: list[tuple[int, list[bytes]]] = []  # replies that wait for their output
        self._held_since_s = 0.0
        self._pass_planned = False
        self._serves = False  # clients' messages are passed on
        self._closed = False
        self.welcomes = False  # the kernel has greeted our subscription
        self.on_welcome: Callable[[], None] = lambda: None
        self._listening = asyncio.get_running_loop().create_future()
        # Sees requests first (channel, seen, parts); returns whether it has dealt with one itself.
        self.intercept: Callable[[int, int, list[bytes]], bool] = lambda channel, seen, parts: False
        # Sees what goes to the clients on the main stream: channel, place in the stream, parts.
        self.on_published: Callable[[int, int, Sequence[bytes]], None] = lambda *_: None
        # See the clients' messages on shell, with their number, before they count as taken; and the
        # answers to them.
        self.on_asked: Callable[[Sequence[Part], int], None] = lambda parts, seq: None
        self.on_answered: Callable[[Sequence[bytes]], None] = lambda parts: None
        # Gets the kernel's answers, on shell, to what we injected.
        self.on_own_answer: Callable[[Sequence[bytes]], None] = lambda parts: None
        # May publish what is to be said after a dead kernel's own last words; gets its exit status.
        self.on_last_words: Callable[[int], None] = lambda status: None

    # Start

    def try_connect(self) -> bool:
        """Subscribe to iopub; return whether the kernel listens already."""
        if self._iopub is None:
            try:
                self._iopub = KernelSocket(
                    channel_address(self._info, "iopub"),
                    ZmtpPeer(b"SUB"),
                    self._from_iopub,
                    self._iopub_ready,
                )
                # Shell is bound after iopub; a client's request must find it.
                KernelSocket(
                    channel_address(self._info, "shell"), ZmtpPeer(b"DEALER"), lambda _: None
                ).close()
            except OSError:
                self._drop_iopub()
        return self._iopub is not None

    def _drop_iopub(self) -> None:
        if self._iopub is not None:
            self._iopub.close()
            self._iopub = None

    def _iopub_ready(self) -> None:
        """Wait a little for the kernel's word that the subscription has arrived (JEP 65)."""
        loop = asyncio.get_running_loop()
        loop.call_later(_WELCOME_PATIENCE_S, self._note_listening)

    def _note_listening(self) -> None:
        if not self._listening.done():
            self._listening.set_result(None)

    async def wait_listening(self) -> None:
        """Wait until what the kernel publishes reaches us; then serve both streams."""
        await self._listening
        self._serves = True
        self._claim()

    def _claim(self) -> None:
        self._driver.claim(self._streams.main, self._from_link, prepare=self._note_asked)
        self._driver.claim(self._streams.control, self._from_link, urgent=True)

    def move_to(self, driver: LinkDriver, streams: Streams) -> None:
        """Go on over another link, with what the first has not taken.

        What its clients still ask is dropped; what they were answered goes with the rest.
        """
        before, left = self._driver, self._streams
        self._driver, self._streams = driver, streams
        for source, target in zip(left, streams):
            try:
                moved = before.link.give_away(source)
            except LookupError:  # it is over, as that of a dead kernel may be
                driver.link.open(target)
                continue
            driver.link.receive_moved(target, moved)
            before.abandon(source)
            before.wake()
        driver.link.open(streams.control, urgent=True)
        if self._closed:
            for stream in streams:
                driver.abandon(stream)
        elif self._serves:
            self._claim()
        driver.wake()

    # From the link to the kernel

    def _note_asked(self, message: Message) -> None:
        if not message.end:
            channel, parts = kernel_messages.unpack(message.payload)
            if channel == SHELL:
                self.on_asked(parts, message.seq)

    def _from_link(self, message: Message) -> bool:
        if message.end:
            return True
        channel, views = kernel_messages.unpack(message.payload)
        self.active_s = now_s()
        parts = [bytes(view) for view in views]
        if channel not in NAMES or not parts:
            log.warning("dropped a message for channel %d with %d parts", channel, len(parts))
            return True
        if self.intercept(channel, self.place_seen(message.seen), parts):
            return True
        sockets = self._client(parts[0])
        if sockets is None:
            self._refuse(channel, parts)
            return True
        if sockets[channel].send(parts[1:]):
            return True
        self._consume_when_drained(sockets[channel], self._driver, message.stream)
        return False

    def _refuse(self, channel: int, parts: list[bytes]) -> None:
        """Answer that the kernel takes no connection: nobody waits for ever."""
        request = None if channel == STDIN else self.signer.read(parts)
        if request is not None:
            self.spokesman.busy(request)
            self.spokesman.fail(channel, request, "KernelUnreachable", _NO_CONNECTION)

    def place_seen(self, seen: int) -> int:
        """Return ``seen``, which counts what the hub was sent, as a count of what was published."""
        return self._driver.link.place_of(self._streams.main, seen)

    def inject(self, parts: Sequence[bytes], channel: int = CONTROL) -> None:
        """Send a message of our own to the kernel; its reply goes to nobody else."""
        sockets = self._client(_OUR_IDENTITY)
        if sockets is not None:
            sockets[channel].send(list(parts))

    def expect_answers_for(self, identity: bytes) -> None:
        """Connect as a client, for the answers to what it asked through the agent before us."""
        self._client(identity)

    def _consume_when_drained(
        self, kernel_socket: KernelSocket, driver: LinkDriver, stream: int
    ) -> None:
        if kernel_socket.drained or kernel_socket.broken:
            driver.consumed(stream)
        else:
            loop = asyncio.get_running_loop()
            again = self._consume_when_drained
            loop.call_later(_DRAIN_POLL_S, again, kernel_socket, driver, stream)

    def _client(self, identity: bytes) -> dict[int, KernelSocket] | None:
        sockets = self._clients.get(identity)
        if sockets is None:
            sockets = {}
            try:
                for channel in NAMES:
                    sockets[channel] = self._dealer(channel, identity)
            except OSError as error:
                log.warning("the kernel takes no connection: %s", error)
                _close_all(sockets)
                return None
            self._clients[identity] = sockets
            if len(self._clients) > MAX_CLIENTS:
                _, oldest = self._clients.popitem(last=False)
                _close_all(oldest)
        self._clients.move_to_end(identity)
        return sockets

    def _dealer(self, channel: int, identity: bytes) -> KernelSocket:
        # An identity that begins with a zero was invented by the hub's socket for a client without
        # one; ZMTP reserves it, so the kernel gets a name for it. No name is longer than 255 bytes.
        name = b"anonymous-" + identity[1:] if identity.startswith(b"\0") else identity
        return KernelSocket(
            channel_address(self._info, NAMES[channel]),
            ZmtpPeer(b"DEALER", name[:255]),
            lambda messages: self._from_client_socket(channel, identity, messages),
        )

    # From the kernel to the link

    def _from_iopub(self, messages: list[list[bytes]]) -> None:
        for parts in messages:
            if _is_welcome(parts):
                self.welcomes = True
                self.on_welcome()
                self._note_listening()
            elif OUR_SESSION not in frame_of(
                parts, PARENT_HEADER
            ):  # what it says of our own questions
                self.publish(IOPUB, parts)
        if self._backlog is not None and self._backlog.crowded and self._unread_since_s is None:
            self._leave_output_unread(messages[-1])

    def _leave_output_unread(self, last: list[bytes]) -> None:
        """Read no output while the backlog has no room for it. The kernel may drop some: say so later.

        The last resort: text that could be dropped instead has been. What comes before a reply is
        read with it.
        """
        if self._iopub is not None:
            log.warning("reading no output: the backlog is full")
            self._unread_since_s = now_s()
            self._iopub.pause()
            self._read_output_again(frame_of(last, PARENT_HEADER) or b"{}")

    def _read_output_again(self, parent_header: bytes) -> None:
        """Go on once there is room; the notice belongs to what was running then."""
        if self._iopub is None or self._backlog is None or self._unread_since_s is None:
            return
        if not self._backlog.has_room:
            loop = asyncio.get_running_loop()
            loop.call_later(_CROWDED_POLL_S, self._read_output_again, parent_header)
            return
        silent_s, self._unread_since_s = now_s() - self._unread_since_s, None
        text = (
            f"output was not read for {silent_s:.0f} s, because the backlog was full;"
            " the kernel may have dropped some of it"
        )
        self.spokesman.remark(text, parent_header)
        self._iopub.resume()

    def _from_client_socket(
        self, channel: int, identity: bytes, messages: list[list[bytes]]
    ) -> None:
        if identity == _OUR_IDENTITY:
            for parts in messages if channel == SHELL else []:
                self.on_own_answer(parts)
            return
        if channel == CONTROL:
            for parts in messages:
                self.publish(channel, [identity, *parts])
            return
        if not self._held:
            self._held_since_s = now_s()
        self._held += [(channel, [identity, *parts]) for parts in messages]
        if not self._pass_planned:
            self._pass_held()

    def _pass_held(self) -> None:
        """Pass replies on once iopub has nothing more that came before them.

        The kernel may still be writing a large output when its reply is there. One that publishes
        without a pause does not hold a reply for ever.
        """
        self._pass_planned = False
        for _ in range(_READS_BEFORE_REPLY):
            if self._iopub is None or not self._iopub.read():
                break
        patient = now_s() - self._held_since_s < _OUTPUT_PATIENCE_S
        if patient and self._iopub is not None and self._iopub.more_is_coming:
            self._pass_planned = True
            loop = asyncio.get_running_loop()
            loop.call_later(WRITER_PAUSE_S / 4, self._pass_held)
            return
        held, self._held = self._held, []
        for channel, parts in held:
            self.publish(channel, parts)

    def publish(self, channel: int, parts: Sequence[bytes]) -> None:
        """Send a message of the kernel's (or in its name) to the hub."""
        stream = self._streams.control if channel == CONTROL else self._streams.main
        try:
            payload = kernel_messages.pack_large(channel, parts)
        except ValueError as error:
            log.warning("dropped what the kernel said on channel %d: %s", channel, error)
            return
        self.active_s = now_s()
        place = self._driver.send(stream, payload)
        if channel != CONTROL:
            self.on_published(channel, place, parts)
        if channel == SHELL:
            self.on_answered(parts)

    # End

    def finish(self, status: int) -> None:
        """Pass on what the dead kernel left in its sockets, then its exit status, then the end."""
        if self._iopub is not None:
            self._iopub.drain()
        for sockets in self._clients.values():
            for kernel_socket in sockets.values():
                kernel_socket.drain()
        self._drop_iopub()
        self._pass_held()
        self.on_last_words(status)
        self._driver.send(self._streams.main, kernel_messages.pack_exit(status))
        self.close()

    def close(self) -> None:
        """Let go of the kernel's sockets and streams."""
        self._closed = True
        for stream in self._streams:
            self._driver.abandon(stream)
        self._drop_iopub()
        for sockets in self._clients.values():
            _close_all(sockets)


def _close_all(sockets: dict[int, KernelSocket]) -> None:
    for kernel_socket in sockets.values():
        kernel_socket.close()


def _is_welcome(parts: list[bytes]) -> bool:
    """Whether this is the kernel's greeting of our own subscription; the hub greets its clients."""
    return b'"iopub_welcome"' in frame_of(parts, HEADER)
