"""One rule as data: what it matches, what becomes of the packet, and why; iptables and nft are two ways to write it."""

from __future__ import annotations

from krun_iptables.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from krun_iptables.network import Network

    Family = Literal[4, 6]
    Table = Literal["filter", "mangle", "nat", "raw"]

# Chains of the kernel, by iptables' names.
PREROUTING, INPUT, FORWARD, OUTPUT = "PREROUTING", "INPUT", "FORWARD", "OUTPUT"
BUILT_IN = (PREROUTING, INPUT, FORWARD, OUTPUT)
# Ours, by Istio's names (tools/istio-iptables/pkg/constants/constants.go).
IN = "ISTIO_INBOUND"
OUT = "ISTIO_OUTPUT"
OUT_DNS = "ISTIO_OUTPUT_DNS"
REDIRECT = "ISTIO_REDIRECT"
IN_REDIRECT = "ISTIO_IN_REDIRECT"
DIVERT = "ISTIO_DIVERT"
TPROXY = "ISTIO_TPROXY"
DROP = "ISTIO_DROP"
GUARD = "ISTIO_GUARD"  # krun's own, see guard
CHAINS = (IN, OUT, OUT_DNS, REDIRECT, IN_REDIRECT, DIVERT, TPROXY, DROP)


class Match(Record):
    """What a packet must be; what is not given is anything. A field with ``not_`` is what it must not be."""

    in_interface: str = ""
    out_interface: str = ""
    protocol: str = ""  # tcp, udp
    source: Network | None = None
    destination: Network | None = None
    not_destination: Network | None = None
    source_port: int = 0
    port: int = 0  # destination port
    not_ports: tuple[int, ...] = ()  # destination ports
    uid: str = ""  # of the socket's owner; a number, or a name where the kernel's tool is to look it up
    not_uid: str = ""
    gid: str = ""
    not_gids: tuple[str, ...] = ()  # it is in none of them
    mark: int | None = None
    not_mark: int | None = None
    connection_mark: int | None = None
    states: tuple[str, ...] = ()  # of conntrack: INVALID, RELATED, ESTABLISHED


ANY = Match()


class Target(Record):
    """What becomes of the packet. ``kind`` says which of the other fields counts."""

    # jump: to ``chain``; return, accept, drop; redirect: to local ``port``; tproxy: to ``port`` with ``mark``;
    # mark: set ``mark``; save: packet's mark to connection's; restore: connection's to packet's; zone: of conntrack
    kind: Literal["jump", "return", "accept", "drop", "redirect", "tproxy", "mark", "save", "restore", "zone"]
    chain: str = ""
    port: int = 0
    mark: int = 0
    zone: int = 0


RETURN = Target(kind="return")
ACCEPT = Target(kind="accept")
DISCARD = Target(kind="drop")


def jump(chain: str) -> Target:
    """To one of our chains."""
    return Target(kind="jump", chain=chain)


class Rule(Record):
    """One rule of one address family. ``position``: 0 to append, else where it is inserted, from 1."""

    family: Family
    table: Table
    chain: str
    match: Match = ANY
    target: Target
    reason: str
    position: int = 0
