"""The ssh command line, and the remote command in every login shell that this machine has."""

from __future__ import annotations

import ast
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sshpyk.errors import InvalidInput
from sshpyk.ssh.command import (
    Destination,
    SshTarget,
    batch_environment,
    find_ssh,
    parse_destination,
    remote_path_word,
    remote_python_command,
    shell_word,
    ssh_argv,
)

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh client")

SHELLS = [
    *([name] for name in ("sh", "bash", "dash", "zsh", "ksh", "fish", "tcsh", "csh", "bsd-csh")),
    ["busybox", "sh"],
]
INSTALLED_SHELLS = [shell for shell in SHELLS if shutil.which(shell[0])]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("gpu1", Destination("", "gpu1", None)),
        ("gpu_1.example-lab.org", Destination("", "gpu_1.example-lab.org", None)),
        ("bob@gpu1", Destination("bob", "gpu1", None)),
        ("bob@corp.org@gpu1:2222", Destination("bob@corp.org", "gpu1", 2222)),
        ("10.0.0.5:22", Destination("", "10.0.0.5", 22)),
        ("[::1]:2200", Destination("", "::1", 2200)),
        ("bob@[fe80::1%eth0]", Destination("bob", "fe80::1%eth0", None)),
        ("fe80::1", Destination("", "fe80::1", None)),
        ("höhle", Destination("", "höhle", None)),
    ],
)
def test_parse_destination_splits_what_a_user_types(host: str, expected: Destination) -> None:
    assert parse_destination(host) == expected


@pytest.mark.parametrize(
    "host",
    [
        *("", "-oProxyCommand=id", "-p", "a b", "a\n", "a\nb", "a\tb", "a\0", "\x1b[0m"),
        *("a;id", "$(id)", "`id`", "a|b", "a&b", "a'b", 'a"b', "a>b", "a*", "{a,b}", "a\\b", "a/b"),
        *("@a", "bob@", "bob@-x", "-bob@a", "a:", "a:0", "a:65536", "a:b", "a:1:2:x", "[a]:1"),
        *("ssh://a", "a%b", "~a", "a" * 600, "[::1", "a\u202eb"),
    ],
)
def test_target_refuses_what_is_no_host(host: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SshTarget(host)
    assert "\n" not in caught.value.what
    assert caught.value.advice


def test_ssh_argv_is_options_then_double_dash_then_host_then_command() -> None:
    target = SshTarget("bob@gpu1:2222", "/usr/bin/ssh", "/home/bob/cfg")
    argv = ssh_argv(target, ["python3", "-c", "'x y'"], options=["ConnectTimeout=7"])
    assert argv[:6] == ["/usr/bin/ssh", "-F", "/home/bob/cfg", "-T", "-o", "ConnectTimeout=7"]
    assert argv[-7:] == ["-p", "2222", "--", "bob@gpu1", "python3", "-c", "'x y'"]
    assert "BatchMode=yes" in argv


def test_ssh_argv_may_ask_when_not_in_batch_mode() -> None:
    assert "BatchMode=no" in ssh_argv(SshTarget("gpu1"), ["true"], batch=False)


@pytest.mark.parametrize("option", ["-x", "Port", "Port=1\nProxyCommand=id", "Port =1"])
def test_ssh_argv_refuses_a_malformed_option(option: str) -> None:
    with pytest.raises(ValueError, match="not an ssh option"):
        ssh_argv(SshTarget("gpu1"), ["true"], options=[option])


@needs_ssh
def test_ssh_argv_overrides_a_config_made_for_terminals(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "Host gpu1\n HostName 10.0.0.5\n RequestTTY yes\n RemoteCommand tmux\n LogLevel QUIET\n"
        " LocalForward 8888 localhost:8888\n ControlMaster auto\n ControlPath ~/.ssh/%C\n"
    )
    target = SshTarget.parse("gpu1:77", ssh_config=str(config))
    argv = ssh_argv(target, ["true"], options=["ConnectTimeout=7", "ConnectTimeout=9"])
    run = subprocess.run([argv[0], "-G", *argv[1:]], capture_output=True, text=True, check=True)
    said = dict(line.partition(" ")[::2] for line in run.stdout.lower().splitlines())
    assert said["hostname"] == "10.0.0.5"
    assert said["port"] == "77"
    assert said["batchmode"] == "yes"
    assert said["requesttty"] in {"no", "false"}
    assert said["controlmaster"] in {"no", "false"}
    assert said["controlpath"] != "none"
    assert said["loglevel"] == "info"
    assert said["connecttimeout"] == "7"
    assert "remotecommand" not in said
    assert "localforward" not in said


@needs_ssh
def test_ssh_refuses_an_option_only_where_ours_ends(tmp_path: Path) -> None:
    # Words after the host belong to the remote command, even when they look like options.
    target = SshTarget.parse("gpu1", ssh_config="none")
    argv = ssh_argv(target, ["-oNonsense=1", "true"])
    run = subprocess.run([argv[0], "-G", *argv[1:]], capture_output=True, text=True)
    assert (run.returncode, run.stderr.count("Bad configuration")) == (0, 0)


def test_batch_environment_keeps_the_rest() -> None:
    assert batch_environment({"A": "1"}) == {"A": "1", "SSH_ASKPASS_REQUIRE": "never"}


def test_target_identity_differs_by_host_ssh_and_config() -> None:
    hosts, clients, configs = ("a", "b"), ("/bin/ssh", "/opt/ssh"), (None, "none", "/c")
    targets = [SshTarget(*parts) for parts in itertools.product(hosts, clients, configs)]
    assert len({target.identity for target in targets}) == len(targets)
    assert SshTarget("a").identity == SshTarget("a").identity
    assert len(SshTarget("a").identity) == 16


def test_target_typed_is_what_a_person_pastes() -> None:
    target = SshTarget("bob@gpu1:22", "/usr/bin/ssh", "/a b/c")
    assert target.typed == "ssh -F '/a b/c' -p 22 bob@gpu1"
    assert SshTarget("gpu1", "/opt/ssh9").typed == "/opt/ssh9 gpu1"


def test_target_login_command_names_the_same_link() -> None:
    assert SshTarget("bob@gpu1:22").login_command == "sshpyk login bob@gpu1:22"
    assert SshTarget.parse("gpu1").login_command == "sshpyk login gpu1"
    target = SshTarget("gpu1", "/opt/ssh9", "/a b/c")
    assert target.login_command == "sshpyk login gpu1 --ssh-config '/a b/c' --ssh /opt/ssh9"


def _executable(path: Path) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_target_parse_makes_every_path_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _executable(tmp_path / "myssh")
    (tmp_path / "cfg").touch()
    target = SshTarget.parse("gpu1", ssh="./myssh", ssh_config="cfg")
    assert target == SshTarget("gpu1", str(tmp_path / "myssh"), str(tmp_path / "cfg"))


def test_target_parse_keeps_the_config_none(tmp_path: Path) -> None:
    ssh = _executable(tmp_path / "ssh")
    assert SshTarget.parse("gpu1", ssh=str(ssh), ssh_config="none").ssh_config == "none"


@pytest.mark.parametrize("config", ["", "-x", "a\nb", "/no/such/config", "/"])
def test_target_parse_refuses_an_unreadable_config(config: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="ssh config"):
        SshTarget.parse("gpu1", ssh=str(_executable(tmp_path / "ssh")), ssh_config=config)


def test_find_ssh_searches_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidInput) as caught:
        find_ssh()
    assert "openssh-client" in caught.value.advice
    assert find_ssh(str(_executable(tmp_path / "ssh"))) == find_ssh() == str(tmp_path / "ssh")


def test_find_ssh_refuses_a_file_that_is_not_executable(tmp_path: Path) -> None:
    (tmp_path / "ssh").touch(mode=0o644)
    with pytest.raises(InvalidInput, match="no executable ssh"):
        find_ssh(str(tmp_path / "ssh"))


def test_remote_python_command_leaves_plain_words_bare() -> None:
    command = remote_python_command("~/my envs/bin/python", "import sys; run()", "a-b", "")
    assert command == ["~/'my envs/bin/python'", "-c", "'import sys; run()'", "a-b", "''"]


@pytest.mark.parametrize("shell", INSTALLED_SHELLS, ids=" ".join)
@pytest.mark.parametrize(
    "args",
    [
        ["a b", "", "tilde ~", "~/x", "#c", "=ls", "a=b", "-x", "--", "^a^b", "%1"],
        ["$HOME `id` $(id)", '"quoted"', "*", "?[a]", "{a,b}", ";&|<>()", "[[", "@x", "a:b,c"],
        ["é中", "x" * 3000, "if", "then"],
    ],
    ids=["words", "metacharacters", "letters"],
)
def test_remote_python_command_reads_the_same_in_every_shell(
    shell: list[str], args: list[str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / "my $env").mkdir(parents=True)
    wrapper = _executable(home / "my $env" / "python")
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    code = "import sys; print(ascii(sys.argv[1:]))"
    words = remote_python_command("~/my $env/python", code, *args)
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    run = subprocess.run(
        [*shell, "-c", " ".join(words)], capture_output=True, text=True, env=environment
    )
    assert run.stderr == ""
    assert ast.literal_eval(run.stdout) == args


@pytest.mark.parametrize(
    "text", ["a'b", "a!b", "a\\b", "a\nb", "a\rb", "a\tb", "a\0b", "\x7f", "x" * 5000]
)
def test_shell_word_refuses_what_shells_read_differently(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        shell_word(text, what="remote python")
    assert "remote python" in caught.value.what
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("path", ["", "-c", "~bob/bin/python", "~", "~/a'b", "/a!"])
def test_remote_path_word_refuses(path: str) -> None:
    with pytest.raises(InvalidInput):
        remote_path_word(path)


def test_remote_path_word_accepts_the_home_folder_itself() -> None:
    assert remote_path_word("~/") == "~/"
