"""What a client hears of one kernel, message by message, and the same without what may differ.

Ids, times and pids are replaced by their place in the order of appearance; the rest of two runs must
be equal: type, parent, header fields, metadata, content, buffers.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import zmq
from jupyter_client import BlockingKernelClient

from tests.integration.kernels import PATIENCE_S, Message

# Ids, moments, processes, folders: what two runs on one machine do not have in common either.
_VARIABLE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{24}\w*|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{32}\b"
    r"|\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)|/tmp/ipykernel_\d+/\d*|0x[0-9a-f]+"
)


class Recorder:
    """Sends requests one after the other and records what comes, by channel.

    ``acts``: what to do, once, when a stream's text has come as far as that.
    """

    def __init__(self, client: BlockingKernelClient) -> None:
        self._client = client
        self._channels = {
            getattr(client, f"{name}_channel").socket: name
            for name in ("shell", "iopub", "stdin", "control")
        }
        self.heard: dict[str, list[Message]] = {name: [] for name in self._channels.values()}
        # Of each message of all channels: when it was heard (time.monotonic()) and when it was sent.
        self.times: list[tuple[float, datetime]] = []
        self.acts: dict[str, Callable[[], object]] = {}
        self._text = ""
        self._parents: list[str] = []
        self._awaited: set[tuple[str, str]] = set()

    def request(self, channel: str, msg_type: str, content: Message) -> None:
        """Send one request; return when it has its reply and its idle."""
        self.send(channel, msg_type, content)
        self.await_answers()

    def send(self, channel: str, msg_type: str, content: Message) -> str:
        """Send one request and return its msg_id."""
        message = self._client.session.msg(msg_type, content)
        msg_id: str = message["header"]["msg_id"]
        self._parents.append(msg_id)
        self._awaited |= {(msg_id, channel), (msg_id, "idle")}
        getattr(self._client, f"{channel}_channel").send(message)
        return msg_id

    def await_answers(self, *, patience_s: float = PATIENCE_S) -> None:
        """Return when all that was sent has its reply and its idle."""
        poller = zmq.Poller()
        for socket in self._channels:
            poller.register(socket, zmq.POLLIN)
        while self._awaited:
            ready = poller.poll(patience_s * 1000)
            assert ready, f"silence; {len(self._awaited)} answers are missing"
            for socket, _ in ready:
                self._take(self._channels[socket])

    def execute(self, code: str) -> None:
        """Execute a cell and wait for its end."""
        self.send_cell(code)
        self.await_answers()

    def send_cell(self, code: str) -> str:
        """Send a cell; return its msg_id."""
        rest = {"silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": True}
        content = {"code": code, **rest, "stop_on_error": False}
        return self.send("shell", "execute_request", content)

    def _take(self, channel: str) -> None:
        message = getattr(self._client, f"{channel}_channel").get_msg(timeout=0)
        self.heard[channel].append(message)
        self.times.append((time.monotonic(), message["header"]["date"]))
        if self.acts:  # a busy kernel may send a line in two messages
            self._text += message["content"].get("text", "")
        for text in [text for text in self.acts if text in self._text]:
            self.acts.pop(text)()
        if channel == "stdin":
            self._client.input("answer é")
        idle = message["content"].get("execution_state") == "idle"
        answer = "idle" if idle else channel
        self._awaited.discard((message["parent_header"].get("msg_id", ""), answer))

    @property
    def _ids(self) -> list[str]:
        return [message["msg_id"] for said in self.heard.values() for message in said]

    @property
    def repeated(self) -> list[str]:
        """The ids that more than one message has."""
        return [one for one, count in collections.Counter(self._ids).items() if count > 1]

    @property
    def missing(self) -> int:
        """How many numbers are missing: ipykernel counts its messages in the msg_id.

        Not 0 in a run without faults: it also counts what it sends to nobody.
        """
        numbers = {int(msg_id.rpartition("_")[2]) for msg_id in self._ids}
        return max(numbers) - min(numbers) + 1 - len(numbers)

    @property
    def longest_silence_s(self) -> float:
        """The longest time between two messages."""
        heard = [heard_s for heard_s, _ in self.times]
        return max(later - earlier for earlier, later in itertools.pairwise(heard))

    def digests(self) -> dict[str, tuple[int, str]]:
        """Return for each channel how many messages came (as :meth:`normal` has them) and their hash."""
        return {
            channel: (
                len(said),
                hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).hexdigest(),
            )
            for channel, said in self.normal().items()
        }

    def normal(self) -> dict[str, list[Any]]:
        """Return what was heard without what may differ between two runs."""
        return {channel: self._normal(said) for channel, said in self.heard.items()}

    def _normal(self, messages: list[Message]) -> list[Any]:
        known: dict[str, str] = {}

        def place(found: re.Match[str]) -> str:
            return known.setdefault(found[0], f"<{len(known)}>")

        normal: list[Any] = []
        for message in messages:
            parent = self._parents.index(message["parent_header"]["msg_id"])
            # IPython's banner ends with a tip of the day.
            content = {key: item for key, item in message["content"].items() if key != "banner"}
            # Text that was merely flushed in two pieces is joined.
            last = normal[-1] if normal else (None,) * 6
            same = message["msg_type"] == "stream" == last[1] and last[0] == parent
            if same and content["name"] == last[4]["name"]:
                last[4]["text"] += content["text"]
                continue
            normal.append(
                (
                    parent,
                    message["msg_type"],
                    {key: message["header"][key] for key in ("version",)},
                    _replaced(message["metadata"], place),
                    _replaced(content, place),
                    [bytes(buffer) for buffer in message["buffers"]],
                )
            )
        return normal


def _replaced(value: Any, place: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, place) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, place) for item in value]
    return _VARIABLE.sub(place, value) if isinstance(value, str) else value
