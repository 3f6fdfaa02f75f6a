"""What the shell offers after TAB: hosts of the ssh config, kernels of sshpyk's, and open mounts.

No host is asked.

Who calls: click, for arguments and options with ``shell_complete=hosts`` or ``=ssh_kernels``, or both.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

_MOST_FILES = 100  # of a config that includes others


def hosts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the names in ssh's config (or in ``--ssh-config``), and hosts that have kernels."""
    from sshpyk import kernelspecs

    config = ctx.params.get("ssh_config")
    names = dict.fromkeys(config_hosts(Path(config or "~/.ssh/config").expanduser()))
    names |= dict.fromkeys(remote.ssh_host_alias for _, remote in kernelspecs.ssh_kernels())
    user, at, start = incomplete.rpartition("@")
    return [CompletionItem(f"{user}{at}{name}") for name in names if name.startswith(start)]


def ssh_kernels(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the names of SSH kernels on this machine, with what a notebook shows."""
    from sshpyk import kernelspecs

    return [
        CompletionItem(spec.name, help=spec.display_name)
        for spec, _ in kernelspecs.ssh_kernels()
        if spec.name.startswith(incomplete.lower())
    ]


def hosts_and_kernels(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer what ``doctor`` can look at."""
    return [*ssh_kernels(ctx, param, incomplete), *hosts(ctx, param, incomplete)]


def mount_places(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the hosts for ``HOST:REMOTE``."""
    return [CompletionItem(f"{item.value}:") for item in hosts(ctx, param, incomplete)]


def open_mounts(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer what ``sshpyk mount`` has mounted, by both of its names; asks the hubs of this machine."""
    from sshpyk.cli.mounts import mounted_on

    found = [
        (f"{hub['link']['host']}:{mount['remote']}", mount["local"])
        for hub in mounted_on(None)
        for mount in hub["mounts"]
        if mount["commands"]
    ]
    names = dict.fromkeys(name for pair in found for name in pair)
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def config_hosts(config: Path) -> list[str]:
    """Return the hosts that an ssh config names without a pattern, in its order (ssh_config(5))."""
    return list(dict.fromkeys(_hosts_in(config, set())))


def _hosts_in(config: Path, seen: set[Path]) -> Iterator[str]:
    if config in seen or len(seen) == _MOST_FILES:
        return
    seen.add(config)
    with contextlib.suppress(OSError):
        for line in config.read_text(encoding="utf-8", errors="replace").splitlines():
            keyword, *words = line.replace("=", " ", 1).replace('"', " ").split() or [""]
            if keyword.lower() == "host":
                yield from (word for word in words if not set(word) & set("*?!"))
            elif keyword.lower() == "include":
                for word in words:
                    # A relative one is in ~/.ssh, whatever file names it.
                    pattern = os.path.join(Path.home(), ".ssh", os.path.expanduser(word))
                    for path in sorted(glob.glob(pattern)):
                        yield from _hosts_in(Path(path), seen)
