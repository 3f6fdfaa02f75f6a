"""The five ZeroMQ sockets of one kernel, as Jupyter clients on this machine see them.

Bound where the local connection file says; they outlive a restart of the kernel, so that its clients
need not reconnect. No limit in libzmq may drop a message (HWM 0): what is under way is bounded by the
link's credit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from sshpyk.errors import HubError
from sshpyk.hub.kernel_info import KernelInfo
from sshpyk.hub.replay import IopubLimits, ReplayPace
from sshpyk.link.stream import MAX_MESSAGE_BYTES, Message
from sshpyk.wire import kernel_messages
from sshpyk.wire.clock import now_s
from sshpyk.wire.driver import LinkDriver, Pace
from sshpyk.wire.jupyter_messages import CONTENT, HEADER, Signer, frame_of
from sshpyk.wire.kernel_messages import CONTROL, EXITED, IOPUB, SHELL, STDIN, Part

_NAMES = {SHELL: "shell", IOPUB: "iopub", STDIN: "stdin", CONTROL: "control"}
_ROUTED = (SHELL, STDIN, CONTROL)
_COMING_BACK_S = 10.0  # within that clients come back to the sockets of a hub that was replaced
_LINGER_MS = 2000  # after a close: what clients have not read yet
_SUBSCRIPTION_PATIENCE_S = 3.0  # a client that asks something mostly wants the output, too
_SUBSCRIBES_WITHIN_S = 1.0  # of its first question; a client opens all its sockets together
_ALL = 1 << 48
_COPY_BELOW_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class Endpoints:
    """See the module. ``info`` is the content of the local connection file.

    ``is_away`` tells whether requests would wait for the link.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        info: dict[str, Any],
        is_away: Callable[[], bool] = lambda: False,
    ) -> None:
        self.info = info
        self._is_away = is_away
        self._kernel_info: KernelInfo
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, zmq.Socket[bytes]] = {}
        self._driver: LinkDriver | None = None
        self._streams = (0, 0)
        self.restarts = False  # the kernel has said that it goes for another like it
        self.delivered = 0  # messages of the main stream: what clients can have seen
        self._on_exit: Callable[[int], None] = lambda status: None
        self._held = False  # output waits for a client
        self._hold_ends = False
        self._pace: Pace | None = None
        self._welcomes = False
        self._greets_from_s = 0.0  # who subscribes before that was greeted by the hub before us
        self._ungreeted: dict[bytes, None] = {}  # topics that a later kernel may greet, in order
        try:
            self._signer = Signer(info.get("key", ""), info.get("signature_scheme", "hmac-sha256"))
            for channel, name in _NAMES.items():
                kind = zmq.XPUB if channel == IOPUB else zmq.ROUTER
                self._sockets[channel] = self._bind(name, kind)
            self._heartbeat = self._bind("hb", zmq.ROUTER)
        except (zmq.ZMQError, KeyError, AttributeError, TypeError, ValueError) as error:
            self.close()  # what the connection file says cannot be bound
            raise HubError(
                f"cannot bind the kernel's local sockets: {error}", phase="binding local sockets"
            ) from error
        self._subscribed = asyncio.Event()
        self._held_answers: list[tuple[int, list[bytes]]] = []  # in the kernel's place
        self._loop.add_reader(self._sockets[IOPUB].FD, self._read_subscriptions)
        # Also while the kernel still starts: a client that was started beside it takes a second of
        # silence for its death (jupyter_client's wait_for_ready).
        self._begin_heartbeat()

    def _begin_heartbeat(self) -> None:
        self._loop.add_reader(self._heartbeat.FD, self._answer_heartbeats)
        self._answer_heartbeats()

    def _bind(self, name: str, kind: int) -> zmq.Socket[bytes]:
        url = self.url(name)
        bound: zmq.Socket[bytes] = self._context.socket(kind)
        try:
            self._configure(bound, kind)
            bound.bind(url)
        except BaseException:
            bound.close()
            raise
        return bound

    def _configure(self, bound: zmq.Socket[bytes], kind: int) -> None:
        bound.linger = _LINGER_MS
        bound.maxmsgsize = MAX_MESSAGE_BYTES  # a part that announces more ends its connection
        bound.set_hwm(0)
        if kind == zmq.XPUB:
            bound.setsockopt(zmq.XPUB_VERBOSE, 1)
        else:
            bound.setsockopt(zmq.ROUTER_HANDOVER, 1)
            bound.setsockopt(zmq.ROUTER_MANDATORY, 1)
        if self.info.get("curve_secretkey"):
            bound.curve_secretkey = self.info["curve_secretkey"].encode()
            bound.curve_publickey = self.info["curve_publickey"].encode()
            bound.curve_server = True

    def url(self, name: str) -> str:
        """Return the ZeroMQ address of a channel."""
        separator = "-" if self.info["transport"] == "ipc" else ":"
        return f"{self.info['transport']}://{self.info['ip']}{separator}{self.info[name + '_port']}"

    @property
    def reachable(self) -> bool:
        """Whether new clients find the sockets: a client may have removed the files of ipc ones."""
        if self.info["transport"] != "ipc":
            return True
        return all(os.path.exists(self.url(name)[6:]) for name in (*_NAMES.values(), "hb"))

    # A kernel behind them

    def attach(
        self,
        driver: LinkDriver,
        streams: tuple[int, int],
        on_exit: Callable[[int], None],
        limits: IopubLimits | None = None,
        kernel_info: str = "",
    ) -> None:
        """Join the sockets to a kernel's streams (main, control); ``on_exit`` gets its status.

        ``limits``: what the client drops output above; a backlog is handed over below them.
        ``kernel_info``: what a new kernel has answered to ``kernel_info_request``, JSON.
        """
        self._driver, self._streams, self._on_exit = driver, streams, on_exit
        self.restarts = False
        driver.link.open(streams[0])
        self.delivered = driver.link.consumed_seq(streams[0])
        self._kernel_info = KernelInfo(self._signer, kernel_info)
        self._pace = _pace_below(limits)
        if not self._held:
            self._take_output()
        if not self._attached:  # it has ended already
            return
        driver.claim(streams[1], self._from_kernel, urgent=True)
        self._drop_waiting_control()
        for channel in _ROUTED:
            self._loop.add_reader(self._sockets[channel].FD, self._read, channel)
            self._read(channel)
        self._begin_heartbeat()

    @property
    def _attached(self) -> bool:
        return self._driver is not None

    def hold_for_client(self) -> None:
        """Hand no output over before a client is there: it would reach nobody."""
        self._held = not self._subscribed.is_set()

    def _take_output(self) -> None:
        self._held = False
        if self._driver is not None:
            self._driver.claim(self._streams[0], self._from_kernel, pace=self._pace)

    def _client_is_there(self) -> None:
        """Some client has asked something; it may be one that never wants output, only answers."""
        if self._held and not self._hold_ends:
            self._hold_ends = True
            self._loop.call_later(_SUBSCRIPTION_PATIENCE_S, self.end_hold)

    def end_hold(self) -> None:
        """Hand the output over, whoever is there: the kernel is to end, and its end comes behind it."""
        if self._held:
            self._take_output()

    @property
    def seen(self) -> int:
        """What a person can have seen of the main stream; all of it, where no client shows anything."""
        return _ALL if self._held else self.delivered

    async def wait_resubscribed(self, patience_s: float) -> None:
        """Wait until a client of before is back on iopub: what is published earlier reaches nobody.

        It was greeted when it came first.
        """
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._subscribed.wait(), patience_s)
        self._ungreeted.clear()
        self._greets_from_s = now_s() + _COMING_BACK_S

    def greet_subscribers(self) -> None:
        """Send ``iopub_welcome`` to all subscribers, as this kernel does (JEP 65): also to the next."""
        self._welcomes = True
        ungreeted, self._ungreeted = self._ungreeted, {}
        for topic in ungreeted:
            self._welcome(topic)
        self._read_subscriptions()

    def detach(self, *, keep_unread: bool = False) -> None:
        """The kernel has ended: leave what clients send in the sockets for the next one.

        ``keep_unread``: it has not, and what was not handed over is not ours to acknowledge.
        """
        driver, self._driver = self._driver, None
        if driver is None:
            return
        self._welcomes = False
        self._held = self._hold_ends = False
        for stream in self._streams:
            if keep_unread:
                driver.release(stream)
            else:
                driver.abandon(stream)
        for channel in _ROUTED:
            self._loop.remove_reader(self._sockets[channel].FD)
        self._loop.remove_reader(self._heartbeat.FD)

    def close(self) -> None:
        """Unbind; what clients have not fetched yet is still theirs for a moment."""
        self.detach()
        for bound in (*self._sockets.values(), getattr(self, "_heartbeat", None)):
            if bound is not None and not bound.closed:
                self._loop.remove_reader(bound.FD)
                bound.close()

    # From clients

    def _read(self, channel: int) -> None:
        """Take all that is there: the descriptor tells only of the first (edge-triggered)."""
        driver, bound = self._driver, self._sockets[channel]
        while driver is not None and not bound.closed and _readable(bound):
            parts = bound.recv_multipart(copy=True)
            self._client_is_there()
            if self._answer_in_its_place(channel, parts):
                continue
            self._release_answers()
            main, control = self._streams
            stream = control if channel == CONTROL else main
            try:
                payload = kernel_messages.pack_large(channel, parts)
                driver.send(stream, payload, seen=self.seen)
            except ValueError as error:
                log.warning("dropped what a client said on %s: %s", _NAMES[channel], error)
            driver = self._driver

    def _answer_in_its_place(self, channel: int, parts: list[bytes]) -> bool:
        answers = self._kernel_info.answer(channel, parts, away=self._is_away())
        if answers:
            self._held_answers += answers
            if self._subscribed.is_set():
                self._release_answers()
            else:
                # The state would reach nobody, and clients wait for it as well.
                self._loop.call_later(_SUBSCRIBES_WITHIN_S, self._release_answers)
        return bool(answers)

    def _release_answers(self) -> None:
        held, self._held_answers = self._held_answers, []
        for channel, answer in held:
            if not self._sockets[channel].closed:
                self._send(self._sockets[channel], answer)
                # Sending may swallow the edge of what came meanwhile.
                if channel == IOPUB:
                    self._loop.call_soon(self._read_subscriptions)
                else:
                    self._loop.call_soon(self._read, channel)

    def _drop_waiting_control(self) -> None:
        """Drop control messages from before this kernel: a shutdown_request was for the last one.

        Shell requests stay: with a local kernel they would wait in the client for the next one too.
        """
        bound = self._sockets[CONTROL]
        while _readable(bound):
            bound.recv_multipart()

    def _read_subscriptions(self) -> None:
        bound = self._sockets[IOPUB]
        while not bound.closed and _readable(bound):
            word = bound.recv()
            if word[:1] != b"\x01":
                continue
            self._subscribed.set()
            self._release_answers()
            self.end_hold()
            if now_s() < self._greets_from_s:
                continue
            if self._welcomes:
                self._welcome(word[1:])
            else:
                self._ungreeted[word[1:]] = None

    def _welcome(self, topic: bytes) -> None:
        content = {"subscription": topic.decode("utf-8", "replace")}
        message = self._signer.message(
            "iopub_welcome", content, identities=[topic] if topic else []
        )
        self._sockets[IOPUB].send_multipart(message)

    def _answer_heartbeats(self) -> None:
        bound = self._heartbeat
        while not bound.closed and _readable(bound):
            self._send(bound, bound.recv_multipart())

    # From the kernel

    def _from_kernel(self, message: Message) -> bool:
        if message.end:
            return True
        channel, parts = kernel_messages.unpack(message.payload)
        if channel == EXITED:
            self._on_exit(int(bytes(parts[0])))
            return True
        if channel != CONTROL:
            # Before it is sent: a client may answer before we return.
            self.delivered = message.seq + 1
        elif _goes_for_restart(parts):
            self.restarts = True
        self._kernel_info.note(channel, parts)
        bound = self._sockets[channel]
        self._send(bound, parts, copy=len(message.payload) < _COPY_BELOW_BYTES)
        # Sending may swallow the edge of what came meanwhile.
        if channel == IOPUB:
            self._read_subscriptions()
        else:
            self._read(channel)
        return True

    @staticmethod
    def _send(bound: zmq.Socket[bytes], parts: Any, *, copy: bool = True) -> None:
        try:
            bound.send_multipart(parts, copy=copy)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            log.debug("dropped a message for a client that has gone")


def _goes_for_restart(parts: Sequence[Part]) -> bool:
    if b'"shutdown_reply"' not in frame_of(parts, HEADER):
        return False
    with contextlib.suppress(ValueError, RecursionError):
        content = json.loads(frame_of(parts, CONTENT))
        return isinstance(content, dict) and content.get("restart") is True
    return False


def _pace_below(limits: IopubLimits | None) -> Pace | None:
    if limits is None:
        return None
    pace = ReplayPace(limits)
    return lambda message: 0.0 if message.end else pace.delay_s(message.payload, now_s())


def _readable(bound: zmq.Socket[bytes]) -> bool:
    return bool(int(bound.getsockopt(zmq.EVENTS)) & zmq.POLLIN)
