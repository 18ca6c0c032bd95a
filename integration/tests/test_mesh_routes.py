"""What a mesh says of routes is followed by a captured workload outside: weights, retries, entries, prohibitions."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from krun_testbed import mesh_objects, mesh_workload
from krun_testbed.mesh_captured import CAPTURED_HOST, WORLD, World, until

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]

CALLS = 1000


def to(host: str, **route: Any) -> dict[str, Any]:
    """A route to a service's port 8080."""
    return {"route": [{"destination": {"host": host, "port": {"number": 8080}}}], **route}


def test_weights_are_followed(world: World) -> None:
    split = [{**to("web")["route"][0], "weight": 25}, {**to("other")["route"][0], "weight": 75}]
    with world.applied(mesh_objects.virtual_service("split", hosts=["web"], http=[{"route": split}])):
        file = mesh_workload.file(world.a.place, "urls", 'url = "http://web:8080/"\n' * CALLS)
        lines = world.a.curl("--config", str(file), "--write-out", "\n", timeout=240).splitlines()
    counts = Counter(json.loads(line)["name"] for line in lines if line)
    assert set(counts) == {"web", "other"}
    assert counts.total() == CALLS
    # Of 1,000 draws with a chance of a quarter, fewer than one series in 10,000 is farther off.
    assert 195 < counts["web"] < 305


def test_retries_timeouts_and_routes_by_header_are_followed(world: World) -> None:
    routes = [
        to("other", match=[{"headers": {"x-to": {"exact": "other"}}}]),
        to("web", match=[{"uri": {"prefix": "/sleep"}}], timeout="0.3s"),
        to(
            "web",
            match=[{"uri": {"prefix": "/flaky/often"}}],
            retries={"attempts": 3, "retryOn": "5xx", "perTryTimeout": "5s"},
        ),
        to("web", retries={"attempts": 0}),
    ]
    tries = world.web.app.tries
    tries.clear()
    with world.applied(mesh_objects.virtual_service("routes", hosts=["web"], http=routes)):
        assert world.get("http://web:8080/", "--header", "x-to: other").by == "other"
        assert world.get("http://web:8080/").by == "web"
        assert world.get("http://web:8080/sleep/5").status == 504
        assert world.get("http://web:8080/flaky/often/3").status == 200
        assert world.get("http://web:8080/flaky/once/1").status == 503
        assert (tries["often"], tries["once"]) == (4, 1)


def test_an_entry_of_the_mesh_makes_a_host_of_the_world_one_of_its_own(world: World) -> None:
    entry = mesh_objects.service_entry(
        "around", hosts=["entry.example"], ports={"http": (80, "HTTP")}, addresses=[WORLD[CAPTURED_HOST]]
    )
    marked = {
        "route": [{"destination": {"host": "entry.example"}}],
        "headers": {"request": {"set": {"x-by-the-mesh": "yes"}}},
    }
    with world.applied(entry, mesh_objects.virtual_service("around", hosts=["entry.example"], http=[marked])):
        answer = world.get("http://entry.example/", "--retry", "5", "--retry-all-errors")
        assert (answer.by, answer.json["headers"]["x-by-the-mesh"]) == ("around", "yes")


def test_what_no_object_names_is_reached_unless_the_mesh_forbids_it(world: World) -> None:
    url = f"http://{CAPTURED_HOST}/"
    assert world.get(url).by == "around"
    sidecar = mesh_objects.inward("a", labels={"app": "a"})
    sidecar["spec"]["outboundTrafficPolicy"] = {"mode": "REGISTRY_ONLY"}
    world.cluster.apply(sidecar, namespace=world.namespace)
    try:
        world.settle()
        assert until(502, lambda: world.get(url)).body == b""
        assert world.get("http://web:8080/").by == "web"
    finally:
        world.cluster.apply(mesh_objects.inward("a", labels={"app": "a"}), namespace=world.namespace)
        world.settle()
    assert until(200, lambda: world.get(url)).by == "around"
