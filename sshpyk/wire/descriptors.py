"""How many descriptors a process may hold: a kernel takes a dozen of them, and more for each page."""

from __future__ import annotations

import contextlib
import resource

_ENOUGH = (65536, 10240)  # macOS refuses more than the second, whatever it calls the limit


def raise_limit() -> int:
    """Let this process hold enough of them, as far as the system allows; return what was allowed before.

    The usual 1024 (256 on macOS) is for programs that ask select() about each; ours do not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for enough in _ENOUGH:
        wanted = enough if hard == resource.RLIM_INFINITY else min(enough, hard)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            break
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            break
    return soft
