"""Mounts that log in from the host: the alias of the host's ssh config, a tunnel, a private sshd here.

The alias says where the host's ssh connects to, which must be the host itself: there the agent listens,
and each connection is a stream of the link that ends in an sshd of ours. The streams outlive outages,
so the login does. One way back serves all mounts that name the same alias and sshd.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
from dataclasses import dataclass, field
from typing import Any

from sshpyk.errors import MountError, SshpykError
from sshpyk.hub.alias import Route, explain_login, read_route
from sshpyk.hub.host import HostLink
from sshpyk.hub.private_sshd import PrivateSshd, local_user
from sshpyk.mounts.offers import Offer
from sshpyk.mounts.options import MountOptions
from sshpyk.servers.keeping import both
from sshpyk.servers.tunnels import Tunnel, TunnelRequest, Tunnels
from sshpyk.ssh.config import read_resolved

_PHASE = "mounting"
_SCRIPT_S = 15.0
_LOGGED_LINES = 6

log = logging.getLogger(__name__)


@dataclass
class _WayBack:
    """An open tunnel and the sshd behind it."""

    route: Route
    sshd: PrivateSshd
    tunnel: Tunnel
    mounts: set[str] = field(default_factory=set)
    logged_bytes: int = 0  # when the latest mount began


class WaysBack:
    """The ways back of one hub; see the module."""

    def __init__(self, host: HostLink, tunnels: Tunnels, umask: int = 0o022) -> None:
        self._host = host
        self._tunnels = tunnels
        self._umask = umask
        self._ways: dict[tuple[str, str], _WayBack] = {}
        self._closing: set[asyncio.Task[None]] = set()
        host.on_lost_link = both(host.on_lost_link, lambda _: self._close_all())

    async def open(
        self, mount_id: str, asked: tuple[str, str], offer: tuple[str, MountOptions]
    ) -> dict[str, Any]:
        """Offer a folder for an alias and sshd (``asked``); return what the agent is to be told.

        ``offer``: the folder's absolute path and the mount's options. Raises SshpykError.
        """
        way = self._ways.get(asked)
        if way is not None and way.tunnel.closed:  # by somebody's sshpyk close
            self._close(self._ways.pop(asked))
            way = None
        if way is None:
            way = self._ways[asked] = await self._open(*asked)
        folder, options = offer
        way.mounts.add(mount_id)
        way.logged_bytes = way.sshd.logged_bytes
        name = way.sshd.offer(
            mount_id, Offer(folder, folder, options.read_only, options.follow_symlinks)
        )
        words = [*options.for_sshfs, *options.for_login, *way.route.words(way.tunnel.listens.port)]
        return {"source": f"{way.route.alias}:{name}", "options": words}

    async def _open(self, alias: str, program: str) -> _WayBack:
        sshd = PrivateSshd(program, self._host.target.identity, self._umask)
        try:
            await sshd.prepare()
            route = await self._find(alias)
            request = TunnelRequest(route.listen, sshd, "python3", reverse=True)
            try:
                tunnel = await self._tunnels.open(request)
            except SshpykError as error:
                raise await self._port_taken(route, error) from error
        except BaseException:
            await sshd.close()
            raise
        log.info("%s comes back through %s", alias, tunnel.listens)
        return _WayBack(route, sshd, tunnel)

    async def _find(self, alias: str) -> Route:
        said = await self._ask(f"exec ssh -G -- {shlex.quote(alias)}")
        if said["status"] != 0:
            raise MountError(
                f"ssh on the host cannot say where {alias} leads",
                phase=_PHASE,
                said=said["stderr"],
                advice=f"try it there: ssh -G {alias}",
                code="MOUNT-NO-ALIAS",
            )
        text = said["stdout"]
        identities = re.findall(r"^identityfile (.*)$", text, re.MULTILINE)
        return read_route(alias, read_resolved(alias, text), local_user(), identities)

    async def _ask(self, script: str) -> dict[str, Any]:
        self._host.phase = "looking at the host's ssh config"
        return dict(await self._host.rpc.call("script", script=script, timeout_s=_SCRIPT_S))

    async def _port_taken(self, route: Route, error: SshpykError) -> MountError:
        """Return what to say where the agent cannot listen, with who does, as far as that is known."""
        port = route.listen.port
        look = f"ss -Hltnp 'sport = :{port}' 2>/dev/null || lsof -nP -iTCP:{port} -sTCP:LISTEN"
        who = await self._ask(look) if port else {"stdout": ""}
        return MountError(
            error.what,
            phase=_PHASE,
            said=str(who["stdout"]) or error.said,
            advice=f"end what has that port on the host, or write another Port above 1023 for "
            f"'Host {route.alias}' into ~/.ssh/config there; without any, sshpyk takes a free one",
            code="MOUNT-ALIAS-PORT",
        )

    def close(self, mount_id: str) -> None:
        """Offer a mount's folder no more; the last one takes the tunnel along. Idempotent."""
        for asked, way in list(self._ways.items()):
            if mount_id in way.mounts:
                way.mounts.discard(mount_id)
                way.sshd.withdraw(mount_id)
                if not way.mounts:
                    del self._ways[asked]
                    self._close(way)

    def _close(self, way: _WayBack) -> None:
        self._tunnels.close(way.tunnel)
        task = asyncio.ensure_future(way.sshd.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _close_all(self) -> None:
        """The link is lost: no tunnel of ours is a reason to dial again."""
        for way in self._ways.values():
            self._close(way)
        self._ways.clear()

    async def wait_closed(self) -> None:
        """Return when every sshd has ended that was to; called when the hub leaves."""
        if self._closing:
            await asyncio.wait(set(self._closing))

    def explain(self, asked: tuple[str, str], error: MountError) -> None:
        """Say what a failed mount was in the words of somebody who can mend it."""
        way = self._ways.get(asked)
        if way is None or error.code != MountError.code:
            return
        said = way.sshd.said(way.logged_bytes)
        found = explain_login(way.route, way.sshd.host_key, f"{error.said}\n{said}")
        if found is not None:
            error.what, error.advice, error.code = found
        logged = [f"sshd here: {line}" for line in said.splitlines()[-_LOGGED_LINES:]]
        error.said = "\n".join([error.said, *logged]).strip()
