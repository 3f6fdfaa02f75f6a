"""A kernel that prints as many numbers as the cell says, one message each, as fast as it can.

A second word in the cell is the number of characters that each line is filled up to, a third one
how many seconds to wait before, a fourth one how many lines to print in a second at most.

Run on the remote by the tests: ``burst_kernel.py FILE``. ipykernel's own queue towards a subscriber is
limited to 1000 messages and drops what is too much; this one's is not.
"""

from __future__ import annotations

import json
import sys
import time

import zmq
from jupyter_client.session import Session


def serve(info):
    """Answer requests until a shutdown."""
    context = zmq.Context()
    sockets = {}
    for name, kind in (("shell", zmq.ROUTER), ("control", zmq.ROUTER), ("stdin", zmq.ROUTER),
                       ("iopub", zmq.XPUB), ("hb", zmq.ROUTER)):  # fmt: skip
        sockets[name] = context.socket(kind)
        sockets[name].set_hwm(0)
        separator = "-" if info["transport"] == "ipc" else ":"
        sockets[name].bind(
            "%s://%s%s%d" % (info["transport"], info["ip"], separator, info[name + "_port"])
        )
    session = Session(key=info["key"].encode(), signature_scheme=info["signature_scheme"])
    poller = zmq.Poller()
    for name in ("shell", "control", "hb", "iopub"):
        poller.register(sockets[name], zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        for name in ("iopub", "hb"):
            if sockets[name] in ready:
                parts = sockets[name].recv_multipart()
                if name == "hb":
                    sockets[name].send_multipart(parts)
        for name in ("control", "shell"):
            if sockets[name] in ready and answer(session, sockets, name):
                context.destroy(linger=500)
                return


def answer(session, sockets, channel):
    """Answer one request; return whether it was a shutdown."""
    identities, message = session.recv(sockets[channel])
    kind, content = message["msg_type"], message["content"]

    def publish(kind, content):
        session.send(sockets["iopub"], kind, content, parent=message)

    publish("status", {"execution_state": "busy"})
    reply = {"status": "ok"}
    if kind == "kernel_info_request":
        language = {"name": "burst", "version": "1", "mimetype": "text/plain",
                    "file_extension": ".txt"}  # fmt: skip
        reply.update(protocol_version="5.3", implementation="burst", banner="",
                     implementation_version="1", language_info=language)  # fmt: skip
    elif kind == "execute_request":
        count, size, wait_s, rate = map(int, (content["code"] + " 0 0 0").split()[:4])
        time.sleep(wait_s)
        began_s = time.monotonic()
        for number in range(count):
            if rate:
                time.sleep(max(0, began_s + number / rate - time.monotonic()))
            text = str(number).ljust(size - 1, ".") + "\n" if size else str(number)
            publish("stream", {"name": "stdout", "text": text})
        reply.update(execution_count=1, user_expressions={})
    elif kind == "shutdown_request":
        reply["restart"] = content["restart"]
    session.send(
        sockets[channel],
        kind.replace("_request", "_reply"),
        reply,
        parent=message,
        ident=identities,
    )
    publish("status", {"execution_state": "idle"})
    return kind == "shutdown_request"


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        serve(json.load(file))
