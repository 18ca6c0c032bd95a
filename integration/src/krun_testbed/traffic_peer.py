"""Callers and listeners of tests of interception, both families, TCP and UDP; no package needed.

``traffic_peer.py listen NAME PLACE...`` prints ``ready`` and tells every client where it arrived, as a line of JSON. A
place is ``KIND:UID:ADDRESS:PORT``; kinds are ``tcp``, ``udp``, ``tproxy`` (a listener that takes others' addresses) and
``relay`` (such a one that hands the connection on to where it wanted to go, with its client's address, as Envoy does).
``traffic_peer.py stray ADDRESS PORT KNOWN`` sends a packet of no connection to a port, then connects to a port
that is KNOWN to answer, and prints what came back for the packet: ``reset`` or ``silence``.
``traffic_peer.py call`` reads calls from stdin, a line of JSON each, and prints what came of each.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - a name is encoded late
import json
import os
import selectors
import socket
import struct
import sys

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h; of IPv6 the same
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75  # linux/in.h, linux/in6.h
SO_MARK = 36
MARK = 1337  # of what Envoy sends with a client's address
TIMEOUT = 3.0


def opened(family: int, kind: int, uid: int, gid: int) -> socket.socket:
    """A socket of a user: rules tell owners by who opened it."""
    os.setegid(gid)
    os.seteuid(uid)
    try:
        return socket.socket(family, kind)
    finally:
        os.seteuid(0)
        os.setegid(0)


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def transparent(made: socket.socket) -> None:
    if made.family == socket.AF_INET:
        made.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
    else:
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)


def original(connection: socket.socket) -> str:
    """Where the client wanted to go, out of the kernel's table of connections."""
    try:
        if connection.family == socket.AF_INET:
            port, packed = struct.unpack("!2xH4s8x", connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16))
        else:
            port, packed = struct.unpack("!2xH4x16s4x", connection.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28))
    except OSError:
        return ""
    return f"{socket.inet_ntop(connection.family, packed)} {port}"


def listener(kind: str, uid: int, address: str, port: int) -> socket.socket:
    made = opened(family_of(address), socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM, uid, uid)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if kind in ("tproxy", "relay"):
        transparent(made)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    if kind != "udp":
        made.listen(64)
    return made


def told(name: str, port: int, client: str, wanted: str, local: str) -> bytes:
    return (json.dumps({"by": name, "at": port, "from": client, "wanted": wanted, "local": local}) + "\n").encode()


def relayed(client: socket.socket, uid: int) -> bytes:
    """What the application says to a client whose address we take."""
    with opened(client.family, socket.SOCK_STREAM, uid, uid) as onward:
        onward.settimeout(TIMEOUT)
        transparent(onward)
        onward.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
        onward.bind((client.getpeername()[0], 0))
        onward.connect(client.getsockname()[:2])
        return onward.makefile("rb").readline()


def listen(name: str, places: list[str]) -> None:
    """Serve for ever."""
    with selectors.DefaultSelector() as selector:
        for place in places:
            kind, uid, rest = place.split(":", 2)
            address, _, port = rest.rpartition(":")
            selector.register(
                listener(kind, int(uid), address, int(port)), selectors.EVENT_READ, (kind, int(uid), int(port))
            )
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                server, (kind, uid, port) = key.fileobj, key.data
                assert isinstance(server, socket.socket)
                # A client that is gone, or an application that does not answer, is the client's to report.
                with contextlib.suppress(OSError):
                    if kind == "udp":
                        _, client = server.recvfrom(512)
                        server.sendto(told(name, port, client[0], "", ""), client)
                        continue
                    connection, client = server.accept()
                    with connection:
                        local = connection.getsockname()
                        said = told(name, port, client[0], original(connection), f"{local[0]} {local[1]}")
                        connection.sendall(relayed(connection, uid) if kind == "relay" else said)


def called(address: str, port: int, protocol: str, uid: int, gid: int, source: str, source_port: int) -> str:
    """What the listener says at whom a call arrives, or why none does."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    try:
        with opened(family_of(address), kind, uid, gid) as client:
            client.settimeout(TIMEOUT)
            if source or source_port:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind((source, source_port))
            client.connect((address, port))
            if protocol == "udp":
                client.send(b"question")
                return client.recv(512).decode()
            return client.makefile().readline() or "{}\n"
    except OSError as error:
        return json.dumps({"error": type(error).__name__}) + "\n"


def checksum(data: bytes) -> int:
    """The internet's (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def stray(address: str, port: int, known: int) -> str:
    """A SYN-ACK that answers nothing: a host resets it, unless its rules drop it."""
    family = family_of(address)
    # Ours, as the kernel would choose it.
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((address, port))
        mine = asking.getsockname()
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.settimeout(TIMEOUT)
        segment = struct.pack("!HHIIBBHHH", mine[1], port, 1, 1, 5 << 4, 0x12, 1024, 0, 0)
        ends = socket.inet_pton(family, mine[0]) + socket.inet_pton(family, address)
        total = checksum(ends + struct.pack("!II", len(segment), socket.IPPROTO_TCP) + segment)
        raw.sendto(segment[:16] + struct.pack("!H", total) + segment[18:], (address, 0))
        with socket.create_connection((address, known), timeout=TIMEOUT) as connection:
            connection.recv(512)
        # What came for the packet came before what came for the connection.
        while True:
            packet = raw.recv(2048)
            tcp = packet[(packet[0] & 15) * 4 :] if family == socket.AF_INET else packet
            its_port, my_port = struct.unpack("!HH", tcp[:4])
            if (its_port, my_port) == (port, mine[1]):
                return "reset" if tcp[13] & 4 else "something else"
            if its_port == known:
                return "silence"


def main() -> None:
    if sys.argv[1] == "listen":
        listen(sys.argv[2], sys.argv[3:])
    if sys.argv[1] == "stray":
        print(stray(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
        return
    for line in sys.stdin:
        sys.stdout.write(called(**json.loads(line)))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
