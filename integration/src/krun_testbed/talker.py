"""A TCP client and TCP listeners that say where a connection arrived and where it wanted to go; no package needed.

``talker.py listen ADDRESS:PORT...`` prints ``ready`` and answers each client with ``PORT ORIGINAL:PORT``.
``talker.py call ADDRESS PORT UID GID [SOURCE]`` calls as that user and prints the answer, or the name of the error.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - a name is encoded late, when a user may not read the library any more
import os
import selectors
import socket
import struct
import sys

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h
TIMEOUT = 3.0


def original(connection: socket.socket) -> str:
    """Where the client wanted to go, out of the kernel's table of connections."""
    try:
        packed = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
    except OSError:
        return "-"
    _, port, address = struct.unpack("!HH4s8x", packed)
    return f"{socket.inet_ntoa(address)}:{port}"


def listen(places: list[str]) -> None:
    """Serve for ever."""
    with selectors.DefaultSelector() as selector:
        for place in places:
            address, _, port = place.rpartition(":")
            selector.register(socket.create_server((address, int(port))), selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                server = key.fileobj
                assert isinstance(server, socket.socket)
                connection, _ = server.accept()
                with connection:
                    connection.sendall(f"{connection.getsockname()[1]} {original(connection)}\n".encode())


def call(address: str, port: str, uid: str, gid: str, source: str = "") -> None:
    """Call once."""
    if os.geteuid() == 0 and (int(uid), int(gid)) != (0, 0):
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    try:
        where = (source, 0) if source else None
        with socket.create_connection((address, int(port)), timeout=TIMEOUT, source_address=where) as connection:
            print(connection.makefile().readline().strip())
    except OSError as error:
        print(type(error).__name__)


if __name__ == "__main__":
    listen(sys.argv[2:]) if sys.argv[1] == "listen" else call(*sys.argv[2:])
