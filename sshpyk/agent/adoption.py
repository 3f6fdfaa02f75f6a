"""A kernel that outlived the agent which started it: taken up again, and what is lost is said.

1. Connect to its sockets, under the identities of the clients that wait for answers, so that answers
   to come arrive.
2. Tell the clients how much output may be missing, just before the first that comes again.
3. Ask the kernel something ourselves: once it has answered that, every older request has been dealt
   with, and an answer that has not come will not.
4. Answer those requests in the kernel's place, with an error that says so: nobody waits for ever.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from typing import Callable, NamedTuple, Sequence

from sshpyk.agent.channels import KernelChannels
from sshpyk.agent.spokesman import Spokesman
from sshpyk.agent.unanswered import Unanswered, UnansweredRequests
from sshpyk.wire.clock import now_s
from sshpyk.wire.kernel_messages import SHELL

_CONNECT_POLL_S = (0.02, 1.0)
_LINK_POLL_S = 0.1
_ANSWER_LOST = (
    "the answer was lost when the agent on the host was killed; the cell may have ended well"
)
_LATECOMERS_S = 2.0  # for answers that were read after that to our own question

log = logging.getLogger(__name__)


class Loss(NamedTuple):
    """What is known of the time that the agent before us did not live to account for.

    It began at ``since_s``. ``found_seq`` tells how many messages of the main stream the hub had got,
    once it has said so.
    """

    since_s: float
    found_seq: Callable[[], int | None]


class Adoption:
    """See the module."""

    def __init__(
        self,
        channels: KernelChannels,
        spokesman: Spokesman,
        unanswered: UnansweredRequests,
        loss: Loss,
    ) -> None:
        self._channels = channels
        self._spokesman = spokesman
        self._unanswered = unanswered
        self._loss = loss
        self._inherited = list(unanswered.waiting())
        self._early: list[tuple[Sequence[bytes], int]] = []
        self._caught_up = asyncio.Event()

    def tell_loss(self) -> None:
        """Say to the clients how much may be missing; under the cell that was running, if any was."""
        loss_s = now_s() - self._loss.since_s
        running = [one for one in self._inherited if one.is_cell and not one.answer_place]
        self._spokesman.remark(
            f"the agent on {socket.gethostname()} was killed and replaced;"
            f" output of up to {math.ceil(loss_s)} s may be missing here",
            running[0].header_bytes if running else b"{}",
        )

    async def run(self) -> None:
        """Take the kernel up. Cancelled when it ends."""
        pause_s, longest_s = _CONNECT_POLL_S
        while not self._channels.try_connect():
            await asyncio.sleep(pause_s)
            pause_s = min(longest_s, pause_s * 2)
        self.tell_loss()
        for identity in {request.identity for request in self._inherited}:
            self._channels.expect_answers_for(identity)
        await self._channels.wait_listening()
        self._channels.on_own_answer = lambda parts: self._caught_up.set()
        self._spokesman.ask()
        await self._settle_with_hub()
        await self._caught_up.wait()
        await asyncio.sleep(_LATECOMERS_S)
        for request in self._inherited:
            self._tell_if_lost(request)

    def place_of(self, parts: Sequence[bytes], queued: int) -> int:
        """Return the place on the main stream of an answer that was queued now; 0 if none knows yet."""
        found = self._loss.found_seq()
        if found is None:
            self._early.append((parts, queued))
            return 0
        return queued

    async def _settle_with_hub(self) -> None:
        """Learn from the hub which answers of the dead agent it has got."""
        while (found := self._loss.found_seq()) is None:
            await asyncio.sleep(_LINK_POLL_S)
        for parts, queued in self._early:
            self._unanswered.answered(parts, found + queued)
        self._unanswered.heard(found)
        for request in self._inherited:
            if request.answer_place > found:
                self._tell_if_lost(request)

    def _tell_if_lost(self, request: Unanswered) -> None:
        known = self._unanswered.find(request)
        if known is not None and known.answer_place == request.answer_place:
            log.warning("the answer to a %s was lost", request.msg_type)
            self._unanswered.forget(request)
            self._spokesman.fail(SHELL, request.as_request(), "AnswerLost", _ANSWER_LOST)
