"""What is to be intercepted: decides it from the environment's texts, never touches the kernel."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from krun_iptables.contract import FOREIGN_PORTS, FOREIGN_TUNNEL, PORTS
from krun_iptables.errors import Misconfigured

INCLUDE = "OUTBOUND_IP_RANGES_INCLUDE"
EXCLUDE = "OUTBOUND_PORTS_EXCLUDE"
INBOUND = "ISTIO_INBOUND_PORTS"
INBOUND_EXCLUDE = "ISTIO_LOCAL_EXCLUDE_PORTS"
UID = "PROXY_UID"
GID = "PROXY_GID"
EXEMPT = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"

DEFAULT_RANGES = "10.0.0.0/8"
# The uid and gid of Istio's proxy in all of its images; Envoy's own connections must not come back to it.
DEFAULT_OWNER = "1337"
EVERYTHING = "*"
ANYWHERE = ipaddress.IPv4Network("0.0.0.0/0")
# The whole of it, not Istio's 127.0.0.1/32: workloads of one machine take a loopback address each (KRUN_LOOPBACK).
LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
# Tunnels are mTLS or h2 already: captured once more, they would run in a circle.
ALWAYS_EXCLUDED = frozenset({FOREIGN_TUNNEL, PORTS["HBONE_H2C"]})
# What the platform, a prober or a scraper asks must answer without a certificate.
ALWAYS_EXCLUDED_INBOUND = frozenset({*FOREIGN_PORTS, PORTS["HBONE_H2C"], PORTS["STATUS"]})
# The kernel's own bound: the last one means "no id".
LARGEST_ID = 2**32 - 2


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All tuples are sorted and without doubles.

    Outgoing TCP to one of ``include`` is intercepted, but for ``exclude_ports`` and for the processes of the owners.
    Incoming TCP is intercepted at ``inbound_ports``, or at every port (``captures_all_inbound``), but for
    ``inbound_exclude_ports``.
    """

    include: tuple[ipaddress.IPv4Network, ...]
    exclude_ports: tuple[int, ...]
    captures_all_inbound: bool
    inbound_ports: tuple[int, ...]
    inbound_exclude_ports: tuple[int, ...]
    proxy_uids: tuple[int, ...]
    proxy_gids: tuple[int, ...]
    exempt_gids: tuple[int, ...]

    @property
    def captures_inbound(self) -> bool:
        """Whether incoming connections are intercepted at all."""
        return self.captures_all_inbound or bool(self.inbound_ports)

    def as_json(self) -> dict[str, list[str] | list[int]]:
        """The settings as JSON values, under the names of their variables in lower case."""
        return {
            INCLUDE.lower(): [str(network) for network in self.include],
            EXCLUDE.lower(): list(self.exclude_ports),
            INBOUND.lower(): [EVERYTHING] if self.captures_all_inbound else list(self.inbound_ports),
            INBOUND_EXCLUDE.lower(): list(self.inbound_exclude_ports),
            UID.lower(): list(self.proxy_uids),
            GID.lower(): list(self.proxy_gids),
            EXEMPT.lower(): list(self.exempt_gids),
        }


def settings(
    *,
    include: str = DEFAULT_RANGES,
    exclude_ports: str = "",
    inbound_ports: str = "",
    inbound_exclude_ports: str = "",
    proxy_uid: str = DEFAULT_OWNER,
    proxy_gid: str = DEFAULT_OWNER,
    exempt_gid: str = "",
) -> Settings:
    """Read the lists, each by comma.

    Raises:
        Misconfigured: an entry is wrong, or two contradict each other; the variable and the entry are named.
    """
    captures_all = inbound_ports.strip() == EVERYTHING
    return Settings(
        include=_networks(include),
        exclude_ports=_ports(EXCLUDE, exclude_ports, always=ALWAYS_EXCLUDED),
        captures_all_inbound=captures_all,
        inbound_ports=() if captures_all else _ports(INBOUND, inbound_ports),
        inbound_exclude_ports=_ports(INBOUND_EXCLUDE, inbound_exclude_ports, always=ALWAYS_EXCLUDED_INBOUND),
        proxy_uids=_owners(UID, proxy_uid),
        proxy_gids=_owners(GID, proxy_gid),
        exempt_gids=_ids(EXEMPT, exempt_gid),
    )


def _entries(text: str) -> Iterator[str]:
    return (entry.strip() for entry in text.split(",") if entry.strip())


def _networks(text: str) -> tuple[ipaddress.IPv4Network, ...]:
    networks = {_network(entry) for entry in _entries(text)}
    if not networks:
        raise Misconfigured(
            f"{INCLUDE} holds no range: nothing would be intercepted", hint=f"the default is {DEFAULT_RANGES}"
        )
    return tuple(sorted(networks))


def _network(text: str) -> ipaddress.IPv4Network:
    if text == EVERYTHING:
        return ANYWHERE
    hint = "ranges by comma, as 10.0.0.0/8,192.168.1.0/24; * is everything"
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise Misconfigured(f"{INCLUDE}: {text!r} is no range: {error}", hint=hint) from error
    if isinstance(network, ipaddress.IPv6Network):
        raise Misconfigured(f"{INCLUDE}: {text!r}: this version intercepts IPv4 only", hint="leave IPv6 ranges out")
    if network.subnet_of(LOOPBACK):
        raise Misconfigured(
            f"{INCLUDE}: {text!r}: loopback is never intercepted",
            hint=f"leave out what lies in {LOOPBACK}: parts of one workload talk there",
        )
    return network


def _ports(name: str, text: str, *, always: frozenset[int] = frozenset()) -> tuple[int, ...]:
    hint = "ports from 1 to 65535 by comma, as 15008,15009"
    if name == INBOUND:
        hint += "; * alone is every port"
    return tuple(sorted({_number(name, entry, "port", 1, 65535, hint) for entry in _entries(text)} | always))


def _owners(name: str, text: str) -> tuple[int, ...]:
    found = _ids(name, text)
    if not found:
        raise Misconfigured(
            f"{name} holds no id: the proxy's own connections would come back to it",
            hint=f"the default is {DEFAULT_OWNER}",
        )
    return found


def _ids(name: str, text: str) -> tuple[int, ...]:
    hint = "numbers by comma, as 1337; names of users and groups are not looked up"
    return tuple(sorted({_number(name, entry, "id", 0, LARGEST_ID, hint) for entry in _entries(text)}))


def _number(name: str, text: str, kind: str, least: int, most: int, hint: str) -> int:
    # isdecimal takes digits of other scripts too, which int() reads and iptables does not.
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and least <= int(text) <= most):
        raise Misconfigured(f"{name}: {text!r} is no {kind}", hint=hint)
    return int(text)
