from __future__ import annotations

import pytest

from hbone.errors import Misconfigured
from hbone.offers import Offers, Refusal, offers


def read(offer: str = "15003", own_port: int = 15009, **environment: str) -> Offers:
    return offers(offer=offer, environment=environment, own_port=own_port)


def test_offered_name_leads_to_its_target() -> None:
    found = read("15003, 22=15022", PORT_http="8080")
    assert found.find(method="POST", path="/_hbone/15003") == 15003
    assert found.find(method="POST", path="/_hbone/22") == 15022
    assert found.find(method="POST", path="/_hbone/http") == 8080


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/_hbone",
        "/_hbone/",
        "/_hbone/8080",
        "/_hbone/15022",
        "/_hbone/15003/",
        "//_hbone/15003",
        "/_hbone//15003",
        "/_hbone/../_hbone/15003",
        "/_hbone/./15003",
        "/_hbone/..",
        "/_hbone/%31%35003",
        "/_hbone%2f15003",
        "/%5fhbone/15003",
        "/_hbone/15003?x=1",
        "/_hbone/15003#x",
        "/_HBONE/15003",
        "/_hbone/015003",
        "/_hbone/\u0661\u0665003",
        "http://b.example/_hbone/15003",
    ],
)
def test_any_other_path_is_404(path: str) -> None:
    found = read().find(method="POST", path=path)
    assert isinstance(found, Refusal)
    assert found.status == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "CONNECT", "post"])
def test_any_method_but_post_is_405_and_says_which(method: str) -> None:
    found = read().find(method=method, path="/_hbone/15003")
    assert isinstance(found, Refusal)
    assert (found.status, dict(found.headers)) == (405, {"allow": "POST"})


@pytest.mark.parametrize("port", ["15000", "15001", "15004", "15006", "15020", "15053", "15090"])
def test_ports_of_envoy_and_agent_are_refused_under_any_name(port: str) -> None:
    for setting in (port, f"9={port}", f"{port}=8080"):
        with pytest.raises(Misconfigured, match=port):
            read(setting)
    with pytest.raises(Misconfigured, match=port):
        read(PORT_admin=port)


def test_own_port_is_refused_as_target() -> None:
    with pytest.raises(Misconfigured, match="own"):
        read("9=15009")


@pytest.mark.parametrize("offer", ["0", "65536", "x", "22=", "=22", "22=x", "-1", "22=15022=3", "\u0661"])
def test_what_is_no_port_is_refused(offer: str) -> None:
    with pytest.raises(Misconfigured, match="no port"):
        read(offer)


def test_name_that_is_offered_with_two_targets_is_refused() -> None:
    with pytest.raises(Misconfigured, match="22 is offered twice, as 15022 and as 2222"):
        offers(offer="22=15022,22=2222", environment={}, own_port=15009)
    assert offers(offer="22=15022,22=15022", environment={}, own_port=15009).ports == {"22": 15022}


def test_empty_offer_offers_nothing() -> None:
    assert dict(read("").ports) == {}


def test_variable_that_is_no_port_is_named() -> None:
    with pytest.raises(Misconfigured, match="PORT_web"):
        read(PORT_web="http")
