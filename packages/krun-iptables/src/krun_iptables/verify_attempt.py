"""One connection of a proof, or one question of DNS: how it was begun, and what is known of it."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

from krun_iptables.record import Record

if TYPE_CHECKING:
    from krun_iptables.packet import Address
    from krun_iptables.verify_check import Check
    from krun_iptables.verify_listener import Key
    from krun_iptables.verify_plan import Probe

    Place = tuple[Address, int]

LONGEST = 512  # bytes of a question by UDP
ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
CLOSED = (errno.ECONNRESET, errno.EPIPE)  # errors of a connection that there was


class Arrival(Record):
    """Where a client has arrived."""

    port: int
    client: Place | None = None  # as the listener sees it
    wanted: Place | None = None  # where it wanted to go, by the kernel


class Attempt:
    """One connection on its way. ``number`` tells a question of DNS from the others of its round."""

    def __init__(self, probe: Probe, *, number: int) -> None:
        self.probe = probe
        self.number = number
        self.client: socket.socket | None = None
        self.name: Place | None = None  # its own address, by which a listener sees it
        self.untried: Check | None = None  # why it could not be begun
        self.arrival: Arrival | None = None
        self.is_connected = False
        self.is_answered = False
        self.is_ended = False
        self.error = 0

    @property
    def is_tcp(self) -> bool:
        return self.probe.packet.protocol == "tcp"

    @property
    def is_over(self) -> bool:
        return self.untried is not None or self.is_answered or self.is_ended or bool(self.error)

    @property
    def is_refused(self) -> bool:
        """Nobody took it; its port is somebody else's by now, maybe one's of the same round."""
        return bool(self.error) and not self.is_connected

    @property
    def where(self) -> Key:
        """The listener that it must be led to."""
        packet = self.probe.packet
        return (packet.family, packet.protocol, self.probe.wanted.port)

    def begin(self, client: socket.socket, *, token: bytes) -> None:
        """Connect, which goes on later, or ask.

        Raises:
            OSError: no port is free; whatever comes after that is the connection's error.
        """
        self.client = client
        packet = self.probe.packet
        # Bound first, so that its port is its own: to two destinations the kernel gives one port twice.
        is_local = packet.source is not None and packet.source.is_loopback
        client.bind((str(packet.source) if is_local else ANY[client.family], 0))
        try:
            status = client.connect_ex((str(packet.destination), packet.port))
            self.error = 0 if status == errno.EINPROGRESS else status
            self.name = place(client.getsockname())
            if not self.is_tcp:
                client.send(_question(worded(token, self.number)))
        except OSError as error:
            self.error = error.errno or errno.EIO

    def connected(self, client: socket.socket) -> None:
        """The connection stands, or could not be made."""
        self.error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self.is_connected = self.error in (0, *CLOSED)

    def heard(self, client: socket.socket, *, token: bytes) -> int | None:
        """See what was said to it; returns the number that a listener of ours said."""
        try:
            said = client.recv(LONGEST)
        except OSError as error:
            self.error = error.errno or errno.EIO
            return None
        number = read(token, said)
        self.is_answered, self.is_ended = number is not None, number is None
        return number

    @property
    def reason(self) -> str:
        """What the kernel says of it; empty: nothing."""
        return os.strerror(self.error).lower() if self.error else ""


def worded(token: bytes, number: int) -> bytes:
    """A number as nobody else says it."""
    return b"%b%08x" % (token, number)


def read(token: bytes, said: bytes) -> int | None:
    """The number that was said so; None: it was somebody else."""
    _, found, rest = said.partition(token)
    try:
        return int(rest[:8], 16) if found else None
    except ValueError:
        return None


def place(name: tuple[str, int]) -> Place:
    """An address with its port, of a socket's name."""
    return ip_address(name[0].partition("%")[0]), name[1]


def _question(label: bytes) -> bytes:
    """A question of DNS for LABEL.invalid, as a real server may get it: a name that there is nowhere (RFC 6761)."""
    names = b"".join(bytes([len(one)]) + one for one in (label, b"invalid"))
    return secrets.token_bytes(2) + b"\x01\x00" + b"\x00\x01" + b"\x00\x00" * 3 + names + b"\x00\x00\x01\x00\x01"
