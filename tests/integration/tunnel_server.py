"""What tunnels lead to in these tests; runs with any Python, on the remote or on the laptop.

``python3 tunnel_server.py FOLDER`` listens on a free port (written to FOLDER/port) and on FOLDER/socket.
The first line of a connection says what it is for: ``echo``, ``send BYTES`` or ``hash``.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import sys
import threading

MB = 1024 * 1024


def block(number: int) -> bytes:
    """Return one of the megabytes that are sent: none is like the one before."""
    return random.Random(number % 16).randbytes(MB - 8) + number.to_bytes(8, "big")


def digest(size_bytes: int) -> str:
    """Return the hash of what ``send`` sends."""
    found = hashlib.sha256()
    for number in range(size_bytes // MB):
        found.update(block(number))
    return found.hexdigest()


def serve(connection: socket.socket) -> None:
    with connection, connection.makefile("rwb") as stream:
        word, *numbers = stream.readline().split()
        if word == b"send":
            for number in range(int(numbers[0]) // MB):
                stream.write(block(number))
        elif word == b"hash":
            found = hashlib.sha256()
            while data := stream.read1(65536):
                found.update(data)
            stream.write(found.hexdigest().encode())
        else:
            while data := stream.read1(65536):
                stream.write(data)
                stream.flush()


def accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def main(folder: str) -> None:
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(os.path.join(folder, "socket"))
    unix.listen(100)
    threading.Thread(target=accept, args=(unix,), daemon=True).start()
    tcp = socket.create_server(("127.0.0.1", 0), backlog=500)
    with open(os.path.join(folder, "port.new"), "w") as file:
        file.write(str(tcp.getsockname()[1]))
    os.rename(os.path.join(folder, "port.new"), os.path.join(folder, "port"))
    accept(tcp)


if __name__ == "__main__":
    main(sys.argv[1])
