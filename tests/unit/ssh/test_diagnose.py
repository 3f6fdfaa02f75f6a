"""The table of causes against what OpenSSH and login shells really print.

Verbatim from OpenSSH 9.2 on Debian 12 against a private sshd, unless a comment names another source.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from sshpyk.errors import (
    AuthenticationFailed,
    HostError,
    HostKeyChanged,
    HostKeyRejected,
    InvalidInput,
    RemoteShellFailed,
    SshpykError,
    UnknownHost,
    Unreachable,
)
from sshpyk.ssh.causes_remote import ENDED, EXIT_STATUS, STOPPED, UNKNOWN
from sshpyk.ssh.diagnose import CAUSES, diagnose, said


@dataclass(frozen=True)
class Sample:
    name: str
    stderr: str
    kind: type[SshpykError]
    what: str  # a part of it
    status: int | None = 255


HOP_ENDED = """kex_exchange_identification: Connection closed by remote host
Connection closed by UNKNOWN port 65535
"""
CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
It is also possible that a host key has just been changed.
The fingerprint for the ED25519 key sent by the remote host is
SHA256:C5vTiBuSKqF0eP9JQF8q8jA0Us0KJ6eAcPaXhuuFG/k.
Please contact your system administrator.
Add correct host key in /tmp/t/s/khbad to get rid of this message.
Offending ED25519 key in /tmp/t/s/khbad:1
  remove with:
  ssh-keygen -f "/tmp/t/s/khbad" -R "[127.0.0.1]:22801"
Host key for [127.0.0.1]:22801 has changed and you have requested strict checking.
Host key verification failed.
"""
REVOKED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@       WARNING: REVOKED HOST KEY DETECTED!               @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
The ED25519 host key for [127.0.0.1]:22801 is marked as revoked.
This could mean that a stolen key is being used to
impersonate this host.
ED25519 host key for [127.0.0.1]:22801 was revoked and you have requested strict checking.
Host key verification failed.
"""
OPEN_KEY = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Permissions 0644 for '/tmp/t/s/id' are too open.
It is required that your private key files are NOT accessible by others.
This private key will be ignored.
Load key "/tmp/t/s/id": bad permissions
root@127.0.0.1: Permission denied (publickey).
"""
NO_CIPHER = (
    "Unable to negotiate with 127.0.0.1 port 22801: no matching cipher found. "
    "Their offer: chacha20-poly1305@openssh.com,aes128-ctr"
)
SIGNING = (
    'sign_and_send_pubkey: signing failed for ED25519 "root@vm" from agent: '
    "agent refused operation\n"
)
DENIED = "root@127.0.0.1: Permission denied (publickey,password).\n"
MUX_NOISE = """channel 3: open failed: connect failed: open failed
mux_client_request_session: session request failed: Session open refused by peer
ControlSocket /tmp/t/s/cm already exists, disabling multiplexing
"""
FISH = """fish: Unknown command: '/root/no such'
fish:
~/'no such' -c 1
^~~~~~~~~~^
"""

SAMPLES = [
    # Host keys
    Sample("changed", CHANGED, HostKeyChanged, "SECURITY: the host key of [127.0.0.1]:22801"),
    Sample("changed-at-hop", CHANGED + HOP_ENDED, HostKeyChanged, "SECURITY: the host key of"),
    Sample("revoked", REVOKED, HostKeyChanged, "[127.0.0.1]:22801 is marked as revoked"),
    Sample(
        "strict",
        "No ED25519 host key is known for [127.0.0.1]:22801 and you have requested strict checking.\n"
        "Host key verification failed.\n",
        HostKeyRejected,
        "the host key of [127.0.0.1]:22801 is not known yet",
    ),
    Sample("batch", "Host key verification failed.\n", HostKeyRejected, "not confirmed yet"),
    Sample(
        "hop-unknown", "Host key verification failed.\n" + HOP_ENDED, HostKeyRejected, "jump host"
    ),
    Sample(  # sshconnect.c
        "changed-unchecked",
        "Password authentication is disabled to avoid man-in-the-middle attacks.\n" + DENIED,
        HostKeyChanged,
        "SECURITY",
    ),
    # The user's ssh config
    Sample(
        "bad-option",
        "cbad: line 1: Bad configuration option: bogus\n"
        "cbad: terminating, 1 bad configuration options\n",
        InvalidInput,
        "does not know the option bogus (cbad: line 1)",
    ),
    Sample(
        "bad-value",
        'cm line 3: no argument after keyword "port"\n'
        "cm: terminating, 1 bad configuration options\n",
        InvalidInput,
        "ssh rejects the config cm",
    ),
    Sample(
        "config-mode",
        "Bad owner or permissions on /home/tcfg/.ssh/config\n",
        InvalidInput,
        "refuses /home/tcfg/.ssh/config",
    ),
    Sample(
        "no-config",
        "Can't open user config file /no/such/cfg: No such file or directory\n",
        InvalidInput,
        "cannot read the config /no/such/cfg",
    ),
    Sample("jump-loop", "jumphost loop via 127.0.0.1\n", InvalidInput, "leads back to 127.0.0.1"),
    Sample(
        "control-path",
        "ControlPath too long ('/tmp/t/s/xxxx' >= 108 bytes)\n",
        InvalidInput,
        "ControlPath",
    ),
    Sample(
        "proxy-command-missing",
        "/bin/bash: line 1: exec: nosuchnc: not found\n" + HOP_ENDED,
        InvalidInput,
        "ProxyCommand of the ssh config could not be run: /bin/bash: line 1: exec: nosuchnc",
    ),
    Sample(
        "proxy-command-no-file",
        "/bin/bash: line 1: /no/such/nc: No such file or directory\n" + HOP_ENDED,
        InvalidInput,
        "/no/such/nc",
    ),
    # Authentication
    Sample("denied", DENIED, AuthenticationFailed, "root@127.0.0.1: permission denied (publickey,"),
    Sample(
        "denied-at-hop",
        "evil@127.0.0.1: Permission denied (publickey).\n" + HOP_ENDED,
        AuthenticationFailed,
        "evil@127.0.0.1: permission denied (publickey)",
    ),
    Sample(  # OpenSSH before 7.6
        "denied-unnamed",
        "Permission denied (publickey).\n",
        AuthenticationFailed,
        "permission denied",
    ),
    Sample(
        "denied-missing-identity",
        "Warning: Identity file nosuchid not accessible: No such file or directory.\n"
        "root@127.0.0.1: Permission denied (publickey).\n",
        AuthenticationFailed,
        "permission denied (publickey)",
    ),
    Sample(
        "denied-wrong-password-at-hop",
        "Permission denied, please try again.\n" * 2 + DENIED + HOP_ENDED,
        AuthenticationFailed,
        "permission denied",
    ),
    Sample("open-key", OPEN_KEY, AuthenticationFailed, "the key /tmp/t/s/id: bad permissions"),
    Sample(
        "agent-refused",
        SIGNING + "root@127.0.0.1: Permission denied (publickey).\n",
        AuthenticationFailed,
        "the key root@vm could not sign: agent refused operation",
    ),
    Sample(
        "agent-refused-but-another-key-worked",
        SIGNING + "Connection to 127.0.0.1 closed by remote host.\n",
        Unreachable,
        "the connection broke",
    ),
    Sample(
        "too-many",
        "Received disconnect from 127.0.0.1 port 22803:2: Too many authentication failures\n"
        "Disconnected from 127.0.0.1 port 22803\n",
        AuthenticationFailed,
        "more keys than the server accepts",
    ),
    Sample(  # session.c of sshd, RHEL
        "expired",
        "WARNING: Your password has expired.\nPassword change required but no TTY available.\n",
        AuthenticationFailed,
        "expired",
        1,
    ),
    # Jump hosts
    Sample(
        "hop-refused-host",
        "channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed\n"
        + HOP_ENDED,
        Unreachable,
        "jump host could not reach the host: Connection refused",
    ),
    Sample(
        "hop-cannot-resolve",
        "channel 0: open failed: connect failed: Name or service not known\n"
        "stdio forwarding failed\n" + HOP_ENDED,
        UnknownHost,
        "jump host could not resolve",
    ),
    Sample(
        "hop-forbids",
        "channel 0: open failed: administratively prohibited: open failed\n"
        "stdio forwarding failed\n" + HOP_ENDED,
        HostError,
        "does not allow to be jumped through",
    ),
    Sample(
        "hop-down",
        "ssh: connect to host 127.0.0.1 port 1: Connection refused\n" + HOP_ENDED,
        Unreachable,
        "127.0.0.1 port 1: Connection refused",
    ),
    Sample("proxy-command-failed", HOP_ENDED, Unreachable, "ProxyCommand ended the connection"),
    Sample(
        "no-session",
        "channel 0: open failed: connect failed: open failed\n",
        HostError,
        "opened no session",
    ),
    # The network
    Sample(
        "resolve",
        "ssh: Could not resolve hostname no-such-host.invalid: Name or service not known\r\n",
        UnknownHost,
        "the name no-such-host.invalid could not be resolved: Name or service not known",
    ),
    Sample(  # macOS
        "resolve-macos",
        "ssh: Could not resolve hostname gpu: nodename nor servname provided, or not known\n",
        UnknownHost,
        "the name gpu could not be resolved",
    ),
    Sample(
        "refused",
        "ssh: connect to host 127.0.0.1 port 1: Connection refused\n",
        Unreachable,
        "127.0.0.1 port 1: Connection refused",
    ),
    Sample(
        "unreachable",
        "ssh: connect to host 255.255.255.255 port 22801: Network is unreachable\n",
        Unreachable,
        "Network is unreachable",
    ),
    Sample(  # macOS
        "two-addresses",
        "ssh: connect to host gpu port 22: No route to host\n"
        "ssh: connect to host gpu port 22: Operation timed out\n",
        Unreachable,
        "gpu port 22: Operation timed out",
    ),
    Sample("no-cipher", NO_CIPHER, HostError, "no matching cipher found"),
    Sample(
        "not-ssh",
        "kex_exchange_identification: No SSH version received in first 1024 lines from server\n"
        "banner exchange: Connection to 127.0.0.1 port 22813: invalid format\n",
        Unreachable,
        "not an ssh server",
    ),
    Sample(
        "ssh1",
        "Protocol major versions differ: 2 vs. 1\n"
        "banner exchange: Connection to 127.0.0.1 port 22815: could not read protocol version\n",
        Unreachable,
        "not an ssh server",
    ),
    Sample(
        "banner-timeout",
        "Connection timed out during banner exchange\n"
        "Connection to 127.0.0.1 port 22812 timed out\n",
        Unreachable,
        "did not answer",
    ),
    Sample(
        "disconnected",
        "Received disconnect from 10.0.0.5 port 22:11: Bye Bye\n"
        "Disconnected from 10.0.0.5 port 22\n",
        Unreachable,
        "10.0.0.5 ended the connection: Bye Bye",
    ),
    Sample(
        "channel-refused",
        "channel 0: open failed: resource shortage: no room\n",
        HostError,
        "opened no channel: resource shortage: no room",
    ),
    Sample(
        "closed-before-login",
        "kex_exchange_identification: Connection closed by remote host\n"
        "Connection closed by 127.0.0.1 port 22810\n",
        Unreachable,
        "before the login: Connection closed by remote host",
    ),
    Sample(
        "reset-connecting",
        "ssh: connect to host 127.0.0.1 port 22811: Connection reset by peer\n",
        Unreachable,
        "Connection reset by peer",
    ),
    Sample("reset", "Connection reset by 127.0.0.1 port 22814\n", Unreachable, "connection broke"),
    Sample(
        "server-silent",
        "Timeout, server 127.0.0.1 not responding.\n",
        Unreachable,
        "127.0.0.1 no longer answers",
    ),
    Sample(
        "server-killed",
        "Connection to 127.0.0.1 closed by remote host.\n",
        Unreachable,
        "the connection broke",
    ),
    Sample(  # clientloop.c
        "broken-pipe",
        "client_loop: send disconnect: Broken pipe\n",
        Unreachable,
        "the connection broke",
    ),
    Sample(  # pam_nologin
        "booting",
        '"System is booting up. Unprivileged users are not permitted to log in yet."\n'
        "Connection closed by 10.0.0.5 port 22\n",
        Unreachable,
        "takes no login now",
    ),
    # Noise
    Sample(
        "mux-noise",
        MUX_NOISE + "ssh: connect to host gpu port 22: Connection refused\n",
        Unreachable,
        "gpu port 22",
    ),
    Sample(
        "debug-noise",
        "OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026\n"
        "debug1: Host key verification failed.\n"
        "Warning: Permanently added '[localhost]:22801' (ED25519) to the list of known hosts.\n"
        "Pseudo-terminal will not be allocated because stdin is not a terminal.\n"
        "Connection reset by 127.0.0.1 port 22814\n",
        Unreachable,
        "the connection broke",
    ),
    # The account and its shell
    Sample(
        "nologin",
        "Could not chdir to home directory /home/tnolog: No such file or directory\n"
        "This account is currently not available.\n",
        RemoteShellFailed,
        "no login shell",
        1,
    ),
    Sample("bash", "bash: line 1: py: command not found\n", RemoteShellFailed, "no py", 127),
    Sample(
        "bash-path",
        "bash: line 1: /root/no such: No such file or directory\n",
        RemoteShellFailed,
        "the host has no /root/no such",
        127,
    ),
    Sample(
        "bash-after-rc-noise",
        "/root/.bashrc: line 3: conda: command not found\nbash: line 1: py: command not found\n",
        RemoteShellFailed,
        "the host has no py",
        127,
    ),
    Sample(
        "broken python",
        "/opt/py/bin/python: error while loading shared libraries: libpython3.12.so.1.0: cannot "
        "open shared object file: No such file or directory\n",
        RemoteShellFailed,
        "the interpreter on the host does not start: libpython3.12.so.1.0: cannot open",
        127,
    ),
    Sample(
        "python without its library",
        "Fatal Python error: init_fs_encoding: failed to get the Python codec of the filesystem "
        "encoding\nPython runtime state: core initialized\n"
        "ModuleNotFoundError: No module named 'encodings'\n",
        RemoteShellFailed,
        "the interpreter on the host does not start: init_fs_encoding",
        1,
    ),
    Sample("dash", "sh: 1: /no/such: not found\n", RemoteShellFailed, "no /no/such", 127),
    Sample("busybox", "sh: nosuchpy: not found\n", RemoteShellFailed, "has no nosuchpy", 127),
    Sample("zsh", "zsh:1: command not found: nosuchpy\n", RemoteShellFailed, "no nosuchpy", 127),
    Sample(
        "zsh-path",
        "zsh:1: no such file or directory: /root/no such\n",
        RemoteShellFailed,
        "no /root/no such",
        127,
    ),
    Sample("fish", FISH, RemoteShellFailed, "the host has no /root/no such", 127),
    Sample("tcsh", "nosuchpy: Command not found.\n", RemoteShellFailed, "no nosuchpy", 1),
    Sample(
        "tcsh-mode", "/etc/passwd: Permission denied.\n", RemoteShellFailed, "no /etc/passwd", 1
    ),
    Sample(
        "bash-mode",
        "bash: line 1: /etc/passwd: Permission denied\n",
        RemoteShellFailed,
        "/etc/passwd on the host cannot be executed",
        126,
    ),
    Sample(
        "zsh-mode",
        "zsh:1: permission denied: /etc/passwd\n",
        RemoteShellFailed,
        "/etc/passwd on the host cannot",
        126,
    ),
    Sample(
        "ksh-mode",
        "ksh: /etc/passwd: cannot execute [Permission denied]\n",
        RemoteShellFailed,
        "/etc/passwd on the host cannot",
        126,
    ),
    Sample(
        "fish-mode",
        "fish: Unknown command. '/etc/passwd' exists but is not an executable file.\n",
        RemoteShellFailed,
        "/etc/passwd on the host cannot",
        126,
    ),
    Sample(
        "rbash",
        "rbash: line 1: /usr/bin/python3: restricted: cannot specify `/' in command names\n",
        RemoteShellFailed,
        "restricted: cannot specify",
        127,
    ),
    Sample(
        "translated", "bash: Zeile 1: py: Kommando nicht gefunden.\n", RemoteShellFailed, "127", 127
    ),
    Sample(
        "rc-file-denied",
        "bash: /root/.bashrc: Permission denied\nTraceback (most recent call last):\n",
        RemoteShellFailed,
        "exit status 1",
        1,
    ),
    # No words at all
    Sample("silent-255", "", Unreachable, "without a known reason"),  # a mux client's dead master
    Sample("silent-0", "", RemoteShellFailed, "ended before our program started", 0),
    Sample("stopped", "", Unreachable, "stopped before it got an answer", None),
    Sample("signalled", "", Unreachable, "stopped before it got an answer", -9),
    Sample("stopped-denied", DENIED, AuthenticationFailed, "permission denied", None),
]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_diagnose_names_the_cause(sample: Sample) -> None:
    error = diagnose(sample.stderr, sample.status, host="bob@gpu:22", phase="connecting")
    assert type(error) is sample.kind
    assert sample.what in error.what
    assert "\n" not in error.what
    assert error.advice
    assert "{" not in error.what + error.advice
    assert (error.host, error.phase) == ("bob@gpu:22", "connecting")


def test_diagnose_gives_every_code_of_the_table() -> None:
    given = {diagnose(one.stderr, one.status, host="h", phase="x").code for one in SAMPLES}
    rows = {row.code for row in (*CAUSES, STOPPED, UNKNOWN, ENDED, EXIT_STATUS)}
    assert rows - given == set()


def test_diagnose_stops_retrying_only_where_a_person_is_needed() -> None:
    waiting = {sample.kind for sample in SAMPLES if not sample.kind.retryable}
    assert waiting == {
        *(AuthenticationFailed, HostError, InvalidInput, RemoteShellFailed),
        *(HostKeyChanged, HostKeyRejected),
    }


def test_diagnose_advice_can_be_pasted() -> None:
    error = diagnose(DENIED, 255, host="bob@gpu:22", phase="x")
    assert "run: sshpyk login bob@gpu:22 " in error.advice
    reopen = "sshpyk login gpu --ssh-config '/a b'"
    error = diagnose(DENIED, 255, host="gpu", phase="x", reopen=reopen)
    assert f"run: {reopen} " in error.advice


def test_diagnose_names_ssh_keygen_only_after_verifying() -> None:
    error = diagnose(CHANGED, 255, host="gpu", phase="x")
    verify, _, command = error.advice.partition("ssh-keygen")
    assert "fingerprint" in verify
    assert command == " -R '[127.0.0.1]:22801'   then: sshpyk login gpu"


def test_diagnose_keeps_a_host_that_is_none() -> None:
    assert diagnose("", 255, host="a b", phase="x").advice.endswith("ssh 'a b' true")


def test_diagnose_says_the_last_twenty_lines_without_debug() -> None:
    text = "".join(f"line {n}\ndebug1: {n}\n" for n in range(50))
    lines = diagnose(text, 255, host="gpu", phase="x").said.splitlines()
    assert lines == [f"line {n}" for n in range(30, 50)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://h:1/lab?token=abc123&x=1", "http://h:1/lab?token=***&x=1"),
        ("JUPYTER_TOKEN=abc", "JUPYTER_TOKEN=***"),
        ("password: hunter2", "password: ***"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("Permission denied (publickey,password).", "Permission denied (publickey,password)."),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07x\x07\u202e", "red x"),
        ("x" * 9000, "x" * 500),
    ],
)
def test_said_hides_secrets_and_terminal_escapes(text: str, shown: str) -> None:
    assert said(text) == shown


def test_diagnose_is_not_deceived_by_braces_from_the_remote() -> None:
    text = "ssh: connect to host {host.__class__} port 22: {login}\n"
    what = diagnose(text, 255, host="gpu", phase="x").what
    assert what == "{host.__class__} port 22: {login}"


def test_diagnose_reads_a_flood_quickly() -> None:
    flood = ("a" * 10_000 + ": token" * 50 + "\n") * 2000
    began = time.monotonic()
    assert isinstance(diagnose(flood, 255, host="gpu", phase="x"), Unreachable)
    assert time.monotonic() - began < 20  # seconds; what grows with the square takes minutes
