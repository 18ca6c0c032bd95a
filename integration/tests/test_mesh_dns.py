"""Names, for a captured workload outside: those of the mesh, of the world, of nobody, and when the resolver is down."""

from __future__ import annotations

import subprocess

import pytest

from krun_testbed import mesh_cluster, mesh_dns, mesh_pod, mesh_workload
from krun_testbed.mesh_captured import CAPTURED_HOST, OTHER_HOST, WORLD, World
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_workload import Workload

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]

RESOLVER = "203.0.113.54"  # of one workload alone


def asked(workload: Workload, name: str) -> subprocess.CompletedProcess[str]:
    """What the C library says of a name."""
    return workload.place.run(*mesh_workload.as_app("getent", "ahostsv4", name))


def addresses(workload: Workload, name: str) -> set[str]:
    return {line.split()[0] for line in asked(workload, name).stdout.splitlines()}


def test_names_of_the_mesh_and_of_the_world_are_answered_and_unknown_ones_are_said_to_be(world: World) -> None:
    assert addresses(world.a, f"web.{world.namespace}.svc.cluster.local") == {world.address("web")}
    assert addresses(world.a, "web") == {world.address("web")}
    for host in (CAPTURED_HOST, OTHER_HOST):
        assert addresses(world.a, host) == {WORLD[host]}
        assert world.get(f"http://{host}/").by == "around"
    for unknown in ("nobody.example", f"nobody.{world.namespace}.svc.cluster.local"):
        # Status 2: there is no such name.
        assert asked(world.a, unknown).returncode == 2


def test_names_of_the_mesh_do_not_go_to_the_resolver(world: World) -> None:
    questions = world.cluster.outside.questions
    questions.clear()
    assert addresses(world.a, f"web.{world.namespace}") == {world.address("web")}
    assert addresses(world.a, OTHER_HOST) == {WORLD[OTHER_HOST]}
    assert not [each for each in questions if "web" in each]
    assert f"A {OTHER_HOST}" in questions


def test_the_resolvers_file_stays_as_it_was(world: World) -> None:
    assert f"nameserver {mesh_cluster.OUTSIDE_RESOLVER}\n" in world.a.place.must("cat", "/etc/resolv.conf")


def test_while_the_resolver_is_down_names_of_the_mesh_are_answered_and_others_when_it_is_back(
    cluster: Cluster, world: World
) -> None:
    cluster.network.own(RESOLVER)
    with mesh_workload.workload(cluster, "lone", namespace=world.namespace, resolver=RESOLVER) as lone:
        mesh_pod.wait_until_served(lone.place, world.web.place.address)
        assert addresses(lone, "web") == {world.address("web")}
        assert asked(lone, OTHER_HOST).returncode == 2
        assert '"web"' in lone.curl("http://web:8080/")
        with mesh_dns.name_server(cluster.network.hub, RESOLVER) as server:
            server.names.update(WORLD)
            assert addresses(lone, OTHER_HOST) == {WORLD[OTHER_HOST]}
