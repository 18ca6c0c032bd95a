"""A DNS server and a DNS client of the smallest kind, for the names relay: real messages on real sockets, stdlib only.

    dns_peers.py serve ADDRESS...     answers on UDP and TCP port 53 of each; "ready" on stdout
    dns_peers.py ask ADDRESS KIND NAME [tcp]   prints what came back, as JSON

The server answers with one TXT record that says which of its addresses was asked, and by what; a name that begins with
``absent`` gets NXDOMAIN, and one with ``large`` a truncated answer by UDP.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading

KINDS = {"A": 1, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "HTTPS": 65}
HEADER = struct.Struct(">HHHHHH")
TRUNCATED = 0x0200


def query(name: str, kind: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    return HEADER.pack(0x4B52, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", KINDS[kind], 1)


def end_of_question(message: bytes) -> int:
    at = HEADER.size
    while message[at]:
        at += 1 + message[at]
    return at + 5


def answer(message: bytes, *, said: str, is_udp: bool) -> bytes:
    identifier = message[:2]
    question = message[HEADER.size : end_of_question(message)]
    first = question[1 : 1 + question[0]]
    if first == b"absent":
        return identifier + struct.pack(">HHHHH", 0x8183, 1, 0, 0, 0) + question
    if first == b"large" and is_udp:
        return identifier + struct.pack(">HHHHH", 0x8180 | TRUNCATED, 1, 0, 0, 0) + question
    text = said.encode()
    record = struct.pack(">HHHIH", 0xC00C, KINDS["TXT"], 1, 60, len(text) + 1) + bytes([len(text)]) + text
    return identifier + struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0) + question + record


def serve(address: str) -> None:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, 53))
    tcp = socket.create_server((address, 53))

    def by_udp() -> None:
        while True:
            message, client = udp.recvfrom(65535)
            udp.sendto(answer(message, said=f"{address} udp", is_udp=True), client)

    def by_tcp() -> None:
        while True:
            client, _ = tcp.accept()
            with client, client.makefile("rb") as stream:
                while length := stream.read(2):
                    message = stream.read(int.from_bytes(length, "big"))
                    answered = answer(message, said=f"{address} tcp", is_udp=False)
                    client.sendall(len(answered).to_bytes(2, "big") + answered)

    threading.Thread(target=by_udp, daemon=True).start()
    threading.Thread(target=by_tcp, daemon=True).start()


def ask(address: str, kind: str, name: str, *, is_tcp: bool) -> dict[str, object]:
    message = query(name, kind)
    if is_tcp:
        with socket.create_connection((address, 53), timeout=15) as connection, connection.makefile("rb") as stream:
            connection.sendall(len(message).to_bytes(2, "big") + message)
            got = stream.read(int.from_bytes(stream.read(2), "big"))
    else:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(15)
            udp.sendto(message, (address, 53))
            got = udp.recv(65535)
    identifier, flags, _, count, _, _ = HEADER.unpack_from(got)
    assert identifier == 0x4B52
    data = got[end_of_question(message) + 12 :] if count else b""
    return {
        "code": flags & 15,
        "count": count,
        "truncated": bool(flags & TRUNCATED),
        "data": ".".join(map(str, data)) if len(data) == 4 else data[1:].decode(),
    }


def main() -> None:
    match sys.argv[1:]:
        case ["serve", *addresses]:
            for address in addresses:
                serve(address)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            threading.Event().wait()
        case ["ask", address, kind, name, *rest]:
            sys.stdout.write(json.dumps(ask(address, kind, name, is_tcp=rest == ["tcp"])) + "\n")


if __name__ == "__main__":
    main()
