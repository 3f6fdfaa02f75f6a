"""``sshpyk logs``: what kernels wrote to stdout and stderr, kept on the host."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sshpyk.cli.asking import Host, host_flags, the_kernel
from sshpyk.cli.results import LogList, LogText
from sshpyk.errors import InvalidInput
from sshpyk.paths import hub_log

_FOLLOW_S = 0.5


@click.command()
@click.argument("host")
@click.argument("kernel", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on as the kernel writes, until it ends.")
@click.option("--lines", "-n", type=int, help="Only the last lines.")
@click.option("--hub", is_flag=True, help="This machine's log of its link to HOST instead.")
@host_flags
@click.option("--json", "as_json", is_flag=True, help="Print the list of logs as JSON.")
def logs(**given: Any) -> LogList | LogText:
    """Show what a kernel wrote to its stdout and stderr, and the trace of its crash.

    Not what cells print: that goes to their clients. Logs stay on the host when their kernels have
    ended, those of the latest 50; of each at most 8 MB. Without KERNEL: which logs there are.

    KERNEL is the beginning of its id, or the kernelspec's name on the host (often python3) or the
    notebook's, as the last column of `sshpyk ps HOST` shows them, if only one kernel there has it.

    \b
    Examples:
      sshpyk logs gpu1
      sshpyk logs -f gpu1 3f2a
      sshpyk logs gpu1 --hub -n 50
    """
    if given["lines"] is not None and given["lines"] < 0:
        raise InvalidInput("--lines must not be below 0")
    host = Host.named(given["host"], given["ssh"], given["ssh_config"], given["timeout"])
    if given["hub"]:
        if given["kernel"] or given["follow"]:
            raise InvalidInput("--hub goes with neither KERNEL nor --follow")
        return LogText(_last_lines(_hub_log(host), given["lines"]))
    found = host.ask("logs")["logs"]
    if given["kernel"] is None:
        if given["follow"] or given["lines"] is not None:
            raise InvalidInput("name the KERNEL whose log is to be shown")
        return LogList(host.target.host, tuple(found), given["as_json"])
    kernel_id = _meant(host, found, given["kernel"])
    reader = _Reader(host, kernel_id)
    return LogText(_shown(reader, given["lines"], follow=given["follow"]))


def _meant(host: Host, found: list[dict[str, Any]], named: str) -> str:
    """Return the id of the kernel: the latest of those that have the name."""
    by_name = [one for one in found if one.get("name") == named]
    kernel_id: str = (by_name or [the_kernel(found, named, host.target.host)])[0]["kernel_id"]
    return kernel_id


def _hub_log(host: Host) -> Iterator[str]:
    path = hub_log(f"{host.target.host}-{host.target.identity[:6]}")
    try:
        yield Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise InvalidInput(f"there is no log of a link to {host.target.host}: {path}") from None


class _Reader:
    """Reads one log, piece by piece."""

    def __init__(self, host: Host, kernel_id: str) -> None:
        self._host, self._kernel_id = host, kernel_id
        self._place: Any = None
        self.ended = False

    def pieces(self) -> Iterator[str]:
        """Yield what there is now and was not read before."""
        while True:
            read = self._host.ask("read_log", kernel_id=self._kernel_id, place=self._place)
            if read["lost"] and self._place is not None:
                yield "\n[sshpyk: the kernel wrote faster than this was read; some of it is lost]\n"
            self._place = read["place"]
            self.ended = read["state"] == "ended"
            yield read["text"]
            if not read["more"]:
                return


def _shown(reader: _Reader, lines: int | None, *, follow: bool) -> Iterator[str]:
    yield from _last_lines(reader.pieces(), lines)
    while follow and not reader.ended:
        time.sleep(_FOLLOW_S)
        yield from reader.pieces()


def _last_lines(pieces: Iterator[str], count: int | None) -> Iterator[str]:
    if count is None:
        yield from pieces
        return
    last: deque[str] = deque(maxlen=count)
    last.extend("".join(pieces).splitlines(keepends=True))
    yield "".join(last)
