from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgate.routes import Destination, read_routes, read_sni

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
    routes = read_routes([f"{name}={B}"])
    for port in (0, 80, 8080):
        url = routes.find(Destination(service="b", namespace="demo", port=port, subset="v1"))
        assert str(url) == f"{B}/_hbone/15003"


def test_route_of_one_port_wins_for_it_and_stands_for_no_other() -> None:
    routes = read_routes([f"b.demo:8080={B}/_hbone/http", "b.demo=https://rest.example", f"c.demo:80={B}"])
    b, c = ({"service": name, "namespace": "demo"} for name in "bc")
    assert str(routes.find(Destination(port=8080, **b))) == f"{B}/_hbone/http"
    assert str(routes.find(Destination(port=80, **b))) == "https://rest.example/_hbone/15003"
    assert routes.find(Destination(port=81, **c)) is None
    assert routes.find(Destination(service="b", namespace="other", port=80)) is None


@pytest.mark.parametrize(
    "route",
    ["", "b.demo", f"={B}", f"b={B}", f"*.demo={B}", f"*={B}", f"b.demo:0={B}", f"b.demo:x={B}", f"b.demo:={B}",
     "b.demo=", "b.demo=b.example", "b.demo=ftp://b.example", "b.demo=https://b.example/other", f"b.demo.example={B}"],
)  # fmt: skip
def test_what_is_no_route_is_refused(route: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        read_routes([route])


def test_one_name_with_two_urls_is_refused_and_the_same_twice_is_not() -> None:
    read_routes([f"b.demo={B}", f"b.demo.svc={B}"])
    with pytest.raises(ValueError, match="two URLs"):
        read_routes([f"b.demo={B}", "b.demo.svc=https://c.example"])
