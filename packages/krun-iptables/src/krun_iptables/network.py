"""Addresses, and ranges of them, as rules hold them.

Not ipaddress: importing it, with functools and collections, takes longer than to decide all rules. Whoever has more to
ask than a rule has, as ``explain`` and ``verify``, uses that; a range of ours holds its addresses too.
"""

from __future__ import annotations

import _socket as socket  # without selectors and enum, as in kernel_state

from krun_iptables.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, Protocol

    class Packed(Protocol):
        """An address of whatever kind."""

        @property
        def packed(self) -> bytes:
            """In network order."""


MAPPED = bytes(10) + b"\xff\xff"  # what stands before an IPv4 address in an IPv6 one (RFC 4291, 2.5.5.2)
LOOPBACK6 = bytes(15) + b"\x01"


class Address(Record):
    """One address: 4 bytes in network order, or 16."""

    packed: bytes

    @property
    def version(self) -> Literal[4, 6]:
        """Of the protocol."""
        return 4 if len(self.packed) == 4 else 6

    @property
    def is_loopback(self) -> bool:
        """127.0.0.0/8 (RFC 1122) or ::1; ``::ffff:127.0.0.1`` is not, unless it is ``unmapped``."""
        return self.packed[0] == 127 if self.version == 4 else self.packed == LOOPBACK6

    @property
    def is_link_local(self) -> bool:
        """169.254.0.0/16 (RFC 3927) or fe80::/10 (RFC 4291)."""
        first, second = self.packed[:2]
        return (first, second) == (169, 254) if self.version == 4 else first == 0xFE and second >> 6 == 0b10

    @property
    def unmapped(self) -> Address:
        """The IPv4 address that an IPv6 one stands for, else itself."""
        return Address(packed=self.packed[12:]) if self.packed[:12] == MAPPED else self

    def __str__(self) -> str:
        if self.version == 4 or self.unmapped is not self:
            return ("" if self.version == 4 else "::ffff:") + ".".join(map(str, self.packed[-4:]))
        return _text6(self.packed)


class Network(Record):
    """All addresses that begin with the same bits."""

    network_address: Address  # no bit is set behind the length
    prefixlen: int  # how many bits that are

    @property
    def version(self) -> Literal[4, 6]:
        """Of the protocol."""
        return self.network_address.version

    def __contains__(self, one: Packed) -> bool:
        return len(one.packed) == len(self.network_address.packed) and (
            _masked(one.packed, self.prefixlen) == self.network_address.packed
        )

    def __str__(self) -> str:
        return f"{self.network_address}/{self.prefixlen}"


def address(text: str) -> Address:
    """Read one; no interface may be in it. Raises ValueError."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        return Address(packed=socket.inet_pton(family, text))
    except OSError:
        raise ValueError(f"{text!r} is no address") from None


def network(text: str) -> Network:
    """Read ADDRESS/LENGTH; bits behind the length are dropped. Raises ValueError."""
    front, slash, length = text.partition("/")
    found = address(front)
    bits = 8 * len(found.packed)
    if not slash or not (length.isascii() and length.isdecimal()) or len(length) > 3 or int(length) > bits:
        raise ValueError(f"an IPv{found.version} range has a length from 0 to {bits}")
    return Network(network_address=Address(packed=_masked(found.packed, int(length))), prefixlen=int(length))


def _masked(packed: bytes, length: int) -> bytes:
    """The first bits as they are, the others 0."""
    rest = 8 * len(packed) - length
    return (int.from_bytes(packed) >> rest << rest).to_bytes(len(packed))


def _text6(packed: bytes) -> str:
    """As RFC 5952 writes it: the longest run of two groups of 0 or more, the first of them, is left out."""
    groups = [f"{packed[at] << 8 | packed[at + 1]:x}" for at in range(0, 16, 2)]
    for count in range(8, 1, -1):
        for at in range(9 - count):
            if groups[at : at + count] == ["0"] * count:
                return f"{':'.join(groups[:at])}::{':'.join(groups[at + count :])}"
    return ":".join(groups)
