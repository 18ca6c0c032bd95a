from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_iptables.errors import Misconfigured
from krun_iptables.settings import ALWAYS_EXCLUDED, Settings, settings

networks = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).flatmap(
    lambda address: st.integers(0, address.max_prefixlen).map(
        lambda prefix: ipaddress.ip_network((address, prefix), strict=False)
    )
)


def decide(*, include: str = "10.0.0.0/8", exclude_ports: str = "") -> Settings:
    return settings(include=include, exclude_ports=exclude_ports)


def test_the_tunnels_ports_are_always_excluded() -> None:
    assert decide().exclude_ports == (15008, 15009)
    assert decide(exclude_ports="5432, 15009 ,22").exclude_ports == (22, 5432, 15008, 15009)


def test_settings_are_json_values() -> None:
    decided = decide(include="192.168.0.0/16,10.0.0.0/8,fd00::/8,10.0.0.0/8")
    assert decided.as_json() == {
        "outbound_ip_ranges_include": ["10.0.0.0/8", "192.168.0.0/16", "fd00::/8"],
        "outbound_ports_exclude": [15008, 15009],
    }


@given(st.lists(networks, min_size=1))
def test_every_list_of_ranges_comes_back_as_a_set(ranges: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> None:
    assert set(decide(include=",".join(map(str, ranges))).include) == set(ranges)


@given(st.lists(st.integers(1, 65535)))
def test_every_list_of_ports_comes_back_sorted(ports: list[int]) -> None:
    decided = decide(exclude_ports=",".join(map(str, ports)))
    assert decided.exclude_ports == tuple(sorted({*ports, *ALWAYS_EXCLUDED}))


@given(st.text())
def test_any_text_is_settings_or_a_message_that_names_the_variable(text: str) -> None:
    for name, arguments in (
        ("OUTBOUND_IP_RANGES_INCLUDE", {"include": text}),
        ("OUTBOUND_PORTS_EXCLUDE", {"exclude_ports": text}),
    ):
        try:
            decided = decide(**arguments)
        except Misconfigured as error:
            assert name in error.message  # noqa: PT017 - both ends are right, and each is held
        else:
            assert decided.include
            assert set(decided.exclude_ports) >= ALWAYS_EXCLUDED


@pytest.mark.parametrize("ranges", ["10.0.0.1/8", "10.0.0.0/33", "everything", "*", ",", "10.0.0.0-10.1.0.0"])
def test_a_wrong_range_is_refused_by_name(ranges: str) -> None:
    with pytest.raises(Misconfigured, match="OUTBOUND_IP_RANGES_INCLUDE"):
        decide(include=ranges)


@pytest.mark.parametrize("ports", ["0", "65536", "-1", "http", "80:90", "1e3", "٣٣"])
def test_a_wrong_port_is_refused_by_name(ports: str) -> None:
    with pytest.raises(Misconfigured, match="OUTBOUND_PORTS_EXCLUDE"):
        decide(exclude_ports=ports)
