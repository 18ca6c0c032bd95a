"""Server names to routes, and routes to targets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgate.routes import Destination, Identity, Route, RouteTable, read_routes, read_sni

B = "https://b.example"


@pytest.mark.parametrize(
    ("sni", "destination"),
    [
        ("outbound_.8080_._.b.demo.svc.cluster.local", Destination(service="b", namespace="demo", port=8080)),
        (
            "outbound_.80_.v1_.b.demo.svc.cluster.local",
            Destination(service="b", namespace="demo", port=80, subset="v1"),
        ),
        ("b.demo.svc.cluster.local", Destination(service="b", namespace="demo")),
        ("B.Demo.svc.cluster.local.", Destination(service="b", namespace="demo")),
    ],
)
def test_names_of_services(sni: str, destination: Destination) -> None:
    assert read_sni(sni) == destination


@pytest.mark.parametrize(
    "sni",
    [
        "",
        "b",
        "b.demo",
        "b.demo.svc",
        "b.example",
        "svc.cluster.local",
        "demo.svc.cluster.local",
        "x.b.demo.svc.cluster.local",
        "*.demo.svc.cluster.local",
        "b..svc.cluster.local",
        "outbound_.0_._.b.demo.svc.cluster.local",
        "outbound_.65536_._.b.demo.svc.cluster.local",
        "outbound_.8080_._.b.demo",
        "outbound_.8080_._.outbound_.80_._.b.demo.svc.cluster.local",
        "inbound_.8080_._.b.demo.svc.cluster.local",
        "b\n.demo.svc.cluster.local",
    ],
)
def test_what_is_no_services_name(sni: str) -> None:
    assert read_sni(sni) is None


@given(st.text(max_size=80))
def test_no_name_raises(sni: str) -> None:
    assert read_sni(sni) is None or sni.lower().rstrip(".").endswith(".svc.cluster.local")


@pytest.mark.parametrize("name", ["b.demo", "b.demo.svc", "b.demo.svc.cluster.local", "B.demo"])
def test_route_takes_any_form_of_the_name_and_all_ports(name: str) -> None:
    routes = RouteTable(read_routes([f"{name}={B}"]))
    for port in (0, 80, 8080):
        url = routes.find(Destination(service="b", namespace="demo", port=port, subset="v1"))
        assert str(url) == f"{B}/_hbone/15003"


def test_route_of_one_port_wins_for_it_and_stands_for_no_other() -> None:
    routes = RouteTable(read_routes([f"b.demo:8080={B}/_hbone/http", "b.demo=https://rest.example", f"c.demo:80={B}"]))
    b, c = ({"service": name, "namespace": "demo"} for name in "bc")
    assert str(routes.find(Destination(port=8080, **b))) == f"{B}/_hbone/http"
    assert str(routes.find(Destination(port=80, **b))) == "https://rest.example/_hbone/15003"
    assert routes.find(Destination(port=81, **c)) is None
    assert routes.find(Destination(service="b", namespace="other", port=80)) is None


def test_most_exact_route_wins_a_subset_before_a_port_before_any() -> None:
    table = RouteTable()
    at = {"service": "b", "namespace": "demo"}
    found = []
    for more in ({}, {"port": 80}, {"subset": "v1"}, {"port": 80, "subset": "v1"}):
        table.set([Route(url=f"https://r{len(table)}.example", **at, **more)])  # type: ignore[arg-type]
        found.append(str(table.find(Destination(port=80, subset="v1", **at))))
    assert found == [f"https://r{number}.example/_hbone/15003" for number in range(4)]
    assert str(table.find(Destination(port=81, **at))) == "https://r0.example/_hbone/15003"


def test_route_that_is_set_again_is_replaced_and_one_that_is_removed_is_gone() -> None:
    table = RouteTable(read_routes([f"b.demo={B}", f"c.demo={B}"]))
    b = Destination(service="b", namespace="demo")
    identity = Identity(audience="https://other.example")
    table.set([Route(service="b", namespace="demo", url="https://other.example", identity=identity)])
    target = table.find(b)
    assert target is not None
    assert (str(target), target.identity) == ("https://other.example/_hbone/15003", identity)
    table.remove([("b", "demo", 0, ""), ("nobody", "demo", 0, "")])
    assert table.find(b) is None
    assert len(table) == 1
    table.clear()
    assert len(table) == 0


def test_route_may_lead_to_an_address_that_takes_the_bytes_as_they_are() -> None:
    (route,) = read_routes(["b.demo=tcp://[::1]:15003"])
    target = RouteTable([route]).find(Destination(service="b", namespace="demo"))
    assert target is not None
    assert target.is_raw
    assert str(target) == route.url == "tcp://[::1]:15003"


@pytest.mark.parametrize(
    "route",
    ["", "b.demo", "b.demo=tcp://b", "b.demo=tcp://b:1/x", "b.demo=tcp://u@b:1",
     f"={B}", f"b={B}", f"*.demo={B}", f"*={B}", f"b.demo:0={B}", f"b.demo:x={B}", f"b.demo:={B}",
     "b.demo=", "b.demo=b.example", "b.demo=ftp://b.example", "b.demo=https://b.example/other", f"b.demo.example={B}"],
)  # fmt: skip
def test_what_is_no_route_is_refused(route: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        read_routes([route])


def test_one_name_with_two_urls_is_refused_and_the_same_twice_is_not() -> None:
    read_routes([f"b.demo={B}", f"b.demo.svc={B}"])
    with pytest.raises(ValueError, match="two URLs"):
        read_routes([f"b.demo={B}", "b.demo.svc=https://c.example"])
