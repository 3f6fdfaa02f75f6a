"""The owner of a Jupyter server's tunnel: a local process that shows the server with its token.

Local files that a browser opens are here too: a token in a browser's argv would be everybody's on this
machine, so the browser gets a private file that leads on (as Jupyter itself does it).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import html
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from sshpyk.agent.jupyter_app import APPS
from sshpyk.errors import HubError
from sshpyk.paths import state_dir
from sshpyk.servers.owner import Owner
from sshpyk.servers.shown import SERVER
from sshpyk.servers.tunnels import TunnelRequest
from sshpyk.ssh.command import SshTarget
from sshpyk.wire.endpoint import Endpoint

_FIRST_PORT, _PORTS = 20000, 10000
_PAGE_PREFIX = "open-"
_PAGE_KEPT_S = 24 * 3600.0
_PAGE = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><meta http-equiv="refresh" content="1;url={url}">
<title>sshpyk</title></head><body>
<p>If the page does not open: <a href="{url}">{what}</a></p>
<script>window.location.href = document.querySelector("a").href</script>
</body></html>
"""

Record = dict[str, Any]


def new_server_id() -> str:
    """Return a name for a server that is to be."""
    return "s" + secrets.token_hex(3)


def usual_port(host: str, app: str, folder: str) -> int:
    """Return the port that a server gets here where that is free: the same each time.

    So a page that was left open finds its server again, and a cookie is still good.
    """
    digest = hashlib.sha256("\0".join((host, app, folder)).encode("utf-8", "surrogatepass"))
    return _FIRST_PORT + int.from_bytes(digest.digest()[:4], "big") % _PORTS


class ServerOwner(Owner):
    """Starts or opens a server, and keeps the tunnel to it; ``server`` is what the host says of it."""

    kind = SERVER

    def __init__(self, target: SshTarget, request: Record) -> None:
        super().__init__(target)
        self.server: Record = {}
        self._asked = request

    def request(self) -> Record:
        """Return what to ask the hub for; of the next one, the tunnel as it was."""
        if not self.kept:
            return self._asked
        listens, target = (Endpoint.from_record(self.tunnel[end]) for end in ("listens", "target"))
        request = TunnelRequest(
            listens, target, str(self._asked["agent_python"]), again=self.tunnel["id"]
        )
        ends = {"listen": listens.to_record(), "target": target.to_record()}
        tunnel = dataclasses.asdict(request) | ends
        return {"server_id": self.server["server_id"], "tunnel": tunnel}

    def open_server(self, progress: Callable[[str], None]) -> None:
        """Return when the server can be used here. Raises what it met; nothing stays behind then."""
        self._ask()
        while not self.kept:
            record = self._conversation.hear()
            if record is None:
                raise HubError("the local hub process went away", host=self.target.host)
            if record["event"] == "progress":
                progress(str(record["text"]))
            elif record["event"] == "serving":
                self.server = record["server"]
            else:
                self._note(record)

    @property
    def tunnel(self) -> Record:
        """What the hub said last of the tunnel."""
        tunnel: Record = self.kept["tunnel"]
        return tunnel

    @property
    def port(self) -> int:
        """The local port."""
        return int(self.tunnel["listens"]["port"])


def server_url(server: Record, port: int, *, with_token: bool) -> str:
    """Return the local address of a server's page."""
    app = APPS.get(server["app"])
    scheme = "https" if server.get("secure") else "http"
    base = quote(str(server.get("base_url") or "/"), safe="/%@:")
    url = f"{scheme}://localhost:{port}{base}{app.page if app else ''}"
    if with_token and server.get("token"):
        url += "?" + urlencode({"token": server["token"]})
    return url


def write_page(name: str, url: str) -> Path:
    """Write the private file that leads a browser to ``url``; replace the one of that name."""
    folder = state_dir()
    for old in folder.glob(f"{_PAGE_PREFIX}*.html"):  # of commands that were killed
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _PAGE_KEPT_S:
                old.unlink()
    path = folder / f"{_PAGE_PREFIX}{name}.html"
    remove_page(name)
    plain = url.partition("?")[0]
    text = _PAGE.format(url=html.escape(url), what=html.escape(plain))
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


def remove_page(name: str) -> None:
    """Remove the file of that name, if there is one."""
    with contextlib.suppress(OSError):
        (state_dir() / f"{_PAGE_PREFIX}{name}.html").unlink()
