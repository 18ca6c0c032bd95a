"""The kernel's way to an address, in a namespace with one cable."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from krun_iptables import explain_route
from krun_testbed import namespaces
from krun_testbed.namespaces import Namespace

ASK = """
import json, sys
from ipaddress import ip_address
from krun_iptables import explain_route
found = explain_route.find(ip_address(sys.argv[1]))
way = found and [found.interface, str(found.source), found.local]
print(json.dumps([way, sorted(map(str, explain_route.neighbours()))]))
"""


@pytest.mark.loopback
@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_is_this_machines_own(address: str) -> None:
    found = explain_route.find(ip_address(address))
    assert found is not None
    assert (found.interface, found.local) == ("lo", True)


@pytest.fixture(scope="module")
def wired() -> Iterator[Namespace]:
    with namespaces.namespace() as own:
        own.must("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far")
        for name in ("eth0", "far"):
            own.must("ip", "link", "set", name, "up")
        own.must("ip", "address", "add", "10.1.0.1/24", "dev", "eth0")
        own.must("ip", "address", "add", "2001:db8:1::1/64", "dev", "eth0", "nodad")
        own.must("ip", "address", "add", "10.2.0.1/24", "dev", "far")
        own.must("ip", "route", "add", "10.0.0.0/8", "via", "10.1.0.2")
        own.must("ip", "route", "add", "unreachable", "10.9.0.0/16")
        yield own


@pytest.mark.netns
@pytest.mark.parametrize(
    ("address", "way"),
    [
        ("10.1.0.7", ["eth0", "10.1.0.1", False]),
        ("10.2.0.7", ["far", "10.2.0.1", False]),
        ("10.3.0.7", ["eth0", "10.1.0.1", False]),
        ("10.1.0.1", ["lo", "10.1.0.1", True]),
        ("2001:db8:1::7", ["eth0", "2001:db8:1::1", False]),
        ("2001:db8:1::1", ["lo", "2001:db8:1::1", True]),
        ("10.9.0.7", None),
        ("192.0.2.1", None),
        ("2001:db8:2::1", None),
    ],
)
def test_the_narrowest_route_names_interface_and_source(
    wired: Namespace, address: str, way: list[object] | None
) -> None:
    found, neighbours = json.loads(wired.must(sys.executable, "-c", ASK, address))
    assert found == way
    assert {"10.1.0.0/24", "10.2.0.0/24", "2001:db8:1::/64"} <= set(neighbours)
