"""Causes on the way: names, connections, jump hosts."""

from __future__ import annotations

from sshpyk.errors import HostError, InvalidInput, UnknownHost, Unreachable
from sshpyk.ssh.cause import LATER, TRY, WAIT, row

_RESOLVER = (
    r"Name or service not known|Temporary failure in name resolution|No address associated.*"
    r"|nodename nor servname provided.*|Non-recoverable failure.*|Name does not resolve"
)
_CONNECT = r"connect to (?:host|address) (?P<name>\S+) port (?P<port>\S+): "
_HOP = "log in to the jump host and try from there; ssh config: ProxyJump"

JUMP = (
    row(
        "SSH-JUMP-FORBIDDEN",
        HostError,
        r"^channel \d+: open failed: administratively prohibited",
        "the jump host does not allow to be jumped through",
        "ask its administrator for AllowTcpForwarding and PermitOpen, or use another way",
    ),
    row(
        "SSH-JUMP-UNKNOWN-HOST",
        UnknownHost,
        rf"^channel \d+: open failed: connect failed: (?P<why>{_RESOLVER})",
        "the jump host could not resolve the host's name: {why}",
        "HostName in the ssh config must be a name that the jump host knows",
    ),
    row(
        "SSH-NO-SESSION",
        HostError,
        r"^channel \d+: open failed: connect failed: open failed",
        "the server accepted the login but opened no session",
        "the server's MaxSessions forbids it; ask its administrator",
    ),
    row(
        "SSH-JUMP-UNREACHABLE",
        Unreachable,
        r"^channel \d+: open failed: connect failed: (?P<why>.*)",
        "the jump host could not reach the host: {why}",
        _HOP,
    ),
    row(
        "SSH-CHANNEL-REFUSED",
        HostError,
        r"^channel \d+: open failed: (?P<why>.*)",
        "the server opened no channel: {why}",
        TRY,
    ),
)

NETWORK = (
    row(
        "SSH-UNKNOWN-HOST",
        UnknownHost,
        r"Could not resolve hostname (?P<name>\S+): (?P<why>.*)",
        "the name {name} could not be resolved: {why}",
        "check its spelling, the network and a VPN; see HostName in: {login} -G",
    ),
    row(
        "SSH-REFUSED",
        Unreachable,
        _CONNECT + r"(?P<why>Connection refused)",
        "{name} port {port}: {why}",
        "no ssh server listens there: check Port, and that sshd runs; then: {login} true",
    ),
    row(
        "SSH-TIMEOUT",
        Unreachable,
        _CONNECT + r"(?P<why>(?:Connection|Operation) timed out)",
        "{name} port {port}: {why}",
        WAIT,
    ),
    row(
        "SSH-NO-ROUTE",
        Unreachable,
        _CONNECT + r"(?P<why>No route to host|(?:Network|Host) is unreachable|Host is down)",
        "{name} port {port}: {why}",
        WAIT,
    ),
    row(
        "SSH-NO-CONNECTION",
        Unreachable,
        _CONNECT + r"(?P<why>.*)",
        "{name} port {port}: {why}",
        WAIT,
    ),
    row(
        "SSH-ALGORITHMS",
        HostError,
        r"Unable to negotiate with (?P<name>\S+) port \S+: (?P<why>no matching .*? found)",
        "this ssh and the server {name} share no algorithm: {why}",
        "update the older of the two, or allow the algorithm for this host in the ssh config",
    ),
    row(
        "SSH-NOT-SSH",
        Unreachable,
        r"(?:No SSH version received|Protocol major versions differ|: invalid format$"
        r"|could not read protocol version|^ssh_exchange_identification: HTTP)",
        "what answers on that port is not an ssh server",
        "check Port in the ssh config; a captive portal of a WLAN does this too",
    ),
    row(
        "SSH-NO-LOGIN-NOW",
        Unreachable,
        r"(?P<why>System is (?:booting up|going down)|not permitted to log in"
        r"|Exceeded MaxStartups|Not allowed at this time)",
        "the server takes no login now: {why}",
        "try again in a while",
        exits=None,
    ),
    row(
        "SSH-NO-BANNER",
        Unreachable,
        r"timed out during banner exchange",
        "the server accepted the connection but did not answer",
        WAIT,
    ),
    row(
        "SSH-SILENT",
        Unreachable,
        r"^Timeout, server (?P<name>\S+) not responding",
        "the server {name} no longer answers",
        WAIT,
    ),
    row(
        "SSH-PROXY-COMMAND",
        InvalidInput,
        r"^(?!Warning|Load key|no such identity)(?P<why>.*: (?:(?:command )?not found"
        r"|No such file or directory))$" + LATER + r"UNKNOWN port 65535",
        "the ProxyCommand of the ssh config could not be run: {why}",
        "install that program or correct ProxyCommand",
    ),
    row(
        "SSH-DISCONNECTED",
        Unreachable,
        r"^Received disconnect from (?P<name>\S+) port \d+:\d+: *(?P<why>.*)",
        "{name} ended the connection: {why}",
        TRY,
    ),
    row(
        "SSH-PROXY-ENDED",
        Unreachable,
        r"UNKNOWN port 65535",
        "the jump host or the ProxyCommand ended the connection",
        _HOP,
    ),
    row(
        "SSH-DROPPED-EARLY",
        Unreachable,
        r"(?:kex_exchange_identification|ssh_exchange_identification|banner exchange): (?P<why>.*)",
        "the server ended the connection before the login: {why}",
        "the server may be overloaded or have blocked this address; wait, then: {login} true",
    ),
    row(
        "SSH-DROPPED",
        Unreachable,
        r"(?:^Connection (?:to \S+ )?(?:closed|reset|timed out)|^Connection to \S+ port \S+ timed"
        r"|[Bb]roken pipe|Connection reset by peer|^ssh_dispatch_run_fatal|^packet_write_"
        r"|^Read from remote host|^Write failed|^client_loop: send disconnect)",
        "the connection broke",
        WAIT,
    ),
)
