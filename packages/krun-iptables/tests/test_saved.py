"""A saved rule and a decided one: the same in other words, or not the same. The lines are those of iptables 1.8.9."""

from __future__ import annotations

import pytest

from krun_iptables.network import address, network
from krun_iptables.rule import Rule
from krun_iptables.rules import rules
from krun_iptables.saved import is_text_of
from krun_iptables.settings import Settings

TPROXY = Settings(mode="TPROXY", inbound_ports=(80,), ipv6=True, exclude_interfaces=("eth9",))
DNS = Settings(redirect_dns=True, ipv6=True, dns_servers=(address("10.0.0.10"), address("::ffff:1.2.3.4")))
OUT = Settings(
    ipv6=True,
    outbound_ranges=(network("0.0.0.0/0"), network("fd00::/8"), network("10.0.0.0/8")),
    all_groups=False,
    groups=("5", "6"),
)
SAVED = [
    (TPROXY, 4, "PREROUTING -i eth9 -m comment --comment ISTIO -j RETURN"),
    (
        TPROXY,
        4,
        "ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp"
        " -j TPROXY --on-port 15006 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xffffffff",
    ),
    (TPROXY, 6, "ISTIO_TPROXY ! -d ::1/128 -p tcp -j TPROXY --on-port 15006 --on-ip :: --tproxy-mark 0x539/0xffffffff"),
    (TPROXY, 4, "ISTIO_DIVERT -j MARK --set-xmark 0x539/0xffffffff"),
    (TPROXY, 4, "ISTIO_INBOUND -p tcp -m tcp --dport 80 -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT"),
    (TPROXY, 4, "ISTIO_INBOUND -i lo -p tcp -m mark ! --mark 0x53a -j RETURN"),
    (TPROXY, 4, "ISTIO_INBOUND -s 127.0.0.6/32 -i lo -p tcp -j RETURN"),
    (
        TPROXY,
        4,
        "PREROUTING -p tcp -m mark --mark 0x539 -m comment --comment ISTIO"
        " -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
    ),
    (
        TPROXY,
        4,
        "OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m owner --uid-owner 1337 -m comment --comment ISTIO"
        " -j MARK --set-xmark 0x53a/0xffffffff",
    ),
    (
        DNS,
        4,
        "ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m multiport ! --dports 53,15008 -m owner --uid-owner 1337"
        " -j ISTIO_IN_REDIRECT",
    ),
    (DNS, 4, "ISTIO_OUTPUT_DNS -d 10.0.0.10/32 -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053"),
    (DNS, 4, "ISTIO_INBOUND -s 10.0.0.10/32 -p udp -m udp --sport 53 -j CT --zone 1"),
    (DNS, 6, "ISTIO_OUTPUT_DNS -d ::ffff:1.2.3.4/128 -p tcp -m tcp --dport 53 -j REDIRECT --to-ports 15053"),
    (OUT, 4, "ISTIO_OUTPUT -j ISTIO_REDIRECT"),
    (OUT, 4, "ISTIO_OUTPUT -d 10.0.0.0/8 -j ISTIO_REDIRECT"),
    (OUT, 4, "ISTIO_OUTPUT -m owner ! --gid-owner 5 -m owner ! --gid-owner 6 -j RETURN"),
    (OUT, 6, "ISTIO_OUTPUT -d fd00::/8 -j ISTIO_REDIRECT"),
    (OUT, 6, "ISTIO_OUTPUT -s ::6/128 -o lo -j RETURN"),
]


def same(decided: Settings, family: int, line: str) -> list[Rule]:
    return [rule for rule in rules(decided) if rule.family == family and is_text_of(line, rule)]


@pytest.mark.parametrize(("decided", "family", "line"), SAVED, ids=[line for _, _, line in SAVED])
def test_a_saved_rule_is_the_one_that_was_decided(decided: Settings, family: int, line: str) -> None:
    found = same(decided, family, line)
    assert found
    # Tables apart, no two rules are the same.
    assert len(found) == len({rule.table for rule in found})


@pytest.mark.parametrize(
    "line",
    [
        "PREROUTING -i eth9 -j RETURN",  # of somebody else: it has no mark
        "PREROUTING -i eth9 -m comment --comment ISTIOS -j RETURN",
        'PREROUTING -i eth9 -m comment --comment "not ISTIO" -j RETURN',
        "PREROUTING -i eth9 -m comment --comment ISTIO -j ACCEPT",
        "ISTIO_DIVERT -j MARK --set-xmark 0x53a/0xffffffff",
        "ISTIO_DIVERT -j MARK --set-xmark 0x539/0xff",
        "ISTIO_INBOUND -i lo -p tcp -m mark --mark 0x53a -j RETURN",
        "ISTIO_TPROXY -d 127.0.0.1/32 -p tcp -j TPROXY --on-port 15006 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xffffffff",
        "ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp -j TPROXY --on-port 15006 --on-ip 10.0.0.1 --tproxy-mark 1337",
        "ISTIO_OUTPUT -p udp -j ISTIO_REDIRECT",
    ],
)
def test_a_rule_that_differs_in_one_word_is_another(line: str) -> None:
    assert same(TPROXY, 4, line) == []
