from __future__ import annotations

import pytest

from sshpyk.doctor.finding import Item, Mark
from sshpyk.doctor.probe import HostAnswer
from sshpyk.doctor.ssh_checks import chain_items, client_item, connection_item, system_item
from sshpyk.errors import Unreachable
from sshpyk.ssh.config import ResolvedHost
from sshpyk.ssh.version import client_version, parse_version


@pytest.mark.parametrize(
    ("said", "mark"),
    [
        ("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026\n", Mark.OK),
        ("OpenSSH_10.0p2\n", Mark.OK),
        ("OpenSSH_8.2p1 Ubuntu-4\n", Mark.ADVICE),
        ("OpenSSH_7.4p1, OpenSSL 1.0.2k-fips\n", Mark.BROKEN),
        ("Dropbear v2022.83\n", Mark.ADVICE),
        ("", Mark.ADVICE),
    ],
)
def test_client(said: str, mark: Mark) -> None:
    item = client_item("/usr/bin/ssh", parse_version(said))
    assert item.mark is mark
    assert (item.code == "SSH-TOO-OLD") is (mark is Mark.BROKEN)
    assert said.strip()[:8] in item.parts[0].value


def test_client_that_cannot_be_asked() -> None:
    assert client_version("/no/such/ssh").number is None


def test_config_that_ssh_rejects_is_the_finding() -> None:
    error = Unreachable("bad", host="h", said="a\nb\nc\nd", advice="mend it", code="SSH-X")
    (item,) = chain_items("h", error)
    assert (item.mark, item.code) == (Mark.BROKEN, "SSH-X")
    assert [part.value for part in item.parts] == ["b", "c", "d", "mend it"]


def test_harmful_setting_marks_its_own_host_and_replaces_the_plain_line() -> None:
    settings = {"serveraliveinterval": "604800"}
    jump = ResolvedHost("b", "b", "me", 22, serveraliveinterval=604800, settings=settings)
    host, at_jump = chain_items("h", (jump, ResolvedHost("h", "h", "me", 22)))
    assert (host.mark, at_jump.mark) == (Mark.OK, Mark.ADVICE)
    (line,) = [part for part in at_jump.parts if part.label == "serveraliveinterval"]
    assert line.value.startswith("604800: ")


def test_connection() -> None:
    assert connection_item("h", None).mark is Mark.UNCHECKED
    assert connection_item("h", HostAnswer("Linux", {})).mark is Mark.OK
    failed = connection_item("h", Unreachable("refused", host="h", code="SSH-REFUSED"))
    assert failed == Item("SSH Connection", "h: refused", Mark.BROKEN, (), "SSH-REFUSED")


@pytest.mark.parametrize(
    ("free_kb", "mark"), [(10, Mark.BROKEN), (50_000, Mark.ADVICE), (10**6, Mark.INFO)]
)
def test_disk_without_room(free_kb: int, mark: Mark) -> None:
    item = system_item(HostAnswer("Linux", {}, {"/home/me": 10**7, "/tmp": free_kb}))
    assert item.mark is mark
    assert item.code == ("HOST-DISK-FULL" if free_kb == 10 else "")
    assert ("make room" in str(item.parts)) is (mark is not Mark.INFO)
