"""Of mounted folders."""

from __future__ import annotations

from sshpyk.doctor.codes.entry import Entry

_WAYS_BACK = "unit/hub/test_ways_back.py"

MOUNTS = {
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
        "write 'HostName localhost' for 'Host …' into ~/.ssh/config on the host",
        test=f"{_WAYS_BACK}::test_an_alias_that_leads_elsewhere_is_refused",
    ),
    "MOUNT-ALIAS-USER": Entry(
        "the private sshd runs as you, and can log in nobody else",
        "… logs in as …, and only … can be logged in to here",
        "write 'User …' for 'Host …' into ~/.ssh/config on the host",
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
