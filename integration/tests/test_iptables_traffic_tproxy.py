"""TPROXY by what traffic does: where a connection wanted to go and where it came from are what sockets say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from krun_testbed import traffic
from krun_testbed.traffic import ANY, BY_ETH1, HERE, LOOPBACK, THERE, WAYS, Network

pytestmark = pytest.mark.netns

FAMILIES = (4, 6)
PROXY = {"uid": 1337, "gid": 1337}


@pytest.fixture(scope="module")
def wired() -> Iterator[Network]:
    """The namespaces, with the application and Envoy's outbound port; each test has Envoy's inbound port itself."""
    with traffic.network() as made:
        here = [f"tcp:0:{ANY[family]}:{port}" for family in FAMILIES for port in (22, 8080, 8081, 15001, 15008)]
        there = [f"tcp:0:{ANY[family]}:80" for family in FAMILIES]
        with made.listen(*here), made.listen_there(*there):
            yield made


@pytest.fixture
def network(wired: Network) -> Iterator[Network]:
    """The same without rules."""
    yield wired
    done = wired.krun("--remove")
    assert done.returncode == 0, done.stderr


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def envoy(network: Network, kind: str = "tproxy:1337") -> contextlib.AbstractContextManager[None]:
    """Envoy's inbound listener; as a relay it hands connections on to the application."""
    return network.listen(*(f"{kind}:{ANY[family]}:15006" for family in FAMILIES))


@pytest.mark.parametrize("ports", ["*", "8080,22"])
def test_what_comes_in_arrives_at_envoy_with_both_its_addresses(network: Network, way: str, ports: str) -> None:
    network.apply(way, "-m", "TPROXY", "-b", ports)
    with envoy(network):
        for family in FAMILIES:
            answer = network.call_in(HERE[family], 8080, source=THERE[family])
            assert (answer["at"], answer["local"], answer["from"]) == (15006, f"{HERE[family]} 8080", THERE[family])


def test_the_application_sees_its_clients_address(network: Network, way: str) -> None:
    network.apply(way, "-m", "TPROXY", "-b", "*")
    # Not as 1337: Istio's rules lead all that this one sends to its own workload to Envoy again.
    with envoy(network, "relay:0"):
        for family in FAMILIES:
            answer = network.call_in(HERE[family], 8080, source=THERE[family])
            assert (answer["at"], answer["from"], answer["local"]) == (8080, THERE[family], f"{HERE[family]} 8080")


def test_ports_that_are_not_named_or_are_excluded_are_left_alone(network: Network, way: str) -> None:
    with envoy(network):
        network.apply(way, "-m", "TPROXY", "-b", "8080")
        for family in FAMILIES:
            assert network.call_in(HERE[family], 8080)["at"] == 15006
            assert network.call_in(HERE[family], 8081)["at"] == 8081
        network.apply(way, "-m", "TPROXY", "-b", "*", "-d", "22")
        for family in FAMILIES:
            assert network.call_in(HERE[family], 8081)["at"] == 15006
            assert network.call_in(HERE[family], 22)["at"] == 22


def test_another_mark_and_table_do_as_well(network: Network, way: str) -> None:
    network.apply(way, "-m", "TPROXY", "-b", "*", "-t", "77", "-r", "78")
    with envoy(network):
        for family in FAMILIES:
            assert network.call_in(HERE[family], 8080)["at"] == 15006


def test_an_excluded_interface_is_left_alone(network: Network, way: str) -> None:
    network.apply(way, "-m", "TPROXY", "-b", "*", "-i", "*", "-c", "eth1")
    with envoy(network):
        for family, here in ((4, "10.2.0.1"), (6, "2001:db8:e::1")):
            assert network.call_in(here, 8080)["at"] == 8080
            assert network.call(BY_ETH1[family], 80)["by"] == "there"
            assert network.call_in(HERE[family], 8080)["at"] == 15006


def test_what_goes_out_is_redirected_as_ever(network: Network, way: str) -> None:
    network.apply(way, "-m", "TPROXY", "-b", "*", "-i", "*")
    with envoy(network):
        for family in FAMILIES:
            answer = network.call(THERE[family], 80)
            assert (answer["by"], answer["at"], answer["wanted"]) == ("here", 15001, f"{THERE[family]} 80")
            assert network.call(THERE[family], 80, **PROXY)["by"] == "there"


def test_what_stays_in_the_workload_is_left_alone_but_for_the_proxys_calls_to_it(network: Network, way: str) -> None:
    network.apply(way, "-m", "TPROXY", "-b", "*", "-i", "*")
    with envoy(network):
        for family, source in ((4, "127.0.0.6"), (6, "::6")):
            for address in (HERE[family], LOOPBACK[family]):
                assert network.call(address, 8080)["at"] == 8080
            assert network.call(LOOPBACK[family], 8080, **PROXY)["at"] == 8080
            assert network.call(HERE[family], 8080, source=source, **PROXY)["at"] == 8080
            answer = network.call(HERE[family], 8080, **PROXY)
            assert (answer["at"], answer["wanted"]) == (15006, f"{HERE[family]} 8080")


def test_a_packet_of_no_connection_is_dropped_when_that_is_asked(network: Network, way: str) -> None:
    with envoy(network):
        network.apply(way, "-m", "TPROXY", "-b", "8080", "--drop-invalid")
        for family in FAMILIES:
            assert network.stray(HERE[family], 22, known=8081) == "silence"
            assert network.call_in(HERE[family], 8080)["at"] == 15006


def test_after_removal_connections_reach_the_application_and_no_route_is_left(network: Network, way: str) -> None:
    network.apply(way, "-m", "TPROXY", "-b", "*", "-i", "*")
    assert "fwmark" in network.workload.must("ip", "rule")
    done = network.krun("--remove")
    assert done.returncode == 0, done.stderr
    for family, flag in ((4, "-4"), (6, "-6")):
        assert network.call_in(HERE[family], 8080)["at"] == 8080
        assert network.call(THERE[family], 80)["by"] == "there"
        assert "fwmark" not in network.workload.must("ip", flag, "rule")
