"""Bring the test lab up, go into it, run the tests there, take it down.

    python3 lab/lab.py up       engine, images, containers, keys, the working tree's wheel
    python3 lab/lab.py test …   the same, then pytest on the laptop with these arguments
    python3 lab/lab.py shell    a shell on the laptop, as the user that the tests run as
    python3 lab/lab.py down     containers and networks away; the images stay
                                (--engine: and the engine, if `up` started it)

Every step finds out by itself whether it is needed, so `up` on a running lab takes a second or two.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from images import ROLES, build_images, build_sshpyk_wheel, images_fingerprint
from steps import LAB, REPO, LabError, exclusive_use, fingerprint, output_of, run_logged, say

# A second lab beside the first, of another checkout, needs another name.
PROJECT = os.environ.get("SSHPYK_LAB_NAME", "sshpyk-lab").lower()
USER = "lab"
_SOURCE_MARK = "/opt/venv/sshpyk.fingerprint"
# Names under which the laptop meets a machine: known_hosts lists the machine's keys under each.
_SSH_NAMES = {"bastion": ("bastion",), "remote": ("remote", "remote-inside")}
_PYTEST = "/opt/venv/bin/pytest"
_FORWARDED = ("CI", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "PY_COLORS", "TERM")


def up() -> None:
    """Bring up what is down and leave the rest; callers hold the lock."""
    subprocess.run([LAB / "engine.sh", "up"], check=True)
    mark = lab_mark()
    if any(container(role, mark) == "" for role in ROLES):
        build_images()
        _compose("up", "--detach", "--remove-orphans")
    _introduce_machines(mark)
    _install_sshpyk(mark)


def down() -> None:
    """Remove containers and networks."""
    _compose("down", "--volumes", "--remove-orphans", "--timeout", "2")


def shell() -> int:
    """Open a shell on the laptop; its processes are spared when a test run cleans up."""
    with exclusive_use(PROJECT):
        up()
    say("you are on the laptop; try: ssh remote, ssh remote-jump, sshpyk list")
    argv = ["docker", "exec", "-it", "--user", USER, "--workdir", f"/home/{USER}"]
    argv += ["--env", "LAB_SHELL=1", container("laptop", lab_mark()), "bash", "-l"]
    return subprocess.run(argv, check=False).returncode


def test(arguments: Sequence[str]) -> int:
    """Run pytest on the laptop; return its exit code."""
    with exclusive_use(PROJECT):
        up()
        mark = lab_mark()
        for role in ROLES:
            _sweep(container(role, mark))
        laptop = container("laptop", mark)
        say("pytest on the laptop")
        running = subprocess.Popen([*_exec_argv(laptop), _PYTEST, *pytest_arguments(arguments)])
        try:
            return running.wait()
        except KeyboardInterrupt:
            # The engine's exec does not carry signals: pytest would run on without us.
            _interrupt_pytest(laptop)
            running.wait()
            return 130


def pytest_arguments(given: Sequence[str]) -> list[str]:
    """Complete what the caller gave: all integration tests, in parallel, unless they say otherwise."""
    fixed = ["-p", "no:cacheprovider", "--import-mode=append", "--durations=15"]
    if not any(arg == "-n" or arg.startswith(("-n", "--numprocesses", "--pdb")) for arg in given):
        fixed += ["-n", "4", "--dist", "worksteal"]
    names_a_path = any(arg.startswith("tests/") for arg in given)
    return [*fixed, *given, *([] if names_a_path else ["tests/integration"])]


def container(role: str, mark: str) -> str:
    """Return the id of the running container that is ``role`` and was made from ``mark``, or ""."""
    labels = {
        "com.docker.compose.project": PROJECT,
        "com.docker.compose.service": role,
        "sshpyk.lab.fingerprint": mark,
    }
    filters = [arg for item in labels.items() for arg in ("--filter", "label={}={}".format(*item))]
    return output_of(["docker", "ps", "--quiet", *filters])


def lab_mark() -> str:
    """Return what tells this checkout's lab, as its files are now, from any other.

    The inode too: containers go on seeing a folder that was removed and cloned again.
    """
    return fingerprint((), images_fingerprint(), str(REPO), str(REPO.stat().st_ino))


def _compose(*arguments: str) -> None:
    command = ["docker", "compose"]
    if subprocess.run([*command, "version"], capture_output=True, check=False).returncode:
        command = ["docker-compose"]
    socket = _engine_socket()
    env = {
        **os.environ,
        "COMPOSE_PROJECT_NAME": PROJECT,
        "LAB_FINGERPRINT": lab_mark(),
        "LAB_DOCKER_SOCKET": socket,
        "LAB_DOCKER_GID": _socket_group(socket) if "up" in arguments else "0",
    }
    argv = [*command, "--file", str(LAB / "compose.yaml"), *arguments]
    run_logged(f"compose {arguments[0]}", argv, env=env)


def _engine_socket() -> str:
    address = os.environ.get("DOCKER_HOST", "")
    return address[len("unix://") :] if address.startswith("unix://") else "/var/run/docker.sock"


def _socket_group(socket: str) -> str:
    """Ask a container, for the number may differ from what this machine sees (Docker Desktop)."""
    run = ["docker", "run", "--rm", "--volume", f"{socket}:/socket", "--entrypoint", "stat"]
    return output_of([*run, "sshpyk-lab-base", "-c", "%g", "/socket"])


def _as_user(machine: str, script: str, *, stdin: str = "") -> str:
    argv = ["docker", "exec", "--interactive", "--user", USER, "--workdir", f"/home/{USER}"]
    return output_of([*argv, machine, "bash", "-ec", script], stdin=stdin)


def _introduce_machines(mark: str) -> None:
    """Give the laptop a key that the others accept, and their host keys.

    Both travel through the engine, which is trusted, so no host key is ever accepted on first
    sight. Keys live in the containers and nowhere else.
    """
    laptop = container("laptop", mark)
    if _as_user(laptop, "cat .ssh/known_hosts 2>/dev/null || true"):
        return
    key = _as_user(
        laptop,
        "[ -f .ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -C laptop -f .ssh/id_ed25519;"
        "cat .ssh/id_ed25519.pub",
    )
    known = []
    for role, names in _SSH_NAMES.items():
        machine = container(role, mark)
        _as_user(machine, "umask 077; cat > .ssh/authorized_keys", stdin=key + "\n")
        # The entrypoint makes the keys, then becomes sshd.
        host_keys = _as_user(
            machine, "until pgrep -x sshd >/dev/null; do sleep 0.1; done; cat /etc/ssh/*_key.pub"
        )
        known += [f"{','.join(names)} {line}" for line in host_keys.splitlines()]
    _as_user(laptop, "umask 077; cat > .ssh/known_hosts", stdin="\n".join(known) + "\n")
    say("keys exchanged")


def _install_sshpyk(mark: str) -> None:
    """Install the working tree's wheel on the laptop, where what is there is not of this tree."""
    sources = [REPO / "pyproject.toml", REPO / "README.md", REPO / "LICENSE"]
    sources += [path for path in (REPO / "sshpyk").rglob("*") if _is_source(path)]
    tree = fingerprint(path for path in sources if path.exists())
    laptop = container("laptop", mark)
    as_root = ["docker", "exec", "--interactive", laptop]
    if output_of([*as_root, "sh", "-c", f"cat {_SOURCE_MARK} 2>/dev/null || true"]) == tree:
        return
    wheel = build_sshpyk_wheel()
    install = [*as_root, "pip", "install", "--no-deps", "--no-index", "--force-reinstall"]
    inside = Path("/src") / wheel.relative_to(REPO)
    run_logged("install sshpyk on the laptop", [*install, str(inside)])
    output_of([*as_root, "sh", "-c", f"cat > {_SOURCE_MARK}"], stdin=tree)


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _sweep(machine: str) -> None:
    """End what an aborted run left behind, so that a run answers for itself only.

    A contributor's own shell (`lab.py shell`) on the laptop is left alone.
    """
    script = """
for pid in $(pgrep -u "$USER"); do
    [ "$pid" != $$ ] || continue
    tr '\\0' '\\n' 2>/dev/null <"/proc/$pid/environ" | grep -qx LAB_SHELL=1 && continue
    kill -KILL "$pid" 2>/dev/null || true
done
rm -rf "/tmp/pytest-of-$USER" ~/.local/state/sshpyk
"""
    _as_user(machine, f"USER={USER}\n{script}")
    # Tests make accounts of their own.
    others = f"""
for uid in $(awk -F: '$3 >= 1000 && $3 < 60000 && $1 != "{USER}" {{print $3}}' /etc/passwd); do
    pkill -KILL -U "$uid" || true
done
rm -rf /tmp/sshpyk-*
"""
    output_of(["docker", "exec", machine, "sh", "-c", others])


def _exec_argv(laptop: str) -> list[str]:
    argv = ["docker", "exec", "--user", USER, "--workdir", "/src"]
    if sys.stdin.isatty() and sys.stdout.isatty():
        argv += ["--interactive", "--tty"]
    forwarded = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
    forwarded.setdefault("COLUMNS", str(shutil.get_terminal_size().columns))
    # /src is read-only; and what pytest prints must come at once, not in blocks.
    forwarded |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    for name, value in forwarded.items():
        argv += ["--env", f"{name}={value}"]
    return [*argv, laptop]


def _interrupt_pytest(laptop: str) -> None:
    """Do what Ctrl+C would, and give pytest a while to tidy up."""
    ours = f"-u {USER} -f {_PYTEST}"
    script = (
        f"pkill -INT --oldest {ours}; for _ in $(seq 50); do pgrep {ours} || break; sleep 0.2; done"
    )
    argv = ["docker", "exec", laptop, "bash", "-c", script]
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=False)


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="lab.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="bring the lab up")
    verbs.add_parser("shell", help="open a shell on the laptop")
    verbs.add_parser("test", help="run pytest on the laptop", add_help=False)
    verbs.add_parser("down", help="take the lab down").add_argument(
        "--engine", action="store_true", help="stop the engine as well, if the lab started it"
    )
    options, rest = parser.parse_known_args(argv)
    if rest and options.verb != "test":
        parser.error(f"unexpected: {' '.join(rest)}")
    return options, rest


def main(argv: Sequence[str]) -> int:
    """Run one verb; return the exit code."""
    # tox and CI stop a run with SIGTERM: clean up as after Ctrl+C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options, rest = _parse(argv)
    if options.verb == "test":
        return test(rest)
    if options.verb == "shell":
        return shell()
    with exclusive_use(PROJECT):
        if options.verb == "up":
            up()
            say("up: `make lab-shell` goes in, `.venv/bin/tox -e integration` runs the tests")
            return 0
        down()
        if options.engine:
            subprocess.run([LAB / "engine.sh", "down"], check=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        sys.exit(f"[lab] {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)
