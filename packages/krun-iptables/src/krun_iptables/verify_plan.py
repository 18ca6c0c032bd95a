"""Rules to proofs: which connections show that they work, by walking them. Pure but for the machine that is given."""

from __future__ import annotations

import itertools
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from krun_iptables import rule as r
from krun_iptables.explain import explain
from krun_iptables.packet import LOOPBACK, Packet
from krun_iptables.record import Record
from krun_iptables.rules_dns import DNS
from krun_iptables.settings import PROBE_PORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Literal, Protocol

    from krun_iptables import network
    from krun_iptables.explain import Explanation
    from krun_iptables.explain_route import Route
    from krun_iptables.packet import Address, Network
    from krun_iptables.rule import Rule
    from krun_iptables.verify_owner import Owner

    class Machine(Protocol):
        """What a plan needs to know of where it is carried out."""

        def route(self, destination: Address) -> Route | None:
            """The way to an address; None: there is none."""

        def neighbours(self) -> Sequence[Network]:
            """Networks that it is in."""

        def owners(self) -> Sequence[Owner]:
            """Who can be tried as an application, the best first."""

        def uids(self, owner: Owner) -> tuple[str, ...]:
            """Number and name of its user."""

        def gids(self, owner: Owner) -> tuple[str, ...]:
            """Number and name of its group."""

        def proxies(self, rules: Sequence[Rule], application: Owner) -> Sequence[Owner]:
            """Who the proxy is, each differing from the application only by what a rule names."""


MOST = 8  # of ranges, ports or servers that are tried: a list may be long
# Where nobody lives (RFC 5737, RFC 3849), for rules that take every address.
NOWHERE = {
    4: tuple(map(ip_address, ("192.0.2.1", "198.51.100.1", "203.0.113.1"))),
    6: (ip_address("2001:db8::1"),),
}
# Envoy's pass-through address: Istio's validation dials it as the proxy (validation/validator.go).
PASSTHROUGH = {4: ip_address("127.0.0.6"), 6: ip_address("::6")}


class Probe(Record):
    """One connection, or one question of DNS, and what must become of it."""

    name: str
    packet: Packet
    owner: Owner
    wanted: Explanation

    @property
    def is_intercepted(self) -> bool:
        """Whether it must arrive at a port of ours."""
        return self.wanted.kind == "redirect"


class Unproven(Record):
    """What cannot be tried here, and why."""

    name: str
    reason: str


class Plan(Record):
    """All that is to be tried."""

    probes: tuple[Probe, ...]
    unproven: tuple[Unproven, ...]


def plan(rules: Sequence[Rule], machine: Machine, *, port: int = PROBE_PORT) -> Plan:
    """What these rules do on this machine, as far as it shows in connections that are made on it.

    ``port`` is what is dialled where no rule names one.
    """
    made = _Planner(rules, machine, port)
    for family in sorted({rule.family for rule in rules}):
        made.family(family)
    return Plan(probes=tuple(made.probes), unproven=tuple(made.unproven))


class _Planner:
    def __init__(self, rules: Sequence[Rule], machine: Machine, port: int) -> None:
        self.rules = rules
        self.port = port
        self.machine = machine
        self.probes: list[Probe] = []
        self.unproven: list[Unproven] = []

    def family(self, family: int) -> None:
        rules = [rule for rule in self.rules if rule.family == family and rule.table == "nat"]
        taken = self._outbound(rules, family)
        if taken is not None:
            self._spared(rules, taken)
        self._inbound(family, at=taken)
        self._dns(rules, family)

    def _outbound(self, rules: list[Rule], family: int) -> Probe | None:
        """What goes out, one for each range and each port by name; the first of them is returned."""
        first: Probe | None = None
        for rule in _leading(rules, r.OUT, r.REDIRECT)[:MOST]:
            where = str(rule.match.destination or "") or (f"port {rule.match.port}" if rule.match.port else "anywhere")
            name = f"outbound IPv{family} {where}"
            port = rule.match.port or self.port
            probe = self._first(name, self._places(rule.match.destination, family), port, end=r.REDIRECT)
            first = first or probe
            if probe is None:
                self.unproven.append(Unproven(name=name, reason=self._reason(rule.match.destination, family)))
            else:
                self.probes.append(probe)
        return first

    def _reason(self, whom: network.Network | None, family: int) -> str:
        """Why nothing can be tried."""
        if any(self.machine.route(place) for place in self._places(whom, family)):
            return "what this process may call as, the rules spare: root can try others"
        return f"no way leads to {whom or 'anywhere'}"

    def _first(
        self, name: str, places: Iterable[Address], port: int, *, end: str, protocol: Literal["tcp", "udp"] = "tcp"
    ) -> Probe | None:
        """The first that an application can try, and that ends in this chain; ways that leave the machine first."""
        for destination in sorted(places, key=self._is_own):
            for owner in self.machine.owners():
                probe = self._probe(name, destination, port, owner, protocol=protocol)
                if probe is not None and probe.wanted.chain == end:
                    return probe
        return None

    def _is_own(self, address: Address) -> bool:
        route = self.machine.route(address)
        return route is not None and route.local

    def _probe(
        self, name: str, destination: Address, port: int, owner: Owner, *, protocol: Literal["tcp", "udp"] = "tcp"
    ) -> Probe | None:
        route = self.machine.route(destination)
        if route is None:
            return None
        packet = Packet(
            destination=destination,
            port=port,
            protocol=protocol,
            source=route.source,
            out_interface=route.interface or "?",
            uids=self.machine.uids(owner),
            gids=self.machine.gids(owner),
        )
        wanted = explain(self.rules, packet, local=route.interface == LOOPBACK)
        return Probe(
            name=f"{name} ({protocol} {destination} port {port}, {owner.text})",
            packet=packet,
            owner=owner,
            wanted=wanted,
        )

    def _places(self, whom: network.Network | None, family: int) -> Iterator[Address]:
        """Addresses of a range, or anywhere; those that have a way of their own first."""
        within = None if whom is None else ip_network(str(whom))
        near = [other for other in self.machine.neighbours() if other.version == family]
        for other in near:
            inside = other if within is None else _common(other, within)
            if inside is not None:
                yield from _some(inside)
        yield from NOWHERE[family] if within is None else _some(within)

    def _spared(self, rules: list[Rule], taken: Probe) -> None:
        """Connections that differ from one that is taken, by a port, a range or an owner, and must not be."""
        packet, application = taken.packet, taken.owner
        for rule in _leading(rules, r.OUT, ""):
            match = rule.match
            if match.protocol == "tcp" and match.port:
                self._spare(f"excluded port {match.port}", packet.destination, match.port, application)
        for rule in _leading(rules, r.OUT, ""):
            if rule.match.destination and not rule.match.destination.network_address.is_loopback:
                for place in itertools.islice(self._places(rule.match.destination, packet.family), 1):
                    self._spare(f"excluded range {rule.match.destination}", place, packet.port, application)
        for owner in self.machine.proxies(self.rules, application):
            self._spare("exempt owner", packet.destination, packet.port, owner)

    def _spare(self, name: str, destination: Address, port: int, owner: Owner) -> None:
        probe = self._probe(f"{name} IPv{destination.version}", destination, port, owner)
        if probe is not None and probe.wanted.kind == "pass":
            self.probes.append(probe)

    def _inbound(self, family: int, *, at: Probe | None) -> None:
        """What comes in cannot be made here; but the proxy's calls to its own workload are led to the same port."""
        name = f"inbound IPv{family}"
        if any(rule.chain == r.PREROUTING and rule.target.chain == r.IN and rule.table != "raw" for rule in self.rules):
            reason = "only a connection from another machine shows it"
            self.unproven.append(Unproven(name=f"{name} from elsewhere", reason=reason))
        if not any(rule.target.chain == r.IN_REDIRECT and rule.chain == r.OUT for rule in self.rules):
            return
        own = [at.packet.source] if at is not None and at.packet.source is not None else []
        own += [
            route.source for place in self._places(None, family) if (route := self.machine.route(place)) is not None
        ]
        for application in self.machine.owners():
            for owner in (application, *self.machine.proxies(self.rules, application)):
                for destination in (PASSTHROUGH[family], *dict.fromkeys(own)):
                    probe = self._probe(name, destination, self.port, owner)
                    if probe is not None and probe.wanted.chain == r.IN_REDIRECT:
                        self.probes.append(probe)
                        return
        is_root = any(self.machine.proxies(self.rules, application) for application in self.machine.owners())
        reason = "this machine has no address" if is_root else "only root, or the proxy itself, can call as the proxy"
        self.unproven.append(Unproven(name=name, reason=reason))

    def _dns(self, rules: list[Rule], family: int) -> None:
        ends = [rule for rule in rules if rule.chain == r.OUT_DNS and rule.target.kind == "redirect"]
        for rule in ends[: 2 * MOST]:
            protocol: Literal["tcp", "udp"] = "udp" if rule.match.protocol == "udp" else "tcp"
            whom = rule.match.destination
            name = f"DNS IPv{family}"
            probe = self._first(name, self._places(whom, family), DNS, end=r.OUT_DNS, protocol=protocol)
            if probe is None:
                self.unproven.append(Unproven(name=f"{name} by {protocol}", reason=self._reason(whom, family)))
                continue
            self.probes.append(probe)
            for owner in self.machine.proxies(self.rules, probe.owner)[:1]:
                spared = self._probe(f"the agent's own {name}", probe.packet.destination, DNS, owner, protocol=protocol)
                if spared is not None and spared.wanted.kind == "pass":
                    self.probes.append(spared)


def _leading(rules: Iterable[Rule], chain: str, to: str) -> list[Rule]:
    """Rules of a chain that lead to another one; or, where none is named, that return."""
    return [
        rule
        for rule in rules
        if rule.chain == chain and (rule.target.chain == to if to else rule.target.kind == "return")
    ]


def _common(one: Network, other: Network) -> Network | None:
    """The smaller of two networks, where they overlap."""
    if one.version != other.version or not one.overlaps(other):
        return None
    return one if one.prefixlen >= other.prefixlen else other


def _some(network: Network) -> Iterator[Address]:
    """A few addresses of a network."""
    if network.num_addresses == 1:
        yield network.network_address
        return
    for number in (1, 2, 3, network.num_addresses // 2 + 1):
        if number < network.num_addresses:
            yield network[number]
