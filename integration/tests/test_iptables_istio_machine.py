"""krun-iptables and Istio's own program find out the same of a machine: its addresses, its servers of DNS."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from krun_testbed import components, istio_iptables
from krun_testbed.istio_iptables import V4, V6, Machine

IS_LONG = bool(os.environ.get("KRUN_SOAK"))
pytestmark = [pytest.mark.istio, pytest.mark.timeout(3600 if IS_LONG else 900)]

MACHINES, FILES = (100, 1000) if IS_LONG else (8, 20)
ADDRESSES = (V4, V6, "192.0.2.7/32", "100.64.0.1/10", "fd00::1/64", "169.254.7.7/16", "fe80::7/64", "127.0.0.9/8")
# Link-local servers with their interface are ours alone: Istio makes rules of them that no kernel takes.
LINES = (
    "nameserver 10.3.0.53",
    "nameserver\t10.3.0.54\t",
    "  nameserver 10.3.0.55",
    "nameserver 10.3.0.56 # ours",
    "nameserver 10.3.0.57#53",
    "nameserver 10.3.0.58 10.3.0.59",
    "nameserver 2001:DB8:0:0::53",
    "nameserver ::ffff:1.2.3.4",
    "nameserver ::1",
    "nameserver 0.0.0.0",
    "nameserver 010.3.0.60",
    "nameserver 10.3.0",
    "nameserver dns.example.com",
    "nameserver",
    "Nameserver 10.3.0.61",
    "nameserver10.3.0.62",
    "# nameserver 10.3.0.63",
    "; nameserver 10.3.0.64",
    "\ufeffnameserver 10.3.0.65",
    "nameserver\u00a010.3.0.66",
    "nameserver\x0b10.3.0.67",
    "search example.com",
    "options ndots:many timeout:0 rotate",
    "",
)


@pytest.fixture(scope="module")
def one() -> Iterator[Machine]:
    with istio_iptables.machine(V4, V6) as place:
        yield place


def check(place: Machine, *flags: str) -> None:
    theirs = istio_iptables.ask(place, *flags)
    assert theirs.status == 0, theirs
    ours = place.run([components.command("krun-iptables"), "istio-iptables", "--dry-run", *flags], env={})
    assert ours.returncode == 0, ours.stderr
    assert istio_iptables.restored(ours.stdout) == istio_iptables.restored(theirs.text)


def test_whether_ipv6_is_on_is_told_by_the_addresses_as_istio_tells_it() -> None:
    # One that others can call is there: without one Istio decides on nothing.
    some = st.tuples(st.sampled_from(ADDRESSES[:5]), st.lists(st.sampled_from(ADDRESSES), unique=True))

    @settings(max_examples=MACHINES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(some.map(lambda found: dict.fromkeys([*found[1], found[0]])))
    def same(addresses: dict[str, None]) -> None:
        with istio_iptables.machine(*addresses) as place:
            check(place)
            check(place, "--dual-stack")

    same()


@pytest.mark.parametrize("flags", [(), ("--dual-stack",)], ids=["IPv4", "both families"])
def test_servers_of_dns_are_those_that_istio_reads(one: Machine, flags: tuple[str, ...]) -> None:
    lines = st.lists(st.sampled_from(LINES), max_size=6)

    @settings(max_examples=FILES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(lines, st.sampled_from(["\n", "\n", "\r\n"]), st.booleans())
    def same(found: list[str], end: str, has_end: bool) -> None:
        one.resolv(end.join(found) + (end if has_end else ""))
        check(one, "--redirect-dns", *flags)

    same()
