"""Which connections prove a set of rules, on a machine that a test describes."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from krun_iptables.explain_route import Route
from krun_iptables.network import address, network
from krun_iptables.rule import Rule
from krun_iptables.rules import rules
from krun_iptables.settings import Settings
from krun_iptables.verify_owner import Owner
from krun_iptables.verify_plan import Plan, Probe, plan

APP, PROXY, PROXY_GROUP = Owner(uid=65534, gid=65534), Owner(uid=1337, gid=65534), Owner(uid=65534, gid=1337)
HERE = {4: ip_address("10.1.0.1"), 6: ip_address("2001:db8:1::1")}
NEAR = (ip_network("10.1.0.0/24"), ip_network("2001:db8:1::/64"))
EVERYTHING = Settings(all_outbound=True, all_inbound_ports=True, ipv6=True)


class Place:
    """A machine with one cable; as root unless it is said."""

    def __init__(self, *, is_root: bool = True, is_wired: bool = True) -> None:
        self.is_root = is_root
        self.is_wired = is_wired

    def route(self, destination: IPv4Address | IPv6Address) -> Route | None:
        own = HERE[destination.version]
        if destination.is_loopback or destination == own:
            return Route(interface="lo", source=destination, local=True)
        if not self.is_wired or not any(destination in network for network in NEAR):
            return None
        return Route(interface="eth0", source=own, local=False)

    def neighbours(self) -> Sequence[IPv4Network | IPv6Network]:
        return NEAR if self.is_wired else ()

    def owners(self) -> Sequence[Owner]:
        return (APP,)

    def uids(self, owner: Owner) -> tuple[str, ...]:
        return (str(owner.uid),)

    def gids(self, owner: Owner) -> tuple[str, ...]:
        return (str(owner.gid),)

    def proxies(self, rules: Sequence[Rule], application: Owner) -> Sequence[Owner]:
        return (PROXY, PROXY_GROUP) if self.is_root else ()


def planned(settings: Settings, *, is_root: bool = True, is_wired: bool = True) -> Plan:
    return plan(rules(settings), Place(is_root=is_root, is_wired=is_wired))


def ends(found: Plan, name: str) -> list[tuple[str, int]]:
    """What must become of the probes whose names begin so."""
    return [(probe.wanted.kind, probe.wanted.port) for probe in found.probes if probe.name.startswith(name)]


def first(found: Plan, name: str) -> Probe:
    return next(probe for probe in found.probes if probe.name.startswith(name))


def test_both_directions_of_both_families_are_tried() -> None:
    found = planned(EVERYTHING)
    for family in (4, 6):
        assert ends(found, f"outbound IPv{family} anywhere") == [("redirect", 15001)]
        assert ends(found, f"inbound IPv{family}") == [("redirect", 15006)]
        assert first(found, f"inbound IPv{family}").owner == PROXY


def test_each_range_is_tried_at_an_address_of_its_own_that_a_way_leads_to() -> None:
    ranges = (network("10.0.0.0/8"), network("10.1.0.128/25"), network("172.16.0.0/12"))
    found = planned(Settings(outbound_ranges=ranges))
    for one in ranges[:2]:
        probe = first(found, f"outbound IPv4 {one}")
        assert probe.packet.destination in one
        assert probe.packet.out_interface == "eth0"
    assert [one.reason for one in found.unproven if "172.16" in one.name] == ["no way leads to 172.16.0.0/12"]


def test_what_must_not_be_intercepted_differs_by_one_thing_only_from_what_must() -> None:
    settings = EVERYTHING.but(
        outbound_exclude_ports=(5432,), outbound_exclude_ranges=(network("10.1.0.7/32"),), ipv6=False
    )
    found = planned(settings)
    taken = first(found, "outbound IPv4")
    port, place = first(found, "excluded port 5432"), first(found, "excluded range 10.1.0.7/32")
    assert port.packet == taken.packet.but(port=5432)
    assert place.packet == taken.packet.but(destination=ip_address("10.1.0.7"))
    assert {probe.owner for probe in found.probes if probe.name.startswith("exempt owner")} == {PROXY, PROXY_GROUP}
    assert all(probe.wanted.kind == "pass" for probe in found.probes if not probe.is_intercepted)


def test_without_root_what_comes_in_is_told_as_not_provable() -> None:
    found = planned(EVERYTHING, is_root=False)
    assert ends(found, "inbound") == []
    assert {probe.owner for probe in found.probes} == {APP}
    assert {one.reason for one in found.unproven if one.name in ("inbound IPv4", "inbound IPv6")} == {
        "only root, or the proxy itself, can call as the proxy"
    }


def test_dns_is_asked_by_both_protocols_and_the_agents_own_question_passes() -> None:
    settings = Settings(all_outbound=True, redirect_dns=True, dns_servers=(address("10.1.0.53"),))
    found = planned(settings)
    asked = [probe for probe in found.probes if probe.name.startswith("DNS IPv4")]
    assert [(probe.packet.protocol, str(probe.packet.destination), probe.wanted.port) for probe in asked] == [
        ("tcp", "10.1.0.53", 15053),
        ("udp", "10.1.0.53", 15053),
    ]
    assert ends(found, "the agent's own DNS IPv4") == [("pass", 53), ("pass", 53)]


def test_where_no_way_leads_anywhere_nothing_is_tried_outwards_and_it_is_said() -> None:
    found = planned(EVERYTHING.but(all_inbound_ports=False), is_wired=False)
    assert ends(found, "outbound") == []
    assert [one.reason for one in found.unproven if one.name.startswith("outbound")] == ["no way leads to anywhere"] * 2


def test_rules_that_intercept_nothing_are_proven_by_nothing() -> None:
    found = planned(Settings(proxy_uids=("5",), proxy_gids=("5",)))
    assert [probe for probe in found.probes if probe.name.startswith(("outbound", "DNS"))] == []
    assert plan((), Place()) == Plan(probes=(), unproven=())


def test_of_a_long_list_some_are_tried() -> None:
    found = planned(Settings(outbound_ports=tuple(range(1000, 1100))))
    assert len(ends(found, "outbound IPv4")) == 8
