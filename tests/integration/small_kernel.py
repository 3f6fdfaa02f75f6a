"""A kernel in a language of its own, run on the remote by the tests: ``small_kernel.py MODE FILE``.

MODE is how it can be interrupted, and it is deaf to the other way: ``message`` ignores SIGINT;
``signal`` has never heard of interrupt_request. It refuses ipc, as bindings of some languages do.
The language: ``wait`` goes on until it is interrupted, ``pid`` tells the process, all else is echoed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import sys
import time
import uuid

import zmq

DELIMITER = b"<IDS|MSG>"


class SmallKernel:
    """One kernel; ``serve`` returns when a client asked for a shutdown."""

    def __init__(self, mode, info):
        if info["transport"] != "tcp":
            raise SystemExit("small_kernel: cannot open %(transport)s://%(ip)s" % info)
        self.mode, self.key, self.over, self.count = mode, info["key"].encode(), False, 0
        self.context = zmq.Context()
        kinds = {"shell": zmq.ROUTER, "control": zmq.ROUTER, "stdin": zmq.ROUTER,
                 "iopub": zmq.PUB, "hb": zmq.REP}  # fmt: skip
        self.sockets = {name: self.context.socket(kind) for name, kind in kinds.items()}
        for name, socket in self.sockets.items():
            socket.bind("tcp://%s:%d" % (info["ip"], info[name + "_port"]))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if mode == "signal":
            signal.signal(signal.SIGINT, self.note_interrupt)

    def note_interrupt(self, *_):
        self.interrupted = True

    def serve(self):
        while not self.over:
            self.serve_once(1000)

    def serve_once(self, patience_ms, names=("control", "shell", "hb")):
        """Serve one request; return whether it interrupts what is running."""
        poller = zmq.Poller()
        for name in names:
            poller.register(self.sockets[name], zmq.POLLIN)
        ready = dict(poller.poll(patience_ms))
        for name in names:
            if self.sockets[name] in ready:
                parts = self.sockets[name].recv_multipart()
                if name == "hb":
                    self.sockets["hb"].send_multipart(parts)
                else:
                    return self.answer(name, parts)
        return False

    def answer(self, channel, parts):
        at = parts.index(DELIMITER)
        header, content = json.loads(parts[at + 2]), json.loads(parts[at + 5])
        kind = header["msg_type"]
        if kind == "interrupt_request" and self.mode != "message":
            return False
        self.publish(header, "status", {"execution_state": "busy"})
        reply, interrupts = {"status": "ok"}, kind in ("interrupt_request", "shutdown_request")
        if kind == "kernel_info_request":
            language = {"name": "small", "version": "1", "mimetype": "text/plain",
                        "file_extension": ".small"}  # fmt: skip
            reply.update(protocol_version="5.3", implementation="small", banner="small",
                         implementation_version="1", language_info=language)  # fmt: skip
        elif kind == "execute_request":
            reply = self.execute(header, content["code"])
        elif kind == "shutdown_request":
            self.over, reply["restart"] = True, content["restart"]
        self.send(channel, parts[:at], header, kind.replace("_request", "_reply"), reply)
        self.publish(header, "status", {"execution_state": "idle"})
        return interrupts

    def execute(self, header, code):
        self.count, self.interrupted = self.count + 1, False
        text = "%d" % os.getpid() if code == "pid" else "%s" % code
        self.publish(header, "stream", {"name": "stdout", "text": text})
        if code == "wait" and not self.wait():
            error = {"ename": "Interrupted", "evalue": self.mode, "traceback": []}
            self.publish(header, "error", error)
            return dict(error, status="error", execution_count=self.count)
        return {"status": "ok", "execution_count": self.count, "user_expressions": {}}

    def wait(self):
        """Be busy; return False when interrupted."""
        deadline = time.time() + 60
        while time.time() < deadline and not self.interrupted:
            if self.serve_once(100, ("control", "hb")):
                return False
        return not self.interrupted

    def publish(self, parent, kind, content):
        self.send("iopub", [kind.encode()], parent, kind, content)

    def send(self, channel, identities, parent, kind, content):
        header = dict(parent, msg_type=kind, msg_id=uuid.uuid4().hex)
        body = [json.dumps(part).encode() for part in (header, parent, {}, content)]
        digest = hmac.new(self.key, b"".join(body), hashlib.sha256).hexdigest().encode()
        self.sockets[channel].send_multipart([*identities, DELIMITER, digest, *body])


if __name__ == "__main__":
    with open(sys.argv[2]) as file:
        kernel = SmallKernel(sys.argv[1], json.load(file))
    kernel.serve()
    kernel.context.destroy(linger=500)
