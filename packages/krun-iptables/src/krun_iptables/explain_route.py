"""The kernel's way to an address: by which interface, and from which address of ours. Nothing is sent."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from krun_iptables.packet import LOOPBACK
from krun_iptables.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from krun_iptables.packet import Address, Network

ADDRESSES6 = Path("/proc/net/if_inet6")
ROUTES4, ROUTES6 = Path("/proc/net/route"), Path("/proc/net/ipv6_route")
REJECTED = 0x200  # RTF_REJECT, linux/route.h
ANY_PORT = 9


class Route(Record):
    """How to get to an address."""

    interface: str  # empty when it cannot be told
    source: Address
    local: bool  # it is an address of this machine


def family(address: Address) -> socket.AddressFamily:
    """Of a socket for this address."""
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def find(destination: Address) -> Route | None:
    """The way there; None when the kernel knows none, or when it is an address of ours that is not ready yet."""
    try:
        with socket.socket(family(destination), socket.SOCK_DGRAM) as asking:
            asking.connect((str(destination), ANY_PORT))
            source = ip_address(asking.getsockname()[0].partition("%")[0])
    except OSError:
        return None
    local = is_local(destination)
    if not local and _is_tentative(destination):
        return None
    return Route(interface=LOOPBACK if local else _interface(destination), source=source, local=local)


def is_local(address: Address) -> bool:
    """Tell whether it is an address of this machine: only such a one can be bound."""
    try:
        with socket.socket(family(address), socket.SOCK_DGRAM) as trying:
            trying.bind((str(address), 0))
    except OSError:
        return False
    return True


def _is_tentative(address: Address) -> bool:
    """Tell whether an address of this machine is still being asked for: until nobody answers, it is none of ours."""
    return address.version == 6 and any(int(words[0], 16) == int(address) for words in _lines(ADDRESSES6))


def neighbours() -> tuple[Network, ...]:
    """Networks that an interface of this machine is in, but loopback."""
    return tuple(network for network, interface, _ in _table() if network.prefixlen and interface != LOOPBACK)


def _interface(destination: Address) -> str:
    ways = [(network.prefixlen, -metric, name) for network, name, metric in _table() if destination in network]
    return max(ways)[2] if ways else ""


def _table() -> Iterator[tuple[Network, str, int]]:
    """Each route of the main tables: where to, by which interface, its metric."""
    for words in _lines(ROUTES4):
        if words[1].isalnum() and words[0] != "Iface" and not int(words[3], 16) & REJECTED:
            yield IPv4Network((_address4(words[1]), str(IPv4Address(_address4(words[7]))))), words[0], int(words[6])
    for words in _lines(ROUTES6):
        if not int(words[8], 16) & REJECTED:
            yield IPv6Network((int(words[0], 16), int(words[1], 16))), words[9], int(words[5], 16)


def _address4(text: str) -> int:
    """An address as /proc/net/route has it: in this machine's order of bytes."""
    return socket.ntohl(int(text, 16))


def _lines(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError:
        return []
