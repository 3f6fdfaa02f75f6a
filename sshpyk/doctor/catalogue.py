"""Every code that an error or a finding can have: what it says, why, what to do, and a test of it.

``docs/errors.md`` is :func:`page`, written by ``make docs``. A test compares the two, and this table with
the source: no code is missing here, none is left over, and the texts are those in the source, with ``…``
for what is filled in. The words about ssh are the rows of ``sshpyk.ssh.causes_*`` themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sshpyk.ssh.cause import Cause
from sshpyk.ssh.causes_remote import ENDED, EXIT_STATUS, STOPPED, UNKNOWN
from sshpyk.ssh.diagnose import CAUSES

_ERRORS = "integration/test_errors.py"
_LAUNCH = "integration/test_launch_failures.py"
_SAMPLES = "unit/ssh/test_diagnose.py"
_HOST = "unit/hub/test_host.py"
_WAYS_BACK = "unit/hub/test_ways_back.py"


@dataclass(frozen=True)
class Entry:
    """``says`` and ``remedy`` are empty where the rows about ssh have them, or where they vary.

    ``test``: ``file::name`` below ``tests/``; empty: the case in ``integration/test_errors.py`` that is
    named after the code.
    """

    why: str
    says: str = ""
    remedy: str = ""
    test: str = ""


_SSH_CLIENT = {
    "SSH-MISSING": Entry(
        "ssh is not on PATH, or --ssh names something else",
        "there is no executable ssh client at …",
        "install the OpenSSH client (package openssh-client or openssh-clients)",
        f"{_ERRORS}::test_bad_input_has_a_code_too",
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
        test=f"{_ERRORS}::test_bad_input_has_a_code_too",
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

_SSH_NETWORK = {
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

_SSH_LOGIN = {
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

_HOST_SIDE = {
    "HOST-NO-LOGIN-SHELL": Entry("the account may log in and has nothing to run (nologin)"),
    "HOST-RESTRICTED-SHELL": Entry("rbash or its like allows no program by its path"),
    "HOST-ENDED-EARLY": Entry(
        "'exit' in a start-up file, ForceCommand, or a forced command of the key"
    ),
    "HOST-EXIT-STATUS": Entry("as before, with a status; its words, if any, are shown"),
    "HOST-PRINTS-TOO-MUCH": Entry(
        "a start-up file prints without end where nobody reads",
        "more than … bytes were printed before our program started",
        "let the shell's startup files print only when it is interactive",
        "integration/faults/test_hosts.py::test_f32_startup_file_that_prints_too_much_is_quoted",
    ),
    "HOST-ODD-ANSWER": Entry(
        "something on the host prints in between",
        "something else was printed where our program's answer was due",
        "let the shell's startup files start nothing that prints later",
        "unit/hub/test_dial.py::test_what_is_printed_in_between_is_quoted",
    ),
    "HOST-NO-PROGRAM": Entry(
        "the path is the host's; conda's 'python' needs the environment's folder",
        test=f"{_LAUNCH}::f36_python_missing",
    ),
    "HOST-NOT-EXECUTABLE": Entry("a file that is no program", test=f"{_SAMPLES}::bash-mode"),
    "HOST-NO-INTERPRETER": Entry(
        "the environment was moved or removed, or the name is not on PATH",
        "no interpreter at …",
        "name another one: sshpyk edit --kernel-name … --remote-python PATH",
    ),
    "HOST-PYTHON-BROKEN": Entry(
        "a library of it is gone: an upgrade of the system, a moved environment"
    ),
    "HOST-PYTHON-TOO-OLD": Entry(
        "the kernel may run in an old Python; what sshpyk sends cannot",
        "… is Python …; the agent needs 3.8 or newer",
        "name a newer interpreter: sshpyk edit --kernel-name … --remote-python PATH",
    ),
    "HOST-DISK-FULL": Entry(
        "the home folder, /tmp, or your quota",
        remedy="make room on the host: df -h ~ /tmp; quota",
        test=f"{_ERRORS}::test_full_disk_is_said_before_and_at_a_launch",
    ),
    "HOST-FAILED": Entry(
        "something between ssh and the host that has no row of its own",
        test="unit/cli/test_list.py::test_ssh_that_cannot_be_started",
    ),
    "PROTOCOL-MISMATCH": Entry(
        "another version of sshpyk started the kernels that run there",
        "the agent there speaks version … of the link protocol, this sshpyk …",
        "it keeps its kernels: go on with the sshpyk that started them, or end them with that"
        " one (the agent leaves a minute later) and try again",
        f"{_HOST}::test_f51_an_agent_of_another_version_is_refused_with_instructions",
    ),
    "LINK-LOST": Entry(
        "the host was rebooted, or the agent was ended, and its kernels with it",
        "the host was rebooted, and the kernels on it are gone",
        test="integration/test_replaced_agent.py::test_f21_rebooted_host_is_said_and_the_kernel_is_gone",
    ),
    "AGENT-REPLACED": Entry(
        "somebody or the host's out-of-memory killer killed it; kernels are adopted",
        "the agent on the host was killed, and what it was doing was given up",
        "try again",
        f"{_HOST}::test_f16_agent_that_replaced_another_is_noticed_once_and_asked_again",
    ),
}

_KERNEL = {
    "KERNELSPEC-NOT-FOUND": Entry(
        "that interpreter finds no kernel of that name; what it finds is listed",
        "no kernelspec … for …",
        "install the kernel in that environment (for Python: … -m pip install "
        "ipykernel) or name another one with sshpyk edit --remote-kernel-name",
    ),
    "KERNELSPEC-BROKEN": Entry(
        "a kernel.json of this machine that was edited or cut short",
        "…: …",
        "correct it, or remove that kernel",
        "unit/cli/test_doctor.py::test_what_cannot_be_asked_about",
    ),
    "KERNEL-NO-PROGRAM": Entry(
        "the host's kernel.json names a program that is not there",
        "cannot run …: …",
        "install it, or correct …",
    ),
    "KERNEL-NO-IPYKERNEL": Entry(
        "the interpreter that the kernelspec runs is not the environment that you meant",
        "… has no module …",
        "install it on the host, in that environment: python -m pip install ipykernel",
    ),
    "KERNEL-NO-PYZMQ": Entry(
        "an upgrade that ended half-way, or a build for another Python",
        "… cannot import zmq: …",
        "install it on the host, in that environment: python -m pip install pyzmq",
    ),
    "KERNEL-NO-MODULE": Entry(
        "the kernelspec runs '-m MODULE', which its interpreter does not have",
        "… has no module …",
        "install it there",
    ),
    "KERNEL-NO-FOLDER": Entry(
        "--remote-cwd names a folder of the host",
        "no folder … for the kernel to work in",
        "create it on the host, or change it: sshpyk edit --kernel-name … --remote-cwd PATH",
    ),
    "KERNEL-ACTIVATION": Entry(
        "a command of --activate, or a startup file of the login shell before it, failed or hangs",
        "--activate: …",
        "try the lines on the host, in a login shell; …; "
        "where a command may fail, write: COMMAND || true",
        "integration/hosts/test_activation.py::test_an_activation_that_fails_says_what_failed_and_why",
    ),
    "KERNEL-DIED": Entry(
        "its own last words follow",
        "the kernel ended with … before it was ready",
        "its command on the host was: …",
    ),
    "HOST-PIP-FAILED": Entry(
        "pip's own last words follow",
        "ipykernel could not be installed",
        "make an environment of your own on …: python3 -m venv ~/venv",
        "unit/discovery/test_install.py::test_refusal_of_a_managed_python_is_in_pips_words",
    ),
    "KERNEL-IN-USE": Entry(
        "another laptop, or another link of this one, carries the kernel",
        "kernel … is in use by …",
        "take it over with --takeover: it goes on here and is told to end there",
        "integration/faults/test_attach.py::test_f52_two_laptops_attach_to_one_kernel",
    ),
    "KERNEL-TAKEN": Entry(
        "somebody attached to the kernel with --takeover",
        "the kernel was taken over by …",
        test="integration/faults/test_attach.py::test_f52_two_laptops_attach_to_one_kernel",
    ),
    "KERNEL-FAILED": Entry(
        "the kernel's side of something that has no row of its own",
        test="unit/agent/test_service.py::test_a_program_that_cannot_be_run_is_named",
    ),
    "LAUNCH-TIMEOUT": Entry(
        "a slow host or file system, or a kernel that hangs while it starts",
        "the kernel was not … within … s",
        "raise launch_timeout: sshpyk edit --kernel-name … --launch-timeout SECONDS",
        f"{_LAUNCH}::kernel_never_listens",
    ),
    "MOUNT-LOCAL-FOLDER": Entry(
        "the folder to mount is one of this machine",
        "…: there is no such local folder",
        "make that folder, or correct --mount-local-on-remote",
    ),
    "MOUNT-NO-SSHFS": Entry(
        "sshfs runs on the host",
        "the host has no …",
        "have the package sshfs installed on the host, or name it with --remote-sshfs",
    ),
    "MOUNT-NO-FUSE": Entry(
        "the host's kernel or container gives its users no file systems of their own",
        "/dev/fuse …",
        "ask the host's administrator for fuse3 (a container needs --device /dev/fuse)",
        "unit/doctor/test_mount_checks.py::test_what_is_missing_has_a_code",
    ),
    "MOUNT-ALLOW-OTHER": Entry(
        "the host's administrator decides whether others may see a mount",
        "allow_other is not allowed: /etc/fuse.conf has no user_allow_other",
        "leave allow_other out, or have user_allow_other put into /etc/fuse.conf there",
    ),
    "MOUNT-FAILED": Entry(
        "sshfs's own words follow",
        test="unit/hub/test_mounts.py::test_what_sshfs_says_is_passed_on",
    ),
    "MOUNT-NO-SSHD": Entry(
        "a mount that logs in from the host needs an sshd here, which need not run",
        "there is no … on this machine",
        "install the OpenSSH server",
        f"{_WAYS_BACK}::test_a_machine_without_sshd_says_what_to_do",
    ),
    "MOUNT-SSHD-FAILED": Entry(
        "sshd's own words follow",
        "… cannot be used (exit status …)",
        "name another sshd with --sshd, or leave ssh_host_alias_local_on_remote out",
        f"{_WAYS_BACK}::test_an_sshd_that_cannot_run_is_told",
    ),
    "MOUNT-NO-ALIAS": Entry(
        "ssh_host_alias_local_on_remote is a name in the ssh config on the host",
        "the host's ssh config has no alias …",
        "write it into ~/.ssh/config on the host",
        f"{_WAYS_BACK}::test_an_alias_that_leads_elsewhere_is_refused",
    ),
    "MOUNT-ALIAS-NOT-LOOPBACK": Entry(
        "the tunnel to this machine begins on the host, so the alias must lead there",
        "… leads to …, and must lead to the host itself, where the tunnel begins",
        test=f"{_WAYS_BACK}::test_an_alias_that_leads_elsewhere_is_refused",
    ),
    "MOUNT-ALIAS-USER": Entry(
        "the private sshd runs as you, and can log in nobody else",
        "… logs in as …, and only … can be logged in to here",
        test=f"{_WAYS_BACK}::test_an_alias_that_leads_elsewhere_is_refused",
    ),
    "MOUNT-ALIAS-PORT": Entry(
        "the alias names a port of the host that something has already, or that only root may have",
        "the host cannot listen on …",
        "end what has that port on the host, or write another Port above 1023",
        f"{_WAYS_BACK}::test_a_port_that_is_taken_is_told_with_who_has_it",
    ),
    "MOUNT-ALIAS-HOST-KEY": Entry(
        "host keys are checked on the host as its ssh config says",
        "the host does not know this machine's key yet (…)",
        "add this line to … on the host",
        f"{_WAYS_BACK}::test_a_host_key_that_is_not_known_is_shown_as_the_line_to_add",
    ),
    "MOUNT-ALIAS-KEY": Entry(
        "the key of the alias is not in authorized_keys here, or was given away for a command only",
        "this machine does not let … log in",
        "add the public key that the host has for it",
        f"{_WAYS_BACK}::test_a_key_that_is_not_authorized_is_named",
    ),
    "MOUNT-POINT": Entry(
        "the account can neither use nor make that folder, or something is in it already",
        "is not there and cannot be made",
        "name another mount point with --mount-local-on-remote",
    ),
}

_MACHINE = {
    "JUPYTER-NO-PROVISIONER": Entry(
        "sshpyk runs from another environment than Jupyter, or from its sources alone",
        "this Jupyter does not know …",
        "install sshpyk where Jupyter is, not from its folder of sources alone",
        "unit/cli/test_doctor.py::test_this_machine_stops_at_the_cause",
    ),
    "LOCAL-FOLDER": Entry(
        "the folder of logs or sockets belongs to somebody else, or is read-only",
        remedy="make it a folder of your own",
        test="unit/doctor/test_machine.py::test_folder",
    ),
    "LOCAL-DISK-FULL": Entry(
        "less than 1 MB is left here",
        "…: the disk is full",
        "make room on that disk",
        "unit/doctor/test_machine.py::test_folder",
    ),
    "HUB-FAILED": Entry(
        "the local process that owns the link did not start, or went away; its log says more",
        "the hub for … did not start",
        "see what this machine lacks: sshpyk doctor",
        "unit/hub/test_client.py::test_a_hub_that_never_listens_is_an_error",
    ),
}

_TUNNELS = {
    "TUNNEL-FAILED": Entry(
        "something else listens on that address, or nothing answers behind the other end",
        "the host cannot listen on …",
        "end that first, name another local port, or 0 for a free one",
        "unit/servers/test_tunnels.py::test_a_tunnel_that_cannot_be_opened_leaves_nothing",
    ),
}

_SERVER = "integration/test_servers.py"

_SERVERS = {
    "SERVER-NOT-FOUND": Entry(
        "no Python that was looked at has it; the message lists them",
        "… was not found",
        "name the environment that has it: --prefix PATH, --python PATH or --activate",
        f"{_SERVER}::test_a_start_that_fails_says_why",
    ),
    "SERVER-NO-PROGRAM": Entry(
        "what --python or --prefix names is not on the host",
        "cannot run …",
        "name another interpreter of the host with --python or --prefix",
        f"{_SERVER}::test_a_start_that_fails_says_why",
    ),
    "SERVER-NO-FOLDER": Entry(
        "what --dir names is not on the host",
        "there is no folder …",
        "create it on the host, or name another one with --dir",
        f"{_SERVER}::test_a_start_that_fails_says_why",
    ),
    "SERVER-CONFIG": Entry(
        "Jupyter does not accept an option behind --, or its config there",
        "… ended with … before it listened",
        "correct the option behind --, or Jupyter's config on the host (~/.jupyter)",
        f"{_SERVER}::test_a_start_that_fails_says_why",
    ),
    "SERVER-PORT-TAKEN": Entry(
        "a port of the host was named, and another program has it",
        "… ended with … before it listened",
        "leave the port to sshpyk: without --port or --ip behind -- the server has a unix socket",
        f"{_SERVER}::test_a_start_that_fails_says_why",
    ),
    "SERVER-ROOT": Entry(
        "Jupyter does not run as root unless it is told to",
        "… ended with … before it listened",
        "log in as another user, or allow it: sshpyk lab HOST -- --allow-root",
        "unit/agent/test_servers.py::test_last_words_have_a_code",
    ),
    "SERVER-SLOW": Entry(
        "a cold environment on a network file system, or something that waits",
        "the server does not listen after … s",
        "it was stopped again; if it is merely slow: --timeout SECONDS",
        "unit/servers/test_jupyter.py::test_one_that_never_listens_is_given_up_in_time",
    ),
    "SERVER-ENDED": Entry(
        "somebody chose Shut Down in the browser, or ended it on the host",
        "the server has ended, …",
        "",
        f"{_SERVER}::test_one_that_ends_or_whose_host_is_gone_says_so",
    ),
    "SERVER-GONE": Entry(
        "it has ended, or the host was rebooted",
        "there is no such server on the host any more",
        "see sshpyk servers HOST; start one: sshpyk lab HOST",
        "unit/agent/test_servers.py::test_what_is_no_server_is_refused",
    ),
    "SERVER-FAILED": Entry(
        "its own words are shown; `sshpyk logs HOST ID` has all of them",
        "… ended with … before it listened",
        "",
        "unit/agent/test_servers.py::test_last_words_have_a_code",
    ),
}
SECTIONS = {
    "The ssh client and its config": _SSH_CLIENT,
    "The way to the host": _SSH_NETWORK,
    "Host keys and logins": _SSH_LOGIN,
    "The account and its Python": _HOST_SIDE,
    "The kernel and its mounts": _KERNEL,
    "Tunnels": _TUNNELS,
    "Jupyter servers": _SERVERS,
    "This machine": _MACHINE,
}
ENTRIES = {code: entry for section in SECTIONS.values() for code, entry in section.items()}

_HEAD = """# Errors

Each failure that has a known cause carries a code in brackets, `host gpu1: … [SSH-REFUSED]`; in `--json`
it is the member `code`. Codes stay when texts change. `sshpyk doctor HOST` or `sshpyk doctor KERNEL`
looks for the cause and stops there. `…` stands for what is filled in; the last column is the test that
makes it happen, in the lab where the lab can.

This page is made by `make docs`; a test keeps it and the source together.

## Exit codes

| code | of `sshpyk` | of a kernel's process (`sshpyk-kernel`, kernel.json's argv) |
|---|---|---|
| 0 | done; `doctor`: nothing is broken | the kernel ended with 0 |
| 1 | it failed; `doctor`: something is broken | it did not start, or ended with 1 |
| 2 | the input cannot be: one line says why, nothing was changed | the same |
| 70 | a defect of sshpyk's own; the traceback is in the log | |
| other | | the kernel's own; after a signal the process ends by that signal too |
"""


def why(code: str) -> str:
    """Return what is behind a code, in one line; empty for one that this version does not know."""
    return ENTRIES[code].why if code in ENTRIES else ""


def causes(code: str) -> list[Cause]:
    """Return the rows about ssh that have this code."""
    return [row for row in (*CAUSES, STOPPED, UNKNOWN, ENDED, EXIT_STATUS) if row.code == code]


def test_of(code: str) -> str:
    """Return the test that produces a code, ``file::name`` below ``tests/``."""
    return ENTRIES[code].test or f"{_ERRORS}::{code.lower().replace('-', '_')}"


def page() -> str:
    """Return the text of ``docs/errors.md``."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    for title, entries in SECTIONS.items():
        yield f"## {title}\n"
        yield "| code | what it says | why | remedy | test |\n|---|---|---|---|---|"
        for code, entry in entries.items():
            row = next(iter(causes(code)), None)
            says = entry.says or (_holes(row.what) if row else "")
            remedy = entry.remedy or (_holes(row.advice) if row else "")
            file, _, name = test_of(code).partition("::")
            cells = [f"`{code}`", says, entry.why, remedy, f"[{name}](../tests/{file})"]
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        yield ""


def _holes(template: str) -> str:
    """Return a row's text with its fields as a reader understands them."""
    text = template.replace("{login}", "ssh HOST").replace("{reopen}", "sshpyk login HOST")
    return re.sub(r"\{\w+\}", "…", text.replace("{host}", "HOST"))
