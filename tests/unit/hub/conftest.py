from __future__ import annotations

from typing import Any

import pytest
import zmq

from tests.unit.wire.harness import short_folder  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def _zmq_collector() -> None:
    """Start what pyzmq starts with the first zero-copy message of a process, and keeps."""
    context: zmq.Context[Any] = zmq.Context()
    pair = [context.socket(zmq.PAIR) for _ in range(2)]
    pair[0].bind("inproc://zero-copy")
    pair[1].connect("inproc://zero-copy")
    pair[1].send(bytes(1_000_000), copy=False)
    pair[0].recv()
    context.destroy(linger=0)
