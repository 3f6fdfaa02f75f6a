"""Which options a mount may have, and which end each of them is for.

The names are sshfs's own. Those that are about an ssh connection of sshfs's own mean nothing on the
link: they are accepted, because kernels made for sshpyk 1.x name them, and left out. Where sshfs does
log in by itself, three of them count; the others would let an outage end the mount.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_FOR_BOTH = {"ro", "follow_symlinks"}  # decided here, and known to sshfs
_FOR_SSHFS = {
    *("allow_other", "allow_root", "default_permissions", "transform_symlinks", "disable_hardlink"),
    *(
        "noatime",
        "noexec",
        "nosuid",
        "nodev",
        "rw",
        "sync",
        "direct_io",
        "kernel_cache",
        "auto_cache",
    ),
    *("no_readahead", "contain_symlinks", "no_contain_symlinks"),
}
_WITH_VALUE = {
    *("cache", "dir_cache", "cache_timeout", "cache_stat_timeout", "cache_dir_timeout"),
    *("cache_link_timeout", "cache_max_size", "cache_clean_interval", "cache_min_clean_interval"),
    *("dcache_timeout", "dcache_stat_timeout", "dcache_link_timeout", "dcache_dir_timeout"),
    *("dcache_max_size", "dcache_clean_interval", "dcache_min_clean_interval"),
    *("attr_timeout", "entry_timeout", "negative_timeout", "ac_attr_timeout", "max_conns"),
    *("idmap", "uid", "gid", "umask", "max_read", "max_write", "workaround"),
}
_OF_A_LOGIN = {"compression", "Compression", "Ciphers"}
_ABOUT_SSH = {"reconnect", "cipher", "ServerAliveInterval", "ServerAliveCountMax", *_OF_A_LOGIN}
_ABOUT_SSH |= {"delay_connect", "sshfs_sync", "sshfs_debug"}
_VALUE_OF_LOGIN = re.compile(r"[A-Za-z0-9@.+-]+")
# Files belong to whoever mounts, as far as programs there can see: else git calls them "dubious".
_DEFAULTS = {"idmap": "user"}


class MountOptions(NamedTuple):
    """What each end is told; ``for_login`` where sshfs logs in by itself."""

    read_only: bool
    follow_symlinks: bool
    for_sshfs: list[str]
    for_login: list[str]


def sort_options(options: Iterable[str]) -> MountOptions:
    """Return what each end is told. Raises ValueError for an option that is not on the list."""
    wanted: dict[str, str | None] = dict(_DEFAULTS)
    for_login = []
    for option in options:
        name, equals, value = option.partition("=")
        if name in _ABOUT_SSH:
            if name in _OF_A_LOGIN and _VALUE_OF_LOGIN.fullmatch(value):
                for_login.append(option)
            continue
        if name not in (_WITH_VALUE if equals else _FOR_BOTH | _FOR_SSHFS):
            raise ValueError(_refusal(name, has_value=bool(equals)))
        if any(sign in value for sign in ",\\\n\0"):
            raise ValueError(f"the value of {name} has a comma, a backslash or a newline")
        wanted[name] = value if equals else None
    words = [name if value is None else f"{name}={value}" for name, value in wanted.items()]
    return MountOptions("ro" in wanted, "follow_symlinks" in wanted, words, for_login)


def _refusal(name: str, *, has_value: bool) -> str:
    if has_value and name in _FOR_BOTH | _FOR_SSHFS:
        return f"{name} takes no value"
    if not has_value and name in _WITH_VALUE:
        return f"{name} needs a value: {name}=…"
    known = ", ".join(sorted(_FOR_BOTH | _FOR_SSHFS | {f"{name}=" for name in _WITH_VALUE}))
    return f"{name} is not an option that a mount may have; these are: {known}"
