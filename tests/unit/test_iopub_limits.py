"""What a Jupyter server is configured to drop, read through the managers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_client import KernelManager
from traitlets import Bool, Float
from traitlets.config import Config, Configurable

from sshpyk.iopub_limits import iopub_limits


class Connection(Configurable):
    limit_rate = Bool(True, config=True)
    iopub_msg_rate_limit = Float(1000, config=True)
    iopub_data_rate_limit = Float(1000000, config=True)
    rate_limit_window = Float(3, config=True)


class OwnConnection(Connection):
    pass


DEFAULTS = {
    "iopub_msg_rate_limit": 1000.0,
    "iopub_data_rate_limit": 1e6,
    "rate_limit_window": 3.0,
}


def managed(connection: type | None, config: dict[str, Any] | None = None) -> Any:
    """Return a kernel manager whose grandparent is a server of that kind."""
    server = SimpleNamespace(
        kernel_websocket_connection_class=connection, config=Config(config or {})
    )
    return SimpleNamespace(parent=SimpleNamespace(parent=server))


def test_the_defaults_of_the_servers_connection():
    assert iopub_limits(managed(Connection)) == DEFAULTS


def test_what_is_configured_for_it_or_what_it_derives_from():
    config = {
        "Connection": {"iopub_data_rate_limit": 5, "rate_limit_window": 9},
        "OwnConnection": {"rate_limit_window": 7.5},
    }
    changed = {"iopub_data_rate_limit": 5.0, "rate_limit_window": 7.5}
    assert iopub_limits(managed(OwnConnection, config)) == {**DEFAULTS, **changed}


@pytest.mark.parametrize(
    "manager",
    [
        KernelManager(),
        managed(None),
        managed(Configurable),
        managed(Connection, {"Connection": {"limit_rate": False}}),
    ],
    ids=["no server", "no connection class", "another way to connect", "switched off"],
)
def test_nothing_limits(manager: Any):
    assert iopub_limits(manager) is None


def test_the_real_server():
    serverapp = pytest.importorskip("jupyter_server.serverapp")
    app = serverapp.ServerApp(config=Config({"ServerApp": {"iopub_data_rate_limit": 77.0}}))
    app.gateway_config = SimpleNamespace(gateway_enabled=False)  # made when it is initialized
    manager = SimpleNamespace(parent=SimpleNamespace(parent=app))
    assert iopub_limits(manager) == {**DEFAULTS, "iopub_data_rate_limit": 77.0}
