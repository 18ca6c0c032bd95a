"""The kernel's list of TCP sockets: whether a connection arrived at a port that another program has."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from struct import pack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from krun_iptables.packet import Address

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
# States in which the client may still be there (include/net/tcp_states.h): established, half open, closed by the other
# side first. What an earlier client with the same port has left (TIME_WAIT, CLOSE_WAIT) is none of them.
ALIVE = ("01", "03", "04", "05")


def arrived(client: tuple[Address, int], port: int) -> bool:
    """Tell whether a socket at this local port has this client at its other end."""
    return any(_fits(line.split(), client, port) for table in TABLES for line in _lines(table))


def _fits(words: list[str], client: tuple[Address, int], port: int) -> bool:
    local, remote = words[1].split(":"), words[2].split(":")
    return words[3] in ALIVE and int(local[1], 16) == port and (_address(remote[0]), int(remote[1], 16)) == client


def _address(text: str) -> Address:
    """An address as /proc has it: words of four bytes in this machine's order."""
    packed = b"".join(pack("=I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8))
    if len(packed) == 4:
        return IPv4Address(packed)
    address = IPv6Address(packed)
    # A listener of IPv6 that takes IPv4 too.
    return address.ipv4_mapped or address


def _lines(table: Path) -> list[str]:
    try:
        return table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []
