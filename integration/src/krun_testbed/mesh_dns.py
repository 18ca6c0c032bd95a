"""A name server for the testbed's meshes: a table of names and addresses, on a socket in any namespace."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from krun_testbed import dns_peers, mesh_sockets
from krun_testbed.mesh_network import Place

FOUND, UNKNOWN = 0x8580, 0x8583  # an authoritative answer: no error, no such name
LIFE = 5  # seconds that an answer may be kept


@dataclass(kw_only=True)
class NameServer:
    """``names`` may change at any time; ``questions`` has what was asked, as ``KIND NAME``."""

    address: str
    names: dict[str, str] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)

    def answer(self, message: bytes) -> bytes:
        """The answer to one question: the address, nothing for another kind, or that there is no such name."""
        end = dns_peers.end_of_question(message)
        question = message[dns_peers.HEADER.size : end]
        name, kind = _name(question), int.from_bytes(question[-4:-2])
        self.questions.append(f"{_word(kind)} {name}")
        address = self.names.get(name)
        flags = UNKNOWN if address is None else FOUND
        count = int(address is not None and kind == dns_peers.KINDS["A"])
        record = b""
        if address is not None and count:
            record = struct.pack(">HHHIH", 0xC00C, kind, 1, LIFE, 4) + socket.inet_aton(address)
        return message[:2] + struct.pack(">HHHHH", flags, 1, count, 0, 0) + question + record


@contextlib.contextmanager
def name_server(where: Place, address: str, **names: str) -> Iterator[NameServer]:
    """Answer at port 53 of an address of a namespace, by UDP and TCP."""
    server = NameServer(address=address, names=dict(names))

    def by_tcp(connected: socket.socket) -> None:
        with connected.makefile("rb") as stream:
            while length := stream.read(2):
                said = server.answer(stream.read(int.from_bytes(length)))
                connected.sendall(len(said).to_bytes(2) + said)

    def datagram() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, 53))
        return made

    udp = mesh_sockets.inside(where.pid, datagram)

    def by_udp() -> None:
        with contextlib.suppress(OSError):
            while True:
                message, client = udp.recvfrom(65535)
                if not message:
                    return
                udp.sendto(server.answer(message), client)

    thread = threading.Thread(target=by_udp, daemon=True)
    thread.start()
    try:
        with mesh_sockets.serving(where.listener(address, 53), by_tcp):
            yield server
    finally:
        # Shutting an unconnected datagram socket down wakes its reader, though it says that it cannot.
        with contextlib.suppress(OSError):
            udp.shutdown(socket.SHUT_RDWR)
        thread.join()
        udp.close()


def _name(question: bytes) -> str:
    labels, at = [], 0
    while size := question[at]:
        labels.append(question[at + 1 : at + 1 + size].decode("latin-1").lower())
        at += 1 + size
    return ".".join(labels)


def _word(kind: int) -> str:
    return next((word for word, number in dns_peers.KINDS.items() if number == kind), str(kind))
