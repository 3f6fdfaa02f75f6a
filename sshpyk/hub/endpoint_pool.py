"""The local sockets that outlive their kernel, so that a restart finds its clients still connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import zmq

from sshpyk.hub.endpoints import Endpoints

LINGER_S = 6.0  # Jupyter's restarter looks every 3 s


class EndpointPool:
    """Gives a kernel its local sockets and keeps them for a while after it.

    ``is_away`` tells whether the host cannot be asked now.
    """

    def __init__(self, is_away: Callable[[], bool]) -> None:
        self._is_away = is_away
        self._context: zmq.Context[Any] = zmq.Context()
        self._waiting: dict[str, tuple[Endpoints, asyncio.TimerHandle]] = {}

    @property
    def busy(self) -> bool:
        """Whether any sockets wait for their next kernel."""
        return bool(self._waiting)

    def take(self, info: dict[str, Any]) -> Endpoints:
        """Return the sockets of a connection file: those that wait for it, or new ones.

        Raises HubError where they cannot be bound.
        """
        waiting = self._waiting.pop(_urls(info), None)
        if waiting is not None:
            endpoints, timer = waiting
            timer.cancel()
            if endpoints.info == info and endpoints.reachable:
                return endpoints
            endpoints.close()
        return Endpoints(self._context, info, self._is_away)

    def keep(self, endpoints: Endpoints) -> None:
        """Hold on to the sockets of a kernel that is gone, for the one that a restart brings."""
        urls = _urls(endpoints.info)
        timer = asyncio.get_running_loop().call_later(LINGER_S, self._unbind, urls)
        self._waiting[urls] = (endpoints, timer)

    def _unbind(self, urls: str) -> None:
        endpoints, _ = self._waiting.pop(urls)
        endpoints.close()

    def close(self) -> None:
        """Unbind what waits. Whoever has sockets closes them first."""
        for endpoints, timer in self._waiting.values():
            timer.cancel()
            endpoints.close()
        self._context.destroy(linger=500)


def _urls(info: dict[str, Any]) -> str:
    ports = [info.get(f"{name}_port") for name in ("shell", "iopub", "stdin", "control", "hb")]
    return f"{info.get('transport')} {info.get('ip')} {ports}"
