"""What is to be intercepted: decides it from the environment's texts, never touches the kernel."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from krun_iptables.contract import FOREIGN_PORTS, PORTS
from krun_iptables.errors import Misconfigured

INCLUDE = "OUTBOUND_IP_RANGES_INCLUDE"
EXCLUDE = "OUTBOUND_PORTS_EXCLUDE"
DEFAULT_RANGES = "10.0.0.0/8"
# Tunnels are mTLS or h2 already: captured once more, they would run in a circle.
ALWAYS_EXCLUDED = frozenset({*FOREIGN_PORTS, PORTS["HBONE_H2C"]})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Outgoing TCP to one of the ranges is intercepted, but for the excluded ports."""

    include: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    exclude_ports: tuple[int, ...]

    def as_json(self) -> dict[str, list[str] | list[int]]:
        """The settings as JSON values."""
        return {
            "outbound_ip_ranges_include": [str(network) for network in self.include],
            "outbound_ports_exclude": list(asdict(self)["exclude_ports"]),
        }


def settings(*, include: str, exclude_ports: str) -> Settings:
    """Read both lists (by comma); the result is sorted and without doubles.

    Raises:
        Misconfigured: a range or a port is wrong; the variable and the entry are named.
    """
    networks = {_network(text) for text in _entries(include)}
    if not networks:
        raise Misconfigured(
            f"{INCLUDE} holds no range: nothing would be intercepted", hint=f"the default is {DEFAULT_RANGES}"
        )
    ports = {_port(text) for text in _entries(exclude_ports)} | ALWAYS_EXCLUDED
    return Settings(
        include=tuple(sorted(networks, key=lambda one: (one.version, one.network_address, one.prefixlen))),
        exclude_ports=tuple(sorted(ports)),
    )


def _entries(text: str) -> Iterator[str]:
    return (entry.strip() for entry in text.split(",") if entry.strip())


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        hint = "ranges by comma, as 10.0.0.0/8,192.168.1.0/24"
        raise Misconfigured(f"{INCLUDE}: {text!r} is no range: {error}", hint=hint) from error


def _port(text: str) -> int:
    # isdecimal takes digits of other scripts too, which int() reads and iptables does not.
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise Misconfigured(f"{EXCLUDE}: {text!r} is no port", hint="ports from 1 to 65535 by comma, as 15008,15009")
    return int(text)
