"""What a Jupyter server does that sshpyk sees: `python fake_jupyter.py -m MODULE OPTION...`.

``--say WORDS``: print them and end with 1. ``--stay``: do not heed SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

MODULE, OPTIONS = sys.argv[2], sys.argv[3:]
if MODULE not in ("jupyterlab", "notebook"):
    sys.exit(f"No module named {MODULE}")
if "--say" in OPTIONS:
    sys.exit(OPTIONS[OPTIONS.index("--say") + 1])

runtime = os.environ["JUPYTER_RUNTIME_DIR"]
path = os.path.join(runtime, f"jpserver-{os.getpid()}.json")
settings = dict(word.split("=", 1) for word in OPTIONS if "=" in word)
with open(os.environ["JUPYTER_TOKEN_FILE"]) as file:
    token = file.read()
info = {
    "base_url": "/",
    "hostname": "localhost",
    "password": False,
    "pid": os.getpid(),
    "port": 0,
    "root_dir": os.getcwd(),
    "secure": False,
    "sock": settings.get("--ServerApp.sock", ""),
    "token": token,
    "version": "2.0",
}
if info["sock"]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(info["sock"]))
    listener.listen()
else:
    listener = socket.create_server(("127.0.0.1", 0))
    info["port"] = listener.getsockname()[1]
with open(path, "w") as file:
    json.dump(info, file)


def end(number: int, frame: object) -> None:
    os.unlink(path)
    sys.exit(0)


signal.signal(signal.SIGTERM, signal.SIG_IGN if "--stay" in OPTIONS else end)
sys.stdout.write("token=...\n")
sys.stdout.flush()
while True:
    connection, _ = listener.accept()
    data = connection.recv(65536)
    if data:
        connection.sendall(data.upper())
    connection.close()
