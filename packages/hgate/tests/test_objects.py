"""Objects of a declaration: which there are, in which order, and what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from hgate import manifest, objects, written
from hgate.declaration import Declaration, Port, Ref, Target
from hgate.objects import Inward, Part, Registered, Surroundings
from hgate.policy import Accepted
from hgate.service_url import parse

OWN = "123456789"
URL = f"https://web-{OWN}.us-central1.run.app"
EUROPE = f"https://web-{OWN}.europe-west1.run.app"
REF = Ref(version="v1", kind="Service", namespace="demo", name="web", uid="uid-1")
TEMPLATE = Path(__file__).parents[3] / "manifests" / "sni-service-template.yaml"


def registered(*urls: str, **more: Any) -> Registered:
    said: dict[str, Any] = {"service": "web", "is_there": True, "selector": (("app", "web"),), **more}
    declared = Declaration(ref=REF, targets=tuple(Target(url=url) for url in urls), **said)
    read = tuple(parse(url) for url in urls)
    names = objects.backing_names(declared, read)
    parts = tuple(
        Part(service=name, url=url, accepted=Accepted(url=str(url), identity=None), weight=number + 1)
        for number, (url, name) in enumerate(zip(read, names, strict=True))
    )
    return Registered(declaration=declared, parts=parts)


def made(each: Registered) -> list[dict[str, Any]]:
    return objects.manifests(each, gate="10.1.2.3", trust_domain="example.org")


def one(items: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [item for item in items if item["kind"] == kind]
    return found


def kinds(items: list[dict[str, Any]]) -> list[str]:
    return [item["kind"] for item in items]


def test_what_makes_calls_mutual_tls_comes_before_the_endpoint() -> None:
    assert kinds(made(registered(URL))) == ["DestinationRule", "WorkloadEntry"]
    assert kinds(made(registered(URL, selector=()))) == ["DestinationRule", "EndpointSlice"]
    assert kinds(made(registered(URL, is_there=False))) == ["DestinationRule", "Service", "WorkloadEntry"]
    shares = ["DestinationRule", "Service", "WorkloadEntry"] * 2
    assert kinds(made(registered(URL, EUROPE))) == [*shares, "VirtualService"]
    assert kinds(made(registered(URL, EUROPE, is_there=False))) == [*shares, "Service", "VirtualService"]


def test_they_are_those_of_the_template_by_hand() -> None:
    variables = {
        "K_SERVICE": "web",
        "WORKLOAD_NAME": "web",
        "WORKLOAD_NAMESPACE": "demo",
        "WORKLOAD_SERVICE_ACCOUNT": "default",
        "SNI_GATE_IP": "10.1.2.3",
    }
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(variables)
    template = {item["kind"]: item["spec"] for item in yaml.safe_load_all(text)}
    side = Inward(namespace="demo", workload="web", port=Port(number=8080, name="http", target=8080))
    both = [*made(registered(URL, is_there=False)), *objects.inward(side, around=Surroundings())]
    ours = {item["kind"]: json.loads(json.dumps(item["spec"])) for item in both}
    assert sorted(ours) == sorted(template)
    # Our label instead of the template's, what the server would fill in, and how old a connection may become.
    for kind in ("Service", "WorkloadEntry"):
        template[kind] = json.loads(json.dumps(template[kind]).replace("krun/service", "hgate.krun/service"))
    template["Service"] |= {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}
    template["Service"]["ports"][0]["protocol"] = "TCP"
    template["DestinationRule"]["trafficPolicy"]["connectionPool"] = {"tcp": {"maxConnectionDuration": "240s"}}
    assert ours == template


def test_an_endpoint_by_address_makes_callers_insist_on_the_identity_by_name() -> None:
    rule = one(made(registered(URL, selector=(), account="shop")), "DestinationRule")
    assert rule["spec"]["trafficPolicy"]["tls"] == {
        "mode": "ISTIO_MUTUAL",
        "subjectAltNames": ["spiffe://example.org/ns/demo/sa/shop"],
    }
    assert "subjectAltNames" not in one(made(registered(URL)), "DestinationRule")["spec"]["trafficPolicy"]["tls"]


def test_a_port_without_a_name_has_its_endpoint_by_address() -> None:
    ports = (Port(number=8080, target=8080),)
    assert kinds(made(registered(URL, ports=ports))) == ["DestinationRule", "EndpointSlice"]


@pytest.mark.parametrize(
    ("timeout", "longest"), [(300, 240), (3600, 3540), (120, 60), (60, 30), (20, 10), (2, 1), (1, 1)]
)
def test_a_connection_ends_well_before_the_platform_ends_it(timeout: int, longest: int) -> None:
    assert manifest.longest(timeout) == longest


def test_a_tcp_service_has_connections_of_any_age() -> None:
    rule = one(made(registered(URL, ports=(Port(number=6379, name="redis", target=6379),))), "DestinationRule")
    assert "connectionPool" not in rule["spec"]["trafficPolicy"]


@pytest.mark.parametrize(
    ("port", "protocol"),
    [
        (Port(number=1, name="http-web"), "HTTP"),
        (Port(number=1, name="web"), "HTTP"),
        (Port(number=1), "HTTP"),
        (Port(number=1, name="grpc-api"), "GRPC"),
        (Port(number=1, name="web", app_protocol="kubernetes.io/h2c"), "HTTP2"),
        (Port(number=1, name="tcp"), "TCP"),
        (Port(number=1, name="http", app_protocol="redis"), "TCP"),
    ],
)
def test_a_ports_protocol_is_istios(port: Port, protocol: str) -> None:
    assert manifest.protocol(port) == protocol


def test_names_of_shares_tell_service_and_region_and_are_never_two_of_one() -> None:
    def names(*urls: str, service: str = "web") -> tuple[str, ...]:
        declared = Declaration(ref=REF, service=service, targets=())
        return objects.backing_names(declared, [parse(url) for url in urls])

    assert names(URL) == ("web",)
    assert names(URL, EUROPE) == ("web-us-central1", "web-europe-west1")
    assert names(URL, EUROPE, service="shop") == ("shop-web-us-central1", "shop-web-europe-west1")
    assert names("https://web-icq63pqnqq-uc.a.run.app", EUROPE)[0] == "web-icq63pqnqq-uc"
    other = URL.replace(OWN, "987654321")
    tag = URL.replace("web", "v1---web")
    long = f"https://{'a' * 49}-{OWN}.northamerica-northeast1.run.app"
    found = names(URL, other, tag, long, "https://api.example.com", "https://api.example.org")
    assert len(set(found)) == 6
    assert all(len(name) <= 63 for name in found)
    assert found == names(URL, other, tag, long, "https://api.example.com", "https://api.example.org")


def test_routes_lead_each_share_to_its_url_and_the_name_to_the_largest() -> None:
    routes = {route.service: route.url for route in objects.routes(registered(URL, EUROPE))}
    assert routes == {"web-us-central1": URL, "web-europe-west1": EUROPE, "web": EUROPE}


def test_a_workload_of_several_services_has_one_side_that_all_of_them_own() -> None:
    other = Ref(version="v1", kind="Service", namespace="demo", name="same", uid="uid-2", created="2026")
    second = registered(URL)
    second = Registered(
        declaration=Declaration(ref=other, service="same", targets=(Target(url=URL),)), parts=second.parts
    )
    (side,) = objects.sides([registered(URL), second])
    made = objects.inward(side, around=Surroundings())
    owners = [[owner["uid"] for owner in item["metadata"]["ownerReferences"]] for item in made]
    assert owners == [["uid-1", "uid-2"]] * 2


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ({"app": "web"}, True),
        ({"service.istio.io/canonical-name": "web"}, True),
        ({"app": "web", "version": "v1"}, False),
        ({"app": "other"}, False),
    ],
)
def test_a_sidecar_fits_whose_labels_the_workload_has(selector: dict[str, str], fits: bool) -> None:
    assert Surroundings(selectors=(selector,)).fits("web") is fits


def test_the_hash_holds_what_is_said_and_nothing_of_the_servers() -> None:
    (item, _) = made(registered(URL))
    read_back = {**item, "status": {}, "metadata": {**item["metadata"], "uid": "1", "resourceVersion": "2"}}
    assert written.is_untouched(read_back)
    read_back["metadata"]["labels"] = {**item["metadata"]["labels"], "team": "a"}
    assert written.is_untouched(read_back)
    for change in (
        {"spec": {**item["spec"], "host": "x"}},
        {"metadata": {**item["metadata"], "name": "copy"}},
        {"metadata": {**item["metadata"], "namespace": "other"}},
    ):
        assert not written.is_untouched({**item, **change})
