"""ssh in the foreground of a terminal, as a shell's job control would have it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pexpect

# Lends the terminal to a child that asks on it, takes it back when the child says so, and goes.
# A shell that starts tests in the background has SIGINT ignored, and so has every child.
PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from sshpyk.ssh.foreground import Terminal
terminal = Terminal.ours()
if terminal is None:
    sys.exit("no terminal")
asking, said = os.pipe()
with terminal:
    null = os.open(os.devnull, os.O_RDWR)
    child = terminal.start(["sh", "-c", sys.argv[1]], (null, said, said))
    os.close(said)
    heard = os.read(asking, 100)
print("child", child.pid, "said", heard.decode(), flush=True)
child.returncode = child.wait() if not heard else 0
input("our prompt: ")
"""
ASKING = (
    'exec 3<>/dev/tty; stty -echo <&3; printf "secret: " >&3; read word <&3; echo "$word"; sleep 60'
)


def program(asking: str) -> pexpect.spawn[str]:
    return pexpect.spawn(
        sys.executable, ["-c", PROGRAM, asking], encoding="utf-8", timeout=20, cwd=Path.cwd()
    )


def test_a_child_asks_and_lives_on_after_the_terminal_is_closed() -> None:
    shown = program(ASKING)
    shown.expect("secret: ")
    shown.sendline("abc")
    shown.expect(r"child (\d+) said abc")
    child = int(shown.match[1])  # type: ignore[index,union-attr]
    try:
        shown.expect("our prompt: ")
        shown.sendintr()
        shown.expect("KeyboardInterrupt")
        shown.close()
        os.kill(child, 0)
        assert os.getpgid(child) == child
    finally:
        os.killpg(child, 9)


def test_an_interrupt_at_the_prompt_is_for_the_child_and_echo_returns() -> None:
    shown = program(ASKING)
    shown.expect("secret: ")
    shown.sendintr()
    shown.expect(r"child \d+ said ")
    shown.expect("our prompt: ")
    shown.sendline("visible")
    shown.expect("visible")
    shown.expect(pexpect.EOF)


def test_a_stop_at_the_prompt_stops_nobody() -> None:
    shown = program(ASKING)
    shown.expect("secret: ")
    shown.sendcontrol("z")
    shown.sendline("abc")
    shown.expect(r"child (\d+) said abc")
    os.killpg(int(shown.match[1]), 9)  # type: ignore[index,union-attr]
    shown.close()


def test_without_a_terminal_there_is_nobody_to_ask() -> None:
    shown = pexpect.spawn(
        "setsid", ["-w", sys.executable, "-c", PROGRAM, "true"], encoding="utf-8", timeout=20
    )
    shown.expect("no terminal")
    shown.expect(pexpect.EOF)
