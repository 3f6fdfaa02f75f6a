"""What ssh -G says of a host, read with the real client."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from sshpyk.errors import HostError, InvalidInput
from sshpyk.ssh.command import SshTarget
from sshpyk.ssh.config import ResolvedHost, resolve, resolve_chain

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh client")

CONFIG = """
Host gpu
 HostName 10.0.0.5
 User bob
 Port 2222
 ProxyJump outer,carol@inner:2200
 ControlMaster auto
 ControlPath /tmp/cm-%C
 ServerAliveInterval 15
 ConnectTimeout 7
Host outer
 HostName outer.example.org
 ProxyJump first
Host inner
 HostName 10.0.0.1
 ProxyJump never-used
Host px
 ProxyCommand nc -X connect %h %p
Host direct
 ProxyJump none
 ControlPath none
Host loop1
 ProxyJump loop2
Host loop2
 ProxyJump loop1
Host v6
 ProxyJump u@[::1]:2200
Host *
 User everyone
"""


def target(tmp_path: Path, host: str, config: str = CONFIG) -> SshTarget:
    path = tmp_path / "config"
    path.write_text(config)
    return SshTarget.parse(host, ssh_config=str(path))


def test_resolve_reads_every_field(tmp_path: Path) -> None:
    record = resolve(target(tmp_path, "gpu"))
    assert record.controlpath.startswith("/tmp/cm-")
    assert record == ResolvedHost(
        host="gpu",
        hostname="10.0.0.5",
        user="bob",
        port=2222,
        proxyjump=("outer", "carol@inner:2200"),
        controlmaster="auto",
        controlpath=record.controlpath,
        serveraliveinterval=15,
        connecttimeout=7,
    )


def test_resolve_prefers_user_and_port_that_were_typed(tmp_path: Path) -> None:
    record = resolve(target(tmp_path, "eve@gpu:99"))
    assert (record.user, record.port, record.host) == ("eve", 99, "eve@gpu:99")


def test_resolve_reads_none_as_unset(tmp_path: Path) -> None:
    record = resolve(target(tmp_path, "direct"))
    assert record == ResolvedHost("direct", "direct", "everyone", 22)


def test_resolve_reads_a_proxy_command(tmp_path: Path) -> None:
    assert resolve(target(tmp_path, "px")).proxycommand == "nc -X connect %h %p"


def test_resolve_chain_names_the_servers_in_the_order_of_travel(tmp_path: Path) -> None:
    chain = resolve_chain(target(tmp_path, "gpu"))
    assert [record.hostname for record in chain] == [
        "first",
        "outer.example.org",
        "10.0.0.1",
        "10.0.0.5",
    ]
    # ssh reaches the later hop through the earlier ones, whatever its own config says.
    assert chain[2].proxyjump == ("outer",)
    assert (chain[2].user, chain[2].port) == ("carol", 2200)


def test_resolve_chain_of_a_direct_host_is_that_host(tmp_path: Path) -> None:
    assert [record.host for record in resolve_chain(target(tmp_path, "direct"))] == ["direct"]


def test_resolve_chain_reads_an_ipv6_hop(tmp_path: Path) -> None:
    hop = resolve_chain(target(tmp_path, "v6"))[0]
    assert (hop.hostname, hop.port, hop.user) == ("::1", 2200, "u")


def test_resolve_chain_refuses_a_loop(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="leads back to loop1"):
        resolve_chain(target(tmp_path, "loop1"))


def test_resolve_names_a_bad_option(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not know the option bogus") as caught:
        resolve(target(tmp_path, "gpu", "Host gpu\n Bogus yes\n"))
    assert str(tmp_path / "config") in caught.value.said


def test_resolve_gives_up_on_a_hanging_match_exec(tmp_path: Path) -> None:
    marker = tmp_path / "still-alive"
    config = f'Match exec "sleep 2; touch {marker}"\n User x\n'
    began = time.monotonic()
    with pytest.raises(HostError, match=r"no answer within 0\.3 s"):
        resolve(target(tmp_path, "gpu", config), timeout_s=0.3)
    assert time.monotonic() - began < 2
    time.sleep(2.2)  # there is no event for "it does not happen"
    assert not marker.exists()


def test_resolve_says_so_when_ssh_cannot_be_started() -> None:
    with pytest.raises(InvalidInput, match="cannot be started"):
        resolve(SshTarget("gpu", "/no/such/ssh"))


def test_resolve_of_a_client_that_fails_without_a_word_is_still_an_error() -> None:
    with pytest.raises(HostError):
        resolve(SshTarget("gpu", "/bin/false"))
