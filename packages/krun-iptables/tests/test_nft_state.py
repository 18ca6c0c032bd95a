"""What nft lists and what was decided are compared by what they say, not by their words."""

from __future__ import annotations

import pytest

from krun_iptables import nft_state
from krun_iptables.network import network
from krun_iptables.rules import rules
from krun_iptables.settings import Settings

SETTINGS = Settings(outbound_ranges=(network("10.0.0.0/8"),), inbound_ports=(8080,), virtual_interfaces=("tap0",))
# As nft 1.0.6 lists them.
LISTING = """\
table inet istio-proxy-nat {
	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		iifname "tap0" ip daddr 10.0.0.0/8 counter jump istio-redirect
		iifname "tap0" counter return
		meta l4proto 6 counter jump istio-inbound
	}

	chain output {
		type nat hook output priority -100; policy accept;
		counter jump istio-output
	}

	chain istio-inbound {
		tcp dport 15008 counter return
		tcp dport 8080 counter jump istio-in-redirect
	}

	chain istio-redirect {
		meta l4proto 6 counter redirect to :15001
	}

	chain istio-in-redirect {
		meta l4proto 6 counter redirect to :15006
	}

	chain istio-output {
		oifname "lo" ip saddr 127.0.0.6 counter return
		oifname "lo" ip daddr != 127.0.0.1 tcp dport != 15008 meta skuid 1337 counter jump istio-in-redirect
		oifname "lo" meta skuid != 1337 counter return
		meta skuid 1337 counter return
		oifname "lo" ip daddr != 127.0.0.1 tcp dport != 15008 meta skgid 1337 counter jump istio-in-redirect
		oifname "lo" meta skgid != 1337 counter return
		meta skgid 1337 counter return
		ip daddr 127.0.0.1 counter return
		ip daddr 10.0.0.0/8 counter jump istio-redirect
	}
}
"""


def test_a_listing_of_what_was_decided_is_recognised() -> None:
    assert nft_state.is_held(rules(SETTINGS), listing=LISTING)


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ("\t\tmeta skuid 1337 counter return\n", ""),
        ("tcp dport 8080", "tcp dport 8081"),
        ("priority -100; policy accept;\n\t\tcounter", "priority -100; policy accept;\n\t\ttcp dport 1 counter"),
        ("istio-proxy-nat", "istio-proxy-raw"),
        ("chain istio-redirect {", "chain istio-divert {"),
        ('\t\tiifname "tap0" counter return\n\t\tmeta l4proto 6 counter jump istio-inbound\n', "\t\tcounter drop\n"),
        ("\t\tip daddr 127.0.0.1 counter return\n", "\t\tip daddr 127.0.0.1 counter return\n" * 2),
    ],
)
def test_any_difference_is_seen(there: str, instead: str) -> None:
    assert there in LISTING
    assert not nft_state.is_held(rules(SETTINGS), listing=LISTING.replace(there, instead))


def test_nothing_is_not_what_was_decided() -> None:
    assert not nft_state.is_held(rules(SETTINGS), listing="")


@pytest.mark.parametrize(
    ("taken", "listed"),
    [
        ("tcp dport != { 53, 15008 } counter", "tcp dport != { 53, 15008 } counter"),
        ("tcp dport != { 53, 22 } counter", "tcp dport != { 22, 53 } counter"),
        ("meta l4proto tcp tcp dport 80 counter", "tcp dport 80 counter"),
        ("meta l4proto tcp ct state related,established counter", "meta l4proto 6 ct state 0x2,0x4 counter"),
        ("meta l4proto tcp ct state invalid counter", "meta l4proto tcp ct state invalid counter"),
        ("mark != 1338 counter", "meta mark != 0x0000053a counter"),
        ("counter ct mark set mark", "counter ct mark set meta mark"),
        ("ip6 daddr ::1/128 counter", "ip6 daddr ::1 counter"),
        ("udp sport 53 ip saddr 10.0.0.1/32 counter", "udp sport 53 ip saddr 10.0.0.1 counter"),
        ('iifname "eth0.1" counter', 'iifname "eth0.1" counter'),
        ("udp dport 53 meta skuid 5 counter ct zone set 1", "udp dport 53 meta skuid 5 counter ct zone set 1"),
    ],
)
def test_words_that_say_the_same_are_the_same(taken: str, listed: str) -> None:
    assert nft_state.listed(shown(taken)) == nft_state.listed(shown(listed))


def shown(rule: str) -> str:
    return f"table inet t {{\n\tchain c {{\n\t\t{rule}\n\t}}\n}}\n"
