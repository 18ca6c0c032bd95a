"""A VM that Istio's own start script brought into the mesh calls a captured workload outside, and is called by it."""

from __future__ import annotations

import pytest

from krun_testbed import mesh_call, mesh_machine, mesh_pod
from krun_testbed.mesh_captured import World, until

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]


def test_a_vm_calls_the_workload_and_is_called_by_mutual_tls(world: World) -> None:
    world.cluster.kubernetes.service_account("vm", namespace=world.namespace)
    identity = f"spiffe://{world.principal('vm')}"
    with mesh_machine.machine(world.cluster, "vm", namespace=world.namespace, account="vm") as place:
        mesh_pod.wait_until_served(world.a.place, place.address)
        world.cluster.settle(place, namespace=world.namespace)
        answer = until(200, lambda: world.get("http://vm:8080/"))
        assert (answer.by, answer.identities) == ("vm", (world.a.identity, identity))
        mesh_pod.wait_until_served(place, world.gate.address)
        answer = until(200, lambda: mesh_call.call(place, "http://a:8080/", to=world.address("a")))
        assert (answer.by, answer.identities) == ("a", (identity, world.a.identity))
