"""A cell that prints for ten seconds, and what must come of it however the line suffers."""

from __future__ import annotations

import time
from pathlib import Path
from queue import Empty

from jupyter_client import BlockingKernelClient

from sshpyk.hub.client import all_hubs
from tests.integration.kernels import PATIENCE_S, Running

LINES = 200
PRINTING = f"""
import time
from pathlib import Path
from queue import Empty
for number in range({LINES}):
    print("line", number, flush=True)
    time.sleep(0.05)
number
"""
EXPECTED = "".join(f"line {number}\n" for number in range(LINES))


def text_up_to(kernel: Running, end: str) -> str:
    """Read iopub until its text has ``end``; return all of the text."""
    return client_text_up_to(kernel.client, end)


def client_text_up_to(client: BlockingKernelClient, end: str) -> str:
    """Do the same for a client that has no manager."""
    text, deadline_s, kinds = "", time.monotonic() + PATIENCE_S, []
    while end not in text:
        try:
            message = client.get_iopub_msg(timeout=max(0.01, deadline_s - time.monotonic()))
        except Empty:
            said = f"no {end!r} behind {text[-100:]!r} and {kinds[-8:]}; {_hubs()}"
            raise AssertionError(said) from None
        kinds.append(message["msg_type"])
        text += message["content"]["text"] if message["msg_type"] == "stream" else ""
    return text


def _hubs() -> str:
    """Return what every hub says of its link and its kernels, with the ends of their logs."""
    said = []
    for hub in all_hubs():
        hub.say("status")
        said.append(str(hub.hear()))
        hub.close()
    logs = Path("~/.local/state/sshpyk").expanduser().rglob("*.log")
    tails = [f"{path.name}: {path.read_text()[-1500:]}" for path in logs]
    return "\n".join(["the hubs say:", *said, *tails])
