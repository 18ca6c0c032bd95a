"""One packet as data, and whether a rule's match fits it: the first of a connection, or one of UDP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krun_iptables.record import Record

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
    from typing import Literal

    from krun_iptables.rule import Family, Match

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network

LOOPBACK = "lo"


class Packet(Record):
    """A packet on its way. One that was made here has no ``in_interface``, and has owners.

    ``uids`` and ``gids`` are the names of its owner, the number first: rules may have a number or a name.
    """

    destination: Address
    port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    source: Address | None = None  # not known: no rule about a source fits
    source_port: int = 0
    in_interface: str = ""
    out_interface: str = ""
    uids: tuple[str, ...] = ()
    gids: tuple[str, ...] = ()
    state: Literal["NEW", "RELATED", "ESTABLISHED", "INVALID"] = "NEW"
    mark: int = 0
    connection_mark: int = 0
    zone: int = 0

    @property
    def family(self) -> Family:
        """Of its addresses: 4 or 6."""
        return 4 if self.destination.version == 4 else 6


def fits(match: Match, packet: Packet) -> bool:
    """Whether it is all that the match asks for."""
    return not misfit(match, packet)


def misfit(match: Match, packet: Packet) -> str:
    """The first thing of the packet that is not as the match has it, as a word; empty when it fits."""
    tests = (
        ("interface", match.in_interface, not _same(match.in_interface, packet.in_interface)),
        ("interface", match.out_interface, not _same(match.out_interface, packet.out_interface)),
        ("protocol", match.protocol, match.protocol != packet.protocol),
        ("source", match.source, match.source and (packet.source is None or packet.source not in match.source)),
        ("destination", match.destination, match.destination and packet.destination not in match.destination),
        ("destination", match.not_destination, match.not_destination and packet.destination in match.not_destination),
        ("source port", match.source_port, match.source_port != packet.source_port),
        ("port", match.port, match.port != packet.port),
        ("port", match.not_ports, packet.port in match.not_ports),
        ("user", match.uid, match.uid not in packet.uids),
        ("user", match.not_uid, match.not_uid in packet.uids),
        ("group", match.gid, match.gid not in packet.gids),
        ("group", match.not_gids, any(gid in packet.gids for gid in match.not_gids)),
        ("mark", match.mark is not None, match.mark != packet.mark),
        ("mark", match.not_mark is not None, match.not_mark == packet.mark),
        ("connection's mark", match.connection_mark is not None, match.connection_mark != packet.connection_mark),
        ("state", match.states, packet.state not in match.states),
    )
    return next((word for word, asked, differs in tests if asked and differs), "")


def _same(wanted: str, interface: str) -> bool:
    """Whether an interface is the one of a rule; there ``eth+`` (nft: ``eth*``) is every one that begins with eth."""
    if wanted.endswith(("+", "*")):
        return interface.startswith(wanted[:-1])
    return wanted == interface
