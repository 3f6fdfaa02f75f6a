"""The one error tree: what failed, on which host, in which phase, what was said, what to do.

Every failure that a user can meet is an instance of :class:`SshpykError`. It is turned into text in
one place (:meth:`SshpykError.__str__`) and into an exit code in one place (``exit_code``), and it
crosses process borders (hub -> stand-in -> provisioner) as the JSON of :meth:`SshpykError.to_record`.
"""

from __future__ import annotations

from typing import Any, ClassVar


class SshpykError(Exception):
    """A failure that a user can do something about.

    ``what`` is one line without a trailing period. ``said`` is the tail of what ssh, the remote shell
    or the kernel printed, verbatim, possibly of many lines. ``advice`` is what to do next. ``code`` is
    the row of docs/errors.md; a class has one where nothing more is known.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    code: str = ""

    def __init__(
        self,
        what: str,
        *,
        host: str = "",
        phase: str = "",
        said: str = "",
        advice: str = "",
        code: str = "",
    ) -> None:
        super().__init__(what)
        if code:
            self.code = code
        self.what = what
        self.host = host
        self.phase = phase
        self.said = said.strip()
        self.advice = advice

    def __str__(self) -> str:
        head = f"host {self.host}: {self.what}" if self.host else self.what
        lines = [f"{head} (while {self.phase})" if self.phase else head]
        if self.code:
            lines[0] += f" [{self.code}]"
        lines += [f"  | {line}" for line in self.said.splitlines()]
        if self.advice:
            lines.append(f"  -> {self.advice}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        return (error_from_record, (self.to_record(),))

    def to_record(self) -> dict[str, str]:
        """Return the JSON-ready form that :func:`error_from_record` reads back."""
        return {
            "kind": type(self).__name__,
            "what": self.what,
            "host": self.host,
            "phase": self.phase,
            "said": self.said,
            "advice": self.advice,
            "code": self.code,
        }


class InvalidInput(SshpykError):
    """The user named something that cannot be: exit code 2, nothing was changed."""

    exit_code = 2


class HostError(SshpykError):
    """ssh did not bring us to a working agent on the host."""

    code = "HOST-FAILED"


class Unreachable(HostError):
    """The network or the ssh server did not answer: worth another try later."""

    code = "HOST-UNREACHABLE"
    retryable = True


class UnknownHost(HostError):
    """ssh could not resolve the name."""

    retryable = True


class AuthenticationFailed(HostError):
    """The host wants a credential that ssh does not have without asking a person."""


class HostKeyRejected(HostError):
    """The host key is unknown or has changed; ssh stopped, and so do we."""


class HostKeyChanged(HostKeyRejected):
    """The host key is not the known one, or is revoked: somebody may be impersonating the host."""


class RemoteShellFailed(HostError):
    """The login worked but the account cannot run what we need (no Python, nologin, rc file)."""


class ProtocolMismatch(HostError):
    """The two ends speak different versions of the link protocol."""

    code = "PROTOCOL-MISMATCH"


class LinkLost(HostError):
    """The agent that held this link is gone, and with it what it held."""

    code = "LINK-LOST"


class AgentReplaced(HostError):
    """The agent was killed while it was doing what we had asked for; another has taken its place."""

    code = "AGENT-REPLACED"


class KernelError(SshpykError):
    """The host is fine, the kernel is not."""

    code = "KERNEL-FAILED"


class KernelspecNotFound(KernelError):
    """The host has no kernelspec of that name for that interpreter."""

    code = "KERNELSPEC-NOT-FOUND"


class KernelDied(KernelError):
    """The kernel process ended before it was ready."""

    code = "KERNEL-DIED"


class KernelInUse(KernelError):
    """Somebody else's link carries the kernel, and a takeover was not asked for."""

    code = "KERNEL-IN-USE"


class KernelTaken(KernelError):
    """Somebody attached to the kernel from elsewhere: it goes on there."""

    code = "KERNEL-TAKEN"
    TAKE_BACK = "take it back: sshpyk attach HOST KERNEL --takeover"


class LaunchTimeout(KernelError):
    """The kernel was not ready in time; what had been started was stopped again."""

    code = "LAUNCH-TIMEOUT"


class TunnelError(SshpykError):
    """A tunnel cannot be opened, or a connection through it leads nowhere."""

    code = "TUNNEL-FAILED"


class ServerError(SshpykError):
    """A Jupyter server on the host cannot be started, or is not there any more."""

    code = "SERVER-FAILED"


class MountError(SshpykError):
    """A local folder cannot be mounted on the host."""

    code = "MOUNT-FAILED"


class HubError(SshpykError):
    """The local hub process could not be started or went away."""

    code = "HUB-FAILED"


def _tree(root: type[SshpykError]) -> dict[str, type[SshpykError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found = {**_tree(child), **found}  # ours, not what the provisioner derives under its name
    return found


def error_from_record(record: dict[str, str]) -> SshpykError:
    """Rebuild the error that :meth:`SshpykError.to_record` described.

    A kind that this version does not know becomes a plain :class:`SshpykError`: its text is intact.
    """
    said = {name: str(value) for name, value in record.items()}  # the other end may be broken
    kind = _tree(SshpykError).get(said.get("kind", ""), SshpykError)
    return kind(
        said.get("what", "unknown failure"),
        host=said.get("host", ""),
        phase=said.get("phase", ""),
        said=said.get("said", ""),
        advice=said.get("advice", ""),
        code=said.get("code", ""),
    )
