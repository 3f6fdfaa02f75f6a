"""Find the living agent, or become its parent; then hand it this session's stdin and stdout.

This file is sent over ssh as text, behind that of ``wire/private.py``, and runs alone in the process
that sshd started: it imports nothing else of sshpyk. What it says on stdout is one line, ``found`` or
``absent``; after ``absent`` it reads the length and the compressed modules of the agent and starts it,
detached. On a first connection these come at once, behind this text: a round trip less. In both cases
the descriptors travel to the agent over its unix socket, and this process sleeps until the agent lets
go of them: from then on no byte passes through here.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import sys
import time
import zlib
from typing import Any

from sshpyk.wire.private import AGENT_FOLDER, candidates, folder_lock, is_private, private_folder

_START_PATIENCE_S = 20.0


def say(word: str) -> None:
    """Answer the hub with one line."""
    os.write(1, word.encode() + b"\n")


def read_exactly(size: int) -> bytes:
    """Read from stdin without reading ahead: what follows is the agent's."""
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            raise SystemExit("the connection closed during the upload of the agent")
        data += more
    return data


def connect(socket_name: str) -> socket.socket | None:
    """Return a socket connected to our own agent, or None where there is none."""
    for folder in filter(is_private, candidates(AGENT_FOLDER)):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            client.connect(os.path.join(folder, socket_name))
        except OSError:
            client.close()
            continue
        if _peer_is_ours(client):
            return client
        client.close()
    return None


def _peer_is_ours(client: socket.socket) -> bool:
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True  # the folder's owner and mode were checked
    credentials = client.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.getuid())


def load(modules: dict[str, str]) -> None:
    """Make the sent modules importable under their own names, with source lines in tracebacks."""
    import importlib.machinery
    import linecache

    class Finder:  # what importlib.abc would make of it takes 15 ms to import
        def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
            if name not in modules:
                return None
            package = any(other.startswith(name + ".") for other in modules)
            loader: Any = self
            return importlib.machinery.ModuleSpec(name, loader, is_package=package)

        def create_module(self, spec: Any) -> None:
            return None

        def exec_module(self, module: Any) -> None:
            source, label = modules[module.__name__], "<sshpyk:%s>" % module.__name__
            linecache.cache[label] = (len(source), None, source.splitlines(True), label)
            exec(compile(source, label, "exec", dont_inherit=True), module.__dict__)

    sys.meta_path.insert(0, Finder())


def start_agent(bundle: bytes) -> None:
    """Start the agent from its modules, in a session of its own, holding nothing of ours."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.closerange(3, 4096)
        os.chdir("/")
        load(json.loads(zlib.decompress(bundle)))
        from sshpyk.agent.main import run

        run()
    finally:
        os._exit(1)


def hand_over(agent: socket.socket) -> None:
    """Give the agent our stdin and stdout, and sleep until it is done with them."""
    agent.sendmsg([b"c"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1]))])
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    agent.recv(1)


def read_bundle() -> bytes:
    """Read the agent's compressed modules, and their length in front."""
    return read_exactly(int(read_exactly(8), 16))


def bring_up(socket_name: str, bundle: bytes | None = None) -> socket.socket:
    """Start the agent and return a socket connected to it."""
    say("absent")
    if bundle is None:
        bundle = read_bundle()
    with folder_lock(private_folder(AGENT_FOLDER)):
        agent = connect(socket_name)
        if agent is None:  # nobody else was quicker
            start_agent(bundle)
        deadline_s = time.monotonic() + _START_PATIENCE_S
        while agent is None and time.monotonic() < deadline_s:
            time.sleep(0.01)
            agent = connect(socket_name)
    if agent is None:
        raise SystemExit("the agent did not start; its log is ~/.local/state/sshpyk/agent.log")
    say("started")
    return agent


def locate(socket_name: str, bundle_follows: int) -> None:
    """Do it all; the process ends with the connection."""
    bundle = read_bundle() if bundle_follows else None
    agent = connect(socket_name)
    if agent is None:
        agent = bring_up(socket_name, bundle)
    else:
        say("found")
    hand_over(agent)
