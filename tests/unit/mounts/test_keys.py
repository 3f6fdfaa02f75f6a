"""Which authorized keys may have files: those that were not given away for a command."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshpyk.mounts.keys import authorized_keys, refused_because

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHa"
OTHER = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAB"
LOGIN = f"publickey {KEY}\n"


@pytest.mark.parametrize(
    "line",
    [
        KEY,
        f"{KEY} me@gpu1 command=x",
        f"  {KEY}",
        f"restrict {KEY}",
        f'from="10.0.0.*,!10.0.0.9",no-pty {KEY} me',
        f'environment="X=a \\"command=b\\" c" {KEY}',
        f'tunnel="0",no-X11-forwarding\t{KEY}',
    ],
)
def test_a_key_of_the_users_may(line: str) -> None:
    assert refused_because(LOGIN, f"# mine\n\n{OTHER} x\n{line}\n") == ""


@pytest.mark.parametrize(
    "options",
    ['command="rsync --server"', 'no-pty,command="a, \\"b\\" c"', 'COMMAND="x"', "cert-authority"],
)
def test_a_key_that_was_given_away_may_not(options: str) -> None:
    assert "limited to a command" in refused_because(LOGIN, f"{options} {KEY} backup\n")


def test_a_key_that_is_there_twice_may_if_once_without_a_command() -> None:
    assert refused_because(LOGIN, f'command="x" {KEY}\n{KEY}\n') == ""


@pytest.mark.parametrize(
    "authorized", ["", f"# {KEY}", OTHER, f"{KEY}X", KEY.replace("ed25519", "rsa"), "ssh-ed25519"]
)
def test_a_key_that_is_not_there_may_not(authorized: str) -> None:
    assert "in no authorized_keys" in refused_because(LOGIN, authorized)


@pytest.mark.parametrize("login", ["", "password", f"hostbased {KEY}", "publickey"])
def test_who_shows_no_key_may_not(login: str) -> None:
    assert refused_because(login, KEY)


@given(st.text(alphabet='ab ="\\\\,\t#A\n', max_size=60))
def test_any_file_is_read(text: str) -> None:
    for entry in authorized_keys(text):
        assert len(entry.key) == 2
