"""Envoy's scopes: ports out of its clusters' names, and the file that is made of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch import istio_scopes


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("", set()),
        ("outbound|8080||web.demo.svc.cluster.local", {8080}),
        ('{"name": "outbound|80|v1|web.demo.svc.cluster.local"}', {80}),
        ('"outbound|80||a"\n"outbound|443||b"\n"outbound|80||c"', {80, 443}),
        ("inbound|8080||", set()),
        ("outbound_.8080_._.web.demo.svc.cluster.local", set()),
        ("outbound|99999||web PassthroughCluster BlackHoleCluster outbound|0||x", set()),
    ],
)
def test_ports_are_those_of_istiods_clusters(text: str, ports: set[int]) -> None:
    assert istio_scopes.ports_of(text) == ports


@given(st.text())
def test_any_text_has_ports_only(text: str) -> None:
    assert all(0 < port < 65536 for port in istio_scopes.ports_of(text))


@given(st.frozensets(st.integers(min_value=1, max_value=65535)))
def test_each_port_has_the_scope_that_leads_to_istiods_routes_for_it(ports: frozenset[int]) -> None:
    resources = json.loads(istio_scopes.render(ports))["resources"]
    by_name = {resource["name"]: resource for resource in resources}
    assert len(by_name) == len(resources) == len(ports) + 2
    for port in map(str, ports):
        assert by_name[port]["key"] == {"fragments": [{"string_key": port}]}
        assert by_name[port]["route_configuration_name"] == port
    assert by_name["outside"]["route_configuration_name"] == "15007"


def test_the_order_of_ports_does_not_change_the_file() -> None:
    assert istio_scopes.render([8080, 80]) == istio_scopes.render([80, 8080])


def test_every_header_of_ours_is_taken_off_by_the_routes_of_ours() -> None:
    resources = json.loads(istio_scopes.render(()))["resources"]
    direct = next(resource for resource in resources if resource["name"] == "direct")["route_configuration"]
    assert set(direct["request_headers_to_remove"]) == set(istio_scopes.HEADERS)
    assert all(name.startswith("x-krun-") for name in istio_scopes.HEADERS)


def through(*clusters: tuple[int, str, str]) -> dict[str, dict[str, list[str]]]:
    """The domains of each virtual host, by the scope."""
    names = [{"cluster": {"name": f"outbound|{port}||{host}", "type": kind}} for port, host, kind in clusters]
    resources = json.loads(istio_scopes.scopes_of(json.dumps({"configs": names})))["resources"]
    return {
        resource["name"]: {host["name"]: host["domains"] for host in resource["route_configuration"]["virtual_hosts"]}
        for resource in resources
        if resource["name"].startswith("through")
    }


def test_hosts_that_the_mesh_leaves_to_dns_are_led_out_by_their_port() -> None:
    assert through(
        (443, "api.example", "ORIGINAL_DST"), (80, "api.example", "STRICT_DNS"), (443, "b.example", "ORIGINAL_DST")
    ) == {"through-443": {"through": ["api.example", "b.example"]}}


def test_a_pattern_does_not_take_what_the_mesh_has_an_address_for() -> None:
    found = through((80, "*.example", "ORIGINAL_DST"), (80, "kept.example", "EDS"), (80, "other.test", "EDS"))
    assert found == {"through-80": {"through": ["*.example"], "kept": ["kept.example"]}}


def test_a_service_without_an_address_of_its_own_is_not_led_out() -> None:
    assert through((80, "headless.demo.svc.cluster.local", "ORIGINAL_DST")) == {}
