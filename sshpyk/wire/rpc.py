"""Requests, answers and notices on stream 0 of a link, as JSON objects.

The link delivers each message exactly once, so a request needs no retry and no idempotency: it waits
out any outage. Either side may ask; an answer carries the request's id.

    {"id": 7, "op": "start", …}   {"id": 7, "result": {…}}   {"id": 7, "error": {…}}   {"op": "taken", …}
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from typing import Any, Awaitable, Callable, Dict, NamedTuple

from sshpyk.errors import SshpykError, error_from_record
from sshpyk.link.stream import Message
from sshpyk.wire.driver import LinkDriver

RPC_STREAM = 0
MAX_RECORD_BYTES = 16 * 1024 * 1024  # a start carries a notebook's environment

Params = Dict[str, Any]
Operation = Callable[[Params], Awaitable[Params]]

log = logging.getLogger(__name__)


class _Call(NamedTuple):
    """A request of ours that waits for its answer."""

    record: Params
    answer: asyncio.Future[Params]


class Rpc:
    """Both roles at once: ``operations`` answers the peer's requests, :meth:`call` makes ours."""

    def __init__(self, driver: LinkDriver, operations: dict[str, Operation]) -> None:
        self._driver = driver
        self._operations = operations
        self._waiting: dict[int, _Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Not from 0: answers to the process that we may have replaced must find nobody.
        self._last_id = secrets.randbits(48)
        driver.claim(RPC_STREAM, self._on_message, urgent=True)
        driver.when_left.append(self._drop_tasks)

    async def call(self, op: str, **params: Any) -> Params:
        """Ask the peer and wait for its answer, across outages; raises what the peer raised."""
        return await self.begin(op, **params)

    def begin(self, op: str, **params: Any) -> asyncio.Future[Params]:
        """Ask the peer now, and return what will have its answer as :meth:`call` returns it."""
        self._last_id += 1
        number = self._last_id
        answer: asyncio.Future[Params] = asyncio.get_running_loop().create_future()
        self._waiting[number] = _Call({**params, "id": number, "op": op}, answer)
        answer.add_done_callback(lambda _: self._waiting.pop(number, None))
        self._send(self._waiting[number].record)
        return answer

    def notify(self, op: str, **params: Any) -> None:
        """Tell the peer something that needs no answer."""
        self._send({**params, "op": op})

    def fail_all(self, error: SshpykError) -> None:
        """Answer every waiting call with ``error``: the peer will not."""
        for call in self._waiting.values():
            if not call.answer.done():
                call.answer.set_exception(error)

    def ask_again(self, error: SshpykError, *, never: tuple[str, ...] = ()) -> None:
        """The peer's process was replaced, and its answers may be lost: repeat what was asked.

        Calls of the operations ``never``, which may not be done twice, fail with ``error`` instead.
        """
        for call in self._waiting.values():
            if call.record["op"] not in never:
                self._send(call.record)
            elif not call.answer.done():
                call.answer.set_exception(error)

    def _drop_tasks(self) -> None:
        """The link is given up: nobody waits for the answers that are being prepared."""
        for task in self._tasks:
            task.cancel()

    def _send(self, record: Params) -> None:
        self._driver.send(RPC_STREAM, json.dumps(record, separators=(",", ":")).encode())

    def _on_message(self, message: Message) -> bool:
        if message.end:
            return True
        try:
            record = _read(message.payload)
        except ValueError as error:
            log.warning("dropped a message on stream %d: %s", RPC_STREAM, error)
            return True
        if "op" in record:
            task = asyncio.ensure_future(self._serve(record))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._on_answer(record)
        return True

    def _on_answer(self, record: Params) -> None:
        call = self._waiting.get(record["id"])
        if call is None or call.answer.done():
            return
        answer = call.answer
        if "error" in record:
            answer.set_exception(error_from_record(record["error"]))
        else:
            answer.set_result(record["result"])

    async def _serve(self, record: Params) -> None:
        reply: Params = {}
        try:
            operation = self._operations.get(record["op"])
            if operation is None:
                raise SshpykError(
                    "the other end does not know the operation {}".format(record["op"])
                )
            reply["result"] = await operation(record)
        except SshpykError as error:
            reply["error"] = error.to_record()
        except Exception as error:  # outermost: the peer must get its answer
            log.exception("operation %s failed", record["op"])
            reply["error"] = SshpykError("{} failed: {!r}".format(record["op"], error)).to_record()
        if "id" in record:
            self._send({**reply, "id": record["id"]})


def _read(payload: bytes) -> Params:
    """Return the record that a message is. Raises ValueError for anything but the four kinds."""
    if len(payload) > MAX_RECORD_BYTES:
        raise ValueError("a record of %d bytes" % len(payload))
    try:
        record = json.loads(payload)
    except RecursionError:
        raise ValueError("a record that is nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError("no record but a %s" % type(record).__name__)
    if "op" in record:
        well_formed = isinstance(record["op"], str)
    else:
        outcome = record.get("error", record.get("result"))
        well_formed = isinstance(record.get("id"), int) and isinstance(outcome, dict)
    if not well_formed:
        raise ValueError("neither a request nor an answer")
    return record
