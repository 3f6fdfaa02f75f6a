from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sshpyk.mounts.confined import Rights
from tests.unit.mounts.client import Client
from tests.unit.mounts.ways import OBJECT, Stage

Serve = Callable[..., Client]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "local"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Stage]]:
    """The stage of a module's tests, once one has needed it."""
    made: list[Stage] = []
    yield made
    for stage in made:
        stage.close()


@pytest.fixture
def stage(stages: list[Stage], tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Stage]:
    """Return a function that returns the module's stage."""

    def get() -> Stage:
        if not stages:
            stages.append(Stage(tmp_path_factory.mktemp("stage")))
        return stages[0]

    return get


@pytest.fixture
def serve(
    root: Path, stage: Callable[[], Stage], request: pytest.FixtureRequest
) -> Iterator[Serve]:
    """Return a function that serves ``root`` with the rights named, in the way of ``ways.py``."""
    clients: list[Client] = []
    way = getattr(request, "param", OBJECT)

    def begin(*, most_handles: int = 64, **rights: bool) -> Client:
        if way == OBJECT:
            clients.append(Client(root, Rights(**rights), most_handles=most_handles))
        else:
            clients.append(stage().client(way, root, Rights(**rights)))
        return clients[-1]

    yield begin
    for client in clients:
        client.close()


@pytest.fixture
def client(serve: Serve) -> Client:
    return serve()
