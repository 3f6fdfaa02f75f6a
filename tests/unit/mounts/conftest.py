from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sshpyk.mounts.confined import Rights
from tests.unit.mounts.client import Client

Serve = Callable[..., Client]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "local"
    folder.mkdir()
    return folder


@pytest.fixture
def serve(root: Path) -> Iterator[Serve]:
    """Return a function that serves ``root`` with the rights named."""
    clients: list[Client] = []

    def begin(*, most_handles: int = 64, **rights: bool) -> Client:
        clients.append(Client(root, Rights(**rights), most_handles=most_handles))
        return clients[-1]

    yield begin
    for client in clients:
        client.close()


@pytest.fixture
def client(serve: Serve) -> Client:
    return serve()
