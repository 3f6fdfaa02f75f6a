"""One connection for a link, from ssh's start to the agent's answer to our HELLO."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sshpyk.errors import SshpykError, Unreachable
from sshpyk.hub.dial import FirstFrames, Terminal
from sshpyk.hub.redial import Redial
from sshpyk.hub.ssh_process import SshProcess
from sshpyk.link.connection import Connection, State
from sshpyk.wire.carrier import Carrier
from sshpyk.wire.clock import now_s
from sshpyk.wire.driver import LinkDriver

RESUMING = "resuming the link"
HELLO_DEADLINE_S = 20.0


class Opening:
    """See the module. ``next_connection`` is asked once, when the connection's HELLO is to be made.

    ``sent`` says whether anything of the link may have reached the host.
    """

    def __init__(
        self, driver: LinkDriver, redial: Redial, next_connection: Callable[[], Connection]
    ) -> None:
        self._driver = driver
        self.sent = not self.is_first
        self._redial = redial
        self._next_connection = next_connection
        self._carrier: Carrier | None = None
        self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_first(self) -> bool:
        """Whether no connection of the link was made before."""
        return self._driver.link.epoch == 0

    async def connect(self, python: str, terminal: Terminal | None) -> SshProcess:
        """Return the ssh whose connection carries the link now. Raises what it met."""
        ssh, connection = await self._dial(python, terminal)
        self.sent = True
        self._carrier = carrier = Carrier(connection, ssh.stdout_fd, ssh.stdin_fd)
        self._driver.adopt(carrier)
        if connection.state is State.ATTACHED:
            self._driver.carry_by(carrier)
        carrier.start(ssh.unread)
        try:
            await asyncio.wait_for(self._answer, HELLO_DEADLINE_S)
        except BaseException as error:
            carrier.close()
            if self._driver.carrier is carrier:
                self._driver.carrier = None
            ssh.end(close_pipes=False)
            if isinstance(error, asyncio.TimeoutError):
                raise Unreachable("the agent did not answer", phase=RESUMING) from None
            raise
        return ssh

    async def _dial(self, python: str, terminal: Terminal | None) -> tuple[SshProcess, Connection]:
        if not self.is_first:
            behind = None if self._driver.link.confirmed else _nothing
            ssh = await self._redial.connect(python, terminal, behind=behind)
            return ssh, self._next_connection()
        connection = self._next_connection()
        ssh = await self._redial.connect(python, terminal, behind=self._first_frames(connection))
        return ssh, connection

    def _first_frames(self, connection: Connection) -> FirstFrames:
        """What is asked while ssh connects goes out with the HELLO, behind the agent's code."""

        def frames() -> bytes:
            self.sent = True
            return b"".join(connection.data_to_send(connection.portion_bytes, now_s()))

        return frames

    def awaits(self, carrier: Carrier) -> bool:
        """Whether ``carrier`` is this one's, and has not brought the agent's answer yet."""
        return carrier is self._carrier and not self._answer.done()

    def settle(self, error: SshpykError | None = None) -> None:
        """Tell :meth:`connect` the outcome; what comes after the first is nothing new."""
        if self._answer.done():
            return
        if error is None:
            self._answer.set_result(None)
        else:
            self._answer.set_exception(error)
            self._answer.exception()  # ours to tell, even where nobody waits for it


def _nothing() -> bytes:
    return b""
