"""What follows from settings, and how they are shown."""

from __future__ import annotations

import json

import pytest

from krun_iptables.network import Network, address, network
from krun_iptables.settings import Settings


def test_what_comes_in_is_intercepted_at_a_port_or_at_all() -> None:
    assert not Settings().captures_inbound
    assert not Settings(inbound_exclude_ports=(22,)).captures_inbound
    assert Settings(inbound_ports=(80,)).captures_inbound
    assert Settings(all_inbound_ports=True).captures_inbound


def test_dns_is_led_away_where_there_is_a_server_or_all_of_it() -> None:
    assert not Settings(redirect_dns=True).captures_dns
    assert not Settings(capture_all_dns=True).captures_dns
    assert Settings(redirect_dns=True, capture_all_dns=True).captures_dns
    assert Settings(redirect_dns=True, dns_servers=(address("fd00::10"),)).captures_dns


@pytest.mark.parametrize(
    ("named", "is_it"),
    [
        (network("127.0.0.0/8"), True),
        (network("127.1.2.3/32"), True),
        (network("::1/128"), True),
        (network("0.0.0.0/0"), False),
        (network("::/0"), False),
        (network("10.0.0.0/8"), False),
    ],
)
def test_loopback_is_named_by_an_address_in_it(named: Network, is_it: bool) -> None:
    assert Settings(outbound_ranges=(named,)).captures_loopback == is_it


def test_settings_are_shown_as_json_values_under_their_names() -> None:
    decided = Settings(
        outbound_ranges=(network("10.0.0.0/8"), network("fd00::/8")),
        dns_servers=(address("10.0.0.10"),),
        inbound_ports=(81, 80),
        native_nftables=True,
    )
    shown = json.loads(json.dumps(decided.as_json()))
    assert list(shown) == list(Settings._fields)
    assert shown["outbound_ranges"] == ["10.0.0.0/8", "fd00::/8"]
    assert (shown["dns_servers"], shown["inbound_ports"]) == (["10.0.0.10"], [81, 80])
    assert (shown["loopback"], shown["native_nftables"], shown["probe_timeout"]) == ("127.0.0.1/32", True, 5.0)
