"""What the Jupyter server that launches a kernel is configured to drop, if it is one that launches."""

from __future__ import annotations

from typing import Any

_NAMES = ("iopub_msg_rate_limit", "iopub_data_rate_limit", "rate_limit_window")


def iopub_limits(kernel_manager: Any) -> dict[str, float] | None:
    """Return the limits by their names in the server's config; None where nothing limits.

    A server's kernel manager has the MappingKernelManager for a parent, and that the ServerApp, whose
    ``kernel_websocket_connection_class`` does the limiting with the app's config (jupyter_server 2.x).
    nbclient, papermill and the console have no such app.
    """
    server = getattr(getattr(kernel_manager, "parent", None), "parent", None)
    connection = getattr(server, "kernel_websocket_connection_class", None)
    if server is None or connection is None:
        return None
    traits = connection.class_traits()
    values = {
        name: traits[name].default_value for name in (*_NAMES, "limit_rate") if name in traits
    }
    for section in connection.section_names():  # the most general class first
        config = server.config.get(section, {})
        values.update({name: config[name] for name in values if name in config})
    if not values.get("limit_rate") or any(values.get(name) is None for name in _NAMES):
        return None
    return {name: float(values[name]) for name in _NAMES}
