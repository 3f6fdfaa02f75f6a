"""All that the agent says in a kernel's name: signed with its key, and shaped as its own would be.

A remark on a cell's stderr begins with ``[sshpyk:``, so that nobody takes it for the cell's output.
Remarks, states and answers go the way of the kernel's own messages; what is asked of the kernel goes
under an identity of ours, and its answer to nobody else.
"""

from __future__ import annotations

from typing import Any, Protocol, Sequence

from sshpyk.wire.jupyter_messages import Request, Signer
from sshpyk.wire.kernel_messages import CONTROL, IOPUB, SHELL

OUR_SESSION = b"sshpyk-agent"  # of questions whose echo on iopub concerns nobody

_STDERR_TOPIC = b"stream.stderr"
_STATUS_TOPIC = b"status"


# Leaves no name behind. A user who has enabled it already keeps what they chose.
_LOG_CRASHES = (
    "__import__('faulthandler').is_enabled() or __import__('faulthandler').enable("
    "getattr(__import__('sys').stderr, '_original_stdstream_copy', 2))"
)


class Outlet(Protocol):
    """A kernel's channels, as far as somebody speaks over them."""

    def publish(self, channel: int, parts: Sequence[bytes]) -> None:
        """Send a message to the hub."""

    def inject(self, parts: Sequence[bytes], channel: int = CONTROL) -> None:
        """Send a message to the kernel."""


def remark(signer: Signer, text: str, parent_header: bytes) -> list[bytes]:
    """Return a message on iopub: a line of ours on the stderr of a cell."""
    content = {"name": "stderr", "text": f"[sshpyk: {text}]\n"}
    return signer.message(
        "stream", content, identities=[_STDERR_TOPIC], parent_header=parent_header
    )


class Spokesman:
    """See the module. One per kernel."""

    def __init__(self, signer: Signer, outlet: Outlet) -> None:
        self._signer = signer
        self._outlet = outlet

    def remark(self, text: str, parent_header: bytes) -> None:
        """Write a line on the stderr of a cell."""
        self._outlet.publish(IOPUB, remark(self._signer, text, parent_header))

    def busy(self, request: Request) -> None:
        """Say that the kernel has begun with a request."""
        self._status("busy", request)

    def answer(self, channel: int, request: Request, content: dict[str, Any]) -> None:
        """Answer a request, and say that the kernel is done with it."""
        reply = self._signer.message(
            str(request.header.get("msg_type")).replace("_request", "_reply"),
            content,
            identities=request.identities,
            parent_header=request.header_bytes,
        )
        self._outlet.publish(channel, reply)
        self._status("idle", request)

    def fail(self, channel: int, request: Request, name: str, text: str) -> None:
        """Answer a request with an error, which a cell shows as a remark too."""
        if request.header.get("msg_type") == "execute_request":
            self.remark(text, request.header_bytes)
        content = {"status": "error", "ename": name, "evalue": text, "traceback": []}
        self.answer(channel, request, content)

    def _status(self, state: str, request: Request) -> None:
        message = self._signer.message(
            "status",
            {"execution_state": state},
            identities=[_STATUS_TOPIC],
            parent_header=request.header_bytes,
        )
        self._outlet.publish(IOPUB, message)

    def order(self, msg_type: str, content: dict[str, Any]) -> None:
        """Ask the kernel for something on control, as a client would."""
        self._outlet.inject(self._signer.message(msg_type, content), CONTROL)

    def ask(self) -> None:
        """Ask the kernel something on shell, behind all that clients have asked."""
        question = self._signer.message("kernel_info_request", {}, session=OUR_SESSION.decode())
        self._outlet.inject(question, SHELL)

    def log_crashes(self) -> None:
        """Let an ipykernel write the trace of a crash to its log.

        It has its stderr read by a thread of its own, which dies with it; this is the file behind that.
        """
        content = {"code": _LOG_CRASHES, "silent": True, "store_history": False}
        more = {"user_expressions": {}, "allow_stdin": False, "stop_on_error": False}
        session = OUR_SESSION.decode()
        message = self._signer.message("execute_request", {**content, **more}, session=session)
        self._outlet.inject(message, SHELL)
