"""One connection for a link, from ssh's start to the agent's answer to our HELLO."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sshpyk.errors import SshpykError, Unreachable
from sshpyk.hub.dial import FirstFrames, Terminal, no_frames
from sshpyk.hub.redial import Redial
from sshpyk.hub.ssh_process import SshProcess
from sshpyk.link.connection import Connection, State
from sshpyk.wire.carrier import Carrier
from sshpyk.wire.clock import now_s
from sshpyk.wire.driver import LinkDriver

RESUMING = "resuming the link"
HELLO_DEADLINE_S = 20.0


class Opening:
    """See the module. ``next_connection`` is asked once, when the connection's HELLO is to go out."""

    def __init__(
        self, driver: LinkDriver, redial: Redial, next_connection: Callable[[], Connection]
    ) -> None:
        self._driver = driver
        self._redial = redial
        self._next_connection = next_connection
        self._connection: Connection | None = None
        self._carrier: Carrier | None = None
        self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connect(self, python: str, terminal: Terminal | None) -> SshProcess:
        """Return the ssh whose connection carries the link now. Raises what it met."""
        ssh = await self._redial.connect(python, terminal, behind=self._behind())
        connection = self._connection or self._next_connection()
        self._carrier = carrier = Carrier(connection, ssh.stdout_fd, ssh.stdin_fd)
        self._driver.adopt(carrier)
        if connection.state is State.ATTACHED:
            self._driver.carry_by(carrier)
        carrier.start(ssh.unread)
        try:
            await asyncio.wait_for(self._answer, HELLO_DEADLINE_S)
            if self._driver.carrier is not carrier:
                raise Unreachable("the connection was lost again at once", phase=RESUMING)
        except BaseException as error:
            carrier.close()
            if self._driver.carrier is carrier:
                self._driver.carrier = None
            ssh.end(close_pipes=False)
            if isinstance(error, asyncio.TimeoutError):
                raise Unreachable("the agent did not answer", phase=RESUMING) from None
            raise
        return ssh

    def _behind(self) -> FirstFrames | None:
        """What goes out behind the agent's code: the HELLO, with what is asked while ssh connects."""
        link = self._driver.link
        if link.epoch == 0:
            return self._first_frames
        return None if link.confirmed else no_frames

    def _first_frames(self) -> bytes:
        connection = self._connection = self._next_connection()
        return b"".join(connection.data_to_send(connection.portion_bytes, now_s()))

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
