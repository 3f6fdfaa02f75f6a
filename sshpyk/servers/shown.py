"""Servers that local processes show: each a server of the host, and the tunnel that leads to it.

::

    -> {"op": "serve", "request": {"server_id": "s3f2a", "start": true, "app": "lab", "port": 0, …}}
    <- {"event": "progress", "text": "starting the server"}
    <- {"event": "serving", "server": {…, "token": "…"}}
    <- {"event": "open", "server": {"server_id": "s3f2a", "tunnel": {…}}, "link": {…}}

and so on as for a tunnel (:mod:`.conversation`). The next hub is asked with ``tunnel`` instead, a request
for the tunnel as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sshpyk.errors import SshpykError
from sshpyk.servers.conversation import Kind, Say
from sshpyk.servers.jupyter import Servers
from sshpyk.servers.tunnels import Tunnel, TunnelRequest, Tunnels
from sshpyk.wire.endpoint import Endpoint

SERVER = Kind("serve", "shown", "close_shown", "server")

Record = dict[str, Any]


class ShownServer:
    """One server, for as long as one local process shows it."""

    def __init__(self, server_id: str) -> None:
        self.server_id = server_id
        self.tunnel: Tunnel | None = None
        self.closed = False
        self.on_closed: Callable[[SshpykError | None], None] = lambda error: None

    def summary(self) -> Record:
        """Describe it."""
        tunnel = {} if self.tunnel is None else self.tunnel.summary()
        return {"server_id": self.server_id, "tunnel": tunnel}

    def end(self, error: SshpykError | None) -> None:
        """It is shown no more: the server has ended (``error``), or its tunnel was closed."""
        if not self.closed:
            self.closed = True
            self.on_closed(error)


class ShownServers:
    """Opens servers for one conversation, which ``say`` talks to."""

    def __init__(self, servers: Servers, tunnels: Tunnels, say: Say) -> None:
        self._servers = servers
        self._tunnels = tunnels
        self._say = say

    async def open_from(self, record: Record) -> ShownServer:
        """Start or open a server, and a tunnel to it. Raises SshpykError; nothing stays behind then."""
        if "tunnel" in record:
            request = TunnelRequest.from_record(record["tunnel"])
        else:
            request = await self._obtain(record)
        shown = ShownServer(str(record["server_id"]))
        self._servers.hold(shown.server_id, shown.end)
        try:
            shown.tunnel = await self._tunnels.open(request)
        except BaseException:
            self.close(shown)
            raise
        shown.tunnel.on_closed = shown.end
        return shown

    async def _obtain(self, record: Record) -> TunnelRequest:
        listen, any_port = Endpoint("localhost", int(record["port"])), bool(record.get("any_port"))
        if not any_port:
            self._tunnels.check(listen)  # before anything is started
        server = await self._servers.obtain(
            record, lambda text: self._say(event="progress", text=text)
        )
        self._say(event="serving", server=server)
        target, python = Endpoint.from_record(server["target"]), str(record["agent_python"])
        return TunnelRequest(listen, target, python, any_port=any_port)

    def close(self, kept: ShownServer) -> None:
        """Close the tunnel, and let go of the server. Idempotent."""
        if kept.tunnel is not None:
            self._tunnels.close(kept.tunnel)
        kept.end(None)
        self._servers.release(kept.server_id, kept.end)

    def find(self, kept_id: str) -> ShownServer | None:
        """Return None: a server is named on the host, and its tunnel here."""
        return None

    def summaries(self) -> list[Record]:
        """Return nothing: the tunnels are listed, and the host's servers."""
        return []

    def state(self) -> Record:
        """Describe the link."""
        return self._tunnels.state()
