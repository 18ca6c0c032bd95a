"""Settings to rules: which rule is there for which setting, in which order, and what holds for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from krun_iptables import rule as r
from krun_iptables.network import address, network
from krun_iptables.restore import chains, listing
from krun_iptables.routes import Routes
from krun_iptables.rules import routes, rules
from krun_iptables.settings import Settings

if TYPE_CHECKING:
    from krun_iptables.rule import Family, Rule

ports = st.lists(st.integers(1, 65535), max_size=4).map(tuple)
ids = st.lists(st.integers(0, 2**32 - 2).map(str), min_size=1, max_size=3).map(tuple)
networks = st.builds(lambda one, bits: network(f"{one}/{bits}"), st.ip_addresses(v=4), st.integers(0, 32)) | st.builds(
    lambda one, bits: network(f"{one}/{bits}"), st.ip_addresses(v=6), st.integers(0, 128)
)
ranges = st.lists(networks, max_size=3).map(tuple)
interfaces = st.lists(st.sampled_from(["eth0", "eth1", "tap0"]), max_size=3).map(tuple)
any_settings = st.builds(
    Settings,
    proxy_uids=ids,
    proxy_gids=ids,
    mode=st.sampled_from(["REDIRECT", "TPROXY"]),
    all_inbound_ports=st.booleans(),
    inbound_ports=ports,
    inbound_exclude_ports=ports,
    inbound_is_optional=st.booleans(),
    all_outbound=st.booleans(),
    outbound_ranges=ranges,
    outbound_exclude_ranges=ranges,
    outbound_ports=ports,
    outbound_exclude_ports=ports,
    all_groups=st.booleans(),
    groups=ids | st.just(()),
    exclude_groups=ids | st.just(()),
    exclude_interfaces=interfaces,
    virtual_interfaces=interfaces,
    drop_invalid=st.booleans(),
    ipv6=st.booleans(),
    redirect_dns=st.booleans(),
    capture_all_dns=st.booleans(),
    dns_servers=st.lists(st.ip_addresses().map(lambda one: address(str(one))), max_size=3).map(tuple),
)
FAMILIES: tuple[Family, ...] = (4, 6)


def texts(decided: Settings, family: Family = 4, table: str = "nat") -> list[str]:
    return [text for found, text in listing(rules(decided), family=family) if found == table]


def test_a_call_without_settings_makes_chains_and_intercepts_nothing() -> None:
    own = "-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32"
    assert listing(rules(Settings()), family=4) == tuple(
        ("nat", text)
        for text in (
            "-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN",
            "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
            "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
            "-A OUTPUT -j ISTIO_OUTPUT",
            "-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN",
            f"{own} -p tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT",
            "-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN",
            "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN",
            f"{own} -p tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT",
            "-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN",
            "-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN",
            "-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN",
        )
    )
    assert listing(rules(Settings()), family=6) == ()


def test_krun_leaves_out_what_leads_to_the_inbound_port_while_nobody_has_to_listen_there() -> None:
    own = Settings(
        inbound_is_optional=True,
        loopback=network("127.0.0.0/8"),
        outbound_ranges=(network("10.0.0.0/8"),),
        outbound_exclude_ports=(15008,),
    )
    assert texts(own) == [
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
        "-A OUTPUT -j ISTIO_OUTPUT",
        "-A ISTIO_OUTPUT -p tcp --dport 15008 -j RETURN",
        "-A ISTIO_OUTPUT -p udp --dport 15008 -j RETURN",
        "-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN",
        "-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN",
        "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN",
        "-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN",
        "-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN",
        "-A ISTIO_OUTPUT -d 127.0.0.0/8 -j RETURN",
        "-A ISTIO_OUTPUT -d 10.0.0.0/8 -j ISTIO_REDIRECT",
    ]
    assert texts(own.but(inbound_ports=(8080,)))[:4] == [
        "-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN",
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
        "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
        "-A PREROUTING -p tcp -j ISTIO_INBOUND",
    ]


def test_excluded_ports_count_only_where_every_port_is_intercepted() -> None:
    listed = Settings(inbound_ports=(80, 443), inbound_exclude_ports=(22,))
    assert [text for text in texts(listed) if "ISTIO_IN" in text and "OUTPUT" not in text] == [
        "-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN",
        "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
        "-A PREROUTING -p tcp -j ISTIO_INBOUND",
        "-A ISTIO_INBOUND -p tcp --dport 80 -j ISTIO_IN_REDIRECT",
        "-A ISTIO_INBOUND -p tcp --dport 443 -j ISTIO_IN_REDIRECT",
    ]
    every = Settings(all_inbound_ports=True, inbound_exclude_ports=(22, 23))
    assert [text for text in texts(every) if text.startswith("-A ISTIO_INBOUND")] == [
        "-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN",
        "-A ISTIO_INBOUND -p tcp --dport 22 -j RETURN",
        "-A ISTIO_INBOUND -p tcp --dport 23 -j RETURN",
        "-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT",
    ]


def test_what_goes_out_is_excluded_by_range_before_it_is_included_by_port_and_by_range() -> None:
    decided = Settings(
        ipv6=True,
        outbound_ranges=(network("fd00::/8"), network("10.0.0.0/8"), network("9.0.0.0/8")),
        outbound_exclude_ranges=(network("10.1.0.0/16"), network("fd01::/16")),
        outbound_ports=(9000,),
        virtual_interfaces=("tap0", "tap1"),
    )
    assert texts(decided, 4)[-9:] == [
        "-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN",
        "-A ISTIO_OUTPUT -d 10.1.0.0/16 -j RETURN",
        "-A ISTIO_OUTPUT -p tcp --dport 9000 -j ISTIO_REDIRECT",
        "-I PREROUTING 1 -i tap0 -d 10.0.0.0/8 -j ISTIO_REDIRECT",
        "-I PREROUTING 1 -i tap1 -d 10.0.0.0/8 -j ISTIO_REDIRECT",
        "-A ISTIO_OUTPUT -d 10.0.0.0/8 -j ISTIO_REDIRECT",
        "-I PREROUTING 1 -i tap0 -d 9.0.0.0/8 -j ISTIO_REDIRECT",
        "-I PREROUTING 1 -i tap1 -d 9.0.0.0/8 -j ISTIO_REDIRECT",
        "-A ISTIO_OUTPUT -d 9.0.0.0/8 -j ISTIO_REDIRECT",
    ]
    assert texts(decided, 6)[-6:] == [
        "-A ISTIO_OUTPUT -d ::1/128 -j RETURN",
        "-A ISTIO_OUTPUT -d fd01::/16 -j RETURN",
        "-A ISTIO_OUTPUT -p tcp --dport 9000 -j ISTIO_REDIRECT",
        "-I PREROUTING 1 -i tap0 -d fd00::/8 -j ISTIO_REDIRECT",
        "-I PREROUTING 1 -i tap1 -d fd00::/8 -j ISTIO_REDIRECT",
        "-A ISTIO_OUTPUT -d fd00::/8 -j ISTIO_REDIRECT",
    ]


def test_every_address_is_intercepted_by_one_rule_and_each_virtual_interface_by_one() -> None:
    decided = Settings(all_outbound=True, virtual_interfaces=("tap0", "tap1"))
    assert texts(decided)[:2] == ["-I PREROUTING 1 -i tap0 -j RETURN", "-I PREROUTING 1 -i tap1 -j RETURN"]
    assert texts(decided)[-3:] == [
        "-A ISTIO_OUTPUT -j ISTIO_REDIRECT",
        "-I PREROUTING 1 -i tap0 -j ISTIO_REDIRECT",
        "-I PREROUTING 1 -i tap1 -j ISTIO_REDIRECT",
    ]


def test_groups_are_exempt_each_or_the_only_ones_together() -> None:
    assert "-A ISTIO_OUTPUT -m owner --gid-owner 7 -j RETURN" in texts(Settings(exclude_groups=("7", "8")))
    only = Settings(all_groups=False, groups=("java", "202"), exclude_groups=("7",))
    assert "-A ISTIO_OUTPUT -m owner ! --gid-owner java -m owner ! --gid-owner 202 -j RETURN" in texts(only)
    assert not [text for text in texts(only) if text.endswith("--gid-owner 7 -j RETURN")]
    # No group at all: nothing that leaves is intercepted, by a rule that has no condition.
    assert "-A ISTIO_OUTPUT -j RETURN" in texts(Settings(all_groups=False))


def test_a_range_of_loopback_that_is_included_takes_the_rules_for_calls_to_itself_away() -> None:
    decided = Settings(outbound_ranges=(network("127.1.2.3/32"),))
    assert not [text for text in texts(decided) if "! --uid-owner" in text or "! --gid-owner" in text]
    assert "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN" in texts(decided)


def test_dns_is_led_to_the_agent_and_its_conversations_are_kept_apart() -> None:
    decided = Settings(ipv6=True, redirect_dns=True, dns_servers=(address("10.0.0.10"), address("10.0.0.11")))
    assert [text for text in texts(decided) if "DNS" in text] == [
        "-A ISTIO_OUTPUT -j ISTIO_OUTPUT_DNS",
        "-A ISTIO_OUTPUT_DNS -p tcp --dport 53 -d 10.0.0.10/32 -j REDIRECT --to-ports 15053",
        "-A ISTIO_OUTPUT_DNS -p tcp --dport 53 -d 10.0.0.11/32 -j REDIRECT --to-ports 15053",
        "-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 10.0.0.10/32 -j REDIRECT --to-port 15053",
        "-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 10.0.0.11/32 -j REDIRECT --to-port 15053",
    ]
    owned = [
        text.format(owner)
        for owner in ("uid", "gid")
        for text in (
            "-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --{}-owner 1337 -j CT --zone 1",
            "-A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --{}-owner 1337 -j CT --zone 2",
        )
    ]
    assert texts(decided, 4, "raw") == [
        "-A OUTPUT -j ISTIO_OUTPUT_DNS",
        *owned,
        "-A PREROUTING -j ISTIO_INBOUND",
        "-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 10.0.0.10/32 -j CT --zone 2",
        "-A ISTIO_INBOUND -p udp --sport 53 -s 10.0.0.10/32 -j CT --zone 1",
        "-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 10.0.0.11/32 -j CT --zone 2",
        "-A ISTIO_INBOUND -p udp --sport 53 -s 10.0.0.11/32 -j CT --zone 1",
    ]
    # A family without servers is looked at all the same, and leads nothing away.
    assert texts(decided, 6, "raw") == ["-A OUTPUT -j ISTIO_OUTPUT_DNS", *owned]
    assert not [text for text in texts(decided, 6) if "DNS" in text]


def test_dns_spares_what_is_asked_on_this_machine() -> None:
    decided = texts(Settings(redirect_dns=True, capture_all_dns=True))
    own = "-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp"
    assert f"{own} -m multiport ! --dports 53,15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT" in decided
    # Istio asks so for users only.
    assert f"{own} ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT" in decided
    assert "-A ISTIO_OUTPUT -o lo -p tcp ! --dport 53 -m owner ! --uid-owner 1337 -j RETURN" in decided
    assert "-A ISTIO_OUTPUT_DNS -p udp --dport 53 -j REDIRECT --to-port 15053" in decided


def test_without_a_server_dns_is_left_alone_unless_all_of_it_is_captured() -> None:
    assert rules(Settings(redirect_dns=True)) == rules(Settings())
    assert rules(Settings(capture_all_dns=True)) == rules(Settings())


def test_tproxy_marks_and_diverts_in_table_mangle() -> None:
    decided = Settings(mode="TPROXY", inbound_ports=(80,), exclude_interfaces=("eth9",), drop_invalid=True)
    assert texts(decided, table="mangle") == [
        "-A PREROUTING -i eth9 -j RETURN",
        "-A OUTPUT -o eth9 -j RETURN",
        "-A PREROUTING -m conntrack --ctstate INVALID -j ISTIO_DROP",
        "-A ISTIO_DROP -j DROP",
        "-A ISTIO_DIVERT -j MARK --set-mark 1337",
        "-A ISTIO_DIVERT -j ACCEPT",
        "-A ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp -j TPROXY --tproxy-mark 1337/0xffffffff --on-port 15006",
        "-A PREROUTING -p tcp -j ISTIO_INBOUND",
        "-A ISTIO_INBOUND -p tcp --dport 80 -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT",
        "-A ISTIO_INBOUND -p tcp --dport 80 -j ISTIO_TPROXY",
        "-A PREROUTING -p tcp -m mark --mark 1337 -j CONNMARK --save-mark",
        "-A OUTPUT -p tcp -o lo -m mark --mark 1337 -j RETURN",
        "-A OUTPUT ! -d 127.0.0.1/32 -p tcp -o lo -m owner --uid-owner 1337 -j MARK --set-mark 1338",
        "-A OUTPUT ! -d 127.0.0.1/32 -p tcp -o lo -m owner --gid-owner 1337 -j MARK --set-mark 1338",
        "-A OUTPUT -p tcp -m connmark --mark 1337 -j CONNMARK --restore-mark",
        "-I ISTIO_INBOUND 1 -p tcp -m mark --mark 1337 -j RETURN",
        "-I ISTIO_INBOUND 2 -p tcp -s 127.0.0.6/32 -i lo -j RETURN",
        "-I ISTIO_INBOUND 3 -p tcp -i lo -m mark ! --mark 1338 -j RETURN",
    ]
    # Nothing of table nat looks at what comes in.
    assert not [text for text in texts(decided) if text.startswith("-A PREROUTING -p tcp")]


def test_routes_are_needed_where_tproxy_intercepts_and_envoys_address_with_ipv6() -> None:
    decided = Settings(mode="TPROXY", tproxy_mark=7, tproxy_table=8)
    assert routes(decided) == Routes(mark=None, table=8, ipv6=False)
    assert routes(decided.but(inbound_ports=(80,))) == Routes(mark=7, table=8, ipv6=False)
    assert routes(Settings(ipv6=True, all_inbound_ports=True)) == Routes(mark=None, table=133, ipv6=True)


@given(any_settings)
def test_every_rule_has_a_reason_that_fits_one_line(decided: Settings) -> None:
    for rule in rules(decided):
        assert rule.reason
        assert rule.reason.isprintable()


@given(any_settings)
def test_every_rule_is_of_a_family_that_is_on_and_names_addresses_of_that_family(decided: Settings) -> None:
    for rule in rules(decided):
        assert rule.family == 4 or decided.ipv6
        named = [rule.match.source, rule.match.destination, rule.match.not_destination]
        assert {network.version for network in named if network is not None} <= {rule.family}


@given(any_settings)
def test_ipv6_changes_nothing_of_ipv4(decided: Settings) -> None:
    of_four = [[rule for rule in rules(decided.but(ipv6=on)) if rule.family == 4] for on in (True, False)]
    assert of_four[0] == of_four[1]


@given(any_settings)
def test_no_rule_leads_to_a_chain_without_rules(decided: Settings) -> None:
    found = rules(decided)
    for family in FAMILIES:
        for table in ("filter", "mangle", "nat", "raw"):
            mine = [rule for rule in found if (rule.family, rule.table) == (family, table)]
            assert set(chains(mine, table=table)) == {rule.chain for rule in mine} - set(r.BUILT_IN)


@given(any_settings)
def test_a_connection_returns_before_it_is_redirected(decided: Settings) -> None:
    for family in FAMILIES:
        out = [rule for rule in rules(decided) if (rule.family, rule.table, rule.chain) == (family, "nat", r.OUT)]
        kinds = [is_redirected(rule) for rule in out]
        assert kinds == sorted(kinds)


def is_redirected(rule: Rule) -> bool:
    return rule.target.chain == r.REDIRECT


@given(any_settings)
def test_loopback_is_the_last_that_returns_before_ranges_and_is_always_there(decided: Settings) -> None:
    loopbacks = [rule for rule in rules(decided) if rule.match.destination in (decided.loopback, network("::1/128"))]
    assert {rule.family for rule in loopbacks} >= {rule.family for rule in rules(decided)}


@given(any_settings)
def test_nothing_concerns_incoming_connections_of_krun_unless_they_are_asked_for(decided: Settings) -> None:
    own = decided.but(inbound_is_optional=True, mode="REDIRECT", redirect_dns=False)
    concerned = [
        rule for rule in rules(own) if rule.chain in (r.IN, r.IN_REDIRECT) or rule.target.chain == r.IN_REDIRECT
    ]
    assert bool(concerned) == own.captures_inbound


@given(any_settings)
def test_the_proxys_own_connections_come_back_to_it_in_no_family(decided: Settings) -> None:
    for family in {rule.family for rule in rules(decided)}:
        out = [rule for rule in rules(decided) if (rule.family, rule.table, rule.chain) == (family, "nat", r.OUT)]
        before = out[: next((at for at, rule in enumerate(out) if is_redirected(rule)), len(out))]
        spared = {rule.match for rule in before if rule.target == r.RETURN}
        assert {r.Match(uid=uid) for uid in decided.proxy_uids} <= spared
        assert {r.Match(gid=gid) for gid in decided.proxy_gids} <= spared
