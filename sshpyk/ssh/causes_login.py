"""Causes before and at the login: host keys, the ssh config, authentication."""

from __future__ import annotations

from sshpyk.errors import AuthenticationFailed, HostKeyChanged, HostKeyRejected, InvalidInput
from sshpyk.ssh.cause import LATER, row

_VERIFY = (
    "ask the administrator of {host} for the new key's fingerprint; "
    "only if it is the one shown, run: ssh-keygen -R {q_name}   then: {reopen}"
)
_CONFIRM = (
    "in a terminal, run: {reopen}   compare the fingerprint and answer; start the kernel again"
)
_LOGIN = "in a terminal, run: {reopen}   then start the kernel again (only a key to load? ssh-add)"
_FIX_CONFIG = "correct the ssh config, then check it with: {login} -G"

SECURITY = (
    row(
        "SSH-HOST-KEY-CHANGED",
        HostKeyChanged,
        r"[Hh]ost key for (?P<name>\S+) has changed and you have requested strict checking",
        "SECURITY: the host key of {name} has changed; somebody may be impersonating it",
        _VERIFY,
    ),
    row(
        "SSH-HOST-KEY-REVOKED",
        HostKeyChanged,
        r"[Hh]ost key for (?P<name>\S+) was revoked and you have requested strict checking",
        "SECURITY: the host key of {name} is marked as revoked",
        "do not connect; ask the administrator of {host}",
    ),
    row(
        "SSH-HOST-KEY-CHANGED-NO-PASSWORD",
        HostKeyChanged,
        r"(?P<method>\S+) authentication is disabled to avoid man-in-the-middle attacks",
        "SECURITY: the host key has changed and ssh sends no password there",
        "ask the administrator of {host} whether the host key was replaced, and see: {login}",
    ),
    row(
        "SSH-HOST-KEY-UNKNOWN",
        HostKeyRejected,
        r"No (?P<type>\S+) host key is known for (?P<name>\S+) and you have requested strict",
        "the host key of {name} is not known yet",
        "get the host key from the administrator: the ssh config forbids to accept it by asking",
    ),
    row(
        "SSH-HOST-KEY-UNCONFIRMED",
        HostKeyRejected,
        r"Host key verification failed",
        "the host key of this host or of a jump host is not confirmed yet",
        _CONFIRM,
    ),
)

CONFIG = (
    row(
        "SSH-CONFIG-OPTION",
        InvalidInput,
        r"^(?P<where>.*): Bad configuration option: (?P<option>.*)$",
        "the ssh client does not know the option {option} ({where})",
        _FIX_CONFIG,
    ),
    row(
        "SSH-CONFIG-PERMISSIONS",
        InvalidInput,
        r"^Bad owner or permissions on (?P<file>.*)$",
        "ssh refuses {file}: others could write to it",
        "run: chmod go-w {q_file}",
    ),
    row(
        "SSH-CONFIG-MISSING",
        InvalidInput,
        r"^Can't open user config file (?P<file>.*): (?P<why>.*)$",
        "ssh cannot read the config {file}: {why}",
        "name a file that exists; with ProxyJump its path may contain no space",
    ),
    row(
        "SSH-CONFIG-REJECTED",
        InvalidInput,
        r"^(?P<file>.*): terminating, \d+ bad configuration options$",
        "ssh rejects the config {file}",
        _FIX_CONFIG,
    ),
    row(
        "SSH-JUMP-LOOP",
        InvalidInput,
        r"^jumphost loop via (?P<hop>.*)$",
        "ProxyJump of {hop} leads back to {hop}",
        "give the jump host 'ProxyJump none' in the ssh config",
    ),
    row(
        "SSH-CONTROL-PATH",
        InvalidInput,
        r"^(?:ControlPath too long|ControlPath .* too long|unix_listener: path .* too long)",
        "the ControlPath of the ssh config is too long for a socket",
        "use a short one in the ssh config: ControlPath ~/.ssh/%C",
    ),
)

AUTHENTICATION = (
    row(
        "SSH-KEY-FILE",
        AuthenticationFailed,
        r'^Load key "(?P<key>[^"]*)": (?P<why>.*)' + LATER + r"Permission denied \(",
        "ssh cannot use the key {key}: {why}",
        "bad permissions: chmod 600 {q_key}; otherwise: ssh-keygen -y -f {q_key}",
    ),
    row(
        "SSH-KEY-REFUSED",
        AuthenticationFailed,
        r'^sign_and_send_pubkey: signing failed for \S+ "(?P<key>[^"]*)".*?: (?P<why>[^:\n]*)'
        + LATER
        + r"Permission denied \(",
        "the key {key} could not sign: {why}",
        "unlock or touch the key, or add it again: ssh-add; then: {reopen}",
    ),
    row(
        "SSH-NEEDS-LOGIN",
        AuthenticationFailed,
        r"^(?P<who>\S+@\S+): Permission denied "
        r"\((?P<methods>[\w,@.-]*(?:password|keyboard-interactive)[\w,@.-]*)\)",
        "{who}: permission denied ({methods})",
        _LOGIN,
    ),
    row(
        "SSH-PERMISSION-DENIED",
        AuthenticationFailed,
        r"^(?P<who>\S+@\S+): Permission denied \((?P<methods>[\w,@.-]*)\)",
        "{who}: permission denied ({methods})",
        _LOGIN,
    ),
    row(
        "SSH-PERMISSION-DENIED",
        AuthenticationFailed,
        r"^Permission denied \((?P<methods>[\w,@.-]*)\)",
        "permission denied ({methods})",
        _LOGIN,
    ),
    row(
        "SSH-TOO-MANY-KEYS",
        AuthenticationFailed,
        r"^(?:Received disconnect from (?P<name>\S+) .*|.*)Too many authentication failures",
        "ssh offered more keys than the server accepts to try",
        "in the ssh config, for this host: IdentityFile <its key> and IdentitiesOnly yes",
    ),
    row(
        "SSH-NEEDS-LOGIN",
        AuthenticationFailed,
        r"No (?:more|supported) authentication methods",
        "no authentication method is left that works without a person",
        _LOGIN,
    ),
    row(
        "SSH-PASSWORD-EXPIRED",
        AuthenticationFailed,
        r"(?:Password change required|[Pp]assword has expired|[Aa]ccount has expired)",
        "the account or its password has expired",
        "log in once in a terminal and follow what it says: {login}",
        exits=None,
    ),
)
