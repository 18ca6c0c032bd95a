"""DNS capture by what traffic does: questions by UDP and TCP, and the agent's own beside the application's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import traffic
from krun_testbed.traffic import HERE, LOOPBACK, OTHER_SERVER, SERVER, THERE, WAYS, Network

pytestmark = pytest.mark.netns

FAMILIES = (4, 6)
PROXY = 1337
SOURCE_PORT = 41000


@pytest.fixture(scope="module")
def wired() -> Iterator[Network]:
    """The namespaces; the agent, Envoy and a web server in the workload, and DNS servers at the peer."""
    with traffic.network() as made:
        agent = [f"{protocol}:{PROXY}:{LOOPBACK[family]}:15053" for protocol in ("tcp", "udp") for family in FAMILIES]
        envoy = [f"tcp:{PROXY}:{traffic.ANY[family]}:{port}" for port in (15001, 15006) for family in FAMILIES]
        servers = [
            f"{protocol}:0:{address}:53"
            for protocol in ("tcp", "udp")
            for family in FAMILIES
            for address in (SERVER[family], OTHER_SERVER[family])
        ]
        others = [f"udp:0:{THERE[family]}:5353" for family in FAMILIES]
        with made.listen(*agent, *envoy), made.listen_there(*servers, *others):
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


@pytest.fixture
def resolv(tmp_path: Path) -> Path:
    """A resolv.conf with one server of each family."""
    path = tmp_path / "resolv.conf"
    path.write_text("".join(f"nameserver {SERVER[family]}\n" for family in FAMILIES), encoding="ascii")
    return path


def asked(network: Network, address: str, protocol: str, **more: int) -> tuple[str, int]:
    """Whom a question reaches, and at which port: nobody, when no answer comes back."""
    answer = network.call(address, 53, protocol=protocol, **more)
    return answer.get("by", "nobody"), answer.get("at", 0)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_questions_to_the_servers_of_resolv_conf_are_answered_by_the_agent(
    network: Network, way: str, resolv: Path, protocol: str
) -> None:
    for family in FAMILIES:
        assert asked(network, SERVER[family], protocol) == ("there", 53)
    network.apply(way, "--redirect-dns", resolv=resolv)
    for family in FAMILIES:
        assert asked(network, SERVER[family], protocol) == ("here", 15053)
        assert asked(network, OTHER_SERVER[family], protocol) == ("there", 53)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_with_all_of_dns_every_server_is_the_agent(network: Network, way: str, protocol: str) -> None:
    network.apply(way, "--redirect-dns", "--capture-all-dns")
    for family in FAMILIES:
        for address in (SERVER[family], OTHER_SERVER[family]):
            assert asked(network, address, protocol) == ("here", 15053)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize("everything", [False, True])
def test_the_agents_own_questions_reach_the_servers(
    network: Network, way: str, resolv: Path, protocol: str, everything: bool
) -> None:
    flags = ["--redirect-dns", *(["--capture-all-dns"] if everything else [])]
    network.apply(way, *flags, resolv=resolv)
    for family in FAMILIES:
        for uid, gid in ((PROXY, 5), (5, PROXY)):
            assert asked(network, SERVER[family], protocol, uid=uid, gid=gid) == ("there", 53)


def test_the_agent_may_ask_from_the_port_that_the_application_has_just_asked_from(
    network: Network, way: str, resolv: Path
) -> None:
    # Without zones the kernel takes the second question for one more of the first conversation, and the agent asks
    # itself for ever.
    network.apply(way, "--redirect-dns", resolv=resolv)
    for family in FAMILIES:
        for _ in range(2):
            application = asked(network, SERVER[family], "udp", source_port=SOURCE_PORT)
            agent = asked(network, SERVER[family], "udp", source_port=SOURCE_PORT, uid=PROXY, gid=PROXY)
            assert (application, agent) == (("here", 15053), ("there", 53))


def test_dns_is_led_to_the_agent_before_it_would_go_to_envoy_and_other_udp_passes(
    network: Network, way: str, resolv: Path
) -> None:
    network.apply(way, "--redirect-dns", "-i", "*", resolv=resolv)
    for family in FAMILIES:
        assert asked(network, SERVER[family], "tcp") == ("here", 15053)
        assert asked(network, OTHER_SERVER[family], "tcp") == ("here", 15001)
        assert asked(network, OTHER_SERVER[family], "udp") == ("there", 53)
        assert network.call(THERE[family], 5353, protocol="udp")["by"] == "there"


def test_an_excluded_port_53_is_left_alone(network: Network, way: str, resolv: Path) -> None:
    network.apply(way, "--redirect-dns", "-i", "*", "-o", "53", resolv=resolv)
    for family in FAMILIES:
        for protocol in ("udp", "tcp"):
            assert asked(network, SERVER[family], protocol) == ("there", 53)


def test_without_servers_in_resolv_conf_dns_is_left_alone(network: Network, way: str, tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("search example.com\n", encoding="ascii")
    network.apply(way, "--redirect-dns", resolv=path)
    for family in FAMILIES:
        for protocol in ("udp", "tcp"):
            assert asked(network, SERVER[family], protocol) == ("there", 53)


def test_a_server_of_one_family_is_the_only_one_that_is_led_to_the_agent(
    network: Network, way: str, tmp_path: Path
) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(f"nameserver {SERVER[4]}\n", encoding="ascii")
    network.apply(way, "--redirect-dns", resolv=path)
    for protocol in ("udp", "tcp"):
        assert asked(network, SERVER[4], protocol) == ("here", 15053)
        assert asked(network, SERVER[6], protocol) == ("there", 53)


def test_after_removal_dns_passes(network: Network, way: str, resolv: Path) -> None:
    network.apply(way, "--redirect-dns", resolv=resolv)
    done = network.krun("--remove")
    assert done.returncode == 0, done.stderr
    for family in FAMILIES:
        for protocol in ("udp", "tcp"):
            assert asked(network, SERVER[family], protocol) == ("there", 53)
            assert asked(network, HERE[family], protocol) == ("nobody", 0)
