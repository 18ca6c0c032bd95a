"""Addresses and ranges, held to Python's own."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from krun_iptables.network import Address, address, network

# Addresses that the form of IPv6 has most cases for: few groups that are not 0.
sparse = st.lists(st.sampled_from((0, 0, 0, 1, 0x10, 0xFFFF)), min_size=8, max_size=8).map(
    lambda groups: ipaddress.IPv6Address(b"".join(group.to_bytes(2) for group in groups))
)
addresses = st.ip_addresses() | sparse


def is_mapped(one: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return one.version == 6 and one.ipv4_mapped is not None


@given(addresses)
def test_an_address_is_read_and_written_as_python_does(one: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    found = address(str(one))
    assert (found.packed, found.version) == (one.packed, one.version)
    assert ipaddress.ip_address(str(found)) == one
    # Newer Pythons write such a one as Go does; all of ours do.
    assert is_mapped(one) or str(found) == str(one)
    assert address(one.exploded) == found


def test_an_ipv4_address_in_an_ipv6_one_is_written_as_go_writes_it() -> None:
    assert str(address("::FFFF:102:304")) == "::ffff:1.2.3.4"
    assert str(address("::ffff:1.2.3.4").unmapped) == "1.2.3.4"
    assert str(address("::102:304")) == "::102:304"


@given(addresses)
@example(ipaddress.ip_address("fe80::1"))
@example(ipaddress.ip_address("febf::1"))
@example(ipaddress.ip_address("fec0::1"))
@example(ipaddress.ip_address("169.254.1.1"))
@example(ipaddress.ip_address("169.255.1.1"))
@example(ipaddress.ip_address("127.255.0.1"))
@example(ipaddress.ip_address("::1"))
@example(ipaddress.ip_address("::2"))
@example(ipaddress.ip_address("7f00::1"))
def test_loopback_and_the_link_are_known(one: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    found = Address(packed=one.packed)
    # Newer Pythons look into an IPv4 address within one of IPv6; here it is asked for by unmapped.
    assert is_mapped(one) or (found.is_loopback, found.is_link_local) == (one.is_loopback, one.is_link_local)


def test_a_mapped_address_of_loopback_is_none_before_it_is_unmapped() -> None:
    found = address("::ffff:127.0.0.1")
    assert (found.is_loopback, found.unmapped.is_loopback) == (False, True)


@given(addresses, st.integers(0, 128), addresses)
def test_a_range_is_read_and_written_and_holds_addresses_as_pythons(
    one: ipaddress.IPv4Address | ipaddress.IPv6Address,
    length: int,
    other: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    length = min(length, one.max_prefixlen)
    text = f"{one}/{length}"
    wanted, found = ipaddress.ip_network(text, strict=False), network(text)
    assert ipaddress.ip_network(str(found)) == wanted
    assert (found.version, found.prefixlen) == (wanted.version, wanted.prefixlen)
    assert found.network_address.packed == wanted.network_address.packed
    assert one in found
    assert (other in found) == (other in wanted)
    assert (Address(packed=other.packed) in found) == (other in wanted)


@given(st.text(alphabet="0123456789abcdefg.:/%+- ", max_size=20) | st.text(max_size=8))
@example("1.2.3")
@example("01.2.3.4")
@example("1.2.3.4.5")
@example("1.2.3.256")
@example(":::")
@example("1::2::3")
@example("12345::")
@example("::1.2.3.04")
@example("1:2:3:4:5:6:7:8:9")
@example("fe80::1%eth0")
@example("\u0661.2.3.4")
@example("1.2.3.4\0")
@example("\ud800")
@example("")
def test_what_python_takes_for_no_address_is_none(text: str) -> None:
    try:
        wanted = ipaddress.ip_address(text).packed if "%" not in text else None
    except ValueError:
        wanted = None
    if wanted is None:
        with pytest.raises(ValueError, match=r"is no address|null|encode"):
            address(text)
    else:
        assert address(text).packed == wanted


@pytest.mark.parametrize(
    "text",
    ["10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/255.0.0.0", "10.0.0.0/+8", "10.0.0.0/\u0668", "/8"],
)
def test_what_has_no_length_of_its_kind_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no address|has a length"):
        network(text)
