"""Every kind of rule for TCP, by what traffic does: legacy, nft and native nft, IPv4 and IPv6."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from krun_testbed import traffic
from krun_testbed.traffic import BY_ETH1, HERE, LOOPBACK, OUTSIDE, RANGE, THERE, WAYS, Network

pytestmark = pytest.mark.netns

FAMILIES = (4, 6)
PROXY = {"uid": 1337, "gid": 1337}
IN_WORKLOAD = (22, 8080, 8081, 15001, 15006, 15008)
AT_PEER = (80, 443, 5432, 15008)


@pytest.fixture(scope="module")
def wired() -> Iterator[Network]:
    """The namespaces with a listener at every port that is called."""
    with traffic.network() as made:
        here = [f"tcp:0:{address}:{port}" for address in traffic.ANY.values() for port in IN_WORKLOAD]
        there = [f"tcp:0:{address}:{port}" for address in traffic.ANY.values() for port in AT_PEER]
        with made.listen(*here), made.listen_there(*there):
            yield made


@pytest.fixture
def network(wired: Network) -> Iterator[Network]:
    """The same without rules: what a test has brought in goes at its end."""
    yield wired
    done = wired.krun("--remove")
    assert done.returncode == 0, done.stderr


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def ends(network: Network, address: str, port: int, **who: int) -> tuple[str, int]:
    """Where a call of the workload's arrives: by whom, and at which port."""
    answer = network.call(address, port, **who)
    return answer.get("by", answer.get("error", "nobody")), answer.get("at", 0)


def comes_in(network: Network, address: str, port: int) -> int:
    """At which port of the workload a call of the peer's arrives."""
    answer = network.call_in(address, port)
    assert answer.get("by") == "here", answer
    at: int = answer["at"]
    return at


def passes(network: Network, address: str, port: int, **who: int) -> bool:
    """Whether a call of the workload's arrives at its destination as if there were no rules."""
    return ends(network, address, port, **who) == ("there", port)


def test_what_goes_out_arrives_at_15001_and_the_kernel_says_where_it_wanted_to_go(network: Network, way: str) -> None:
    for family in FAMILIES:
        assert passes(network, THERE[family], 80)
    network.apply(way, "-i", "*")
    for family in FAMILIES:
        for address in (THERE[family], OUTSIDE[family]):
            for port in (80, 81):  # nobody listens at 81
                answer = network.call(address, port)
                assert (answer["by"], answer["at"], answer["wanted"]) == ("here", 15001, f"{address} {port}")


def test_other_ports_of_the_proxy_take_the_place_of_15001_and_15006(network: Network, way: str) -> None:
    network.apply(way, "-i", "*", "-b", "*", "-p", "8080", "-z", "8081")
    for family in FAMILIES:
        assert ends(network, THERE[family], 80) == ("here", 8080)
        assert comes_in(network, HERE[family], 22) == 8081


def test_after_removal_everything_passes(network: Network, way: str) -> None:
    network.apply(way, "-i", "*", "-b", "*")
    for family in FAMILIES:
        assert (ends(network, THERE[family], 80), comes_in(network, HERE[family], 22)) == (("here", 15001), 15006)
    done = network.krun("--remove")
    assert done.returncode == 0, done.stderr
    for family in FAMILIES:
        assert passes(network, THERE[family], 80)
        assert comes_in(network, HERE[family], 22) == 22


def test_only_included_ranges_are_intercepted(network: Network, way: str) -> None:
    network.apply(way, "-i", f"{RANGE[4]},{RANGE[6]}")
    for family in FAMILIES:
        assert ends(network, THERE[family], 80) == ("here", 15001)
        assert passes(network, OUTSIDE[family], 80)


def test_an_excluded_range_passes_though_an_included_one_holds_it(network: Network, way: str) -> None:
    network.apply(way, "-i", "*", "-x", f"{THERE[4]}/32,{THERE[6]}/128")
    for family in FAMILIES:
        assert passes(network, THERE[family], 80)
        assert ends(network, OUTSIDE[family], 80) == ("here", 15001)


def test_an_excluded_port_passes(network: Network, way: str) -> None:
    network.apply(way, "-i", "*", "-o", "5432,443")
    for family in FAMILIES:
        assert passes(network, THERE[family], 5432)
        assert passes(network, THERE[family], 443)
        assert ends(network, THERE[family], 80) == ("here", 15001)


def test_an_included_port_is_intercepted_at_every_address(network: Network, way: str) -> None:
    network.apply(way, "-q", "80")
    for family in FAMILIES:
        for address in (THERE[family], OUTSIDE[family]):
            assert ends(network, address, 80) == ("here", 15001)
            assert passes(network, address, 443)


def test_the_proxys_users_and_groups_pass(network: Network, way: str) -> None:
    network.apply(way, "-i", "*", "-u", "1337,1400", "-g", "1338")
    for family in FAMILIES:
        for uid, gid in ((1337, 5), (1400, 5), (5, 1338)):
            assert passes(network, THERE[family], 80, uid=uid, gid=gid), (uid, gid)
        for uid, gid in ((0, 0), (5, 1337), (1338, 5)):
            assert ends(network, THERE[family], 80, uid=uid, gid=gid) == ("here", 15001), (uid, gid)


def test_excluded_groups_pass(network: Network, way: str) -> None:
    network.apply(way, "-i", "*", ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE="2000,daemon")
    for family in FAMILIES:
        for gid in (2000, 1):
            assert passes(network, THERE[family], 80, gid=gid)
        assert ends(network, THERE[family], 80, gid=2001) == ("here", 15001)


def test_only_included_groups_are_intercepted(network: Network, way: str) -> None:
    network.apply(way, "-i", "*", ISTIO_OUTBOUND_OWNER_GROUPS="2000,daemon")
    for family in FAMILIES:
        for gid in (2000, 1):
            assert ends(network, THERE[family], 80, gid=gid) == ("here", 15001)
        assert passes(network, THERE[family], 80, gid=2001)


def test_with_no_group_included_nothing_is_intercepted(network: Network, way: str) -> None:
    network.apply(way, "-i", "*", ISTIO_OUTBOUND_OWNER_GROUPS="")
    for family in FAMILIES:
        assert passes(network, THERE[family], 80)


def test_an_excluded_interface_is_left_alone_in_both_directions(network: Network, way: str) -> None:
    network.apply(way, "-i", "*", "-b", "*", "-c", "eth1")
    for family, here in ((4, "10.2.0.1"), (6, "2001:db8:e::1")):
        assert passes(network, BY_ETH1[family], 80)
        assert comes_in(network, here, 8080) == 8080
        assert ends(network, THERE[family], 80) == ("here", 15001)
        assert comes_in(network, HERE[family], 8080) == 15006


@pytest.mark.parametrize("ranges", ["*", f"{RANGE[4]},{RANGE[6]}"])
def test_what_a_virtual_machine_sends_is_intercepted_as_if_it_went_out(network: Network, way: str, ranges: str) -> None:
    for family in FAMILIES:
        assert network.call_virtual(THERE[family], 80)["by"] == "there"
    network.apply(way, "-i", ranges, "-b", "*", "-k", "vm0")
    for family in FAMILIES:
        answer = network.call_virtual(THERE[family], 80)
        assert (answer["by"], answer["at"], answer["wanted"]) == ("here", 15001, f"{THERE[family]} 80")
        assert network.call_virtual(OUTSIDE[family], 80)["by"] == ("here" if ranges == "*" else "there")
        assert comes_in(network, HERE[family], 8080) == 15006


def test_the_proxys_call_to_its_own_workload_comes_in_as_others_do(network: Network, way: str) -> None:
    network.apply(way, "-i", "*")
    for family in FAMILIES:
        answer = network.call(HERE[family], 8080, **PROXY)
        assert (answer["at"], answer["wanted"]) == (15006, f"{HERE[family]} 8080")
        # The tunnel's port is no workload's.
        assert ends(network, HERE[family], 15008, **PROXY) == ("here", 15008)


def test_the_application_reaches_itself_directly(network: Network, way: str) -> None:
    network.apply(way, "-i", "*", "-b", "*")
    for family in FAMILIES:
        for address in (HERE[family], LOOPBACK[family]):
            assert ends(network, address, 8080) == ("here", 8080)
        assert ends(network, LOOPBACK[family], 8080, **PROXY) == ("here", 8080)


def test_a_loopback_range_that_is_included_is_intercepted(network: Network, way: str) -> None:
    network.apply(way, "-i", "127.1.0.0/16")
    assert ends(network, "127.1.2.3", 8080) == ("here", 15001)
    assert ends(network, "127.2.0.1", 8080) == ("here", 8080)
    assert ends(network, "127.0.0.1", 8080) == ("here", 8080)


def test_envoys_pass_through_address_reaches_the_application(network: Network, way: str) -> None:
    network.apply(way, "-i", "*", "-b", "*")
    for family, source in ((4, "127.0.0.6"), (6, "::6")):
        answer = network.call(HERE[family], 8080, source=source, **PROXY)
        assert (answer["by"], answer["at"], answer["from"]) == ("here", 8080, source)


def test_what_comes_in_is_left_alone_until_ports_are_named(network: Network, way: str) -> None:
    network.apply(way, "-i", "*")
    for family in FAMILIES:
        assert comes_in(network, HERE[family], 8080) == 8080
    network.apply(way, "-b", "8080,22")
    for family in FAMILIES:
        answer = network.call_in(HERE[family], 8080)
        assert (answer["at"], answer["wanted"]) == (15006, f"{HERE[family]} 8080")
        assert comes_in(network, HERE[family], 22) == 15006
        assert comes_in(network, HERE[family], 8081) == 8081


def test_a_star_takes_all_that_comes_in_but_excluded_ports_and_the_tunnels(network: Network, way: str) -> None:
    network.apply(way, "-b", "*", "-d", "22")
    for family in FAMILIES:
        assert comes_in(network, HERE[family], 8080) == 15006
        assert comes_in(network, HERE[family], 8081) == 15006
        assert comes_in(network, HERE[family], 22) == 22
        assert comes_in(network, HERE[family], 15008) == 15008


def test_another_tunnel_port_takes_the_place_of_15008(network: Network, way: str) -> None:
    network.apply(way, "-b", "*", "-e", "8081")
    for family in FAMILIES:
        assert comes_in(network, HERE[family], 8081) == 8081
        assert comes_in(network, HERE[family], 15008) == 15006


def test_a_packet_of_no_connection_is_dropped_when_that_is_asked(network: Network, way: str) -> None:
    network.apply(way, "-b", "8080")
    for family in FAMILIES:
        assert network.stray(HERE[family], 22, known=8081) == "reset"
    network.apply(way, "-b", "8080", "--drop-invalid")
    for family in FAMILIES:
        assert network.stray(HERE[family], 22, known=8081) == "silence"
        assert comes_in(network, HERE[family], 8080) == 15006


def test_krun_alone_takes_its_own_ranges_and_leaves_the_tunnels_ports(network: Network, way: str) -> None:
    done = network.krun(*WAYS[way])
    assert done.returncode == 0, done.stderr
    assert ends(network, THERE[4], 80) == ("here", 15001)
    assert passes(network, THERE[4], 15008)
    assert passes(network, OUTSIDE[4], 80)
    assert passes(network, THERE[6], 80)
    assert comes_in(network, HERE[4], 8080) == 8080
