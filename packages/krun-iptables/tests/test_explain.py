"""What becomes of packets by rules that settings give: where they end, and which rule decides."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from krun_iptables.explain import Explanation, chains, explain
from krun_iptables.explain_text import as_json, decision, lines
from krun_iptables.network import address, network
from krun_iptables.packet import Packet
from krun_iptables.rule import ANY, RETURN, Match, Rule, Target, jump
from krun_iptables.rules import rules
from krun_iptables.settings import Settings

APP, PROXY = ("1000", "app"), ("1337", "istio-proxy")
EVERYTHING = Settings(all_outbound=True, all_inbound_ports=True, ipv6=True)


def leaving(
    settings: Settings, destination: str, port: int, *, who: tuple[str, ...] = APP, by: str = "eth0", **more: object
) -> Explanation:
    packet = Packet(destination=ip_address(destination), port=port, out_interface=by, uids=who, gids=who)
    return explain(rules(settings), packet.but(**more), local=by == "lo")


def arriving(settings: Settings, port: int, **more: object) -> Explanation:
    packet = Packet(destination=ip_address("10.1.0.1"), source=ip_address("10.1.0.2"), port=port, in_interface="eth0")
    return explain(rules(settings), packet.but(**more))


def end(found: Explanation) -> tuple[str, int]:
    return found.kind, found.port


@pytest.mark.parametrize("address", ["10.0.0.1", "2001:db8::1"])
def test_what_goes_out_is_led_to_envoy_by_the_rule_of_its_range(address: str) -> None:
    found = leaving(EVERYTHING, address, 443)
    assert end(found) == ("redirect", 15001)
    assert found.rule is not None
    assert (found.rule.chain, found.rule.target.chain, found.chain) == (
        "ISTIO_OUTPUT",
        "ISTIO_REDIRECT",
        "ISTIO_REDIRECT",
    )
    assert decision(found) == "led to Envoy's outbound port 15001: all that is left is intercepted"


def test_an_address_outside_of_the_ranges_leaves_and_no_rule_decides() -> None:
    found = leaving(Settings(outbound_ranges=(network("10.0.0.0/8"),)), "192.0.2.1", 443)
    assert (end(found), found.rule) == (("pass", 443), None)
    assert decision(found) == "leaves as it is: no rule intercepts tcp to 192.0.2.1:443"


def test_without_rules_of_its_family_that_is_what_is_said() -> None:
    found = leaving(Settings(all_outbound=True), "2001:db8::1", 443)
    assert decision(found) == "leaves as it is: there is no rule for IPv6"


def test_an_excluded_port_leaves_and_its_rule_decides() -> None:
    found = leaving(EVERYTHING.but(outbound_exclude_ports=(5432,)), "10.0.0.1", 5432)
    assert end(found) == ("pass", 5432)
    assert decision(found) == "leaves as it is: port 5432 is never intercepted outwards"


def test_udp_is_not_redirected() -> None:
    assert end(leaving(EVERYTHING, "10.0.0.1", 443, protocol="udp")) == ("pass", 443)


def test_the_proxys_own_connections_leave() -> None:
    found = leaving(EVERYTHING, "10.0.0.1", 443, who=PROXY)
    assert end(found) == ("pass", 443)
    assert "uid 1337" in decision(found)


def test_the_proxys_call_to_its_own_workload_comes_in_as_others_do() -> None:
    assert end(leaving(EVERYTHING, "10.1.0.1", 8080, who=PROXY, by="lo")) == ("redirect", 15006)
    assert end(leaving(EVERYTHING, "10.1.0.1", 8080, who=APP, by="lo")) == ("pass", 8080)
    assert end(leaving(EVERYTHING, "10.1.0.1", 15008, who=PROXY, by="lo")) == ("pass", 15008)


def test_a_connection_that_stays_here_passes_prerouting_of_mangle_but_not_of_nat() -> None:
    tproxy = EVERYTHING.but(mode="TPROXY", virtual_interfaces=("lo",))
    found = leaving(tproxy, "10.1.0.1", 8080, by="lo")
    seen = {(step.rule.table, step.rule.chain) for step in found.steps}
    assert ("mangle", "PREROUTING") in seen
    assert ("nat", "PREROUTING") not in seen


def test_what_comes_in_is_led_to_envoys_inbound_port_but_for_excluded_ports() -> None:
    settings = EVERYTHING.but(inbound_exclude_ports=(15090,))
    assert end(arriving(settings, 8080)) == ("redirect", 15006)
    found = arriving(settings, 15090)
    assert end(found) == ("pass", 15090)
    assert decision(found).startswith("arrives as it is: ")


def test_with_tproxy_it_keeps_its_source_address_and_a_known_connection_is_diverted() -> None:
    settings = EVERYTHING.but(mode="TPROXY")
    found = arriving(settings, 8080)
    assert end(found) == ("tproxy", 15006)
    assert decision(found).startswith("led to Envoy's inbound port 15006, with its source address: ")
    assert arriving(settings, 8080, state="ESTABLISHED").kind == "pass"


def test_what_no_connection_expects_is_dropped() -> None:
    settings = EVERYTHING.but(drop_invalid=True)
    found = arriving(settings, 8080, state="INVALID")
    assert found.kind == "drop"
    assert decision(found).startswith("dropped: ")
    assert as_json(found)["arrives_at"] is None
    assert end(arriving(settings, 8080)) == ("redirect", 15006)


def test_dns_goes_to_the_agent_and_the_agents_own_question_to_its_server() -> None:
    settings = EVERYTHING.but(redirect_dns=True, dns_servers=(address("10.0.0.10"),))
    for protocol in ("tcp", "udp"):
        assert end(leaving(settings, "10.0.0.10", 53, protocol=protocol)) == ("redirect", 15053)
        assert end(leaving(settings, "10.0.0.10", 53, protocol=protocol, who=PROXY)) == ("pass", 53)
    assert end(leaving(settings, "10.0.0.11", 53, protocol="udp")) == ("pass", 53)
    assert leaving(settings, "10.0.0.10", 53, protocol="udp").zone == 2
    # The rule of the question stands behind that of the owner, and comes too late.
    assert leaving(settings, "10.0.0.10", 53, protocol="udp", who=PROXY).zone == 1
    assert end(leaving(settings.but(capture_all_dns=True), "10.0.0.11", 53, protocol="udp")) == ("redirect", 15053)


def test_an_excluded_interface_is_left_alone_in_both_directions() -> None:
    settings = EVERYTHING.but(exclude_interfaces=("eth1",))
    assert end(leaving(settings, "10.0.0.1", 443, by="eth1")) == ("pass", 443)
    assert end(arriving(settings, 8080, in_interface="eth1")) == ("pass", 8080)
    assert end(arriving(settings, 8080)) == ("redirect", 15006)


def test_what_a_virtual_interface_brings_goes_out() -> None:
    settings = EVERYTHING.but(virtual_interfaces=("vm0",))
    found = arriving(settings, 443, in_interface="vm0", destination=ip_address("192.0.2.1"))
    assert end(found) == ("redirect", 15001)


def test_groups_are_told_by_number_and_by_name() -> None:
    for group in APP:
        assert end(leaving(EVERYTHING.but(exclude_groups=(group,)), "10.0.0.1", 443)) == ("pass", 443)
        only = EVERYTHING.but(all_groups=False, groups=("7", group))
        assert end(leaving(only, "10.0.0.1", 443)) == ("redirect", 15001)
        assert end(leaving(only, "10.0.0.1", 443, who=("5",))) == ("pass", 443)


def test_a_rule_with_a_position_stands_there() -> None:
    def rule(port: int, position: int) -> Rule:
        return Rule(
            family=4, table="nat", chain="OUTPUT", match=Match(port=port), target=RETURN, reason="", position=position
        )

    made = [rule(1, 0), rule(2, 1), rule(3, 0), rule(4, 2), rule(5, 1)]
    assert [one.match.port for one in chains(made, 4)["nat", "OUTPUT"]] == [5, 2, 4, 1, 3]


def test_a_return_goes_back_to_the_rule_behind_the_jump_and_an_accept_ends_the_table() -> None:
    def rule(chain: str, target: Target) -> Rule:
        return Rule(family=4, table="nat", chain=chain, match=ANY, target=target, reason=chain)

    to = Target(kind="redirect", port=1)
    packet = Packet(destination=ip_address("10.0.0.1"), port=80)
    for inner, kind in ((RETURN, "redirect"), (Target(kind="accept"), "pass"), (Target(kind="drop"), "drop")):
        walked = [rule("OUTPUT", jump("ISTIO_OUTPUT")), rule("ISTIO_OUTPUT", inner), rule("OUTPUT", to)]
        assert explain(walked, packet).kind == kind


def test_every_rule_that_was_looked_at_is_kept_with_its_place_and_what_differed() -> None:
    found = leaving(EVERYTHING.but(outbound_exclude_ports=(5432,)), "10.0.0.1", 443)
    matched = [step for step in found.steps if not step.misfit and step.rule.table == "nat"]
    assert [(step.rule.chain, step.rule.target.kind) for step in matched] == [
        ("OUTPUT", "jump"),
        ("ISTIO_OUTPUT", "jump"),
        ("ISTIO_REDIRECT", "redirect"),
    ]
    assert next(step for step in found.steps if step.misfit).misfit == "port"
    short, long = list(lines(found)), list(lines(found, all_steps=True))
    assert set(short) < set(long)
    assert "=> nat ISTIO_OUTPUT" in "\n".join(short)
    assert any("not: its port differs" in line for line in long)


def test_the_json_says_the_same() -> None:
    row = as_json(leaving(EVERYTHING, "2001:db8::1", 443))
    assert (row["decision"], row["arrives_at"], row["direction"], row["uid"]) == ("redirect", 15001, "outbound", "1000")
    steps = row["steps"]
    assert isinstance(steps, list)
    assert [step["number"] for step in steps if step["chain"] == "ISTIO_OUTPUT"] == list(range(1, len(steps) - 1))
