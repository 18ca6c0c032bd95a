from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_iptables.errors import Misconfigured
from krun_iptables.settings import ALWAYS_EXCLUDED, ALWAYS_EXCLUDED_INBOUND, LOOPBACK, settings

NAMES = {
    "include": "OUTBOUND_IP_RANGES_INCLUDE",
    "exclude_ports": "OUTBOUND_PORTS_EXCLUDE",
    "inbound_ports": "ISTIO_INBOUND_PORTS",
    "inbound_exclude_ports": "ISTIO_LOCAL_EXCLUDE_PORTS",
    "proxy_uid": "PROXY_UID",
    "proxy_gid": "PROXY_GID",
    "exempt_gid": "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
}
networks = (
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32))
    .map(lambda pair: ipaddress.IPv4Network(pair, strict=False))
    .filter(lambda network: not network.subnet_of(LOOPBACK))
)


def test_the_tunnels_ports_are_always_excluded() -> None:
    assert settings().exclude_ports == (15008, 15009)
    assert settings(exclude_ports="5432, 15009 ,22").exclude_ports == (22, 5432, 15008, 15009)


def test_incoming_connections_are_left_alone_unless_asked_for() -> None:
    assert not settings().captures_inbound
    assert not settings(inbound_ports=" ").captures_inbound
    assert settings(inbound_ports="8080").captures_inbound
    assert settings(inbound_ports=" * ").captures_inbound


def test_tunnels_and_status_ports_are_always_excluded_inwards() -> None:
    assert settings().inbound_exclude_ports == (15008, 15009, 15019, 15020, 15021, 15090)
    assert settings(inbound_exclude_ports="22").inbound_exclude_ports[0] == 22


def test_settings_are_json_values() -> None:
    decided = settings(include="192.168.0.0/16,10.0.0.0/8,10.0.0.0/8", inbound_ports="8081,8080", exempt_gid="7")
    assert decided.as_json() == {
        "outbound_ip_ranges_include": ["10.0.0.0/8", "192.168.0.0/16"],
        "outbound_ports_exclude": [15008, 15009],
        "istio_inbound_ports": [8080, 8081],
        "istio_local_exclude_ports": [15008, 15009, 15019, 15020, 15021, 15090],
        "proxy_uid": [1337],
        "proxy_gid": [1337],
        "istio_outbound_owner_groups_exclude": [7],
    }
    assert settings(inbound_ports="*").as_json()["istio_inbound_ports"] == ["*"]


def test_a_star_is_every_address() -> None:
    assert settings(include="*").include == (ipaddress.IPv4Network("0.0.0.0/0"),)
    assert settings(include="*") == settings(include="0.0.0.0/0")


@given(st.lists(networks, min_size=1))
def test_every_list_of_ranges_comes_back_as_a_set(ranges: list[ipaddress.IPv4Network]) -> None:
    assert settings(include=",".join(map(str, ranges))).include == tuple(sorted(set(ranges)))


@given(st.lists(st.integers(1, 65535)))
def test_every_list_of_ports_comes_back_sorted(ports: list[int]) -> None:
    decided = settings(exclude_ports=",".join(map(str, ports)))
    assert decided.exclude_ports == tuple(sorted({*ports, *ALWAYS_EXCLUDED}))


@pytest.mark.parametrize("argument", sorted(NAMES))
@given(text=st.text() | st.text(alphabet="0123456789,./*- :"))
def test_any_text_is_settings_or_a_message_that_names_the_variable(argument: str, text: str) -> None:
    try:
        decided = settings(**{argument: text})
    except Misconfigured as error:
        assert error.message.startswith(NAMES[argument])  # noqa: PT017 - both ends are right, and each is held
    else:
        assert decided.include
        assert decided.proxy_uids
        assert set(decided.exclude_ports) >= ALWAYS_EXCLUDED
        assert set(decided.inbound_exclude_ports) >= ALWAYS_EXCLUDED_INBOUND


@pytest.mark.parametrize("ranges", ["10.0.0.1/8", "10.0.0.0/33", "everything", "**", ",", "10.0.0.0-10.1.0.0"])
def test_a_wrong_range_is_refused_by_name(ranges: str) -> None:
    with pytest.raises(Misconfigured, match="OUTBOUND_IP_RANGES_INCLUDE"):
        settings(include=ranges)


@pytest.mark.parametrize(
    ("ranges", "reason"), [("10.0.0.0/8,fd00::/8", "IPv4 only"), ("127.0.0.0/8", "loopback"), ("127.1.2.3/32", "loop")]
)
def test_ranges_that_cannot_be_intercepted_are_refused_with_the_reason(ranges: str, reason: str) -> None:
    with pytest.raises(Misconfigured, match=reason):
        settings(include=ranges)


@pytest.mark.parametrize("name", ["exclude_ports", "inbound_ports", "inbound_exclude_ports"])
@pytest.mark.parametrize("ports", ["0", "65536", "-1", "http", "80:90", "1e3", "٣٣", "80,*"])
def test_a_wrong_port_is_refused_by_name(name: str, ports: str) -> None:
    with pytest.raises(Misconfigured, match=NAMES[name]):
        settings(**{name: ports})


@pytest.mark.parametrize("name", ["proxy_uid", "proxy_gid", "exempt_gid"])
@pytest.mark.parametrize("ids", ["-1", "istio-proxy", "4294967295", "*", "1337 1338"])
def test_a_wrong_owner_is_refused_by_name(name: str, ids: str) -> None:
    with pytest.raises(Misconfigured, match=NAMES[name]):
        settings(**{name: ids})
