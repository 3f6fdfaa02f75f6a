"""The report to attach to a bug: versions, the ssh config as resolved, findings, the hub's last words."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sshpyk.doctor import machine
from sshpyk.doctor.exam import HostExam
from sshpyk.doctor.finding import Item, plain
from sshpyk.doctor.redact import known_secrets, redacted
from sshpyk.kernelspecs import BrokenKernelspec, LocalKernelspec
from sshpyk.paths import state_path
from sshpyk.ssh.command import SshTarget

_LOG_LINES = 100
_LOG_BYTES = 64 * 1024
# Whether these are set matters; what they hold is the user's.
_VARIABLES = (
    *(
        "SSH_AUTH_SOCK",
        "SSH_ASKPASS",
        "DISPLAY",
        "JUPYTER_PATH",
        "JUPYTER_DATA_DIR",
        "JUPYTER_PLATFORM_DIRS",
    ),
    *(
        "CONDA_PREFIX",
        "VIRTUAL_ENV",
        "XDG_STATE_HOME",
        "XDG_RUNTIME_DIR",
        "PYTHONPATH",
        "PYTHONHOME",
    ),
)


def build_report(
    subject: str,
    items: Sequence[Item],
    host: HostExam | None,
    specs: Iterable[LocalKernelspec | BrokenKernelspec],
) -> dict[str, Any]:
    """Return the report on ``subject``, ready for JSON, without secrets."""
    specs = list(specs)
    report = {
        "report": 1,
        "subject": subject,
        "healthy": not any(item.is_broken for item in items),
        "findings": [plain(item) for item in items],
        "system": {
            "platform": platform.platform(),
            "python": sys.version.split()[0],
            "executable": sys.executable,
            "versions": machine.versions(),
            "variables_set": [name for name in _VARIABLES if os.environ.get(name)],
        },
        "kernels": [_kernel(spec) for spec in specs if _is_about(spec, subject, host)],
        "ssh": [{"host": hop.host, "settings": dict(hop.settings)} for hop in host.chain]
        if host
        else [],
        "links": [_link(answer) for answer in machine.hub_answers()],
        "logs": _log_tails(host.target if host else None),
    }
    envs = [spec.env for spec in specs if isinstance(spec, LocalKernelspec)]
    secrets = list(known_secrets(os.environ, _connection_files(), envs))
    shown: dict[str, Any] = redacted(report, secrets)
    return shown


def _is_about(
    spec: LocalKernelspec | BrokenKernelspec, subject: str, host: HostExam | None
) -> bool:
    if isinstance(spec, BrokenKernelspec):
        return spec.name == subject or (host is None and spec.sshpyk is not False)
    if spec.remote is None:
        return False
    return host is None or spec.remote.ssh_host_alias == host.target.host


def _kernel(spec: LocalKernelspec | BrokenKernelspec) -> dict[str, Any]:
    if isinstance(spec, BrokenKernelspec):
        return {"name": spec.name, "folder": str(spec.resource_dir), "reason": spec.reason}
    return {
        "name": spec.name,
        "folder": str(spec.resource_dir),
        "argv": list(spec.argv),
        "env_names": sorted(spec.env),  # the names; the values are the user's
        "config": spec.remote.to_config() if spec.remote else None,
    }


def _link(answer: dict[str, Any] | None) -> dict[str, Any]:
    if answer is None:
        return {"answers": False}
    return {**answer, "answers": True}


def _log_tails(target: SshTarget | None) -> dict[str, list[str]]:
    """Return the last lines of the hub's log (of every hub, without a target) and of the CLI's."""
    folder = state_path()
    pattern = f"hub-*{target.identity[:6]}*.log" if target else "hub-*.log"
    paths = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)[-3:]
    cli = folder / "cli.log"
    return {path.name: _tail(path) for path in [*paths, cli] if path.is_file()}


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _LOG_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError as error:
        return [f"({error.strerror})"]
    return text.splitlines()[-_LOG_LINES:]


def _connection_files() -> list[Path]:
    """Return the connection files of this machine's kernels, whose keys must not be shown."""
    from jupyter_core.paths import jupyter_runtime_dir  # 40 ms

    return sorted(Path(jupyter_runtime_dir()).glob("*.json"))
