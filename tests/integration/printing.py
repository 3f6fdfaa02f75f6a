"""A cell that prints for ten seconds, and what must come of it however the line suffers."""

from __future__ import annotations

import time

from jupyter_client import BlockingKernelClient

from tests.integration.kernels import PATIENCE_S, Running

LINES = 200
PRINTING = f"""
import time
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
    text, deadline_s = "", time.monotonic() + PATIENCE_S
    while end not in text:
        message = client.get_iopub_msg(timeout=max(0.01, deadline_s - time.monotonic()))
        text += message["content"]["text"] if message["msg_type"] == "stream" else ""
    return text
