"""Of the ssh client, its config, the way to the host, and logins."""

from __future__ import annotations

from sshpyk.doctor.codes.entry import ERRORS, Entry

_SAMPLES = "unit/ssh/test_diagnose.py"

CLIENT = {
    "SSH-MISSING": Entry(
        "ssh is not on PATH, or --ssh names something else",
        "there is no executable ssh client at …",
        "install the OpenSSH client (package openssh-client or openssh-clients)",
        f"{ERRORS}::test_bad_input_has_a_code_too",
    ),
    "SSH-TOO-OLD": Entry(
        "RemoteCommand, which has to be overridden, is known from OpenSSH 7.6 on",
        "…: OpenSSH 7.6 or later is needed",
        "install a newer OpenSSH, or name one with --ssh",
        test="unit/doctor/test_ssh_checks.py::test_client",
    ),
    "SSH-CONFIG-OPTION": Entry("misspelt, or newer than this ssh"),
    "SSH-CONFIG-PERMISSIONS": Entry(
        "ssh uses no config that others can change", test=f"{_SAMPLES}::config-mode"
    ),
    "SSH-CONFIG-MISSING": Entry(
        "the file of --ssh-config was moved or cannot be read",
        test=f"{ERRORS}::test_bad_input_has_a_code_too",
    ),
    "SSH-CONFIG-REJECTED": Entry("a line of the config has no value, or one that cannot be"),
    "SSH-CONFIG-TIMEOUT": Entry(
        "ssh runs the commands of 'Match exec' whenever it reads the config",
        "ssh -G gave no answer within … s",
        "look for a 'Match exec' in the ssh config whose command hangs",
    ),
    "SSH-CONFIG-HURTS": Entry(
        "a setting takes away what sshpyk needs: ssh's stdin, or the command on the host",
        "ssh would read nothing of what sshpyk sends",
        "write StdinNull no for this host",
    ),
    "SSH-CONTROL-PATH": Entry(
        "a socket's path is limited to 107 bytes, and ssh adds 17 while it binds (on macOS 103)"
    ),
    "SSH-JUMP-LOOP": Entry("the hosts' ProxyJump lines, or one for 'Host *', go in a circle"),
    "SSH-PROXY-COMMAND": Entry("the program is not on this machine"),
}

NETWORK = {
    "SSH-UNKNOWN-HOST": Entry("no HostName for that alias, a typing error, or DNS is away (VPN)"),
    "SSH-REFUSED": Entry("the machine answers, and no ssh server listens on that port"),
    "SSH-TIMEOUT": Entry("nothing answers: the machine is off, or a firewall drops the packets"),
    "SSH-NO-ROUTE": Entry("no way there from this network: WiFi, VPN, or the machine is off"),
    "SSH-NO-CONNECTION": Entry(
        "what the system said, in its words", test=f"{_SAMPLES}::reset-connecting"
    ),
    "SSH-NOT-SSH": Entry("something else listens there, or a captive portal answers for all"),
    "SSH-NO-BANNER": Entry("the port is open and silent: a firewall, or a machine without memory"),
    "SSH-SILENT": Entry(
        "the network went away, noticed by ServerAlive", test=f"{_SAMPLES}::server-silent"
    ),
    "SSH-ALGORITHMS": Entry("one side is old, or the config allows too little"),
    "SSH-NO-LOGIN-NOW": Entry(
        "a host that boots, shuts down, or has too many logins", test=f"{_SAMPLES}::booting"
    ),
    "SSH-DISCONNECTED": Entry("the server's own reason", test=f"{_SAMPLES}::disconnected"),
    "SSH-DROPPED-EARLY": Entry("too many logins at once (MaxStartups), or this address is blocked"),
    "SSH-DROPPED": Entry("the network or the server cut it", test=f"{_SAMPLES}::reset"),
    "SSH-JUMP-FORBIDDEN": Entry("the jump host's AllowTcpForwarding or PermitOpen"),
    "SSH-JUMP-UNKNOWN-HOST": Entry("names are resolved on the jump host, not here"),
    "SSH-JUMP-UNREACHABLE": Entry("the jump host is fine; behind it nobody answers on that port"),
    "SSH-NO-SESSION": Entry(
        "the server allows no session, or no more on this connection (MaxSessions)"
    ),
    "SSH-CHANNEL-REFUSED": Entry("the server's own reason", test=f"{_SAMPLES}::channel-refused"),
    "SSH-PROXY-ENDED": Entry("the way through the jump host or ProxyCommand ended without a word"),
    "SSH-STOPPED": Entry(
        "the time was over, and ssh had said nothing", test=f"{_SAMPLES}::stopped"
    ),
    "SSH-UNKNOWN": Entry(
        "ssh ended with 255 and said nothing (LogLevel QUIET?)", test=f"{_SAMPLES}::silent-255"
    ),
    "HOST-NO-ANSWER": Entry(
        "the login hangs: the network, a jump host, or a start-up file that waits for input",
        "no usable answer within … s",
        "see whether the network or a start-up file there hangs: … true",
    ),
    "HOST-UNREACHABLE": Entry(
        "the connection was lost, or nothing came in time",
        "no answer within … s",
        "try it by hand: …",
        "unit/hub/test_dial.py::test_silence_has_an_end_and_says_where_it_was",
    ),
}

LOGIN = {
    "SSH-HOST-KEY-CHANGED": Entry("the machine was installed anew, or somebody stands in between"),
    "SSH-HOST-KEY-REVOKED": Entry(
        "known_hosts or RevokedHostKeys says that this key is not to be trusted"
    ),
    "SSH-HOST-KEY-CHANGED-NO-PASSWORD": Entry(
        "the config lets the connection go on, and ssh protects the password",
        test=f"{_SAMPLES}::changed-unchecked",
    ),
    "SSH-HOST-KEY-UNKNOWN": Entry("StrictHostKeyChecking yes, and the host is not in known_hosts"),
    "SSH-HOST-KEY-UNCONFIRMED": Entry(
        "the first login to this host: a person has to compare the key"
    ),
    "SSH-PERMISSION-DENIED": Entry("no key of yours is accepted: not loaded, or not on the host"),
    "SSH-NEEDS-LOGIN": Entry("the host takes a password or a code, which only a person has"),
    "SSH-KEY-FILE": Entry("others can read the key's file, or its format is unknown"),
    "SSH-KEY-REFUSED": Entry("the agent or the security key wants a person, or has gone"),
    "SSH-TOO-MANY-KEYS": Entry("the server counts every offered key (MaxAuthTries)"),
    "SSH-PASSWORD-EXPIRED": Entry("the account's password has to be changed at a terminal"),
}
